//! A log directory: whose it is, how it was left, and whether its checkpoints fit its logs.

use std::path::{Path, PathBuf};

use vltava_host::fs;
use vltava_types::Offset;

use super::{Depth, Inspection, Known, partition};
use crate::error::AtPath;
use crate::log_dir::{
    CLEAN_SHUTDOWN_FILE, CLEANER_CHECKPOINT, DELETE_SUFFIX, FAILED_FILE, HIGH_WATERMARK_CHECKPOINT,
    LOG_START_CHECKPOINT, RECOVERY_POINT_CHECKPOINT, STRAY_SUFFIX, parse_clean_shutdown_marker, read_meta_properties,
};
use crate::relocation::future_of;
use crate::{METADATA_TOPIC_DIRECTORY, OffsetCheckpoint, PartitionName, StorageError};

/// The checkpoint files of a log directory, and how it was left.
pub(super) struct Checkpoints {
    recovery_points: Option<OffsetCheckpoint>,
    high_watermarks: Option<OffsetCheckpoint>,
    log_starts: Option<OffsetCheckpoint>,
    cleaned: Option<OffsetCheckpoint>,
    clean_shutdown: bool,
}

impl Checkpoints {
    pub fn read(log_dir: &Path, inspection: &mut Inspection) -> Result<Self, StorageError> {
        let mut checkpoint = |name: &str, is_needed: bool| match OffsetCheckpoint::open(log_dir.join(name)) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(StorageError::Corrupt { path, reason, .. }) => {
                let what = format!("the checkpoint cannot be read: {reason}");
                if is_needed {
                    inspection.damage(&path, what)
                } else {
                    inspection.note(&path, what)
                }
                Ok(None)
            }
            Err(error) => Err(error),
        };
        let recovery_points = checkpoint(RECOVERY_POINT_CHECKPOINT, true)?;
        let high_watermarks = checkpoint(HIGH_WATERMARK_CHECKPOINT, true)?;
        let log_starts = checkpoint(LOG_START_CHECKPOINT, true)?;
        let cleaned = checkpoint(CLEANER_CHECKPOINT, false)?;
        let path = log_dir.join(CLEAN_SHUTDOWN_FILE);
        let clean_shutdown = match fs::read(&path) {
            Ok(contents) => match parse_clean_shutdown_marker(&contents) {
                Some(broker_epoch) => {
                    inspection.note(&path, format!("shut down cleanly, under broker epoch {broker_epoch}"));
                    true
                }
                None => {
                    inspection.note(&path, "the marker of a clean shutdown cannot be read, and counts as none");
                    false
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                inspection.note(log_dir, "not shut down cleanly: the next start recovers the logs");
                false
            }
            Err(error) => return Err(error).at(&path),
        };
        Ok(Self { recovery_points, high_watermarks, log_starts, cleaned, clean_shutdown })
    }

    pub fn known(&self, partition: &PartitionName) -> Known {
        let offset = |checkpoint: &Option<OffsetCheckpoint>| checkpoint.as_ref()?.get(partition);
        Known {
            recovery_point: offset(&self.recovery_points).unwrap_or_default(),
            log_start_offset: offset(&self.log_starts).unwrap_or_default(),
            clean_shutdown: self.clean_shutdown,
        }
    }
}

pub(super) fn inspect(log_dir: &Path, depth: Depth, inspection: &mut Inspection) -> Result<(), StorageError> {
    match read_meta_properties(log_dir) {
        Ok(Some(_)) => {}
        Ok(None) => inspection.note(&log_dir.join("meta.properties"), "it is missing: this belongs to no node yet"),
        Err(StorageError::Foreign { path, reason }) => inspection.damage(&path, format!("it cannot be read: {reason}")),
        Err(error) => return Err(error),
    }
    let failed = log_dir.join(FAILED_FILE);
    if fs::metadata(&failed).is_ok() {
        inspection.damage(&failed, "a write or flush has failed here; what is in memory may not be on the disk");
    }
    let checkpoints = Checkpoints::read(log_dir, inspection)?;
    let mut found = vec![];
    for (name, path) in partitions(log_dir, inspection)? {
        let end_offset = partition::inspect(&path, checkpoints.known(&name), depth, inspection)?;
        check_offsets(&checkpoints, &name, end_offset, inspection);
        found.push(name);
    }
    let is_here = |name: &PartitionName| found.contains(name);
    let files = [
        (&checkpoints.recovery_points, true),
        (&checkpoints.high_watermarks, false),
        (&checkpoints.log_starts, false),
        (&checkpoints.cleaned, false),
    ];
    for (checkpoint, is_proof) in files {
        let Some(checkpoint) = checkpoint else { continue };
        for name in checkpoint.partitions().into_iter().filter(|name| !is_here(name)) {
            let what = format!("it names {name}, whose directory is not here");
            // A deletion has the files forget a partition: the directory went otherwise.
            if is_proof {
                inspection.damage(checkpoint.path(), what);
            } else {
                inspection.note(checkpoint.path(), what);
            }
        }
    }
    Ok(())
}

fn partitions(log_dir: &Path, inspection: &mut Inspection) -> Result<Vec<(PartitionName, PathBuf)>, StorageError> {
    let mut found = vec![];
    for entry in fs::read_dir(log_dir).at(log_dir)? {
        let path = entry.at(log_dir)?.path();
        if !fs::metadata(&path).at(&path)?.is_dir() {
            continue;
        }
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if name.contains('.') && name.ends_with(DELETE_SUFFIX) {
            inspection.note(&path, "deleted; the next start removes it");
        } else if name.contains('.') && name.ends_with(STRAY_SUFFIX) {
            inspection.note(&path, "set aside because it could not be opened; nobody uses it");
        } else if future_of(&path).is_some() {
            inspection.note(&path, "on its way from another directory; the next start begins anew");
        } else if name == METADATA_TOPIC_DIRECTORY {
            // The quorum's own, which keeps no checkpoints.
        } else if let Ok(name) = name.parse() {
            found.push((name, path));
        } else {
            inspection.note(&path, "not a partition's directory; left alone");
        }
    }
    found.sort();
    Ok(found)
}

/// What the checkpoints know was there must be there.
fn check_offsets(checkpoints: &Checkpoints, name: &PartitionName, end_offset: Offset, inspection: &mut Inspection) {
    let lost = [
        (&checkpoints.recovery_points, "was on disk"),
        (&checkpoints.high_watermarks, "was committed"),
        (&checkpoints.log_starts, "was passed by the log start"),
    ];
    for (checkpoint, what) in lost {
        let Some(checkpoint) = checkpoint else { continue };
        if let Some(offset) = checkpoint.get(name).filter(|offset| *offset > end_offset) {
            let what =
                format!("{name} ends at offset {end_offset}, and everything below {offset} {what}: records are lost");
            inspection.damage(checkpoint.path(), what);
        }
    }
    if let Some(checkpoint) = &checkpoints.cleaned
        && let Some(offset) = checkpoint.get(name).filter(|offset| *offset > end_offset)
    {
        inspection.note(
            checkpoint.path(),
            format!("{name} ends at offset {end_offset}, below {offset}, up to where it was compacted"),
        );
    }
}
