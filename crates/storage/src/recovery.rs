//! Opening a log: what can be trusted, what is scanned again, and where the log ends.
//!
//! After a clean shutdown, and below the recovery point, batches are trusted and indexes are spot-checked. From the
//! recovery point on, every batch is read and checked, and the log is cut at the first one that is not whole: what
//! follows was never acknowledged as durable. The indexes of what was scanned are written anew. The walk starts at the
//! last index entry below the recovery point if that leads to a valid batch, and at the start of the segment otherwise,
//! so that recovery reads what was not flushed and little more.

mod producers;
mod rebuild;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vltava_host::fs;
use vltava_protocol::batch::{BatchHeader, HEADER_SIZE};
use vltava_replication::{EpochCache, EpochEntry};
use vltava_types::{LeaderEpoch, Offset};

use crate::cleaner::finish_interrupted_swaps;
use crate::epoch_checkpoint::EpochCheckpoint;
use crate::error::AtPath;
use crate::log::{ActiveSegment, UnflushedFile, unless_full};
use crate::presence::Presence;
use crate::scan::Scan;
use crate::segment::{
    DELETED_SUFFIX, LOG_SUFFIX, OFFSET_INDEX_SUFFIX, SNAPSHOT_SUFFIX, Segment, TIME_INDEX_SUFFIX, file_path,
};
use crate::{LoadProgress, Log, LogConfig, LogOptions, StorageError, partition_metadata};

pub(crate) use producers::load_producers;
use producers::remove_stray_snapshots;

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of log that were read and checked by CRC.
    pub bytes_scanned: u64,
    /// Bytes that were cut off behind the last valid batch.
    pub bytes_cut: u64,
    /// Segments whose indexes were rebuilt, as a whole or from the recovery point on.
    pub indexes_rebuilt: usize,
    /// The log ends below this offset, which was known to be committed here (the checkpointed high watermark) or on
    /// disk (the checkpointed recovery point): the disk lost data. The replica must not count as in sync, nor be
    /// elected, until it has caught up (traps 12, 26).
    pub lost_below: Option<Offset>,
}

impl Log {
    /// Opens an existing log, recovering it as far as `options` require. Everything that is kept is on disk on return, or
    /// after the next flush if that was put off.
    pub fn open(
        directory: &Path,
        config: Arc<LogConfig>,
        options: LogOptions,
    ) -> Result<(Self, RecoveryReport), StorageError> {
        if options.distrusts_cache {
            drop_caches(directory)?;
        }
        let topic_id = partition_metadata::read(directory)?.unwrap_or_default();
        finish_interrupted_swaps(directory)?;
        let contents = Contents::read(directory)?;
        let epoch_checkpoint = Arc::new(EpochCheckpoint::new(directory));
        let checkpointed_epochs = epoch_checkpoint.read()?;
        let mut recovery = Recovery {
            directory,
            interval: config.index_interval_bytes,
            clean_shutdown: options.clean_shutdown,
            progress: options.progress,
            recovery_point: options.recovery_point.max(options.log_start_offset),
            epochs_are_missing: checkpointed_epochs.is_none(),
            checkpointed_epochs: checkpointed_epochs.clone().unwrap_or_default(),
            epochs: EpochCache::default(),
            report: RecoveryReport::default(),
            segments: Vec::new(),
            first_scanned: None,
            has_removed: false,
            end_offset: Offset(0),
            bytes_since_index_entry: 0,
        };
        recovery.recover_segments(&contents.segments)?;

        // A log that ends before its start holds nothing that may be read.
        let starts_beyond_end = recovery.end_offset < options.log_start_offset;
        let starts_over = recovery.segments.is_empty() || starts_beyond_end;
        if starts_over {
            recovery.start_over(options.log_start_offset)?;
        }
        let log_start_offset = options.log_start_offset.max(recovery.segments[0].base_offset);
        recovery.restore_first_epochs(log_start_offset)?;
        let Recovery { mut epochs, mut report, segments, first_scanned, has_removed, .. } = recovery;
        let (log_end_offset, bytes_since_index_entry) = (recovery.end_offset, recovery.bytes_since_index_entry);
        let known_offset = options.high_watermark.max(options.recovery_point);
        report.lost_below = (log_end_offset < known_offset).then_some(known_offset);

        epochs.truncate_from_end(log_end_offset);
        epochs.truncate_from_start(log_start_offset);
        // What it says beyond the log end is dropped at each opening, and need not go from the file.
        let epochs_changed = checkpointed_epochs.is_none_or(|mut checkpointed| {
            checkpointed.truncate_from_end(log_end_offset);
            checkpointed != epochs
        });
        let mut snapshots = contents.snapshots;
        let producers = load_producers(directory, &mut snapshots, &segments, log_end_offset)?;
        remove_stray_snapshots(directory, &mut snapshots, &segments)?;
        let is_empty = segments.len() == 1 && segments[0].size() == 0;
        let has_snapshot = snapshots.last() == Some(&log_end_offset);
        let is_complete = is_empty || (options.clean_shutdown && has_snapshot && report == RecoveryReport::default());

        let active = segments.last().expect("there is a segment");
        let active = ActiveSegment {
            bytes_since_index_entry,
            first_timestamp: active.first_timestamp()?,
            ..ActiveSegment::new(&config)
        };
        let mut log = Self {
            directory: directory.to_owned(),
            topic_id,
            config,
            segments: Arc::new(segments),
            active,
            log_start_offset,
            recovery_point: options.recovery_point.clamp(log_start_offset, log_end_offset),
            log_end_offset,
            epochs,
            epoch_checkpoint,
            epochs_version: 1,
            epochs_written: u64::from(!epochs_changed),
            has_empty_epoch: false,
            is_complete,
            producers,
            snapshots,
            truncations: Arc::new(AtomicU64::new(0)),
            presence: Presence::default(),
            unflushed: Vec::new(),
            directory_version: 1,
            directory_flushed: 0,
            deleted: Vec::new(),
            recovery_points: options.recovery_points,
        };
        // Without a clean shutdown, what was just read may be in the page cache only, and so may be that something was cut off:
        // even a log that ends where it was flushed may be longer on the disk.
        let is_unchanged = !starts_over && !has_removed && report.bytes_cut == 0 && first_scanned.is_none();
        if options.clean_shutdown && is_unchanged {
            log.recovery_point = log_end_offset;
            log.directory_flushed = log.directory_version;
        } else {
            log.note_recovered(first_scanned);
            if !options.defer_flush {
                log.flush()?;
            }
        }
        // Most logs rest, and start-up opens all of them.
        log.close_files();
        Ok((log, report))
    }

