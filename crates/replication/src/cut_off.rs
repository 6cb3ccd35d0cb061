//! What a leader may say while the controller is silent.
//!
//! Its session has run out, so another broker may lead by now, and it serves nobody (trap 15). What is left to choose is
//! the refusal. NOT_LEADER_OR_FOLLOWER sends clients to look for another leader, and is right wherever there may be one.
//! But if so many voters are dead that no metadata quorum can exist without this broker, nobody can be made leader now,
//! and who looks elsewhere finds nothing. If then fewer of the in-sync replicas are alive than `min.insync.replicas`, the
//! truth for acks=all is NOT_ENOUGH_REPLICAS: as soon as there is a quorum again, it will find the ISR too small.
//!
//! Silence proves nothing: behind a cut network the others may be well and have elected somebody. Dead is only he whose
//! machine says that nobody listens, and only for a short time after it said so. Nothing is ever acknowledged on the
//! strength of this: one may have led and died between our session's end and our looking.

use std::collections::{BTreeMap, BTreeSet};

use vltava_types::BrokerId;

use crate::leader::NotEnoughReplicas;

/// How long a sighting says anything: a process that was dead may have been started since.
pub const MAX_SIGHTING_AGE_MS: i64 = 2000;

/// What a look at another node's process has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Something listens there.
    Reachable,
    /// Its machine answered that nothing listens there: the process is dead.
    Refused,
    /// No answer.
    Unknown,
}

/// A sign, and when the look began that brought it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub sign: Sign,
    pub at_ms: i64,
}

/// What a broker whose session has run out knows of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    pub broker_id: BrokerId,
    /// The sets of voters of which each may be the one whose majority is a quorum: the membership as it may be in force
    /// somewhere. None, and nothing is known.
    pub voter_sets: Vec<BTreeSet<BrokerId>>,
    /// Of the nodes that were looked for.
    pub sightings: BTreeMap<BrokerId, Sighting>,
}

impl CutOff {
    /// Whether no metadata quorum can exist without this broker, so that nobody else can be made leader.
    #[must_use]
    pub fn precludes_other_quorum(&self, now_ms: i64) -> bool {
        let lacks_majority = |voters: &BTreeSet<BrokerId>| {
            let may_vote = voters.iter().filter(|id| **id != self.broker_id && !self.is_dead(**id, now_ms)).count();
            may_vote <= voters.len() / 2
        };
        !self.voter_sets.is_empty() && self.voter_sets.iter().all(lacks_majority)
    }

    /// Whether a produce with acks=all is refused for want of replicas rather than of leadership: nobody else can be
    /// made leader, and of these in-sync replicas fewer may be alive than are required.
    #[must_use]
    pub fn too_few_alive(
        &self,
        isr: impl IntoIterator<Item = BrokerId>,
        required: usize,
        now_ms: i64,
    ) -> Option<NotEnoughReplicas> {
        if !self.precludes_other_quorum(now_ms) {
            return None;
        }
        let in_sync = isr.into_iter().filter(|id| *id == self.broker_id || !self.is_dead(*id, now_ms)).count();
        (in_sync < required).then_some(NotEnoughReplicas { in_sync, required })
    }

