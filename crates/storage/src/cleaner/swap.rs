//! Putting a cleaned segment in the place of its sources, so that a crash at any point leaves all of the old or all of
//! the new.
//!
//! 1. The pass has written `<base>.log.cleaned` (and indexes) and flushed them. A crash: they are removed.
//! 2. They are renamed to `.swap`, and the directory is flushed. `<base>.log.swap` on disk is the decision: from here on,
//!    recovery goes forward.
//! 3. The sources are renamed to `.deleted`, and the directory is flushed, so that never a source stands beside the
//!    segment that replaces it.
//! 4. The `.swap` files get their final names. The directory is flushed later; until then recovery may do this again.
//!
//! Which sources recovery removes, the new segment tells by itself: those that begin within its offsets. The last batch
//! of the last source stays for that, if need be without records, so that the range always covers all of them.

use std::path::Path;
use std::sync::Arc;

use vltava_host::fs;
use vltava_types::{Offset, TimestampMs};

use crate::error::AtPath;
use crate::lazy_file::LazyFile;
use crate::scan::Scan;
use crate::segment::{
    CLEANED_SUFFIX, LOG_SUFFIX, OFFSET_INDEX_SUFFIX, SWAP_SUFFIX, Segment, TIME_INDEX_SUFFIX, file_path,
};
use crate::{Log, StorageError};

/// The files of a segment; the log last, since its name decides.
const SUFFIXES: [&str; 3] = [TIME_INDEX_SUFFIX, OFFSET_INDEX_SUFFIX, LOG_SUFFIX];

/// A segment that was written and flushed as `.cleaned`, and what it replaces.
#[derive(Debug)]
pub struct CleanedSegment {
    /// Neighbours, oldest first.
    pub(super) sources: Vec<Arc<Segment>>,
    pub(super) truncations_seen: u64,
}

impl Log {
    /// Puts a cleaned segment in the place of its sources. Readers that began before go on with the old ones, whose files
    /// stay for `file.delete.delay.ms`. Returns false, and removes the cleaned files, if the log was truncated meanwhile or
    /// has lost one of the sources to retention.
    pub fn replace_segments(&mut self, cleaned: &CleanedSegment, now: TimestampMs) -> Result<bool, StorageError> {
        let base_offset = cleaned.sources[0].base_offset;
        let Some(first) = self.position_of(cleaned) else {
            remove_cleaned(&self.directory, base_offset)?;
            return Ok(false);
        };
        if let Err(error) = rename_all(&self.directory, base_offset, CLEANED_SUFFIX, Some(SWAP_SUFFIX)) {
            if error.is_full() {
                // The log comes last, so that nothing is decided: what there is counts for nothing.
                for suffix in [OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
                    remove_if_present(&named(&self.directory, base_offset, suffix, SWAP_SUFFIX))?;
                }
                remove_cleaned(&self.directory, base_offset)?;
            }
            return Err(error);
        }
        self.swap(cleaned, first, now).map_err(StorageError::or_failed)?;
        Ok(true)
    }

    /// Goes forward from the decision.
    fn swap(&mut self, cleaned: &CleanedSegment, first: usize, now: TimestampMs) -> Result<(), StorageError> {
        let base_offset = cleaned.sources[0].base_offset;
        let directory = self.directory.clone();
        fs::sync_dir(&directory).at(&directory)?;

        for source in &cleaned.sources {
            self.rename_deleted(source, now)?;
        }
        for source in &cleaned.sources[1..] {
            self.rename_deleted_snapshot(source.base_offset, now)?;
        }
        fs::sync_dir(&directory).at(&directory)?;

        rename_all(&directory, base_offset, SWAP_SUFFIX, None)?;
        self.directory_version += 1;
        let segment = Segment::open(&directory, base_offset)?;
        segment.load_largest_timestamp()?;
        segment.seal()?;
        let mut segments = Vec::clone(&self.segments);
        segments.splice(first..first + cleaned.sources.len(), [Arc::new(segment)]);
        self.segments = Arc::new(segments);
        Ok(())
    }

    /// Where the sources stand in the log, if they all still do and none of them is the active segment.
    fn position_of(&self, cleaned: &CleanedSegment) -> Option<usize> {
        if self.truncation_count() != cleaned.truncations_seen {
            return None;
        }
        let first = self.segments.iter().position(|segment| Arc::ptr_eq(segment, &cleaned.sources[0]))?;
        let present = self.segments.get(first..first + cleaned.sources.len())?;
        let are_same = present.iter().zip(&cleaned.sources).all(|(present, source)| Arc::ptr_eq(present, source));
        (are_same && first + cleaned.sources.len() < self.segments.len()).then_some(first)
    }
}