    /// What was just read may be in the page cache only, if it was the process that crashed and not the machine.
    fn note_recovered(&mut self, first_scanned: Option<usize>) {
        // The last index entry of a segment that ends at the recovery point was written when it was sealed, after that.
        let after = self.segments.partition_point(|segment| segment.base_offset < self.recovery_point);
        let first = first_scanned.unwrap_or(usize::MAX).min(after.saturating_sub(1));
        for segment in &self.segments[first..] {
            for file in segment.files() {
                self.unflushed.push(UnflushedFile { file: Arc::clone(file), version: 1 });
            }
        }
    }
}

/// The files of a log's directory.
struct Contents {
    segments: BTreeSet<Offset>,
    snapshots: BTreeSet<Offset>,
}

impl Contents {
    /// Lists the directory, and removes what an interrupted deletion or write has left.
    fn read(directory: &Path) -> Result<Self, StorageError> {
        let mut segments = BTreeSet::new();
        let mut snapshots = BTreeSet::new();
        let mut indexes = BTreeSet::new();
        for entry in fs::read_dir(directory).at(directory)? {
            let path = entry.at(directory)?.path();
            let Some((stem, suffix)) = path.file_name().and_then(|name| name.to_str()?.split_once('.')) else {
                continue;
            };
            if suffix.ends_with(DELETED_SUFFIX) || suffix.ends_with("tmp") {
                fs::remove_file(&path).at(&path)?;
                continue;
            }
            if stem.len() != 20 {
                continue;
            }
            let Ok(base_offset) = stem.parse().map(Offset) else { continue };
            match suffix {
                LOG_SUFFIX => segments.insert(base_offset),
                SNAPSHOT_SUFFIX => snapshots.insert(base_offset),
                OFFSET_INDEX_SUFFIX | TIME_INDEX_SUFFIX => indexes.insert(base_offset),
                _ => continue,
            };
        }
        for orphan in indexes.difference(&segments) {
            for suffix in [OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
                remove_if_present(&file_path(directory, *orphan, suffix))?;
            }
        }
        Ok(Self { segments, snapshots })
    }
}

/// The recovery of one log under way.
struct Recovery<'a> {
    directory: &'a Path,
    interval: u32,
    clean_shutdown: bool,
    progress: LoadProgress,
    recovery_point: Offset,
    /// The checkpoint was missing or malformed, so that even trusted segments are walked for their epochs.
    epochs_are_missing: bool,
    checkpointed_epochs: EpochCache,
    /// Up to the end of what is recovered so far: from the checkpoint for what is trusted, from the batches for what is not.
    epochs: EpochCache,
    report: RecoveryReport,
    /// Those recovered so far.
    segments: Vec<Arc<Segment>>,
    /// The first of them whose indexes were rebuilt.
    first_scanned: Option<usize>,
    /// Whether segments were removed that do not belong to the log.
    has_removed: bool,
    /// Where they end.
    end_offset: Offset,
    /// In the last of them.
    bytes_since_index_entry: u64,
}

