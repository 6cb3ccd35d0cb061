//! One segment: a `.log` file and its two indexes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use vltava_host::fs::{self, FileExt};
use vltava_protocol::batch::{BatchHeader, HEADER_SIZE};
use vltava_types::{Offset, TimestampMs};

use crate::StorageError;
use crate::error::AtPath;
use crate::index::{OffsetEntry, OffsetIndex, TimeEntry, TimeIndex};
use crate::lazy_file::LazyFile;
use crate::region::Checked;
use crate::scan::{Scan, ScannedBatch};

/// A segment, for tools, metrics and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    pub base_offset: Offset,
    pub size_bytes: u64,
    pub largest_timestamp: TimestampMs,
}

pub(crate) const LOG_SUFFIX: &str = "log";
pub(crate) const OFFSET_INDEX_SUFFIX: &str = "index";
pub(crate) const TIME_INDEX_SUFFIX: &str = "timeindex";
pub(crate) const SNAPSHOT_SUFFIX: &str = "snapshot";
pub(crate) const DELETED_SUFFIX: &str = "deleted";
/// Added to the names of a segment that compaction writes.
pub(crate) const CLEANED_SUFFIX: &str = "cleaned";
/// Added to the names of a segment that compaction is putting in the place of others.
pub(crate) const SWAP_SUFFIX: &str = "swap";

/// `<directory>/<20 digits of the base offset>.<suffix>`.
pub(crate) fn file_path(directory: &Path, base_offset: Offset, suffix: &str) -> PathBuf {
    directory.join(format!("{:020}.{suffix}", base_offset.value()))
}

/// Shared by the log, which alone writes, and its readers. A reader knows by itself how much of the last segment it may
/// see, since `size` is ahead of it there.
#[derive(Debug)]
pub(crate) struct Segment {
    pub base_offset: Offset,
    file: Arc<LazyFile>,
    size: AtomicU64,
    /// The largest timestamp, with the last offset of the first batch that has it.
    largest_timestamp: Mutex<Option<TimeEntry>>,
    checked: Mutex<Checked>,
    pub offset_index: OffsetIndex,
    pub time_index: TimeIndex,
}

/// Where a segment and its indexes ended before an append.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentEnd {
    size: u64,
    offset_entries: u64,
    time_entries: u64,
    largest_timestamp: Option<TimeEntry>,
}

/// What a walk to the end of a segment finds out, besides what the [`Segment`] keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// The offset after the last batch.
    pub end_offset: Offset,
    pub bytes_since_index_entry: u64,
    /// Whether the last entry of the offset index leads to its batch, and none is missing after it.
    pub index_fits: bool,
}

impl Segment {
    /// Creates the files, or opens what is there. The index entries of an existing segment are not checked, and its
    /// largest timestamp is only known after [`Segment::walk_tail`] or [`Segment::load_largest_timestamp`].
    pub fn open(directory: &Path, base_offset: Offset) -> Result<Self, StorageError> {
        Self::open_files(base_offset, |suffix| file_path(directory, base_offset, suffix))
    }

    /// Opens a segment that compaction is about to write, empty whatever an earlier attempt has left.
    pub fn create_cleaned(directory: &Path, base_offset: Offset) -> Result<Self, StorageError> {
        let segment = Self::open_files(base_offset, |suffix| {
            file_path(directory, base_offset, &format!("{suffix}.{CLEANED_SUFFIX}"))
        })?;
        segment.truncate(0, base_offset)?;
        Ok(segment)
    }

    fn open_files(base_offset: Offset, path_of: impl Fn(&str) -> PathBuf) -> Result<Self, StorageError> {
        let (file, size) = LazyFile::create_or_open(path_of(LOG_SUFFIX))?;
        let base = base_offset.value();
        Ok(Self {
            base_offset,
            file: Arc::new(file),
            size: AtomicU64::new(size),
            largest_timestamp: Mutex::new(None),
            checked: Mutex::default(),
            offset_index: OffsetIndex::open(path_of(OFFSET_INDEX_SUFFIX), base)?,
            time_index: TimeIndex::open(path_of(TIME_INDEX_SUFFIX), base)?,
        })
    }

    pub fn path(&self) -> &Path {
        self.file.path()
    }

    pub const fn file(&self) -> &Arc<LazyFile> {
        &self.file
    }

    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub fn largest_timestamp(&self) -> Option<TimeEntry> {
        *self.largest_timestamp.lock()
    }

