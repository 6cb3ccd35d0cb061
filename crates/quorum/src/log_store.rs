//! Raft's log, vote and commit point on disk.
//!
//! The log is a partition log like any other, `__cluster_metadata-0`: one record batch per entry, whose base offset is
//! the Raft index and whose leader epoch is the term. Everything that changes the disk goes through one queue to one
//! writer, in order: OpenRaft requires that votes and entries are never reordered. The writer appends whatever has
//! queued up, waits once for the disk, and only then reports the entries as flushed (group commit).
//!
//! All entries that have not been purged are kept in memory too. Snapshots bound how many those are, and [`crate::retained`]
//! how many bytes.
//!
//! A crash at any point leaves the state file and a prefix of the log's writes; what was reported as flushed is in
//! both. A purge is recorded in the state file before anything is removed, and completed at the next opening.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};
use vltava_host::{clock, fs, task};
use vltava_protocol::batch::{self, BatchBuilder};
use vltava_storage::{Log, LogConfig, LogOptions, ReadLimits, StorageError};
use vltava_types::{LeaderEpoch, Offset, TopicId, Uuid, mutation};

use crate::encoding::{decode_payload, encode_payload};
use crate::reserve::Reserve;
use crate::state_file::{STATE_FILE, StateFile};
use crate::types::{Entry, LogId, Payload, TypeConfig, Vote, log_id, term_of};

/// The directory of the metadata log within `metadata.log.dir`.
pub(crate) const LOG_DIRECTORY: &str = "__cluster_metadata-0";

/// Kafka's id of the metadata topic.
const METADATA_TOPIC_ID: TopicId = TopicId(Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));

/// Small segments, because only whole ones can be removed after a snapshot.
const SEGMENT_BYTES: u32 = 16 * 1024 * 1024;

/// Writes that wait for the writer. Raft waits when there are more.
const MAX_QUEUED_WRITES: usize = 1024;

/// How long the commit point on disk may lag behind.
const COMMITTED_WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// The log as OpenRaft sees it. Clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Mutex<Shared>>,
    writes: mpsc::Sender<Write>,
    reserve: Arc<Reserve>,
}

/// What is in memory: ahead of the disk by what is queued.
struct Shared {
    entries: BTreeMap<u64, Entry>,
    /// What the entries take, by [`size_of_entry`].
    bytes: usize,
    state: StateFile,
}

impl Shared {
    fn new(entries: BTreeMap<u64, Entry>, state: StateFile) -> Self {
        let bytes = size_of_entries(&entries);
        Self { entries, bytes, state }
    }

    fn insert(&mut self, entry: Entry) {
        self.bytes += size_of_entry(&entry);
        if let Some(replaced) = self.entries.insert(entry.log_id.index, entry) {
            self.bytes -= size_of_entry(&replaced);
        }
    }

    fn truncate(&mut self, end: u64) {
        self.bytes -= size_of_entries(&self.entries.split_off(&end));
    }

    fn purge(&mut self, last: u64) {
        let retained = self.entries.split_off(&(last + 1));
        self.bytes -= size_of_entries(&std::mem::replace(&mut self.entries, retained));
    }
}

impl LogStore {
    /// Opens the log below `metadata.log.dir`, creating it if there is none, and starts its writer on the current
    /// runtime. The writer ends when the last clone is dropped.
    ///
    /// `reserve_bytes` are kept free for it on its disk (`vltava.metadata.reserve.bytes`).
    pub async fn open(metadata_log_dir: &Path, node_id: u64, reserve_bytes: u64) -> io::Result<Self> {
        let directory = metadata_log_dir.join(LOG_DIRECTORY);
        let (disk, entries) = task::blocking(move || Disk::open(directory, node_id, reserve_bytes)).await?;
        let reserve = Arc::clone(&disk.reserve);
        let shared = Arc::new(Mutex::new(Shared::new(entries, disk.state.clone())));
        let (writes, queue) = mpsc::channel(MAX_QUEUED_WRITES);
        task::spawn(write_in_order(disk, queue));
        Ok(Self { shared, writes, reserve })
    }

