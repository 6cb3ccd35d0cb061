//! Looking at a log directory, a partition's directory or a single segment from outside, without changing anything, and
//! saying in words what is wrong. Reads by the same readers as a broker does.
//!
//! Two things are told apart: what the next start mends by itself, because a crash may leave it ([`Severity::Note`]), and
//! what was acknowledged as durable and is not as it was written ([`Severity::Damage`]).

mod directory;
mod partition;
mod segment;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vltava_host::fs;
use vltava_types::Offset;

use crate::error::AtPath;
use crate::log_dir::Lock;
use crate::segment::LOG_SUFFIX;
use crate::{PartitionName, StorageError};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing. The next start deals with it.
    Note,
    Damage,
}

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub path: PathBuf,
    /// A sentence without a full stop.
    pub what: String,
}

/// A segment as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSummary {
    pub path: PathBuf,
    pub base_offset: Offset,
    /// The offset after the last whole batch.
    pub end_offset: Offset,
    pub bytes: u64,
    pub batches: u64,
    pub records: u64,
    /// Names of the codecs that occur.
    pub codecs: BTreeSet<&'static str>,
}

/// What was read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    pub segments: Vec<SegmentSummary>,
    pub findings: Vec<Finding>,
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The headers of batches.
    Headers,
    /// Every byte of every batch, against its CRC.
    Everything,
}

impl Inspection {
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Damage)
    }

    fn note(&mut self, path: &Path, what: impl Into<String>) {
        self.find(Severity::Note, path, what);
    }

    fn damage(&mut self, path: &Path, what: impl Into<String>) {
        self.find(Severity::Damage, path, what);
    }

    fn find(&mut self, severity: Severity, path: &Path, what: impl Into<String>) {
        self.findings.push(Finding { severity, path: path.to_owned(), what: what.into() });
    }
}

/// What the log directory says about a log. Without it, everything counts as not flushed.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    recovery_point: Offset,
    log_start_offset: Offset,
    clean_shutdown: bool,
}

impl Known {
    /// Whether what lies below the offset was on disk, so that a crash is no excuse.
    fn covers(&self, end_offset: Offset) -> bool {
        self.clean_shutdown || end_offset <= self.recovery_point
    }

    fn severity(&self, end_offset: Offset) -> Severity {
        if self.covers(end_offset) { Severity::Damage } else { Severity::Note }
    }
}

/// Inspects a log directory, a partition's directory, or a `.log` file. [`StorageError::Locked`] if a broker uses it.
pub fn inspect(path: &Path, depth: Depth) -> Result<Inspection, StorageError> {
    let path = std::path::absolute(path).at(path)?;
    let mut inspection = Inspection::default();
    if fs::metadata(&path).at(&path)?.is_file() {
        let partition = path.parent().unwrap_or(&path);
        let _lock = partition.parent().map(Lock::take_if_there).transpose()?;
        segment::inspect_alone(&path, known_above(partition)?, depth, &mut inspection)?;
    } else if is_partition(&path)? {
        let _lock = path.parent().map(Lock::take_if_there).transpose()?;
        partition::inspect(&path, known_above(&path)?, depth, &mut inspection)?;
    } else {
        let _lock = Lock::take_if_there(&path)?;
        directory::inspect(&path, depth, &mut inspection)?;
    }
    Ok(inspection)
}

/// What the directory above a partition's says of it.
fn known_above(partition: &Path) -> Result<Known, StorageError> {
    let name: Option<PartitionName> = partition.file_name().and_then(|name| name.to_str()?.parse().ok());
    let (Some(name), Some(log_dir)) = (name, partition.parent()) else { return Ok(Known::default()) };
    Ok(directory::Checkpoints::read(log_dir, &mut Inspection::default())?.known(&name))
}

/// A directory with segments in it.
fn is_partition(directory: &Path) -> Result<bool, StorageError> {
    for entry in fs::read_dir(directory).at(directory)? {
        if entry.at(directory)?.path().extension().is_some_and(|extension| extension == LOG_SUFFIX) {
            return Ok(true);
        }
    }
    Ok(false)
}
