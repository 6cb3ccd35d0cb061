//! Bounds the memory that entries of the log take.
//!
//! All entries that have not been purged are in memory. Raft's snapshot policy bounds how many those are; this bounds
//! how large they are together, because one entry may hold a few bytes or the creation of ten thousand partitions.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::sleep;

use crate::log_store::LogStore;
use crate::types::Raft;

/// More than this is not retained once it has been applied.
pub(crate) const MAX_RETAINED_BYTES: usize = 64 * 1024 * 1024;

/// The part of it that is kept then, so that followers which are a little behind need no snapshot.
const KEPT_PART: usize = 4;

/// Taking a snapshot and purging cost some milliseconds, so neither is asked for more often.
const INTERVAL: Duration = Duration::from_millis(500);

/// What has to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    None,
    Snapshot,
    /// Entries up to and with this index may go.
    Purge(u64),
}

/// `oversized` is the last entry of those that are too much, if any; `applied` and `snapshot` are the last entries that
/// the state machine and its snapshot contain.
fn decide(oversized: Option<u64>, applied: Option<u64>, snapshot: Option<u64>) -> Step {
    let Some(oversized) = oversized else { return Step::None };
    if snapshot >= Some(oversized) {
        return Step::Purge(oversized);
    }
    if applied > snapshot { Step::Snapshot } else { Step::None }
}

/// Never ends before Raft does.
pub(crate) async fn run(raft: Raft, log_store: LogStore, max_bytes: usize) {
    loop {
        sleep(INTERVAL).await;
        let (applied, snapshot) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.last_applied.map(|log_id| log_id.index), metrics.snapshot.map(|log_id| log_id.index))
        };
        let done = match decide(log_store.oversized(max_bytes, max_bytes / KEPT_PART), applied, snapshot) {
            Step::None => Ok(()),
            Step::Snapshot => raft.trigger().snapshot().await,
            Step::Purge(upto) => raft.trigger().purge_log(upto).await,
        };
        if done.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bytes::Bytes;
    use parking_lot::Mutex;
    use tokio::sync::watch;
    use tokio::time::timeout;
    use vltava_metadata::{ClusterImage, Endpoint, MetadataRecord, codec};
    use vltava_types::IncarnationId;

    use super::*;
    use crate::identity::Identity;
    use crate::network::Network;
    use crate::pre_vote::Backing;
    use crate::state_machine::StateMachine;
    use crate::types::RecordSet;

    /// A quorum of one that would take a snapshot after more entries than anybody writes.
    async fn start(directory: &std::path::Path) -> (Raft, LogStore) {
        let log_store = LogStore::open(directory, 1, 0).await.expect("a new log");
        let (images, _) = watch::channel(Arc::new(ClusterImage::default()));
        let state_machine =
            StateMachine::open(directory, images, Arc::clone(log_store.reserve())).await.expect("no snapshot");
        let endpoint = Endpoint { host: "a".to_owned(), port: 1, security_protocol: "PLAINTEXT".to_owned() };
        let voters = BTreeMap::from([(1, endpoint.clone())]);
        let directory_id = log_store.state().directory_id;
        let identity = Identity::new(1, directory_id, IncarnationId::ZERO, endpoint, voters, vec![], String::new());
        let identity = Arc::new(identity);
        let backing = Arc::new(Mutex::new(Backing::new(1, Duration::ZERO)));
        let network = Network { identity: identity.clone(), backing, leader_contact: Arc::default() };
        let config = openraft::Config {
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(1_000_000),
            ..openraft::Config::default()
        };
        let raft = Raft::new(1, Arc::new(config), network, log_store.clone(), state_machine).await.expect("it starts");
        identity.set_raft(raft.clone());
        raft.initialize(BTreeMap::from([(1, identity.member())])).await.expect("a quorum of one");
        let leads = raft.wait(Some(Duration::from_secs(20))).current_leader(1, "alone").await;
        leads.expect("it leads");
        (raft, log_store)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn large_entries_go_before_they_are_many() {
        const MAX: usize = 50_000;
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (raft, log_store) = start(directory.path()).await;
        let records = Bytes::from(codec::encode_records(&vec![MetadataRecord::NoOp; 5_000]));
        assert!(records.len() > 5_000);
        let term = raft.metrics().borrow_watched().current_term;
        for _ in 0..20 {
            raft.client_write(RecordSet { term, records: records.clone() }).await.expect("written");
        }
        assert!(log_store.oversized(MAX, 0).is_some());
        let bounding = tokio::spawn(run(raft.clone(), log_store.clone(), MAX));
        let bounded = async {
            while log_store.oversized(MAX, 0).is_some() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), bounded).await.expect("entries are purged");
        bounding.abort();
        raft.shutdown().await.expect("it stops");
    }

    #[test]
    fn too_much_is_in_a_snapshot_before_it_goes() {
        assert_eq!(decide(None, Some(9), Some(5)), Step::None);
        assert_eq!(decide(Some(7), Some(9), None), Step::Snapshot);
        assert_eq!(decide(Some(7), Some(9), Some(5)), Step::Snapshot);
        assert_eq!(decide(Some(7), Some(9), Some(7)), Step::Purge(7));
        // Nothing that a snapshot could take in has been applied since the last one.
        assert_eq!(decide(Some(7), Some(5), Some(5)), Step::None);
        assert_eq!(decide(Some(7), None, None), Step::None);
    }
}
