//! The deadlines of one partition's groups. Each timer has at most one deadline; scheduling it again moves it.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A member's session, or the time until which a new member's parked JoinGroup is kept.
    Session { group_id: String, member_id: String },
    /// The join phase of a rebalance.
    Join { group_id: String },
    /// The sync phase of a rebalance.
    Sync { group_id: String },
    /// The periodic search for expired offsets.
    Retention,
}

/// Invariant: `queue` and `deadlines` hold the same pairs.
#[derive(Default)]
pub(super) struct Timers {
    deadlines: BTreeMap<Timer, u64>,
    queue: BTreeSet<(u64, Timer)>,
}

impl Timers {
    pub fn schedule(&mut self, timer: Timer, deadline_ms: u64) {
        self.cancel(&timer);
        self.queue.insert((deadline_ms, timer.clone()));
        self.deadlines.insert(timer, deadline_ms);
    }

    pub fn cancel(&mut self, timer: &Timer) {
        if let Some((timer, deadline_ms)) = self.deadlines.remove_entry(timer) {
            self.queue.remove(&(deadline_ms, timer));
        }
    }

    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.queue.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// The earliest timer whose deadline has come, which is then no longer scheduled.
    pub fn pop_expired(&mut self, now_ms: u64) -> Option<Timer> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, timer) = self.queue.pop_first()?;
        self.deadlines.remove(&timer);
        Some(timer)
    }
}
