//! How far the members of the quorum have come, as the leader knows it.

use openraft::{Instant as _, ServerState};
use vltava_host::clock;
use vltava_peer::CallError;
use vltava_peer::raft::{MemberStatus, StatusResponse};
use vltava_types::{BrokerId, DirectoryId, MetadataOffset, TimestampMs};

use crate::identity::{directory_from_wire, directory_to_wire};
use crate::types::{Member, RaftMetrics};
use crate::wire;

/// The quorum's leader and how far each member has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumStatus {
    pub leader: Option<BrokerId>,
    pub term: i64,
    /// The committed metadata offset.
    pub high_watermark: MetadataOffset,
    pub voters: Vec<ReplicaStatus>,
    pub observers: Vec<ReplicaStatus>,
}

/// A member of the quorum. Offsets and times are known on the leader only, and `None` elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    pub node_id: BrokerId,
    pub directory_id: DirectoryId,
    pub log_end_offset: Option<MetadataOffset>,
    pub last_fetch: Option<TimestampMs>,
    pub last_caught_up: Option<TimestampMs>,
}

/// What a node knows by itself. Times are by its own clock.
pub(crate) fn current(own_id: u64, metrics: &RaftMetrics) -> QuorumStatus {
    let offset = |index: u64| MetadataOffset(i64::try_from(index).expect("an index stays below 2^63"));
    let is_leader = metrics.state == ServerState::Leader;
    let now = clock::now();
    let replica = |node_id: u64, member: &Member| {
        let own = node_id == own_id;
        let matched = if own {
            metrics.last_log_index
        } else {
            metrics.replication.as_ref().and_then(|replication| replication.get(&node_id)?.as_ref().map(|id| id.index))
        };
        let heard = metrics.heartbeat.as_ref().and_then(|heartbeat| heartbeat.get(&node_id)?.as_ref());
        let last_fetch = match heard {
            _ if own && is_leader => Some(now),
            Some(heard) => {
                let ago = i64::try_from(heard.elapsed().as_millis()).unwrap_or(i64::MAX);
                Some(TimestampMs(now.value().saturating_sub(ago)))
            }
            None => None,
        };
        let is_caught_up = matched.is_some() && matched == metrics.last_log_index;
        ReplicaStatus {
            node_id: broker_id(node_id),
            directory_id: member.directory_id,
            log_end_offset: matched.filter(|_| is_leader).map(|index| offset(index + 1)),
            last_fetch: last_fetch.filter(|_| is_leader),
            last_caught_up: last_fetch.filter(|_| is_leader && is_caught_up),
        }
    };
    // What is committed. During a change of voters, those who vote before and after it.
    let membership = &metrics.committed_membership_config;
    let is_voter = |node_id: &u64| membership.get_joint_config().iter().all(|voters| voters.contains(node_id));
    let (voting, observing): (Vec<_>, Vec<_>) = membership.nodes().partition(|(node_id, _)| is_voter(node_id));
    let list =
        |nodes: Vec<(&u64, &Member)>| nodes.into_iter().map(|(node_id, member)| replica(*node_id, member)).collect();
    QuorumStatus {
        leader: metrics.current_leader.map(broker_id),
        term: i64::try_from(metrics.current_term).expect("a term stays below 2^63"),
        high_watermark: metrics.cluster_committed.as_ref().map_or(MetadataOffset(0), |last| offset(last.index)),
        voters: list(voting),
        observers: list(observing),
    }
}

pub(crate) fn to_wire(status: &QuorumStatus) -> StatusResponse {
    let number = |offset: MetadataOffset| u64::try_from(offset.value()).unwrap_or(0);
    let id = |broker_id: BrokerId| u64::try_from(broker_id.value()).expect("members have ids of nodes");
    let member = |votes: bool| {
        move |member: &ReplicaStatus| MemberStatus {
            node_id: id(member.node_id),
            directory_id: directory_to_wire(member.directory_id),
            votes,
            log_end_offset: member.log_end_offset.map(number),
            last_fetch_ms: member.last_fetch.map(|time| time.value()),
            last_caught_up_ms: member.last_caught_up.map(|time| time.value()),
        }
    };
    StatusResponse {
        leader_id: status.leader.map(id),
        term: u64::try_from(status.term).unwrap_or(0),
        high_watermark: number(status.high_watermark),
        members: status.voters.iter().map(member(true)).chain(status.observers.iter().map(member(false))).collect(),
    }
}

pub(crate) fn from_wire(status: StatusResponse) -> Result<QuorumStatus, CallError> {
    let number = |value: u64| i64::try_from(value).map_err(|_| wire::malformed("an offset or term beyond 2^63"));
    let offset = |value: u64| number(value).map(MetadataOffset);
    let id = |value: u64| i32::try_from(value).map(BrokerId).map_err(|_| wire::malformed("a node id beyond 2^31"));
    let (mut voters, mut observers) = (vec![], vec![]);
    for member in status.members {
        let replica = ReplicaStatus {
            node_id: id(member.node_id)?,
            directory_id: directory_from_wire(&member.directory_id)
                .ok_or_else(|| wire::malformed("a member without a directory"))?,
            log_end_offset: member.log_end_offset.map(offset).transpose()?,
            last_fetch: member.last_fetch_ms.map(TimestampMs),
            last_caught_up: member.last_caught_up_ms.map(TimestampMs),
        };
        if member.votes { voters.push(replica) } else { observers.push(replica) }
    }
    Ok(QuorumStatus {
        leader: status.leader_id.map(id).transpose()?,
        term: number(status.term)?,
        high_watermark: offset(status.high_watermark)?,
        voters,
        observers,
    })
}

fn broker_id(node_id: u64) -> BrokerId {
    BrokerId(i32::try_from(node_id).expect("node ids come from broker ids"))
}

#[cfg(test)]
mod tests {
    use vltava_types::Uuid;

    use super::*;

    #[test]
    fn the_leaders_knowledge_survives_the_wire_and_nonsense_does_not_get_through() {
        let member = |id: i32, end: Option<i64>| ReplicaStatus {
            node_id: BrokerId(id),
            directory_id: DirectoryId(Uuid([7; 16])),
            log_end_offset: end.map(MetadataOffset),
            last_fetch: end.map(TimestampMs),
            last_caught_up: None,
        };
        let status = QuorumStatus {
            leader: Some(BrokerId(2)),
            term: 5,
            high_watermark: MetadataOffset(11),
            voters: vec![member(1, Some(12)), member(2, None)],
            observers: vec![member(9, Some(3))],
        };
        let wire = to_wire(&status);
        assert_eq!(from_wire(wire.clone()).expect("what we write"), status);
        assert!(from_wire(StatusResponse { leader_id: Some(u64::MAX), ..wire.clone() }).is_err());
        assert!(from_wire(StatusResponse { high_watermark: u64::MAX, ..wire }).is_err());
    }
}
