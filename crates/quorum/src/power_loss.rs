//! Raft's storage in the hands of the simulator, which cuts its power (trap 13). What was answered is written down here,
//! and compared with what is there afterwards.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::RaftTypeConfig;
use openraft::storage::{
    IOFlushed, RaftLogReader as _, RaftLogStorage as _, RaftSnapshotBuilder as _, RaftStateMachine as _,
};
use tokio::sync::watch;
use vltava_metadata::ClusterImage;

use crate::log_store::LogStore;
use crate::state_machine::StateMachine;
use crate::types::{
    Entry, LogId, Payload, RecordSet, SnapshotMeta, StoredMembership, TypeConfig, Vote, log_id, term_of,
};

/// Log, vote and snapshots of one node.
pub struct RaftStorage {
    log: LogStore,
    machine: StateMachine,
}

/// What Raft may rely on. Log positions are term and index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftState {
    /// Term and candidate.
    pub vote: Option<(u64, u64)>,
    /// Oldest first.
    pub entries: Vec<(u64, u64)>,
    /// The last position that a snapshot covers.
    pub snapshot: Option<(u64, u64)>,
}

impl RaftStorage {
    /// Opens what is below the directory, as a node's start does.
    pub async fn open(directory: &Path) -> io::Result<Self> {
        let log = LogStore::open(directory, 1, 0).await?;
        let (images, _) = watch::channel(Arc::new(ClusterImage::default()));
        let machine = StateMachine::open(directory, images, Arc::clone(log.reserve())).await?;
        Ok(Self { log, machine })
    }

    /// What is there, as Raft reads it.
    pub async fn state(&mut self) -> io::Result<RaftState> {
        let vote = self.log.read_vote().await?.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for));
        let entries = self.log.try_get_log_entries(0..u64::MAX).await?;
        let entries = entries.iter().map(|entry| position(&entry.log_id)).collect();
        let snapshot = self.machine.get_current_snapshot().await?;
        let snapshot = snapshot.and_then(|snapshot| snapshot.meta.last_log_id.as_ref().map(position));
        Ok(RaftState { vote, entries, snapshot })
    }

    /// Answers a request for a vote.
    pub async fn vote(&mut self, term: u64, candidate: u64) -> io::Result<()> {
        self.log.save_vote(&Vote::new(term, candidate)).await
    }

    /// Acknowledges entries of a leader.
    pub async fn append(&mut self, term: u64, indexes: std::ops::Range<u64>) -> io::Result<()> {
        type Oneshot = <<TypeConfig as RaftTypeConfig>::AsyncRuntime as openraft::AsyncRuntime>::Oneshot;
        let records = Bytes::from(vec![b'r'; 700]);
        let entries: Vec<_> = indexes
            .map(|index| Entry {
                log_id: log_id(term, index),
                payload: Payload::Normal(RecordSet { term, records: records.clone() }),
            })
            .collect();
        let (done, durable) = <Oneshot as openraft::async_runtime::oneshot::Oneshot>::channel();
        self.log.append(entries, IOFlushed::signal(done)).await?;
        durable.await.map_err(|_| io::Error::other("the writer is gone"))?
    }

    /// Takes back entries that another leader has replaced.
    pub async fn truncate_after(&mut self, last: Option<(u64, u64)>) -> io::Result<()> {
        self.log.truncate_after(last.map(|(term, index)| log_id(term, index))).await
    }

    /// Takes over a leader's snapshot, and removes the entries that it covers.
    pub async fn install_snapshot(&mut self, term: u64, index: u64) -> io::Result<()> {
        let meta =
            SnapshotMeta { last_log_id: Some(log_id(term, index)), last_membership: StoredMembership::default() };
        let records = self.machine.get_snapshot_builder().await.build_snapshot().await?.snapshot;
        self.machine.install_snapshot(&meta, records).await?;
        self.log.purge(log_id(term, index)).await
    }
}

fn position(log_id: &LogId) -> (u64, u64) {
    (term_of(log_id), log_id.index)
}