    pub fn info(&self) -> SegmentInfo {
        SegmentInfo {
            base_offset: self.base_offset,
            size_bytes: self.size(),
            largest_timestamp: self
                .largest_timestamp()
                .map_or(TimestampMs::NONE, |largest| TimestampMs(largest.timestamp)),
        }
    }

    /// Creates an empty segment. Files of its name may be left from a truncation that a crash interrupted. Without room
    /// for all of them there are none afterwards.
    pub fn create(directory: &Path, base_offset: Offset) -> Result<Self, StorageError> {
        Self::open(directory, base_offset)
            .and_then(|segment| segment.truncate(0, base_offset).map(|()| segment))
            .inspect_err(|_| Self::remove_files_of(directory, base_offset))
    }

    /// Removes whatever there is of a segment that never came to be; what cannot be removed is overwritten later.
    pub fn remove_files_of(directory: &Path, base_offset: Offset) {
        for suffix in [LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
            let _ = fs::remove_file(file_path(directory, base_offset, suffix));
        }
    }

    /// What was checked by CRC.
    pub fn checked(&self) -> MutexGuard<'_, Checked> {
        self.checked.lock()
    }

    /// Writes whole batches, which are checked, at the end. They are not part of the segment until [`Segment::set_size`]. Without room for
    /// all of them, a part may be there: see [`Segment::take_back`].
    pub fn write(&self, bytes: &[u8]) -> Result<(), StorageError> {
        self.checked().on_append(self.size());
        self.file.handle()?.write_all_at(bytes, self.size()).unless_full(self.path())
    }

    /// Where the segment and its indexes end.
    pub fn end(&self) -> SegmentEnd {
        SegmentEnd {
            size: self.size(),
            offset_entries: self.offset_index.len(),
            time_entries: self.time_index.len(),
            largest_timestamp: self.largest_timestamp(),
        }
    }

    /// Removes what an append that found no room has written beyond `end`.
    pub fn take_back(&self, end: &SegmentEnd) -> Result<(), StorageError> {
        self.file.handle()?.set_len(end.size).at(self.path())?;
        self.offset_index.truncate(end.offset_entries)?;
        self.time_index.truncate(end.time_entries)?;
        *self.largest_timestamp.lock() = end.largest_timestamp;
        Ok(())
    }

    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Release);
    }

    /// Takes a batch at `position` into the largest timestamp and the indexes, as Kafka does: an entry for each batch that
    /// begins more than `interval` bytes after the last indexed one.
    pub fn index_batch(
        &self,
        position: u64,
        header: &BatchHeader,
        bytes_since_index_entry: &mut u64,
        interval: u32,
    ) -> Result<(), StorageError> {
        match self.note_batch(position, header, bytes_since_index_entry, interval) {
            Some(entry) => {
                self.offset_index.append(entry)?;
                self.complete_time_index()
            }
            None => Ok(()),
        }
    }

    /// The same without the indexes: returns the entry of the offset index that is due. That of the time index follows from
    /// [`Segment::complete_time_index`].
    pub fn note_batch(
        &self,
        position: u64,
        header: &BatchHeader,
        bytes_since_index_entry: &mut u64,
        interval: u32,
    ) -> Option<OffsetEntry> {
        self.note_timestamp(header);
        let entry = (*bytes_since_index_entry > u64::from(interval)).then(|| OffsetEntry {
            offset: header.last_offset().value(),
            position: u32::try_from(position).expect("a segment is rolled before positions overflow"),
        });
        if entry.is_some() {
            *bytes_since_index_entry = 0;
        }
        *bytes_since_index_entry += header.size() as u64;
        entry
    }

    /// Whether an index has no room for another entry.
    pub fn index_is_full(&self, segment_index_bytes: u32) -> bool {
        let bytes = u64::from(segment_index_bytes);
        // The time index keeps room for the entry of sealing.
        self.offset_index.len() >= bytes / 8 || self.time_index.len() + 1 >= bytes / 12
    }

    /// No more appends: the time index gets the largest timestamp, and the indexes' descriptors are released.
    pub fn seal(&self) -> Result<(), StorageError> {
        self.complete_time_index()?;
        self.offset_index.file().close();
        self.time_index.file().close();
        Ok(())
    }

    pub fn complete_time_index(&self) -> Result<(), StorageError> {
        self.largest_timestamp().map_or(Ok(()), |largest| self.time_index.append(largest))
    }

    pub const fn files(&self) -> [&Arc<LazyFile>; 3] {
        [&self.file, self.offset_index.file(), self.time_index.file()]
    }

    pub fn indexes(&self) -> [Arc<LazyFile>; 2] {
        [Arc::clone(self.offset_index.file()), Arc::clone(self.time_index.file())]
    }

    /// Keeps all descriptors, so that readers go on after the files are renamed or removed.
    pub fn keep_open(&self) -> Result<(), StorageError> {
        self.files().into_iter().try_for_each(|file| file.keep_open())
    }

    /// Lets go of all descriptors; those who use one keep it. Only when everything is on disk: an error of writing back
    /// is told to descriptors that are open.
    pub fn close(&self) {
        self.files().into_iter().for_each(|file| file.close());
    }

    /// As [`Segment::close`], for files that were not used since the last call.
    pub fn close_if_unused(&self) {
        self.files().into_iter().for_each(|file| file.close_if_unused());
    }

    pub fn scan(&self, position: u64, end: u64, read_ahead: usize) -> Scan<'_> {
        Scan::new(&self.file, position, end, read_ahead).in_order_from(self.base_offset)
    }

    /// Whether the batch after this one, before the position `end`, begins behind it. Where both are as they were written it
    /// does; no CRC covers where a batch begins, and compaction leaves gaps, so that nothing else tells.
    pub fn is_in_place(&self, batch: &ScannedBatch, end: u64) -> Result<bool, StorageError> {
        match Scan::new(&self.file, batch.end(), end, HEADER_SIZE).next() {
            Ok(next) => Ok(next.is_none_or(|next| batch.header.next_offset() <= next.header.base_offset)),
            // What is no batch tells nothing of this one.
            Err(StorageError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub fn order_error(&self, batch: &ScannedBatch) -> StorageError {
        StorageError::corrupt(self.path(), batch.position, "the batch does not lie between its neighbours")
    }

    /// The first batch that ends at `offset` or later, among those before the position `end`.
    pub fn find(&self, offset: Offset, end: u64) -> Result<Option<ScannedBatch>, StorageError> {
        let start = self.indexed_start(offset, end)?;
        let mut scan = self.scan(start, end, Scan::SHORT);
        while let Some(batch) = scan.next()? {
            if batch.header.last_offset() >= offset {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Checks by CRC what a search for `offset` has passed over, before the position `end`: a header that is damaged may have
    /// hidden a batch.
    pub fn check_passed_over(&self, offset: Offset, end: u64) -> Result<(), StorageError> {
        let mut scan = self.scan(self.indexed_start(offset, end)?, end, Scan::LONG);
        while let Some(batch) = scan.next()? {
            if !scan.crc_is_valid(&batch)? {
                return Err(self.crc_error(&batch));
            }
        }
        Ok(())
    }

    pub fn crc_error(&self, batch: &ScannedBatch) -> StorageError {
        StorageError::corrupt(self.path(), batch.position, "the bytes are not those of the batch's CRC")
    }

    /// Where to look for `offset` from: at the batch that the index names, if there is one that fits the entry. An index
    /// may be damaged, which costs time and not the log, or ahead of the reader.
    fn indexed_start(&self, offset: Offset, end: u64) -> Result<u64, StorageError> {
        let entry = match self.offset_index.floor(offset.value()) {
            Ok(Some(entry)) if u64::from(entry.position) < end => entry,
            Ok(_) | Err(StorageError::Corrupt { .. }) => return Ok(0),
            Err(error) => return Err(error),
        };
        let position = u64::from(entry.position);
        match self.scan(position, end, HEADER_SIZE).next() {
            Ok(Some(batch)) if batch.header.last_offset().value() == entry.offset => Ok(position),
            Ok(_) | Err(StorageError::Corrupt { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Where the last batch ends that lies below `offset` as a whole; the base offset if there is none.
    pub fn end_below(&self, offset: Offset) -> Result<Offset, StorageError> {
        let start = self.indexed_start(offset.plus(-1), self.size())?;
        let mut end_offset = self.base_offset;
        let mut scan = self.scan(start, self.size(), Scan::SHORT);
        while let Some(batch) = scan.next()? {
            if batch.header.last_offset() >= offset {
                break;
            }
            end_offset = batch.header.next_offset();
        }
        Ok(end_offset)
    }

    /// Takes the largest timestamp of a sealed segment from its time index.
    pub fn load_largest_timestamp(&self) -> Result<(), StorageError> {
        *self.largest_timestamp.lock() = self.time_index.last()?;
        Ok(())
    }

    /// Walks from the last index entry to the end and sets the largest timestamp. Checks no CRC.
    pub fn walk_tail(&self, interval: u32) -> Result<Tail, StorageError> {
        let last = match self.offset_index.len().checked_sub(1) {
            Some(last) => Some(self.offset_index.entry(last)?),
            None => None,
        };
        let start = last.map_or(0, |entry| u64::from(entry.position));
        let mut tail = Tail { end_offset: self.base_offset, bytes_since_index_entry: 0, index_fits: true };
        self.load_largest_timestamp()?;
        if last.is_some() && start >= self.size() {
            return Ok(Tail { index_fits: false, ..tail });
        }
        let mut scan = self.scan(start, self.size(), Scan::SHORT);
        let mut is_first = true;
        while let Some(batch) = scan.next()? {
            if is_first && last.is_some_and(|entry| entry.offset != batch.header.last_offset().value()) {
                tail.index_fits = false;
            }
            is_first = false;
            tail.index_fits &= tail.bytes_since_index_entry <= u64::from(interval);
            self.note_timestamp(&batch.header);
            tail.end_offset = batch.header.next_offset();
            tail.bytes_since_index_entry += batch.size();
        }
        Ok(tail)
    }

    /// Whether the time index goes up to the largest timestamp, as that of a sealed or cleanly closed segment does, and
    /// its last entry leads to a batch with that timestamp. Asked after [`Segment::walk_tail`].
    pub fn time_index_fits(&self) -> Result<bool, StorageError> {
        let last = self.time_index.last()?;
        if last != self.largest_timestamp() {
            return Ok(false);
        }
        let Some(TimeEntry { timestamp, offset }) = last else { return self.has_no_records() };
        let batch = self.find(Offset(offset), self.size())?;
        Ok(batch.is_some_and(|batch| {
            batch.header.last_offset().value() == offset && batch.header.max_timestamp.value() == timestamp
        }))
    }

    /// Whether compaction has left places of batches only. Without records there are no timestamps; otherwise the time index
    /// is lost, which the end of the segment need not tell.
    fn has_no_records(&self) -> Result<bool, StorageError> {
        let mut scan = self.scan(0, self.size(), Scan::LONG);
        while let Some(batch) = scan.next()? {
            if batch.header.record_count > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The largest timestamp of the first batch, from which `segment.ms` counts.
    pub fn first_timestamp(&self) -> Result<Option<i64>, StorageError> {
        let first = self.scan(0, self.size(), HEADER_SIZE).next()?;
        Ok(first.map(|batch| batch.header.max_timestamp.value()))
    }

    /// Cuts the file and everything known about it down to the batches before `position`, which begin below `offset`.
    pub fn truncate(&self, position: u64, offset: Offset) -> Result<(), StorageError> {
        self.offset_index.truncate_to_offset(offset.value())?;
        self.time_index.truncate_to_offset(offset.value())?;
        self.cut(position)?;
        self.load_largest_timestamp()
    }

    /// Cuts the file only.
    pub fn cut(&self, position: u64) -> Result<(), StorageError> {
        self.file.handle()?.set_len(position).at(self.path())?;
        self.set_size(position);
        Ok(())
    }

    /// Forgets the indexes' entries from `offset` on, and the largest timestamp of what comes after.
    pub fn truncate_indexes(&self, offset: Offset) -> Result<(), StorageError> {
        self.offset_index.truncate_to_offset(offset.value())?;
        self.time_index.truncate_to_offset(offset.value())?;
        self.load_largest_timestamp()
    }

    /// The files of this segment.
    pub fn paths(&self) -> [&Path; 3] {
        self.files().map(|file| file.path())
    }

    fn note_timestamp(&self, header: &BatchHeader) {
        // Compaction has left a batch's place and none of its records.
        if header.record_count == 0 {
            return;
        }
        let mut largest = self.largest_timestamp.lock();
        if header.max_timestamp.value() > largest.map_or(-1, |largest| largest.timestamp) {
            *largest =
                Some(TimeEntry { timestamp: header.max_timestamp.value(), offset: header.last_offset().value() });
        }
    }
}
