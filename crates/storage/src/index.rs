//! The sparse indexes of a segment, exactly in Kafka's file formats.
//!
//! An offset index entry (8 bytes) says: the batch that begins at `position` ends with the offset `base_offset +
//! relative_offset`. A time index entry (12 bytes) says: no record up to `base_offset + relative_offset` is younger than
//! `timestamp`. Numbers are big-endian, and both columns of both files only increase.
//!
//! One writer appends; readers look up at the same time without a lock, because an entry is counted only after it is
//! written. Indexes speed reading up and are never the truth: whoever follows one checks the batch header it leads to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vltava_host::fs::{File, FileExt};

use crate::StorageError;
use crate::error::AtPath;
use crate::lazy_file::LazyFile;

/// One entry of the offset index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    /// The last offset of the batch at `position`.
    pub offset: i64,
    pub position: u32,
}

/// One entry of the time index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    /// The largest timestamp of the segment up to `offset`.
    pub timestamp: i64,
    /// The last offset of the first batch that has this timestamp as its largest.
    pub offset: i64,
}

/// `<base offset>.index`.
#[derive(Debug)]
pub(crate) struct OffsetIndex {
    file: IndexFile<8>,
    base_offset: i64,
}

/// `<base offset>.timeindex`.
#[derive(Debug)]
pub(crate) struct TimeIndex {
    file: IndexFile<12>,
    base_offset: i64,
}

impl OffsetIndex {
    /// Opens the file, creating an empty one if it is missing. Bytes behind the last whole entry are not seen.
    pub fn open(path: PathBuf, base_offset: i64) -> Result<Self, StorageError> {
        Ok(Self { file: IndexFile::open(path)?, base_offset })
    }

    /// Opens an existing file that is not to be changed.
    pub fn for_reading(path: PathBuf, base_offset: i64) -> Result<Self, StorageError> {
        Ok(Self { file: IndexFile::for_reading(path)?, base_offset })
    }

