//! Replicas whose logs are not where they should be.
//!
//! An empty log in the place of a full one must not count as what it replaces: as a leader it would have the others cut
//! off what they hold. So it is begun only when the controller has taken this replica out of ISR and ELR, which it does
//! once it hears that the replica is offline; and if this was the last copy, never.

use vltava_storage::LoadFailure;

/// A log that start-up missed.
pub(super) enum Absent {
    /// Its directory is gone.
    Lost,
    /// Its directory is there, and cannot be opened.
    Damaged(LoadFailure),
}

/// What is known of a log that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// The replica has just been placed here.
    NeverHere,
    Gone,
    /// A configured directory is offline, and the log may be in it.
    Elsewhere,
}

/// What to do for a replica without a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    Create,
    /// Create an empty log that counts for nothing until the leader has filled it.
    BeginAnew,
    /// Report the replica as offline.
    Wait,
}

/// `is_counted_on`: the controller has this replica in the ISR or ELR, or as the leader.
pub(super) const fn remedy(absence: Absence, is_counted_on: bool) -> Remedy {
    match (absence, is_counted_on) {
        (Absence::NeverHere, _) => Remedy::Create,
        (Absence::Gone, false) => Remedy::BeginAnew,
        // The directory may come back, with what is in it.
        (Absence::Gone, true) | (Absence::Elsewhere, _) => Remedy::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::{Absence, Remedy, remedy};

    #[test]
    fn an_empty_log_never_stands_for_one_that_is_counted_on() {
        for is_counted_on in [false, true] {
            assert_eq!(remedy(Absence::NeverHere, is_counted_on), Remedy::Create);
            assert_eq!(remedy(Absence::Elsewhere, is_counted_on), Remedy::Wait);
        }
        assert_eq!(remedy(Absence::Gone, true), Remedy::Wait);
        assert_eq!(remedy(Absence::Gone, false), Remedy::BeginAnew);
    }
}