    fn is_dead(&self, id: BrokerId, now_ms: i64) -> bool {
        self.sightings.get(&id).is_some_and(|sighting| {
            sighting.sign == Sign::Refused && now_ms.saturating_sub(sighting.at_ms) < MAX_SIGHTING_AGE_MS
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> BTreeSet<BrokerId> {
        text.split_whitespace().map(|id| BrokerId(id.parse().expect("a number"))).collect()
    }

    /// Broker 1 looked at the others 500 ms ago. `seen` is as `2:refused 3:reachable 4:unknown`; voter sets are parted by
    /// `|`. `None`: NOT_LEADER_OR_FOLLOWER; else how many of the ISR may be alive, where two are required.
    fn check(voters: &str, seen: &str, isr: &str) -> Option<usize> {
        let sighting = |text: &str| {
            let (id, sign) = text.split_once(':').expect("id:sign");
            let sign = match sign {
                "refused" => Sign::Refused,
                "reachable" => Sign::Reachable,
                "unknown" => Sign::Unknown,
                other => panic!("{other}"),
            };
            (BrokerId(id.parse().expect("a number")), Sighting { sign, at_ms: 1000 })
        };
        let cut_off = CutOff {
            broker_id: BrokerId(1),
            voter_sets: voters.split('|').map(ids).filter(|set| !set.is_empty()).collect(),
            sightings: seen.split_whitespace().map(sighting).collect(),
        };
        cut_off.too_few_alive(ids(isr), 2, 1500).map(|few| few.in_sync)
    }

    #[test]
    fn the_last_of_three_that_are_dead_for_certain_lacks_replicas() {
        assert_eq!(check("1 2 3", "2:refused 3:refused", "1 2 3"), Some(1));
        assert_eq!(check("1 2 3", "2:refused 3:refused", "1"), Some(1));
    }

    #[test]
    fn behind_a_cut_network_others_may_lead() {
        assert_eq!(check("1 2 3", "2:unknown 3:unknown", "1 2 3"), None);
        assert_eq!(check("1 2 3", "2:reachable 3:reachable", "1 2 3"), None);
        assert_eq!(check("1 2 3", "", "1 2 3"), None);
        // These may need nobody else to elect one of them.
        assert_eq!(check("1 2 3 4 5", "2:refused 3:unknown 4:unknown 5:unknown", "1 2"), None);
    }

    #[test]
    fn one_that_may_be_alive_makes_no_quorum_of_three_but_may_be_in_sync() {
        assert_eq!(check("1 2 3", "2:refused 3:unknown", "1 2 3"), None);
        assert_eq!(check("1 2 3", "2:refused 3:reachable", "1 2 3"), None);
        assert_eq!(check("1 2 3", "2:refused 3:unknown", "1 2"), Some(1));
        assert_eq!(check("1 2 3 4", "2:refused 3:unknown 4:unknown", "1 2"), Some(1));
    }

    #[test]
    fn a_broker_that_does_not_vote_is_alone_when_the_voters_are_dead() {
        assert_eq!(check("100", "100:refused 2:refused 3:refused", "1 2 3"), Some(1));
        assert_eq!(check("100", "100:refused 2:refused 3:reachable", "1 2 3"), None);
        assert_eq!(check("100", "100:unknown 2:refused 3:refused", "1 2 3"), None);
        assert_eq!(check("100 101 102", "100:refused 101:refused 102:unknown 2:refused", "1 2"), Some(1));
        assert_eq!(check("100 101 102", "100:refused 101:unknown 102:unknown 2:refused", "1 2"), None);
    }

    #[test]
    fn every_membership_that_may_be_in_force_has_to_lack_a_quorum() {
        assert_eq!(check("1 2 3|1 2 4", "2:refused 3:refused 4:refused", "1 2"), Some(1));
        assert_eq!(check("1 2 3|4 5 6", "2:refused 3:refused", "1 2"), None);
        assert_eq!(check("", "2:refused 3:refused", "1 2 3"), None);
    }

    #[test]
    fn what_was_seen_too_long_ago_says_nothing() {
        let sighting = Sighting { sign: Sign::Refused, at_ms: 1000 };
        let cut_off = CutOff {
            broker_id: BrokerId(1),
            voter_sets: vec![ids("1 2 3")],
            sightings: ids("2 3").into_iter().map(|id| (id, sighting)).collect(),
        };
        let verdict = |age| cut_off.too_few_alive(ids("1 2 3"), 2, 1000 + age);
        let too_few = Some(NotEnoughReplicas { in_sync: 1, required: 2 });
        assert_eq!(verdict(0), too_few);
        assert_eq!(verdict(MAX_SIGHTING_AGE_MS - 1), too_few);
        assert_eq!(verdict(MAX_SIGHTING_AGE_MS), None);
    }
}