/// Removes what a pass has written and not put in place.
pub(super) fn remove_cleaned(directory: &Path, base_offset: Offset) -> Result<(), StorageError> {
    SUFFIXES.iter().try_for_each(|suffix| remove_if_present(&named(directory, base_offset, suffix, CLEANED_SUFFIX)))
}

/// Finishes what a crash has interrupted, before the log's segments are listed: replacements that were decided go
/// forward, others are forgotten. Returns how many segments were put in place.
pub(crate) fn finish_interrupted_swaps(directory: &Path) -> Result<usize, StorageError> {
    let mut segments = Vec::new();
    let mut decided = Vec::new();
    let mut leftovers = Vec::new();
    for entry in fs::read_dir(directory).at(directory)? {
        let path = entry.at(directory)?.path();
        let Some((stem, suffix)) = path.file_name().and_then(|name| name.to_str()?.split_once('.')) else { continue };
        let Ok(base_offset) = stem.parse().map(Offset) else { continue };
        match suffix.rsplit_once('.') {
            None if suffix == LOG_SUFFIX => segments.push(base_offset),
            Some((LOG_SUFFIX, SWAP_SUFFIX)) => decided.push(base_offset),
            Some((_, SWAP_SUFFIX)) => leftovers.push((base_offset, path)),
            Some((_, CLEANED_SUFFIX)) => remove_if_present(&path)?,
            _ => {}
        }
    }
    segments.sort_unstable();
    decided.sort_unstable();
    for base_offset in &decided {
        finish(directory, *base_offset, &segments)?;
    }
    for (base_offset, path) in leftovers {
        if !decided.contains(&base_offset) {
            // The index of a segment that is in place already; it is built anew.
            remove_if_present(&path)?;
        }
    }
    Ok(decided.len())
}

fn finish(directory: &Path, base_offset: Offset, segments: &[Offset]) -> Result<(), StorageError> {
    let path = named(directory, base_offset, LOG_SUFFIX, SWAP_SUFFIX);
    let end_offset = end_of(&path)?;
    for replaced in segments.iter().filter(|segment| base_offset <= **segment && **segment < end_offset) {
        for suffix in SUFFIXES {
            remove_if_present(&file_path(directory, *replaced, suffix))?;
        }
    }
    // An index may be the old one or the new: neither is worth finding out.
    for suffix in [OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX] {
        remove_if_present(&file_path(directory, base_offset, suffix))?;
    }
    fs::sync_dir(directory).at(directory)?;
    rename_all(directory, base_offset, SWAP_SUFFIX, None)?;
    fs::sync_dir(directory).at(directory)
}

/// The offset after the last batch of a segment file.
fn end_of(path: &Path) -> Result<Offset, StorageError> {
    let size = fs::metadata(path).at(path)?.len();
    let file = LazyFile::open_and_keep(path.to_owned())?;
    let mut scan = Scan::new(&file, 0, size, Scan::LONG);
    let mut end_offset = None;
    while let Some(batch) = scan.next()? {
        end_offset = Some(batch.header.next_offset());
    }
    end_offset.ok_or_else(|| StorageError::corrupt(path, 0, "a cleaned segment has a batch at least"))
}

fn rename_all(directory: &Path, base_offset: Offset, from: &str, to: Option<&str>) -> Result<(), StorageError> {
    for suffix in SUFFIXES {
        let from = named(directory, base_offset, suffix, from);
        let to = match to {
            Some(to) => named(directory, base_offset, suffix, to),
            None => file_path(directory, base_offset, suffix),
        };
        match fs::rename(&from, &to) {
            // An interrupted swap may have only some of the indexes left.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && suffix != LOG_SUFFIX => {}
            renamed => renamed.unless_full(&from)?,
        }
    }
    Ok(())
}

fn named(directory: &Path, base_offset: Offset, suffix: &str, state: &str) -> std::path::PathBuf {
    file_path(directory, base_offset, &format!("{suffix}.{state}"))
}

fn remove_if_present(path: &Path) -> Result<(), StorageError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(path),
        _ => Ok(()),
    }
}