    /// The room kept for this log and its snapshots.
    pub fn reserve(&self) -> &Arc<Reserve> {
        &self.reserve
    }

    /// Who this directory belongs to, and what was voted for in it.
    pub fn state(&self) -> StateFile {
        self.shared.lock().state.clone()
    }

    /// Whether nothing was ever written or voted for in this directory.
    pub fn is_pristine(&self) -> bool {
        let shared = self.shared.lock();
        shared.entries.is_empty() && shared.state.vote.is_none() && shared.state.purged.is_none()
    }

    /// If the entries in memory take more than `max` bytes: the last one of those that have to go so that `kept` bytes
    /// remain.
    pub fn oversized(&self, max: usize, kept: usize) -> Option<u64> {
        let shared = self.shared.lock();
        if shared.bytes <= max {
            return None;
        }
        let mut newer = 0;
        let too_old = |entry: &&Entry| {
            newer += size_of_entry(entry);
            newer > kept
        };
        shared.entries.values().rev().find(too_old).map(|entry| entry.log_id.index)
    }

    /// This node has become part of a cluster. Durable on return.
    pub async fn save_cluster_id(&self, cluster_id: &str) -> io::Result<()> {
        self.shared.lock().state.cluster_id = cluster_id.to_owned();
        let cluster_id = cluster_id.to_owned();
        self.write(|done| Write::ClusterId { cluster_id, done }).await
    }

    /// Queues a write and waits until it is durable.
    async fn write(&self, write: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Write) -> io::Result<()> {
        let (done, durable) = oneshot::channel();
        self.writes.send(write(done)).await.map_err(|_| writer_is_gone())?;
        durable.await.map_err(|_| writer_is_gone())?
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        if is_empty(&range) {
            return Ok(vec![]);
        }
        Ok(self.shared.lock().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.lock().state.vote)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let shared = self.shared.lock();
        let last_purged_log_id = shared.state.purged;
        let last_log_id = shared.entries.values().next_back().map(|entry| entry.log_id).or(last_purged_log_id);
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.write(|done| Write::Vote { vote, done }).await?;
        self.shared.lock().state.vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.shared.lock().state.committed = committed;
        self.writes.send(Write::Committed { committed }).await.map_err(|_| writer_is_gone())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.lock().state.committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut batches = Vec::new();
        let mut first_index = None;
        {
            let mut shared = self.shared.lock();
            for entry in entries {
                first_index.get_or_insert(entry.log_id.index);
                batches.extend_from_slice(&encode_entry(&entry));
                shared.insert(entry);
            }
        }
        let Some(first_index) = first_index else {
            flushed.io_completed(Ok(()));
            return Ok(());
        };
        let append = Write::Append { first_index, batches, flushed };
        self.writes.send(append).await.map_err(|_| writer_is_gone())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let end = last_log_id.map_or(0, |last| last.index + 1);
        self.shared.lock().truncate(end);
        self.write(|done| Write::Truncate { end, done }).await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        {
            let mut shared = self.shared.lock();
            shared.purge(log_id.index);
            shared.state.purged = Some(log_id);
        }
        self.write(|done| Write::Purge { log_id, done }).await
    }
}

/// A change of the disk. `done` and `flushed` are told once it is durable.
enum Write {
    Append { first_index: u64, batches: Vec<u8>, flushed: IOFlushed<TypeConfig> },
    Truncate { end: u64, done: oneshot::Sender<io::Result<()>> },
    Purge { log_id: LogId, done: oneshot::Sender<io::Result<()>> },
    Vote { vote: Vote, done: oneshot::Sender<io::Result<()>> },
    Committed { committed: Option<LogId> },
    ClusterId { cluster_id: String, done: oneshot::Sender<io::Result<()>> },
}

