//! Moving a log to another log directory while it is in use (AlterReplicaLogDirs): Kafka's future logs.
//!
//! `<topic>-<partition>.<uuid>-future` is filled beside the log, like a follower of it. Once it holds all, nothing is
//! appended for a moment, it takes the partition's name, and the old directory is deleted.
//!
//! A crash before the renaming leaves an unfinished future log, which is begun again. A crash after it leaves two logs
//! with the partition's name: the new one carries a file that says whose place it has taken, until the old one is gone.

use std::path::Path;
use std::sync::atomic::Ordering;

use vltava_host::{fs, random};
use vltava_protocol::batch::batches;
use vltava_types::{DirectoryId, LeaderEpoch, Offset, Uuid};

use crate::error::AtPath;
use crate::{Log, LogDir, LogOptions, LogReader, PartitionName, ReadLimits, StorageError};

pub(crate) const FUTURE_SUFFIX: &str = "-future";

/// In a log that has taken another one's place: the id of the directory in which that one lies.
const REPLACES_FILE: &str = "vltava-replaces";

/// A log that is being moved: its copy in the other directory.
#[derive(Debug)]
pub struct FutureLog {
    log: Log,
    /// The source's truncations, as of the last look: after another one, what was copied may not be there any more.
    truncations_seen: u64,
}

/// What [`FutureLog::copy`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    Bytes(u64),
    /// The copy holds all that the source did.
    Everything,
}

impl FutureLog {
    #[must_use]
    pub const fn log_end_offset(&self) -> Offset {
        self.log.log_end_offset()
    }

    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.log.size_bytes()
    }

    /// Copies about so many bytes of what the source has and the copy has not. `truncations` belong to `source`: see
    /// [`Log::truncation_count`].
    pub fn copy(&mut self, source: &LogReader, truncations: u64, max_bytes: usize) -> Result<Copied, StorageError> {
        let start = source.log_start_offset();
        if self.truncations_seen != truncations {
            self.log.truncate_fully_and_start_at(start)?;
            self.truncations_seen = truncations;
        }
        if self.log.log_end_offset() < start {
            self.log.truncate_fully_and_start_at(start)?;
        }
        if self.log.log_end_offset() >= source.log_end_offset() {
            return Ok(Copied::Everything);
        }
        let limits = ReadLimits { max_bytes, end_offset: source.log_end_offset(), at_least_one_batch: true };
        let bytes = source.read(self.log.log_end_offset(), limits)?;
        let Some(Ok(first)) = batches(&bytes).next() else {
            return Ok(Copied::Everything);
        };
        if first.header.base_offset < self.log.log_end_offset() {
            // The source begins within a batch.
            self.log.truncate_fully_and_start_at(first.header.base_offset)?;
        }
        self.log.append_as_follower(&bytes)?;
        self.log.advance_log_start_offset(start)?;
        Ok(Copied::Bytes(bytes.len() as u64))
    }
}

impl LogDir {
    /// Begins a copy of a log of another directory.
    pub fn create_future(&self, partition: &PartitionName, source: &Log) -> Result<FutureLog, StorageError> {
        let uuid = u128::from_be_bytes(Uuid::from_random(random::bytes()).0);
        let directory = self.path().join(format!("{partition}.{uuid:032x}{FUTURE_SUFFIX}"));
        let options = LogOptions { log_start_offset: source.log_start_offset(), ..LogOptions::default() };
        let log = Log::create(&directory, source.topic_id(), source.config().clone(), options)?;
        Ok(FutureLog { log, truncations_seen: source.truncation_count() })
    }

    /// Gives a copy up.
    pub fn remove_future(&self, future: FutureLog) -> Result<(), StorageError> {
        let directory = future.log.directory.clone();
        drop(future);
        fs::remove_dir_all(&directory).at(&directory)
    }

    /// Puts a copy that holds everything into the place of `source`, which nobody appends to from now on. Durable on
    /// return. The caller deletes the source, and calls [`LogDir::forget_replaced`] then. After an error the source stands.
    pub fn take_over(
        &self,
        future: FutureLog,
        partition: &PartitionName,
        source: &Log,
        source_directory: DirectoryId,
        high_watermark: Offset,
    ) -> Result<Log, StorageError> {
        assert_eq!(future.log_end_offset(), source.log_end_offset(), "the copy holds everything");
        let (from, to) = (future.log.directory.clone(), self.path().join(partition.to_string()));
        let options = LogOptions {
            log_start_offset: source.log_start_offset(),
            recovery_point: source.log_end_offset(),
            high_watermark,
            clean_shutdown: true,
            recovery_points: Some(self.recovery_points_of(partition)),
            ..LogOptions::default()
        };
        self.prepare(future, partition, source, source_directory, &options)
            .and_then(|()| fs::rename(&from, &to).at(&from))
            .inspect_err(|_| {
                let _ = fs::remove_dir_all(&from);
            })?;
        let opened = fs::sync_dir(self.path()).at(self.path()).and_then(|()| {
            let (mut log, _) = Log::open(&to, source.config().clone(), options)?;
            // Epochs without a record are not in the copy.
            log.replace_epochs(source.epochs().clone())?;
            // What is under way on the source says nothing about this log: flushes by the count that they compare with,
            // reads and compactions by the one that they hold on to.
            log.truncations.store(source.truncation_count() + 1, Ordering::Release);
            source.truncations.fetch_add(1, Ordering::AcqRel);
            Ok(log)
        });
        opened.inspect_err(|_| {
            // The source goes on: what stands here now must not be taken for newer at the next start.
            let _ = fs::remove_dir_all(&to);
        })
    }