    pub fn append(&self, entry: OffsetEntry) -> Result<(), StorageError> {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&relative(entry.offset, self.base_offset).to_be_bytes());
        bytes[4..].copy_from_slice(&entry.position.to_be_bytes());
        self.file.append(bytes)
    }

    pub fn entry(&self, index: u64) -> Result<OffsetEntry, StorageError> {
        Ok(self.decode(self.file.read(index)?))
    }

    /// The last entry whose offset is at most `offset`.
    pub fn floor(&self, offset: i64) -> Result<Option<OffsetEntry>, StorageError> {
        self.last_where(|entry| entry.offset <= offset)
    }

    /// The last entry for which `predicate` holds, where it holds for a prefix of the entries.
    pub fn last_where(&self, predicate: impl Fn(&OffsetEntry) -> bool) -> Result<Option<OffsetEntry>, StorageError> {
        let last = self.file.last_where(|bytes| predicate(&self.decode(bytes)))?;
        Ok(last.map(|(_, bytes)| self.decode(bytes)))
    }

    /// Forgets every entry from this offset on.
    pub fn truncate_to_offset(&self, offset: i64) -> Result<(), StorageError> {
        let last = self.file.last_where(|bytes| self.decode(bytes).offset < offset)?;
        self.file.truncate(last.map_or(0, |(index, _)| index + 1))
    }

    /// Whether entries increase strictly and stay within a segment of this size. The first batch has no entry: zeros are what
    /// a file has whose length reached the disk and whose bytes did not.
    pub fn is_sane(&self, segment_size: u64) -> Result<bool, StorageError> {
        let mut previous = None;
        self.file.all(|bytes| {
            let entry = self.decode(bytes);
            let sane = entry.offset >= self.base_offset
                && (1..segment_size).contains(&u64::from(entry.position))
                && previous.is_none_or(|previous: OffsetEntry| {
                    previous.offset < entry.offset && previous.position < entry.position
                });
            previous = Some(entry);
            sane
        })
    }

    /// The number of entries.
    pub fn len(&self) -> u64 {
        self.file.len()
    }

    /// Keeps the first `entries` entries only.
    pub fn truncate(&self, entries: u64) -> Result<(), StorageError> {
        self.file.truncate(entries)
    }

    pub const fn file(&self) -> &Arc<LazyFile> {
        &self.file.file
    }

    fn decode(&self, bytes: [u8; 8]) -> OffsetEntry {
        let [a, b, c, d, e, f, g, h] = bytes;
        OffsetEntry {
            offset: self.base_offset + i64::from(i32::from_be_bytes([a, b, c, d])),
            position: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

impl TimeIndex {
    /// As [`OffsetIndex::open`].
    pub fn open(path: PathBuf, base_offset: i64) -> Result<Self, StorageError> {
        Ok(Self { file: IndexFile::open(path)?, base_offset })
    }

    /// As [`OffsetIndex::for_reading`].
    pub fn for_reading(path: PathBuf, base_offset: i64) -> Result<Self, StorageError> {
        Ok(Self { file: IndexFile::for_reading(path)?, base_offset })
    }

    /// Appends an entry unless the last one is as young.
    pub fn append(&self, entry: TimeEntry) -> Result<(), StorageError> {
        if self.last()?.is_some_and(|last| entry.timestamp <= last.timestamp || entry.offset <= last.offset) {
            return Ok(());
        }
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&entry.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&relative(entry.offset, self.base_offset).to_be_bytes());
        self.file.append(bytes)
    }

    pub fn entry(&self, index: u64) -> Result<TimeEntry, StorageError> {
        Ok(self.decode(self.file.read(index)?))
    }

    pub fn last(&self) -> Result<Option<TimeEntry>, StorageError> {
        match self.file.len().checked_sub(1) {
            Some(last) => self.entry(last).map(Some),
            None => Ok(None),
        }
    }

    /// The last entry whose timestamp is below `timestamp`: every record up to it is older.
    pub fn last_before(&self, timestamp: i64) -> Result<Option<TimeEntry>, StorageError> {
        let floor = self.file.last_where(|bytes| self.decode(bytes).timestamp < timestamp)?;
        Ok(floor.map(|(_, bytes)| self.decode(bytes)))
    }

    /// Forgets every entry from this offset on.
    pub fn truncate_to_offset(&self, offset: i64) -> Result<(), StorageError> {
        let last = self.file.last_where(|bytes| self.decode(bytes).offset < offset)?;
        self.file.truncate(last.map_or(0, |(index, _)| index + 1))
    }

    /// Whether entries increase strictly, and none is all zeros, as in [`OffsetIndex::is_sane`].
    pub fn is_sane(&self) -> Result<bool, StorageError> {
        let mut previous = None;
        self.file.all(|bytes| {
            let entry = self.decode(bytes);
            let sane = entry.offset >= self.base_offset
                && bytes != [0; 12]
                && previous.is_none_or(|previous: TimeEntry| {
                    previous.offset < entry.offset && previous.timestamp < entry.timestamp
                });
            previous = Some(entry);
            sane
        })
    }

    /// The number of entries.
    pub fn len(&self) -> u64 {
        self.file.len()
    }

    /// Keeps the first `entries` entries only.
    pub fn truncate(&self, entries: u64) -> Result<(), StorageError> {
        self.file.truncate(entries)
    }

    pub const fn file(&self) -> &Arc<LazyFile> {
        &self.file.file
    }

    fn decode(&self, bytes: [u8; 12]) -> TimeEntry {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        TimeEntry {
            timestamp: i64::from_be_bytes([a, b, c, d, e, f, g, h]),
            offset: self.base_offset + i64::from(i32::from_be_bytes([i, j, k, l])),
        }
    }
}

/// A file of entries of `WIDTH` bytes.
#[derive(Debug)]
struct IndexFile<const WIDTH: usize> {
    file: Arc<LazyFile>,
    entries: AtomicU64,
}

impl<const WIDTH: usize> IndexFile<WIDTH> {
    fn open(path: PathBuf) -> Result<Self, StorageError> {
        let (file, length) = LazyFile::create_or_open(path)?;
        Ok(Self { file: Arc::new(file), entries: AtomicU64::new(length / WIDTH as u64) })
    }

    fn for_reading(path: PathBuf) -> Result<Self, StorageError> {
        let file = LazyFile::for_reading(path)?;
        let length = file.handle()?.metadata().at(file.path())?.len();
        Ok(Self { file: Arc::new(file), entries: AtomicU64::new(length / WIDTH as u64) })
    }

    fn len(&self) -> u64 {
        self.entries.load(Ordering::Acquire)
    }

    /// Keeps the first `entries` entries only, and drops bytes behind the last whole entry.
    fn truncate(&self, entries: u64) -> Result<(), StorageError> {
        self.entries.store(entries, Ordering::Release);
        self.file.handle()?.set_len(entries * WIDTH as u64).at(self.file.path())
    }

    fn append(&self, bytes: [u8; WIDTH]) -> Result<(), StorageError> {
        let entries = self.len();
        self.file.handle()?.write_all_at(&bytes, entries * WIDTH as u64).unless_full(self.file.path())?;
        self.entries.store(entries + 1, Ordering::Release);
        Ok(())
    }

    fn read(&self, index: u64) -> Result<[u8; WIDTH], StorageError> {
        self.read_from(&*self.file.handle()?, index)
    }

    fn read_from(&self, file: &File, index: u64) -> Result<[u8; WIDTH], StorageError> {
        let mut bytes = [0; WIDTH];
        file.read_exact_at(&mut bytes, index * WIDTH as u64).at(self.file.path())?;
        Ok(bytes)
    }

    /// The last entry for which `predicate` holds, where it holds for a prefix of the entries.
    fn last_where(&self, predicate: impl Fn([u8; WIDTH]) -> bool) -> Result<Option<(u64, [u8; WIDTH])>, StorageError> {
        let file = self.file.handle()?;
        let mut found = None;
        let mut low = 0;
        let mut high = self.len();
        // Most lookups are near the end of the log, so that the last entry is tried first.
        let mut probe = high.saturating_sub(1);
        while low < high {
            let bytes = self.read_from(&file, probe)?;
            if predicate(bytes) {
                found = Some((probe, bytes));
                low = probe + 1;
            } else {
                high = probe;
            }
            probe = low + (high - low) / 2;
        }
        Ok(found)
    }

    /// Whether `predicate` holds for all entries, in order.
    fn all(&self, mut predicate: impl FnMut([u8; WIDTH]) -> bool) -> Result<bool, StorageError> {
        const ENTRIES_AT_ONCE: usize = 8192;
        let file = self.file.handle()?;
        let mut buffer = Vec::new();
        let mut next = 0;
        while next < self.len() {
            let count = usize::try_from(self.len() - next).map_or(ENTRIES_AT_ONCE, |left| left.min(ENTRIES_AT_ONCE));
            buffer.resize(count * WIDTH, 0);
            file.read_exact_at(&mut buffer, next * WIDTH as u64).at(self.file.path())?;
            let (entries, _) = buffer.as_chunks::<WIDTH>();
            if !entries.iter().all(|bytes| predicate(*bytes)) {
                return Ok(false);
            }
            next += count as u64;
        }
        Ok(true)
    }
}

fn relative(offset: i64, base_offset: i64) -> i32 {
    i32::try_from(offset - base_offset).expect("a segment is rolled before relative offsets overflow")
}

#[cfg(test)]
mod tests {
    use super::{OffsetEntry, OffsetIndex, TimeEntry, TimeIndex};

    #[test]
    fn offset_index_finds_the_floor_and_is_kafkas_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("00000000000000000100.index");
        let index = OffsetIndex::open(path.clone(), 100).expect("created");
        assert_eq!(index.floor(1000).expect("readable"), None);
        let entry = |offset, position| OffsetEntry { offset, position };
        for i in 1..=9 {
            index.append(entry(100 + 10 * i, 4096 * i as u32)).expect("appended");
        }
        let floor = |offset| index.floor(offset).expect("readable");
        assert_eq!(floor(109), None);
        for i in 1..=9 {
            assert_eq!(floor(100 + 10 * i), Some(entry(100 + 10 * i, 4096 * i as u32)));
            assert_eq!(floor(109 + 10 * i), Some(entry(100 + 10 * i, 4096 * i as u32)));
        }
        assert!(index.is_sane(4096 * 9 + 1).expect("readable"));
        assert!(!index.is_sane(4096 * 9).expect("readable"), "the last position lies outside");
        let zeros = OffsetIndex::open(directory.path().join("00000000000000000200.index"), 200).expect("created");
        zeros.append(entry(200, 0)).expect("appended");
        assert!(!zeros.is_sane(4096).expect("readable"), "a length without bytes");
        index.truncate_to_offset(130).expect("truncated");
        index.file().close();
        assert_eq!(index.floor(1000).expect("readable"), Some(entry(120, 8192)));
        let bytes = vltava_host::fs::read(path).expect("the file");
        assert_eq!(bytes, [0, 0, 0, 10, 0, 0, 16, 0, 0, 0, 0, 20, 0, 0, 32, 0]);
    }

    #[test]
    fn time_index_keeps_only_younger_entries() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("00000000000000000100.timeindex");
        let index = TimeIndex::open(path.clone(), 100).expect("created");
        let entry = |timestamp, offset| TimeEntry { timestamp, offset };
        for (timestamp, offset) in [(7, 101), (7, 105), (6, 107), (9, 110)] {
            index.append(entry(timestamp, offset)).expect("appended");
        }
        assert_eq!(index.last_before(7).expect("readable"), None);
        assert_eq!(index.last_before(9).expect("readable"), Some(entry(7, 101)));
        assert_eq!(index.last_before(10).expect("readable"), Some(entry(9, 110)));
        assert!(index.is_sane().expect("readable"));
        let zeros = TimeIndex::open(directory.path().join("00000000000000000200.timeindex"), 200).expect("created");
        zeros.append(entry(0, 200)).expect("appended");
        assert!(!zeros.is_sane().expect("readable"), "a length without bytes");
        index.truncate_to_offset(110).expect("truncated");
        assert_eq!(vltava_host::fs::read(path).expect("the file"), [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
    }
}