/// The writer: takes what has queued up, writes it in order, and waits for the disk as seldom as order allows.
async fn write_in_order(mut disk: Disk, mut queue: mpsc::Receiver<Write>) {
    let mut writes = Vec::new();
    while queue.recv_many(&mut writes, MAX_QUEUED_WRITES).await > 0 {
        let queued = std::mem::take(&mut writes);
        disk = task::blocking(move || {
            disk.perform(queued);
            disk
        })
        .await;
    }
}

/// What the writer owns. After the first error nothing is written any more: a disk that failed to flush may claim
/// later that all is well (trap 27).
struct Disk {
    directory: PathBuf,
    log: Log,
    reserve: Arc<Reserve>,
    state: StateFile,
    /// Entries appended and not yet flushed.
    unflushed: Vec<IOFlushed<TypeConfig>>,
    committed: Option<LogId>,
    committed_written_at: Instant,
    failure: Option<(io::ErrorKind, String)>,
}

impl Disk {
    fn open(directory: PathBuf, node_id: u64, reserve_bytes: u64) -> io::Result<(Self, BTreeMap<u64, Entry>)> {
        let reserve = Arc::new(Reserve::new(&directory, reserve_bytes));
        let config = Arc::new(LogConfig {
            segment_bytes: SEGMENT_BYTES,
            segment_ms: i64::MAX,
            retention_ms: -1,
            delete_by_retention: false,
            file_delete_delay_ms: 0,
            ..LogConfig::default()
        });
        let log = if fs::metadata(directory.join(STATE_FILE)).is_ok() {
            Self::open_log(&directory, config)?
        } else {
            remove_unused(&directory)?;
            Log::create(&directory, METADATA_TOPIC_ID, config, LogOptions::default()).map_err(io_error)?
        };
        let state = StateFile::open_or_create(&directory, node_id)?;
        let mut disk = Self {
            directory,
            log,
            reserve,
            committed: state.committed,
            state,
            unflushed: Vec::new(),
            committed_written_at: Instant::now(),
            failure: None,
        };
        disk.finish_purge()?;
        let entries = disk.read_entries()?;
        disk.check_complete(&entries)?;
        disk.reserve.take();
        Ok((disk, entries))
    }

    fn open_log(directory: &Path, config: Arc<LogConfig>) -> io::Result<Log> {
        let start = StateFile::open_or_create(directory, 0)?.purged.map_or(0, |purged| purged.index + 1);
        // No recovery point: the log is short, so every batch is checked at each start.
        let options = LogOptions { log_start_offset: offset(start), ..LogOptions::default() };
        let (log, _report) = Log::open(directory, config, options).map_err(io_error)?;
        Ok(log)
    }

    /// All entries after the last purge, in order and without gaps.
    fn read_entries(&self) -> io::Result<BTreeMap<u64, Entry>> {
        let first = self.state.purged.map_or(0, |purged| purged.index + 1);
        let reader = self.log.reader();
        let end_offset = self.log.log_end_offset();
        let mut entries = BTreeMap::new();
        let mut next = offset(first);
        while next < end_offset {
            let limits = ReadLimits { max_bytes: 4 * 1024 * 1024, end_offset, at_least_one_batch: true };
            let bytes = reader.read(next, limits).map_err(io::Error::other)?;
            let read_from = next;
            for view in batch::batches(&bytes) {
                let view = view.map_err(io::Error::other)?;
                let whole = bytes.slice(view.position..view.position + view.bytes.len());
                let entry = decode_entry(&whole, view.header.partition_leader_epoch)?;
                next = offset(entry.log_id.index + 1);
                if entry.log_id.index >= first {
                    entries.insert(entry.log_id.index, entry);
                }
            }
            if next <= read_from {
                return Err(invalid_data("the metadata log has a gap"));
            }
        }
        match entries.last_key_value() {
            Some((last, _)) if *last + 1 - first != entries.len() as u64 => {
                Err(invalid_data("the metadata log has a gap"))
            }
            _ => Ok(entries),
        }
    }

