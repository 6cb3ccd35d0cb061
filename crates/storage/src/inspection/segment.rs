//! One segment: its batches, and whether its indexes agree with them.

use std::collections::BTreeSet;
use std::path::Path;

use vltava_host::fs;
use vltava_protocol::batch::BatchHeader;
use vltava_types::{LeaderEpoch, Offset};

use super::{Depth, Inspection, Known, SegmentSummary};
use crate::StorageError;
use crate::error::AtPath;
use crate::index::{OffsetEntry, OffsetIndex, TimeEntry, TimeIndex};
use crate::lazy_file::LazyFile;
use crate::scan::{Scan, ScannedBatch};
use crate::segment::{LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, file_path};

/// What a partition wants to know of its segment's batches.
pub(super) struct Walked {
    pub end_offset: Offset,
    /// Whether there are bytes behind the last whole batch.
    pub has_torn_tail: bool,
    /// Where each epoch begins, in order.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

/// A `.log` file by itself.
pub(super) fn inspect_alone(
    path: &Path,
    known: Known,
    depth: Depth,
    inspection: &mut Inspection,
) -> Result<(), StorageError> {
    let base_offset =
        path.file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok())
            .map(Offset)
            .ok_or_else(|| StorageError::corrupt(path, 0, "a segment is named by its base offset and ends in .log"))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    inspect(directory, base_offset, None, known, depth, inspection).map(drop)
}

/// `next_base_offset` is where the segment after it begins.
pub(super) fn inspect(
    directory: &Path,
    base_offset: Offset,
    next_base_offset: Option<Offset>,
    known: Known,
    depth: Depth,
    inspection: &mut Inspection,
) -> Result<Walked, StorageError> {
    let path = file_path(directory, base_offset, LOG_SUFFIX);
    let bytes = fs::metadata(&path).at(&path)?.len();
    let file = LazyFile::for_reading(path.clone())?;
    let mut walked = Walked { end_offset: base_offset, has_torn_tail: false, epochs: vec![] };
    let mut summary = SegmentSummary {
        path: path.clone(),
        base_offset,
        end_offset: base_offset,
        bytes,
        batches: 0,
        records: 0,
        codecs: BTreeSet::new(),
    };
    let is_covered = next_base_offset.is_some_and(|next| known.covers(next));
    let mut indexes = Indexes::open(directory, base_offset, bytes, is_covered || known.clean_shutdown, inspection)?;
    let mut scan = Scan::new(&file, 0, bytes, Scan::LONG);
    loop {
        let batch = match scan.next() {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            Err(StorageError::Corrupt { position, reason, .. }) => {
                walked.has_torn_tail = true;
                let severity = known.severity(next_base_offset.unwrap_or(walked.end_offset.plus(1)));
                let what = format!(
                    "after offset {} no whole batch follows at position {position}, where {} bytes are left ({reason})",
                    walked.end_offset.plus(-1),
                    bytes - position
                );
                inspection.find(severity, &path, what);
                break;
            }
            Err(error) => return Err(error),
        };
        let header = &batch.header;
        let severity = known.severity(header.next_offset());
        if let Some(what) = out_of_place(&batch, walked.end_offset, next_base_offset) {
            inspection.find(severity, &path, what);
        }
        if depth == Depth::Everything && !scan.crc_is_valid(&batch)? {
            let what = format!(
                "the batch of offsets {} to {} at position {} is not what its CRC says",
                header.base_offset,
                header.last_offset(),
                batch.position
            );
            inspection.find(severity, &path, what);
        }
        indexes.check(&batch)?;
        note_epoch(&mut walked.epochs, header);
        walked.end_offset = walked.end_offset.max(header.next_offset());
        summary.batches += 1;
        summary.records += u64::try_from(header.record_count).unwrap_or(0);
        summary.codecs.insert(header.compression().map_or("unknown", |codec| codec.name()));
    }
    indexes.finish(walked.has_torn_tail, inspection)?;
    summary.end_offset = walked.end_offset;
    inspection.segments.push(summary);
    Ok(walked)
}

fn out_of_place(batch: &ScannedBatch, end_offset: Offset, next_base_offset: Option<Offset>) -> Option<String> {
    let header = &batch.header;
    let (base, position) = (header.base_offset, batch.position);
    if header.last_offset_delta < 0 || base < end_offset {
        return Some(format!("the batch at position {position} begins at offset {base}, below {end_offset} before it"));
    }
    let next = next_base_offset.filter(|next| header.next_offset() > *next)?;
    Some(format!(
        "the batch at position {position} reaches to offset {}, into the next segment at {next}",
        header.last_offset()
    ))
}

fn note_epoch(epochs: &mut Vec<(LeaderEpoch, Offset)>, header: &BatchHeader) {
    let epoch = header.partition_leader_epoch;
    if epoch > LeaderEpoch::NONE && epochs.last().is_none_or(|(last, _)| *last < epoch) {
        epochs.push((epoch, header.base_offset));
    }
}