    /// Makes the copy such that it can be opened as if it had been shut down cleanly.
    fn prepare(
        &self,
        future: FutureLog,
        partition: &PartitionName,
        source: &Log,
        source_directory: DirectoryId,
        options: &LogOptions,
    ) -> Result<(), StorageError> {
        let FutureLog { mut log, .. } = future;
        // Producers are remembered for longer than their records.
        *log.producers_mut() = source.producers().clone();
        log.close()?;
        self.write_checkpoints(partition, options)?;
        let marker = log.directory.join(REPLACES_FILE);
        fs::write_atomically(&marker, source_directory.to_string().as_bytes()).unless_full(&marker)
    }

    /// The log whose place this one has taken is gone.
    pub fn forget_replaced(&self, partition: &PartitionName) -> Result<(), StorageError> {
        let path = self.path().join(partition.to_string()).join(REPLACES_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(&path),
            _ => Ok(()),
        }
    }
}

/// The directory that holds the log whose place this one has taken, if that may still be there.
pub(crate) fn replaces(directory: &Path) -> Option<DirectoryId> {
    let text = fs::read_to_string(directory.join(REPLACES_FILE)).ok()?;
    text.trim().parse().ok().map(DirectoryId)
}

/// The partition that a future log was to become.
pub(crate) fn future_of(directory: &Path) -> Option<PartitionName> {
    let name = directory.file_name()?.to_str()?.strip_suffix(FUTURE_SUFFIX)?;
    name.rsplit_once('.')?.0.parse().ok()
}

/// A log found at start-up, as far as it matters when there is another one of the same partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rival {
    pub directory_id: DirectoryId,
    /// Whose place it has taken.
    pub replaces: Option<DirectoryId>,
    pub latest_epoch: LeaderEpoch,
    pub log_end_offset: Offset,
}

/// Whether `rival` is to be used rather than `found`: if it has taken its place, or, where neither says so, if it goes
/// further.
#[must_use]
pub fn is_newer(rival: &Rival, found: &Rival) -> bool {
    let has_taken = |one: &Rival, other: &Rival| one.replaces == Some(other.directory_id);
    match (has_taken(rival, found), has_taken(found, rival)) {
        (true, false) => true,
        (false, true) => false,
        _ => (rival.latest_epoch, rival.log_end_offset) > (found.latest_epoch, found.log_end_offset),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vltava_types::{DirectoryId, LeaderEpoch, Offset, PartitionIndex, Uuid};

    use super::{Rival, future_of, is_newer};
    use crate::PartitionName;

    fn rival(id: u8, replaces: Option<u8>, epoch: i32, end: i64) -> Rival {
        let directory = |id| DirectoryId(Uuid([id; 16]));
        Rival {
            directory_id: directory(id),
            replaces: replaces.map(directory),
            latest_epoch: LeaderEpoch(epoch),
            log_end_offset: Offset(end),
        }
    }

    #[test]
    fn of_two_logs_the_one_that_took_the_place_counts_and_else_the_longer_one() {
        let check = |one: Rival, other: Rival| {
            assert!(is_newer(&one, &other), "{one:?} {other:?}");
            assert!(!is_newer(&other, &one), "{one:?} {other:?}");
        };
        // It may have been truncated since.
        check(rival(1, Some(2), 3, 10), rival(2, None, 3, 20));
        check(rival(1, None, 3, 20), rival(2, None, 3, 10));
        check(rival(1, None, 4, 10), rival(2, None, 3, 20));
        check(rival(1, Some(3), 3, 20), rival(2, None, 3, 10));
        assert!(!is_newer(&rival(1, None, 3, 10), &rival(2, None, 3, 10)), "the first one is as good");
    }

    #[test]
    fn future_directories_name_their_partition() {
        let name = format!("/data/my.topic-7.{:032x}-future", 42);
        assert_eq!(future_of(Path::new(&name)), Some(PartitionName::new("my.topic", PartitionIndex(7))));
        assert_eq!(future_of(Path::new("/data/my.topic-7")), None);
    }
}