    /// A node that lost entries it has acknowledged must not go on as if it still had them.
    fn check_complete(&self, entries: &BTreeMap<u64, Entry>) -> io::Result<()> {
        let last = entries.values().next_back().map(|entry| entry.log_id).or(self.state.purged);
        if self.state.committed > last {
            return Err(invalid_data(
                "the metadata log lacks entries that were committed; \
                 remove the whole directory to have this node rejoin the quorum with an empty one",
            ));
        }
        Ok(())
    }

    fn perform(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Append { first_index, batches, flushed } => {
                    let result = self.attempt(|disk| disk.append(first_index, &batches));
                    match result {
                        Ok(()) => self.unflushed.push(flushed),
                        Err(error) => flushed.io_completed(Err(error)),
                    }
                }
                Write::Truncate { end, done } => self.flush_then(done, |disk| {
                    disk.log.truncate_to(offset(end)).map_err(io_error)?;
                    disk.log.flush().map_err(io_error)
                }),
                Write::Purge { log_id, done } => self.flush_then(done, |disk| {
                    disk.state.purged = Some(log_id);
                    disk.write_state()?;
                    disk.finish_purge()
                }),
                Write::Vote { vote, done } => self.flush_then(done, |disk| {
                    disk.state.vote = Some(vote);
                    disk.write_state()
                }),
                Write::Committed { committed } => self.committed = committed,
                Write::ClusterId { cluster_id, done } => self.flush_then(done, |disk| {
                    disk.state.cluster_id.clone_from(&cluster_id);
                    disk.write_state()
                }),
            }
        }
        self.flush();
        if self.committed > self.state.committed && self.committed_written_at.elapsed() > COMMITTED_WRITE_INTERVAL {
            // A failure is remembered, and reported to whoever writes next.
            let _ = self.attempt(Self::write_state);
        }
        self.reserve.take();
    }

    fn flush_then(&mut self, done: oneshot::Sender<io::Result<()>>, change: impl FnMut(&mut Self) -> io::Result<()>) {
        self.flush();
        let result = self.attempt(change);
        // Nobody waits if Raft was stopped meanwhile.
        let _ = done.send(result);
    }

    /// Waits for the disk and reports everything appended so far.
    fn flush(&mut self) {
        if self.unflushed.is_empty() {
            return;
        }
        let result = self.attempt(|disk| match mutation::is_off("trap-13") {
            true => Ok(()),
            false => disk.log.flush().map_err(io_error),
        });
        for flushed in std::mem::take(&mut self.unflushed) {
            flushed.io_completed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            });
        }
    }

    fn append(&mut self, first_index: u64, batches: &[u8]) -> io::Result<()> {
        let start = offset(first_index);
        if self.log.log_end_offset() != start && self.log.log_start_offset() == self.log.log_end_offset() {
            // An empty log may begin anywhere: after a snapshot.
            self.log.truncate_fully_and_start_at(start).map_err(io_error)?;
        }
        match self.log.append_as_leader(batches) {
            Err(error) if error.is_full() && self.reserve.release() => {
                // Those that fitted are in the log.
                let rest = batches_from(batches, self.log.log_end_offset());
                self.log.append_as_leader(rest).map(|_| ()).map_err(io_error)
            }
            outcome => outcome.map(|_| ()).map_err(io_error),
        }
    }

    /// Removes what the state file says is purged.
    fn finish_purge(&mut self) -> io::Result<()> {
        let Some(purged) = self.state.purged else {
            return Ok(());
        };
        let start = offset(purged.index + 1);
        if self.log.log_end_offset() < start {
            self.log.truncate_fully_and_start_at(start).map_err(io_error)?;
            return Ok(());
        }
        self.log.advance_log_start_offset(start).map_err(io_error)?;
        self.log.delete_old_segments(clock::now(), start).map_err(io_error)?;
        self.log.remove_deleted_files(clock::now()).map_err(io_error)
    }

    fn write_state(&mut self) -> io::Result<()> {
        // Never more than the log holds: what a crash takes away must not have been called committed here.
        let last = self.log.log_end_offset();
        if self.committed.is_none_or(|committed| offset(committed.index) < last) {
            self.state.committed = self.committed;
        }
        self.committed_written_at = Instant::now();
        self.state.write(&self.directory)
    }

    /// Whatever lacks only room has changed nothing, and is tried again with the reserve.
    fn attempt(&mut self, mut change: impl FnMut(&mut Self) -> io::Result<()>) -> io::Result<()> {
        if let Some((kind, message)) = &self.failure {
            return Err(io::Error::new(*kind, message.clone()));
        }
        let reserve = Arc::clone(&self.reserve);
        reserve.with_room(|| change(self)).inspect_err(|error| {
            tracing::error!(directory = %self.directory.display(), %error, "the metadata log failed");
            self.failure = Some((error.kind(), error.to_string()));
        })
    }
}

