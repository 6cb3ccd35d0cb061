//! Which replica a consumer should read from (KIP-392).
//!
//! The leader names it in its answer to a Fetch; the consumer asks it from then on, for some minutes or until it fails.

use vltava_types::{BrokerId, Offset};

/// `replica.selector.class`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaSelector {
    /// Unset, or Kafka's `LeaderSelector`: everybody reads from the leader.
    #[default]
    Leader,
    /// Kafka's `RackAwareReplicaSelector`: from a replica in the consumer's rack, if there is one.
    RackAware,
}

impl ReplicaSelector {
    /// By the name of Kafka's class; `None` for any other, which cannot be loaded here.
    #[must_use]
    pub fn from_class(name: &str) -> Option<Self> {
        match name {
            "org.apache.kafka.common.replica.LeaderSelector" => Some(Self::Leader),
            "org.apache.kafka.common.replica.RackAwareReplicaSelector" => Some(Self::RackAware),
            _ => None,
        }
    }
}

/// A follower that is in sync and has the record that the consumer wants next.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub id: BrokerId,
    pub log_end_offset: Offset,
    pub rack: Option<&'a str>,
}

/// The follower in the consumer's rack that has most; `None` is the leader, if it is there itself or nobody is.
pub fn preferred_follower<'a>(
    client_rack: &str,
    leader_rack: Option<&str>,
    followers: impl IntoIterator<Item = Candidate<'a>>,
) -> Option<BrokerId> {
    if client_rack.is_empty() || leader_rack == Some(client_rack) {
        return None;
    }
    let near = followers.into_iter().filter(|follower| follower.rack == Some(client_rack));
    near.max_by_key(|follower| (follower.log_end_offset, follower.id)).map(|follower| follower.id)
}

#[cfg(test)]
mod tests {
    use vltava_types::{BrokerId, Offset};

    use super::{Candidate, preferred_follower};

    fn check(client_rack: &str, leader_rack: Option<&str>, followers: &[(i32, i64, Option<&str>)]) -> Option<i32> {
        let candidate = |&(id, offset, rack)| Candidate { id: BrokerId(id), log_end_offset: Offset(offset), rack };
        preferred_follower(client_rack, leader_rack, followers.iter().map(candidate)).map(BrokerId::value)
    }

    #[test]
    fn a_follower_in_the_rack_is_preferred_to_a_leader_elsewhere() {
        let followers = [(2, 10, Some("b")), (3, 12, Some("c")), (4, 11, Some("b")), (5, 11, Some("b")), (6, 99, None)];
        assert_eq!(check("b", Some("a"), &followers), Some(5), "the one that has most, and the larger id among equals");
        assert_eq!(check("c", None, &followers), Some(3));
        assert_eq!(check("a", Some("a"), &followers), None, "the leader is near");
        assert_eq!(check("b", Some("b"), &followers), None, "the leader is near");
        assert_eq!(check("d", Some("a"), &followers), None, "nobody is near");
        assert_eq!(check("", Some("a"), &followers), None, "the consumer does not say where it is");
    }
}
