//! Who belongs to the quorum. The leader changes the membership when nodes ask to join, and promotes those that
//! should vote once they have caught up.
//!
//! A node that comes back with another directory has lost what it had acknowledged. It is removed as what it was, added
//! as a learner under its new directory, and made a voter again when it holds the log (trap 13).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{ChangeMembers, ServerState};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use vltava_peer::raft::{JoinResponse, RaftClient};

use crate::identity::{Identity, directory_from_wire};
use crate::types::{Member, Raft, RaftMetrics};

/// Join requests that wait.
pub(crate) const MAX_QUEUED_JOINS: usize = 64;

/// How often learners are looked at.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(200);

/// A learner this close to the end of the log has caught up.
const MAX_PROMOTION_LAG: u64 = 100;

/// How long the process under a recorded directory may take to prove that it is alive.
const ALIVE_DEADLINE: Duration = Duration::from_millis(500);

/// A node asks to be a member.
pub(crate) struct Join {
    pub node_id: u64,
    pub member: Member,
    pub reply: oneshot::Sender<JoinResponse>,
}

/// What a join request asks of the membership as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Add,
    /// The same directory answers elsewhere.
    Move,
    /// Another directory under the same id.
    Replace,
}

pub(crate) async fn run(identity: Arc<Identity>, raft: Raft, mut joins: mpsc::Receiver<Join>) {
    let mut ticks = interval(PROMOTION_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            join = joins.recv() => {
                let Some(Join { node_id, member, reply }) = join else { return };
                let response = match take_in(&raft, node_id, member).await {
                    Ok(()) => JoinResponse { accepted: true, message: String::new() },
                    Err(message) => JoinResponse { accepted: false, message },
                };
                // An error means that nobody waits any more; the node asks again.
                let _ = reply.send(response);
            }
            _ = ticks.tick() => promote(&identity, &raft).await,
        }
    }
}

async fn take_in(raft: &Raft, node_id: u64, member: Member) -> Result<(), String> {
    let metrics = current(raft);
    if metrics.state != ServerState::Leader {
        return Err("this node is not the leader".to_owned());
    }
    let recorded = metrics.membership_config.get_node(&node_id).cloned();
    match required_change(recorded.as_ref(), &member) {
        Change::None => Ok(()),
        Change::Add => add(raft, node_id, member).await,
        Change::Move => {
            let change = ChangeMembers::SetNodes(BTreeMap::from([(node_id, member)]));
            raft.change_membership(change, true).await.map(|_| ()).map_err(|error| error.to_string())
        }
        Change::Replace => {
            let recorded = recorded.expect("only a recorded member is replaced");
            if is_alive(&recorded).await {
                return Err(format!("another process runs as node {node_id}"));
            }
            tracing::warn!(node_id, directory_id = %member.directory_id, "a node came back with another directory");
            remove(raft, &metrics, node_id).await?;
            add(raft, node_id, member).await
        }
    }
}

fn required_change(recorded: Option<&Member>, asking: &Member) -> Change {
    match recorded {
        None => Change::Add,
        Some(recorded) if recorded.directory_id != asking.directory_id => Change::Replace,
        Some(recorded) if recorded.endpoint != asking.endpoint => Change::Move,
        Some(_) => Change::None,
    }
}

async fn add(raft: &Raft, node_id: u64, member: Member) -> Result<(), String> {
    tracing::info!(node_id, directory_id = %member.directory_id, "a node joins the quorum as a learner");
    raft.add_learner(node_id, member, false).await.map(|_| ()).map_err(|error| error.to_string())
}

async fn remove(raft: &Raft, metrics: &RaftMetrics, node_id: u64) -> Result<(), String> {
    let ids = BTreeSet::from([node_id]);
    let change = if metrics.membership_config.voter_ids().any(|voter| voter == node_id) {
        ChangeMembers::RemoveVoters(ids)
    } else {
        ChangeMembers::RemoveNodes(ids)
    };
    raft.change_membership(change, false).await.map(|_| ()).map_err(|error| error.to_string())
}

/// Whether the process that the membership knows still runs. If it does, the one that asks is a second one under the
/// same node id, and must not displace it.
async fn is_alive(recorded: &Member) -> bool {
    match RaftClient::new(&recorded.endpoint).describe(ALIVE_DEADLINE).await {
        Ok(description) => directory_from_wire(&description.directory_id) == Some(recorded.directory_id),
        Err(_) => false,
    }
}

/// Makes a voter of a learner that should vote and has caught up.
async fn promote(identity: &Identity, raft: &Raft) {
    let metrics = current(raft);
    let Some(node_id) = next_promotion(identity, &metrics) else {
        return;
    };
    let change = ChangeMembers::AddVoterIds(BTreeSet::from([node_id]));
    match raft.change_membership(change, true).await {
        Ok(_) => tracing::info!(node_id, "a node has caught up and votes"),
        Err(error) => tracing::info!(node_id, %error, "a node cannot be made a voter yet"),
    }
}

fn next_promotion(identity: &Identity, metrics: &RaftMetrics) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    let last_index = metrics.last_log_index?;
    let membership = metrics.membership_config.membership();
    membership.learner_ids().find(|learner| {
        let matched = replication.get(learner).and_then(|matched| matched.as_ref());
        identity.voters.contains_key(learner)
            && matched.is_some_and(|matched| matched.index + MAX_PROMOTION_LAG >= last_index)
    })
}

fn current(raft: &Raft) -> RaftMetrics {
    raft.metrics().borrow_watched().clone()
}

#[cfg(test)]
mod tests {
    use vltava_metadata::Endpoint;
    use vltava_types::{DirectoryId, Uuid};

    use super::*;

    fn member(directory: u8, port: u16) -> Member {
        let endpoint = Endpoint { host: "a".to_owned(), port, security_protocol: "PLAINTEXT".to_owned() };
        Member { directory_id: DirectoryId(Uuid([directory; 16])), endpoint }
    }

    #[test]
    fn another_directory_under_a_known_id_is_another_member() {
        assert_eq!(required_change(None, &member(1, 1)), Change::Add);
        assert_eq!(required_change(Some(&member(1, 1)), &member(1, 1)), Change::None);
        assert_eq!(required_change(Some(&member(1, 1)), &member(1, 2)), Change::Move);
        assert_eq!(required_change(Some(&member(1, 1)), &member(2, 1)), Change::Replace);
        assert_eq!(required_change(Some(&member(1, 1)), &member(2, 2)), Change::Replace);
    }
}
