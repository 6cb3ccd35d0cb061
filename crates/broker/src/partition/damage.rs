//! What a replica does when something in its log cannot be read any more (trap 26).

use vltava_types::BrokerId;

/// What is to be done with a damaged replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Somebody else holds everything: this replica serves nothing, the controller has it leave, and it fetches all of
    /// it again.
    GiveUp,
    /// Nobody else is known to hold it: what can be read is served, and what cannot is refused.
    Refuse,
}

/// `counted_on` are the brokers that the controller knows to hold everything committed (ISR and ELR).
#[must_use]
pub fn on_damage(me: BrokerId, counted_on: impl IntoIterator<Item = BrokerId>) -> Damage {
    if counted_on.into_iter().any(|replica| replica != me) { Damage::GiveUp } else { Damage::Refuse }
}

#[cfg(test)]
mod tests {
    use vltava_types::BrokerId;

    use super::{Damage, on_damage};

    #[test]
    fn only_the_last_copy_is_kept() {
        let check = |counted_on: &[i32], expected| {
            assert_eq!(on_damage(BrokerId(1), counted_on.iter().map(|id| BrokerId(*id))), expected, "{counted_on:?}");
        };
        check(&[1, 2], Damage::GiveUp);
        check(&[2], Damage::GiveUp);
        check(&[1], Damage::Refuse);
        check(&[], Damage::Refuse);
    }
}
