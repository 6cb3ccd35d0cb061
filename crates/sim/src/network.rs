//! What the network does to messages between two hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vltava_host::random::Generator;

/// Of 100 messages that wait on a shaky link, so many pass in one step.
const SHAKY_PERCENT: u64 = 5;

/// Every disturbance of the network at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkState {
    /// Nothing passes from the one to the other. Nobody is told: TCP goes on trying.
    pub closed: BTreeSet<(String, String)>,
    /// Messages between the two are lost and sent again by TCP: they come late and out of order.
    pub shaky: BTreeSet<(String, String)>,
    /// Messages between the two take up to so long.
    pub slow: BTreeMap<(String, String), Duration>,
}

impl NetworkState {
    /// Nothing passes between the two, in either direction.
    pub fn close(&mut self, one: &str, other: &str) {
        self.close_one_way(one, other);
        self.close_one_way(other, one);
    }

    pub fn close_one_way(&mut self, from: &str, to: &str) {
        self.closed.insert((from.to_owned(), to.to_owned()));
    }

    pub(crate) fn is_disturbed(&self, one: &str, other: &str) -> bool {
        let pair = ordered(one, other);
        let back = (pair.1.clone(), pair.0.clone());
        self.closed.contains(&pair) || self.closed.contains(&back) || self.shaky.contains(&pair)
    }

    pub(crate) fn latency(&self, one: &str, other: &str) -> Option<Duration> {
        self.slow.get(&ordered(one, other)).copied()
    }

    pub(crate) fn passage(&self, from: &str, to: &str) -> Passage {
        if self.closed.contains(&(from.to_owned(), to.to_owned())) {
            Passage::Closed
        } else if self.shaky.contains(&ordered(from, to)) {
            Passage::Shaky
        } else {
            Passage::Open
        }
    }
}

/// What becomes of a message that waits on its way from one host to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    Open,
    Closed,
    Shaky,
}

impl Passage {
    pub fn lets_through(self, random: &mut Generator) -> bool {
        match self {
            Self::Open => true,
            Self::Closed => false,
            Self::Shaky => random.below(100) < SHAKY_PERCENT,
        }
    }
}

/// A pair of hosts, whichever is named first.
#[must_use]
pub fn ordered(one: &str, other: &str) -> (String, String) {
    if one < other { (one.to_owned(), other.to_owned()) } else { (other.to_owned(), one.to_owned()) }
}