/// Both indexes on a walk along the batches that they lead to. The first disagreement of each is told.
struct Indexes {
    offset_index: Option<OffsetIndex>,
    time_index: Option<TimeIndex>,
    next_offset_entry: u64,
    next_time_entry: u64,
    largest_timestamp: i64,
    offset_problem: Option<String>,
    time_problem: Option<String>,
    directory: std::path::PathBuf,
    base_offset: Offset,
    is_covered: bool,
}

impl Indexes {
    fn open(
        directory: &Path,
        base_offset: Offset,
        segment_bytes: u64,
        is_covered: bool,
        inspection: &mut Inspection,
    ) -> Result<Self, StorageError> {
        let mut path_if_there = |suffix, entry_bytes: u64| {
            let path = file_path(directory, base_offset, suffix);
            match fs::metadata(&path) {
                Ok(metadata) => {
                    if metadata.len() % entry_bytes != 0 {
                        inspection.note(&path, "it ends with a part of an entry");
                    }
                    Some(path)
                }
                Err(_) => {
                    inspection.note(&path, "the index is missing, and will be built anew");
                    None
                }
            }
        };
        let (offset_path, time_path) = (path_if_there(OFFSET_INDEX_SUFFIX, 8), path_if_there(TIME_INDEX_SUFFIX, 12));
        let base = base_offset.value();
        let offset_index = offset_path.map(|path| OffsetIndex::for_reading(path, base)).transpose()?;
        let time_index = time_path.map(|path| TimeIndex::for_reading(path, base)).transpose()?;
        let mut indexes = Self {
            offset_problem: None,
            time_problem: None,
            next_offset_entry: 0,
            next_time_entry: 0,
            largest_timestamp: i64::MIN,
            directory: directory.to_owned(),
            base_offset,
            is_covered,
            offset_index,
            time_index,
        };
        if let Some(index) = &indexes.offset_index
            && !index.is_sane(segment_bytes)?
        {
            indexes.offset_problem = Some("its entries do not increase, or lead out of the segment".to_owned());
        }
        if let Some(index) = &indexes.time_index
            && !index.is_sane()?
        {
            indexes.time_problem = Some("its entries do not increase".to_owned());
        }
        Ok(indexes)
    }

    fn check(&mut self, batch: &ScannedBatch) -> Result<(), StorageError> {
        let header = &batch.header;
        while self.offset_problem.is_none()
            && let Some(entry) = self.offset_entry()?
            && u64::from(entry.position) <= batch.position
        {
            if u64::from(entry.position) != batch.position || entry.offset != header.last_offset().value() {
                self.offset_problem = Some(format!(
                    "its entry for offset {} leads to position {}, where no batch ends with it",
                    entry.offset, entry.position
                ));
            }
            self.next_offset_entry += 1;
        }
        // A batch without records keeps its timestamps, which count no more.
        if header.record_count > 0 {
            self.largest_timestamp = self.largest_timestamp.max(header.max_timestamp.value());
        }
        while self.time_problem.is_none()
            && let Some(entry) = self.time_entry()?
            && entry.offset <= header.last_offset().value()
        {
            if self.largest_timestamp > entry.timestamp {
                self.time_problem = Some(format!(
                    "it says that nothing up to offset {} is younger than {}, and {} is",
                    entry.offset, entry.timestamp, self.largest_timestamp
                ));
            }
            self.next_time_entry += 1;
        }
        Ok(())
    }

    fn finish(mut self, has_torn_tail: bool, inspection: &mut Inspection) -> Result<(), StorageError> {
        let leads_beyond = |entry: String| format!("its entry for {entry} lies beyond the last batch");
        if self.offset_problem.is_none()
            && let Some(entry) = self.offset_entry()?
        {
            self.offset_problem = Some(leads_beyond(format!("offset {}", entry.offset)));
        }
        if self.time_problem.is_none()
            && let Some(entry) = self.time_entry()?
        {
            self.time_problem = Some(leads_beyond(format!("timestamp {}", entry.timestamp)));
        }
        let problems = [(OFFSET_INDEX_SUFFIX, self.offset_problem), (TIME_INDEX_SUFFIX, self.time_problem)];
        for (suffix, problem) in problems {
            let Some(problem) = problem else { continue };
            let path = file_path(&self.directory, self.base_offset, suffix);
            if self.is_covered && !has_torn_tail {
                inspection.damage(&path, format!("the index disagrees with its segment: {problem}"));
            } else {
                inspection
                    .note(&path, format!("the index disagrees with its segment and will be built anew: {problem}"));
            }
        }
        Ok(())
    }

    fn offset_entry(&self) -> Result<Option<OffsetEntry>, StorageError> {
        match &self.offset_index {
            Some(index) if self.next_offset_entry < index.len() => index.entry(self.next_offset_entry).map(Some),
            _ => Ok(None),
        }
    }

    fn time_entry(&self) -> Result<Option<TimeEntry>, StorageError> {
        match &self.time_index {
            Some(index) if self.next_time_entry < index.len() => index.entry(self.next_time_entry).map(Some),
            _ => Ok(None),
        }
    }
}
