//! What a replica does when something in its log cannot be read any more (trap 26).

use std::sync::atomic::Ordering;

use vltava_storage::StorageError;
use vltava_types::BrokerId;

use super::{Partition, Role};

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

impl Partition {
    /// Whether something has to be done about what cannot be read, as soon as other replicas allow.
    pub(super) fn is_damaged(&self) -> bool {
        [&self.is_corrupt, &self.refuses_damage, &self.begins_anew].into_iter().any(|flag| flag.load(Ordering::Acquire))
    }

    /// Gives up a log in which something cannot be read any more. The controller hears of it, and has nobody elect or count
    /// this replica until it has fetched everything again. The last copy is kept.
    pub(super) fn on_corrupt(&self, error: &StorageError) -> Damage {
        let damage = self.damage();
        let (flag, what) = match damage {
            Damage::GiveUp => (&self.is_corrupt, "the log is corrupt and no longer served"),
            Damage::Refuse => {
                (&self.refuses_damage, "the log is corrupt, and there is no other copy: the rest is served")
            }
        };
        if !flag.swap(true, Ordering::AcqRel) {
            tracing::error!(partition = %self.name, %error, "{what}");
            self.surroundings.offline_changed.notify_one();
        }
        self.stir();
        damage
    }

    /// A follower leaves it to [`Partition::refuse_damage`] to keep the last copy.
    fn damage(&self) -> Damage {
        match &self.state.lock().role {
            Role::Leader(leader) => on_damage(self.surroundings.node_id, leader.isr().iter().copied()),
            Role::Follower(_) => Damage::GiveUp,
        }
    }

    /// There is another copy now of what cannot be read here.
    pub(crate) fn reconsider_damage(&self) {
        if self.refuses_damage.load(Ordering::Acquire)
            && self.damage() == Damage::GiveUp
            && !self.is_corrupt.swap(true, Ordering::AcqRel)
        {
            tracing::error!(partition = %self.name, "the log is corrupt, and there is another copy: no longer served");
        }
    }

    /// No other copy is within reach: what can be read of this one is served.
    pub(crate) fn refuse_damage(&self) {
        if self.is_corrupt.load(Ordering::Acquire) {
            tracing::error!(partition = %self.name, "there is no other copy than this one, which is damaged");
            self.refuses_damage.store(true, Ordering::Release);
            self.is_corrupt.store(false, Ordering::Release);
        }
    }

    /// The replica was created empty in the place of one that is gone: until the leader has answered, it may believe in
    /// what was here.
    pub(crate) fn mark_begun_anew(&self) {
        self.begins_anew.store(true, Ordering::Release);
        self.stir();
    }

    /// Begins a corrupt log anew, if this replica follows somebody who has it all. The caller has made sure that the
    /// controller no longer counts on this replica. Returns whether there is anything to fetch now.
    pub(crate) fn begin_anew_if_corrupt(&self) -> bool {
        if !self.is_corrupt.load(Ordering::Acquire) {
            return false;
        }
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Some(log), Role::Follower(follower)) = (&mut state.log, &mut state.role) else { return false };
        let start = follower.offsets().log_start_offset;
        if follower.leader().is_none() {
            return false;
        }
        if let Err(error) = log.truncate_fully_and_start_at(start) {
            self.disk.read().on_error(&error);
            return false;
        }
        follower.on_restarted(start);
        // What the leader sends in this subscription continues the log that was: it has to begin anew as well.
        if let Some(upstream) = state.upstream.take() {
            upstream.mark();
        }
        tracing::warn!(partition = %self.name, "begins anew after corruption");
        self.begins_anew.store(true, Ordering::Release);
        self.refuses_damage.store(false, Ordering::Release);
        self.is_corrupt.store(false, Ordering::Release);
        true
    }

    pub(super) fn is_unusable(&self) -> bool {
        self.disk.read().has_failed.load(Ordering::Acquire) || self.is_corrupt.load(Ordering::Acquire)
    }
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
