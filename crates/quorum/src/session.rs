//! This node's standing session with the active controller.
//!
//! Heartbeats travel over it. Its reset is also how a follower learns at once that the leader's process died: if nothing
//! listens where the leader did, the follower does not wait for an election timeout. The first voter in order of ids
//! stands for election immediately, the others a little later if there is still no leader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::raft::TransferLeaderRequest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use vltava_metadata::Endpoint;
use vltava_peer::CallError;
use vltava_peer::controller::{ControllerCall, ControllerClient, ControllerReply, Session};
use vltava_types::IncarnationId;

use crate::identity::Identity;
use crate::probe::{incarnation_at, is_gone};
use crate::standing::Standing;
use crate::types::{Raft, Vote};

/// Heartbeats that wait to be sent.
pub(crate) const MAX_QUEUED_HEARTBEATS: usize = 16;

const OPEN_DEADLINE: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// How long a lost leader is probed. After that, the election timeout is about to run out anyway.
const PROBE_PATIENCE: Duration = Duration::from_millis(300);

/// How much later each further voter stands for election: longer than an undisturbed election takes.
const STAGGER: Duration = Duration::from_millis(75);

/// A request for the session, with its encoded answer's destination.
pub(crate) struct SessionCall {
    pub request: Bytes,
    pub reply: oneshot::Sender<Result<ControllerReply, CallError>>,
}

/// Keeps a session with whoever leads, as long as that is another node. Never ends.
pub(crate) async fn run(
    identity: Arc<Identity>,
    raft: Raft,
    mut standing: watch::Receiver<Standing>,
    mut calls: mpsc::Receiver<SessionCall>,
) {
    loop {
        let leader = other_leader(&identity, &raft);
        let Some((leader_id, vote, endpoint)) = leader else {
            tokio::select! {
                biased;
                changed = standing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                call = calls.recv() => match call {
                    Some(call) => refuse(call, "there is no leader to hold a session with"),
                    None => return,
                },
            }
            continue;
        };
        let outcome = hold(&identity, &raft, standing.clone(), &mut calls, leader_id, &endpoint).await;
        if let Held::Lost(incarnation_id) = outcome
            && is_gone(&endpoint, leader_id, incarnation_id, PROBE_PATIENCE).await
        {
            stand_for_election(&identity, &raft, leader_id, vote).await;
        }
        sleep(RETRY_INTERVAL).await;
    }
}

/// How a session ended.
enum Held {
    /// Another node leads, or nobody.
    LeaderChanged,
    /// It broke, or could not be opened. With the run of the leader's process that held it, if that is known.
    Lost(Option<IncarnationId>),
}

/// Holds a session until the leader changes or the session is lost.
async fn hold(
    identity: &Identity,
    raft: &Raft,
    mut standing: watch::Receiver<Standing>,
    calls: &mut mpsc::Receiver<SessionCall>,
    leader_id: u64,
    endpoint: &Endpoint,
) -> Held {
    let client = ControllerClient::new(endpoint);
    let (requests, outgoing) = mpsc::channel(MAX_QUEUED_HEARTBEATS + 1);
    let address = |request| ControllerCall { cluster_id: identity.cluster_id(), node_id: identity.node_id, request };
    requests.try_send((0, address(Bytes::new()))).expect("the queue is new and empty");
    let opening = client.session(outgoing, OPEN_DEADLINE);
    let (opened, incarnation_id) = tokio::join!(opening, incarnation_at(endpoint, leader_id, OPEN_DEADLINE));
    let mut session: Session = match opened {
        Ok(session) => session,
        Err(error) => {
            tracing::debug!(leader_id, %error, "no session with the leader");
            return Held::Lost(incarnation_id);
        }
    };
    let mut sequence = 0u64;
    let mut waiting: BTreeMap<u64, oneshot::Sender<Result<ControllerReply, CallError>>> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            changed = standing.changed() => {
                if changed.is_err() || raft.metrics().borrow_watched().current_leader != Some(leader_id) {
                    return Held::LeaderChanged;
                }
            }
            answer = session.next() => match answer {
                Some(Ok((sequence, reply))) => {
                    if let Some(destination) = waiting.remove(&sequence) {
                        // An error means that nobody waits any more.
                        let _ = destination.send(Ok(reply));
                    }
                }
                Some(Err(error)) => {
                    tracing::info!(leader_id, %error, "the session with the leader was reset");
                    return Held::Lost(incarnation_id);
                }
                None => return Held::Lost(incarnation_id),
            },
            call = calls.recv() => {
                let Some(SessionCall { request, reply }) = call else { return Held::LeaderChanged };
                waiting.retain(|_, destination| !destination.is_closed());
                if waiting.len() >= MAX_QUEUED_HEARTBEATS {
                    let _ = reply.send(Err(CallError::Unreachable("the leader does not answer".to_owned())));
                    continue;
                }
                sequence += 1;
                if requests.try_send((sequence, address(request))).is_ok() {
                    waiting.insert(sequence, reply);
                }
            }
        }
    }
}

/// The leader's process is dead: it cannot renew its lease, so nobody needs to wait until that has run out.
async fn stand_for_election(identity: &Identity, raft: &Raft, dead_leader: u64, vote: Vote) {
    if !identity.may_stand_for_election() {
        return;
    }
    let rank = identity.membership().map_or(0, |membership| {
        membership.voter_ids().filter(|voter| *voter != dead_leader && *voter < identity.node_id).count()
    });
    let rank = u32::try_from(rank).expect("voters are few");
    sleep(STAGGER * rank).await;
    if raft.metrics().borrow_watched().vote != vote {
        // Somebody else has been voted for meanwhile.
        return;
    }
    tracing::info!(dead_leader, "the leader's process is dead; standing for election");
    let request = TransferLeaderRequest::new(vote, identity.node_id, None);
    if let Err(error) = raft.handle_transfer_leader(request).await {
        tracing::debug!(%error, "raft has stopped");
    }
}

/// Another node that leads, with its vote and address.
fn other_leader(identity: &Identity, raft: &Raft) -> Option<(u64, Vote, Endpoint)> {
    let (leader_id, vote) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.current_leader?, metrics.vote)
    };
    if leader_id == identity.node_id {
        return None;
    }
    Some((leader_id, vote, identity.endpoint_of(leader_id)?))
}

fn refuse(call: SessionCall, reason: &str) {
    // An error means that nobody waits any more.
    let _ = call.reply.send(Err(CallError::Unreachable(reason.to_owned())));
}