/// A crash while the directory was created can leave it without an identity. It was never used then; entries without
/// an identity are somebody's mistake, and not ours to remove.
fn remove_unused(directory: &Path) -> io::Result<()> {
    let files = match fs::read_dir(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for file in files {
        let file = file?;
        if file.path().extension().is_some_and(|extension| extension == "log") && file.metadata()?.len() > 0 {
            return Err(invalid_data("the metadata log has entries, but its quorum-state file is missing"));
        }
    }
    fs::remove_dir_all(directory)
}

/// What an entry takes in memory, about.
fn size_of_entry(entry: &Entry) -> usize {
    let records = match &entry.payload {
        Payload::Normal(set) => set.records.len(),
        Payload::Membership(_) | Payload::Blank => 0,
    };
    size_of::<Entry>() + records
}

fn size_of_entries(entries: &BTreeMap<u64, Entry>) -> usize {
    entries.values().map(size_of_entry).sum()
}

fn encode_entry(entry: &Entry) -> Bytes {
    let term = i32::try_from(term_of(&entry.log_id)).expect("terms stay far below 2^31");
    let mut builder = BatchBuilder::new().base_offset(offset(entry.log_id.index)).leader_epoch(LeaderEpoch(term));
    builder.append(clock::now(), None, Some(&encode_payload(&entry.payload)), &[]);
    builder.build()
}

fn decode_entry(batch: &Bytes, leader_epoch: LeaderEpoch) -> io::Result<Entry> {
    let record = batch::records(batch, usize::MAX)
        .map_err(io::Error::other)?
        .next()
        .ok_or_else(|| invalid_data("an empty batch in the metadata log"))?
        .map_err(io::Error::other)?;
    let payload = decode_payload(record.value.ok_or_else(|| invalid_data("an empty entry in the metadata log"))?)?;
    let term = u64::try_from(leader_epoch.value()).map_err(|_| invalid_data("an entry without a term"))?;
    let index = u64::try_from(record.offset.value()).map_err(|_| invalid_data("an entry without an index"))?;
    Ok(Entry { log_id: log_id(term, index), payload })
}

fn offset(index: u64) -> Offset {
    Offset(i64::try_from(index).expect("an index stays below 2^63"))
}

/// A lack of room keeps its kind.
fn io_error(error: StorageError) -> io::Error {
    let kind = if error.is_full() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

/// Those that begin at `offset` or later.
fn batches_from(bytes: &[u8], offset: Offset) -> &[u8] {
    let mut views = batch::batches(bytes).map_while(Result::ok);
    views.find(|view| view.header.base_offset >= offset).map_or(&[], |view| &bytes[view.position..])
}

/// `BTreeMap::range` panics on these.
fn is_empty(range: &impl RangeBounds<u64>) -> bool {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    match range.end_bound() {
        Bound::Included(end) => *end < start,
        Bound::Excluded(end) => *end <= start,
        Bound::Unbounded => false,
    }
}

fn invalid_data(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn writer_is_gone() -> io::Error {
    io::Error::other("the metadata log has been closed")
}

#[cfg(test)]
mod tests {
    use openraft::async_runtime::oneshot::Oneshot as _;
    use openraft::testing::log::{StoreBuilder, Suite};
    use openraft::{RaftTypeConfig, StorageError};
    use tempfile::TempDir;
    use tokio::sync::watch;
    use vltava_metadata::ClusterImage;

    use super::*;
    use crate::state_machine::StateMachine;
    use crate::types::{Payload, RecordSet};

    /// OpenRaft's own tests of the storage contract, each in a directory of its own.
    struct InTemporaryDirectory;

    impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for InTemporaryDirectory {
        async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let log_store = LogStore::open(directory.path(), 1, 0).await.expect("a new log");
            let (images, _) = watch::channel(Arc::new(ClusterImage::default()));
            let state_machine = StateMachine::open(directory.path(), images, Arc::clone(log_store.reserve()))
                .await
                .expect("no snapshot");
            Ok((directory, log_store, state_machine))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn keeps_the_contract_of_raft_storage() {
        Suite::test_all(InTemporaryDirectory).await.expect("the contract is kept");
    }

    fn entry(term: u64, index: u64) -> Entry {
        let records = Bytes::from(format!("records of {term}-{index}"));
        Entry { log_id: log_id(term, index), payload: Payload::Normal(RecordSet { term, records }) }
    }

    async fn open(directory: &Path) -> LogStore {
        LogStore::open(directory, 1, 0).await.expect("the log opens")
    }

    /// Appends and waits until it is durable.
    async fn append(store: &mut LogStore, entries: impl IntoIterator<Item = Entry> + Send) -> io::Result<()> {
        type Oneshot = <<TypeConfig as RaftTypeConfig>::AsyncRuntime as openraft::AsyncRuntime>::Oneshot;
        let entries: Vec<_> = entries.into_iter().collect();
        let (done, durable) = Oneshot::channel();
        store.append(entries, IOFlushed::signal(done)).await?;
        durable.await.expect("the writer answers")
    }

    async fn indexes(store: &mut LogStore) -> Vec<(u64, u64)> {
        let entries = store.try_get_log_entries(0..1000).await.expect("readable");
        entries.iter().map(|entry| (term_of(&entry.log_id), entry.log_id.index)).collect()
    }

    fn segment(directory: &Path) -> PathBuf {
        directory.join(LOG_DIRECTORY).join("00000000000000000000.log")
    }

    #[tokio::test]
    async fn everything_answered_is_there_after_reopening() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = open(directory.path()).await;
        assert!(store.is_pristine());
        let identity = store.state().directory_id;
        store.save_vote(&Vote::new_committed(2, 1)).await.expect("saved");
        append(&mut store, (0..5).map(|index| entry(1, index))).await.expect("appended");
        append(&mut store, [entry(2, 5)]).await.expect("appended");
        store.truncate_after(Some(log_id(1, 3))).await.expect("truncated");
        append(&mut store, [entry(2, 4), entry(2, 5)]).await.expect("appended");
        store.save_cluster_id("a-cluster").await.expect("saved");
        drop(store);

        let mut store = open(directory.path()).await;
        assert_eq!(indexes(&mut store).await, [(1, 0), (1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]);
        assert_eq!(store.read_vote().await.expect("readable"), Some(Vote::new_committed(2, 1)));
        assert_eq!(store.state().directory_id, identity);
        assert_eq!(store.state().cluster_id, "a-cluster");
        assert!(!store.is_pristine());
        let entries = store.try_get_log_entries(4..=4).await.expect("readable");
        assert_eq!(entries, [entry(2, 4)]);
    }

    #[tokio::test]
    async fn what_entries_take_in_memory_is_known() {
        let sized = |index, length| {
            let records = Bytes::from(vec![0; length]);
            Entry { log_id: log_id(1, index), payload: Payload::Normal(RecordSet { term: 1, records }) }
        };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = open(directory.path()).await;
        append(&mut store, (0..10).map(|index| sized(index, 10_000))).await.expect("appended");
        assert_eq!(store.oversized(110_000, 25_000), None);
        assert_eq!(store.oversized(100_000, 25_000), Some(7));
        assert_eq!(store.oversized(100_000, 0), Some(9));
        store.truncate_after(Some(log_id(1, 8))).await.expect("truncated");
        assert_eq!(store.oversized(100_000, 25_000), None);
        assert_eq!(store.oversized(90_000, 25_000), Some(6));
        store.purge(log_id(1, 6)).await.expect("purged");
        assert_eq!(store.oversized(90_000, 25_000), None);
        assert_eq!(store.oversized(20_000, 15_000), Some(7));
        drop(store);
        assert_eq!(open(directory.path()).await.oversized(20_000, 15_000), Some(7));
    }

    #[tokio::test]
    async fn a_torn_write_costs_only_what_was_never_answered() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = open(directory.path()).await;
        append(&mut store, (0..3).map(|index| entry(1, index))).await.expect("appended");
        drop(store);
        let whole = fs::read(segment(directory.path())).expect("the segment");
        let batch = encode_entry(&entry(1, 3));
        // The last byte is a zero, which the space after it would complete.
        for length in [0, 1, 11, 12, 60, 61, batch.len() - 2] {
            let mut torn = whole.clone();
            torn.extend_from_slice(&batch[..length]);
            // Space that the file system had allocated and not written.
            torn.extend_from_slice(&[0; 100]);
            fs::write(segment(directory.path()), torn).expect("written");
            let mut store = open(directory.path()).await;
            assert_eq!(indexes(&mut store).await, [(1, 0), (1, 1), (1, 2)], "torn at {length}");
            append(&mut store, [entry(2, 3)]).await.expect("the log goes on");
            assert_eq!(indexes(&mut store).await.last(), Some(&(2, 3)));
        }
    }

    #[tokio::test]
    async fn a_purge_survives_and_is_completed_after_a_crash() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = open(directory.path()).await;
        append(&mut store, (0..10).map(|index| entry(1, index))).await.expect("appended");
        store.purge(log_id(1, 6)).await.expect("purged");
        drop(store);
        let mut store = open(directory.path()).await;
        assert_eq!(indexes(&mut store).await, [(1, 7), (1, 8), (1, 9)]);
        drop(store);

        // Recorded in the state file, and then the power failed: a snapshot from far ahead.
        let log_directory = directory.path().join(LOG_DIRECTORY);
        let mut state = StateFile::open_or_create(&log_directory, 1).expect("readable");
        state.purged = Some(log_id(3, 50));
        state.write(&log_directory).expect("written");
        let mut store = open(directory.path()).await;
        let log_state = store.get_log_state().await.expect("readable");
        assert_eq!((log_state.last_purged_log_id, log_state.last_log_id), (Some(log_id(3, 50)), Some(log_id(3, 50))));
        append(&mut store, [entry(3, 51)]).await.expect("the log goes on behind the snapshot");
        drop(store);
        assert_eq!(indexes(&mut open(directory.path()).await).await, [(3, 51)]);
    }

    #[tokio::test]
    async fn lost_entries_are_not_passed_over() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = open(directory.path()).await;
        append(&mut store, (0..3).map(|index| entry(1, index))).await.expect("appended");
        drop(store);
        let log_directory = directory.path().join(LOG_DIRECTORY);
        let mut state = StateFile::open_or_create(&log_directory, 1).expect("readable");
        state.committed = Some(log_id(1, 7));
        state.write(&log_directory).expect("written");
        let refused = LogStore::open(directory.path(), 1, 0).await.err().expect("refused");
        assert!(refused.to_string().contains("lacks entries that were committed"), "{refused}");
    }

    #[tokio::test]
    async fn a_log_without_its_identity_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut store = open(directory.path()).await;
        append(&mut store, [entry(1, 0)]).await.expect("appended");
        drop(store);
        fs::remove_file(directory.path().join(LOG_DIRECTORY).join(STATE_FILE)).expect("removed");
        assert!(LogStore::open(directory.path(), 1, 0).await.is_err());
    }
}
