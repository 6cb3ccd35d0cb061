//! Where Raft stands, for whoever waits for a change of it.
//!
//! Raft publishes its metrics at every tick of its clock and at every acknowledgement, dozens of times a second while
//! nothing happens. One task looks at all of them and passes on what others wait for, so that they are woken when an
//! election or a change of the membership is what happened, and not before.

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use vltava_types::BrokerId;

use crate::handle::broker_id;
use crate::types::{LogId, Raft, RaftMetrics, Vote};

/// What changes by elections, by changes of the membership and by Raft's end only. Whoever is woken by a change finds all
/// of it in Raft's own metrics, which are published before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    state: ServerState,
    term: u64,
    vote: Vote,
    leader: Option<u64>,
    /// The entry that the membership is from, committed or not.
    membership: Option<LogId>,
}

impl Standing {
    pub fn of(metrics: &RaftMetrics) -> Self {
        Self {
            state: metrics.state,
            term: metrics.current_term,
            vote: metrics.vote,
            leader: metrics.current_leader,
            membership: *metrics.membership_config.log_id(),
        }
    }
}

/// Publishes the standing and the leader, until Raft ends.
pub(crate) async fn follow(raft: Raft, standing: watch::Sender<Standing>, leader: watch::Sender<Option<BrokerId>>) {
    let mut metrics = raft.metrics();
    loop {
        let current = Standing::of(&metrics.borrow_watched());
        let current_leader = current.leader.map(broker_id);
        leader.send_if_modified(|known| std::mem::replace(known, current_leader) != current_leader);
        standing.send_if_modified(|known| {
            let is_new = *known != current;
            *known = current;
            is_new
        });
        if metrics.changed().await.is_err() {
            return;
        }
    }
}