impl Recovery<'_> {
    fn recover_segments(&mut self, base_offsets: &BTreeSet<Offset>) -> Result<(), StorageError> {
        let mut rest = base_offsets.iter().copied().peekable();
        while let Some(base_offset) = rest.next() {
            let segment = Segment::open(self.directory, base_offset)?;
            if self.is_torn_off(&segment)? {
                return self.remove_unreachable(std::iter::once(base_offset).chain(rest));
            }
            let next = rest.peek().copied();
            let is_flushed = next.is_some_and(|next| next <= self.recovery_point);
            let is_trusted = (self.clean_shutdown || is_flushed) && self.trust(&segment, next)?;
            if !is_trusted {
                self.first_scanned.get_or_insert(self.segments.len());
                if let Some(position) = self.scan(&segment, is_flushed)? {
                    // First, and on disk: where a part of it came back, there would be a gap below the recovery point, which
                    // the next start takes for the work of compaction.
                    self.remove_unreachable(rest)?;
                    segment.cut(position)?;
                    self.segments.push(Arc::new(segment));
                    return Ok(());
                }
            }
            if next.is_some() {
                // Without room for its last entry the index is built again at the next start.
                unless_full(segment.seal())?;
            }
            self.segments.push(Arc::new(segment));
        }
        Ok(())
    }

    /// What follows a cut cannot be reached without a gap. Durable on return.
    fn remove_unreachable(&mut self, base_offsets: impl Iterator<Item = Offset>) -> Result<(), StorageError> {
        let unreachable: Vec<_> = base_offsets.collect();
        for base_offset in unreachable.iter().rev() {
            let path = file_path(self.directory, *base_offset, LOG_SUFFIX);
            self.report.bytes_cut += fs::metadata(&path).at(&path)?.len();
            remove_segment_files(self.directory, *base_offset)?;
        }
        if !unreachable.is_empty() {
            self.has_removed = true;
            fs::sync_dir(self.directory).at(self.directory)?;
        }
        Ok(())
    }

    /// Whether a crash has torn this segment from the one before it. It begins where that one ends; but
    /// - below the recovery point nothing can be missing, and Kafka's compaction may have left a gap;
    /// - a gap that is too wide for a segment was appended.
    ///
    /// If it begins later otherwise, the end of the other never reached the disk, and nothing but this tells of it. If it
    /// begins earlier, the log was about to start over there.
    fn is_torn_off(&self, segment: &Segment) -> Result<bool, StorageError> {
        if self.segments.is_empty() || segment.base_offset == self.end_offset {
            return Ok(false);
        }
        if segment.base_offset < self.end_offset {
            return Ok(true);
        }
        if self.clean_shutdown || segment.base_offset <= self.recovery_point {
            return Ok(false);
        }
        match segment.scan(0, segment.size(), HEADER_SIZE).next() {
            Ok(Some(first)) => Ok(first.header.last_offset().value() - self.end_offset.value() <= i64::from(i32::MAX)),
            Ok(None) | Err(StorageError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether a flushed segment looks right, without reading all of it. `next` is where the one after it begins.
    fn trust(&mut self, segment: &Segment, next: Option<Offset>) -> Result<bool, StorageError> {
        if segment.base_offset < self.end_offset {
            return Ok(false);
        }
        let checked = segment.walk_tail(self.interval).and_then(|tail| Ok((tail, segment.time_index_fits()?)));
        let tail = match checked {
            Ok((tail, true)) if tail.index_fits => tail,
            Ok(_) | Err(StorageError::Corrupt { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        if !self.ends_where_it_should(segment, tail.end_offset, next)? {
            return Ok(false);
        }
        if self.epochs_are_missing {
            let mut scan = segment.scan(0, segment.size(), Scan::LONG);
            loop {
                match scan.next() {
                    Ok(Some(batch)) => self.note_epoch(&batch.header),
                    Ok(None) => break,
                    Err(StorageError::Corrupt { .. }) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        }
        self.trust_epochs_below(tail.end_offset);
        self.end_offset = tail.end_offset;
        self.bytes_since_index_entry = tail.bytes_since_index_entry;
        Ok(true)
    }

    /// A damaged header may say that the last batch ends elsewhere. Then what comes after would be taken for torn off.
    fn ends_where_it_should(
        &self,
        segment: &Segment,
        end_offset: Offset,
        next: Option<Offset>,
    ) -> Result<bool, StorageError> {
        let expected = next.or((segment.base_offset < self.recovery_point).then_some(self.recovery_point));
        match expected {
            // Kafka's compaction leaves such gaps.
            Some(expected) if end_offset < expected && next.is_some() => {
                match segment.check_passed_over(Offset(i64::MAX), segment.size()) {
                    Err(StorageError::Corrupt { .. }) => Ok(false),
                    checked => checked.map(|()| true),
                }
            }
            Some(expected) => Ok(end_offset == expected),
            None => Ok(true),
        }
    }

    /// Replaces whatever there is by an empty segment.
    fn start_over(&mut self, base_offset: Offset) -> Result<(), StorageError> {
        while let Some(segment) = self.segments.pop() {
            self.report.bytes_cut += segment.size();
            remove_segment_files(self.directory, segment.base_offset)?;
        }
        self.segments.push(Arc::new(Segment::open(self.directory, base_offset)?));
        self.end_offset = base_offset;
        self.bytes_since_index_entry = 0;
        Ok(())
    }

    /// A start that moved up and was not checkpointed has come down again. The epochs below it went with it: what they
    /// were is read from the batches.
    fn restore_first_epochs(&mut self, log_start_offset: Offset) -> Result<(), StorageError> {
        // Trusted segments have theirs from the checkpoint, whatever a scan has found before them.
        let first = self.checkpointed_epochs.entries().first().or(self.epochs.entries().first());
        let known_from = first.map_or(self.end_offset, |first| first.start_offset).min(self.end_offset);
        let mut below: Vec<EpochEntry> = Vec::new();
        for segment in self.segments.iter().take_while(|segment| segment.base_offset < known_from) {
            let Some(first) = segment.find(log_start_offset, segment.size())? else { continue };
            let mut scan = segment.scan(first.position, segment.size(), Scan::LONG);
            while let Some(BatchHeader { partition_leader_epoch: epoch, base_offset, .. }) =
                scan.next()?.map(|batch| batch.header).filter(|header| header.base_offset < known_from)
            {
                if epoch > LeaderEpoch::NONE && below.last().is_none_or(|last| last.epoch < epoch) {
                    below.push(EpochEntry { epoch, start_offset: base_offset });
                }
            }
        }
        if let Some(last) = below.last().map(|last| last.epoch) {
            let above: Vec<_> = self.epochs.entries().iter().copied().filter(|entry| last < entry.epoch).collect();
            self.epochs = EpochCache::from_entries(below.into_iter().chain(above));
        }
        Ok(())
    }

    /// Takes over what the checkpoint says of the batches below `offset`.
    fn trust_epochs_below(&mut self, offset: Offset) {
        for entry in self.checkpointed_epochs.entries().iter().filter(|entry| entry.start_offset < offset) {
            if self.epochs.latest().is_none_or(|latest| latest.epoch < entry.epoch) {
                self.epochs.assign(entry.epoch, entry.start_offset);
            }
        }
    }

    /// Takes over what the checkpoint says of the records that compaction has taken away from before a batch: nothing else
    /// tells any more whose they were. To a leader that did not know their epoch, a follower whose log ends with it would
    /// seem to diverge from where that epoch begins, and truncate what is committed.
    fn trust_epochs_between(&mut self, end_offset: Offset, next: &BatchHeader) {
        let is_taken_away = |entry: &EpochEntry| {
            let EpochEntry { epoch, start_offset } = *entry;
            end_offset <= start_offset && start_offset < next.base_offset && epoch <= next.partition_leader_epoch
        };
        for entry in self.checkpointed_epochs.entries().iter().filter(|entry| is_taken_away(entry)) {
            if self.epochs.latest().is_none_or(|latest| latest.epoch < entry.epoch) {
                self.epochs.assign(entry.epoch, entry.start_offset);
            }
        }
    }

    fn note_epoch(&mut self, header: &BatchHeader) {
        let epoch = header.partition_leader_epoch;
        if epoch > LeaderEpoch::NONE && self.epochs.latest().is_none_or(|latest| latest.epoch < epoch) {
            self.epochs.assign(epoch, header.base_offset);
        }
    }
}

/// Has everything in a directory read from the disk again that is not waiting to be written to it. The lengths of files are
/// not: they are given once more, to be flushed with what is recovered.
fn drop_caches(directory: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(directory).at(directory)? {
        let path = entry.at(directory)?.path();
        if fs::metadata(&path).at(&path)?.is_file() {
            let file = fs::OpenOptions::new().read(true).write(true).open(&path).at(&path)?;
            let length = file.metadata().at(&path)?.len();
            file.set_len(length).at(&path)?;
            fs::drop_from_cache(&file, 0, length).at(&path)?;
        }
    }
    Ok(())
}

fn remove_segment_files(directory: &Path, base_offset: Offset) -> Result<(), StorageError> {
    for suffix in [LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
        remove_if_present(&file_path(directory, base_offset, suffix))?;
    }
    Ok(())
}

fn remove_if_present(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(path),
        _ => Ok(()),
    }
}
