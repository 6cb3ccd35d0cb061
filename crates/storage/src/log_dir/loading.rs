//! Opening all logs of a directory at start-up.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use vltava_host::{fs, task};
use vltava_types::{LeaderEpoch, Offset};

use super::{DELETE_SUFFIX, FAILED_FILE, LogDir};
use crate::error::AtPath;
use crate::log::LogOptions;
use crate::relocation::{self, Rival};
use crate::segment::LOG_SUFFIX;
use crate::{Flush, Log, LogConfig, PartitionName, RecoveryReport, StorageError, partition_metadata};

/// A log that was found at start-up.
pub struct LoadedLog {
    pub partition: PartitionName,
    pub log: Log,
    pub recovery: RecoveryReport,
    /// From the checkpoint, clamped to the log.
    pub high_watermark: Offset,
    pub log_dir: Arc<LogDir>,
}

impl LoadedLog {
    /// How it stands to another log of the same partition.
    #[must_use]
    pub fn rival(&self) -> Rival {
        Rival {
            directory_id: self.log_dir.directory_id(),
            replaces: relocation::replaces(self.log.directory()),
            latest_epoch: self.log.epochs().latest().map_or(LeaderEpoch::NONE, |latest| latest.epoch),
            log_end_offset: self.log.log_end_offset(),
        }
    }
}

/// A log that could not be opened: corruption costs this replica only.
#[derive(Debug)]
pub struct LoadFailure {
    pub partition: PartitionName,
    pub directory: PathBuf,
    pub error: StorageError,
}

impl LogDir {
    /// Opens all partitions, `threads` at a time (`num.recovery.threads.per.data.dir`), and removes what was being
    /// deleted. `config` gives a topic's settings. Directories whose names are no partition's are left alone. An I/O error
    /// on any log is the directory's.
    pub async fn load(
        self: &Arc<Self>,
        threads: usize,
        clean_shutdown: bool,
        config: impl Fn(&PartitionName) -> Arc<LogConfig> + Send + Sync + 'static,
    ) -> Result<(Vec<LoadedLog>, Vec<LoadFailure>), StorageError> {
        let log_dir = Arc::clone(self);
        let found = task::blocking(move || log_dir.find_partitions()).await?;
        if self.distrusts_cache {
            tracing::warn!(
                log_dir = %self.path.display(),
                "a write or flush has failed here: everything is read from the disk again"
            );
        }
        self.progress.on_found(found.len());
        let found = Arc::new(Mutex::new(found.into_iter()));
        let config = Arc::new(config);
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                let (log_dir, found, config) = (Arc::clone(self), Arc::clone(&found), Arc::clone(&config));
                task::spawn(task::blocking(move || {
                    let mut loaded = Vec::new();
                    let mut failures = Vec::new();
                    loop {
                        // A statement of its own, so that the lock is not held while a log is opened.
                        let next = found.lock().next();
                        let Some((partition, directory)) = next else { break };
                        match log_dir.load_one(&partition, &directory, clean_shutdown, config(&partition)) {
                            Ok(log) => loaded.push(log),
                            Err(error) => failures.push(LoadFailure { partition, directory, error }),
                        }
                        log_dir.progress.on_opened();
                    }
                    (loaded, failures)
                }))
            })
            .collect();
        let mut loaded = Vec::new();
        let mut failures = Vec::new();
        for worker in workers {
            match worker.await {
                Ok((more_loaded, more_failures)) => {
                    loaded.extend(more_loaded);
                    failures.extend(more_failures);
                }
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {
                    let cancelled = std::io::Error::other("the process is shutting down");
                    return Err(cancelled).at(&self.path);
                }
            }
        }
        if let Some(failed) = failures.iter().position(|failure| failure.error.is_io()) {
            return Err(failures.swap_remove(failed).error);
        }
        let log_dir = Arc::clone(self);
        let mut loaded = task::blocking(move || {
            log_dir.flush_loaded(&mut loaded)?;
            log_dir.forget_failure().map(|()| loaded)
        })
        .await?;
        loaded.sort_by(|a, b| a.partition.cmp(&b.partition));
        failures.sort_by(|a, b| a.partition.cmp(&b.partition));
        Ok((loaded, failures))
    }

    /// Makes durable what was recovered. Of a few logs, file by file; of many, all of the file system at once.
    fn flush_loaded(&self, loaded: &mut [LoadedLog]) -> Result<(), StorageError> {
        /// The simulator's directories are small, and have to be flushed either way.
        const FEW: usize = if cfg!(vltava_sim) { 1 } else { 20 };
        let flushes: Vec<_> = loaded
            .iter_mut()
            .filter_map(|loaded| {
                let flush = loaded.log.begin_flush()?;
                Some((&mut loaded.log, flush))
            })
            .collect();
        let is_flushed = flushes.len() > FEW && self.flush_together(flushes.iter().map(|(_, flush)| flush))?;
        for (log, flush) in flushes {
            match if is_flushed { Ok(()) } else { flush.run() } {
                Ok(()) => {
                    log.end_flush(&flush);
                    log.close_files();
                }
                // The next flush tries again, when there may be room.
                Err(error) if error.is_full() => {
                    tracing::warn!(log = %log.directory().display(), %error, "what was recovered is not flushed yet");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What was read is on the disk.
    fn forget_failure(&self) -> Result<(), StorageError> {
        if self.distrusts_cache {
            let path = self.path.join(FAILED_FILE);
            fs::remove_file(&path).at(&path)?;
        }
        Ok(())
    }

    /// Returns whether that was possible.
    fn flush_together<'a>(&self, flushes: impl Iterator<Item = &'a Flush>) -> Result<bool, StorageError> {
        for flush in flushes {
            match flush.write_epochs_unflushed() {
                Ok(()) => {}
                Err(error) if error.is_full() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        fs::sync_file_system(&self.path).at(&self.path)
    }

    /// The directories of partitions. Removes those whose creation or deletion was under way.
    fn find_partitions(&self) -> Result<Vec<(PartitionName, PathBuf)>, StorageError> {
        // A directory that the last run has renamed to be deleted may get its old name back, unless that is on disk: it must
        // not then be half empty.
        fs::sync_dir(&self.path).at(&self.path)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).at(&self.path)? {
            let path = entry.at(&self.path)?.path();
            if !fs::metadata(&path).at(&path)?.is_dir() {
                continue;
            }
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name.ends_with(DELETE_SUFFIX) && name.contains('.') {
                fs::remove_dir_all(&path).at(&path)?;
            } else if let Some(partition) = relocation::future_of(&path) {
                fs::remove_dir_all(&path).at(&path)?;
                self.interrupted_moves.lock().push(partition);
            } else if name == crate::METADATA_TOPIC_DIRECTORY {
                // The Raft log's, which the quorum opens by itself.
            } else if let Ok(partition) = name.parse() {
                if is_unfinished(&path)? {
                    fs::remove_dir_all(&path).at(&path)?;
                } else {
                    found.push((partition, path));
                }
            } else {
                tracing::warn!(path = %path.display(), "not a partition's directory, left alone");
            }
        }
        found.sort();
        Ok(found)
    }

    fn load_one(
        self: &Arc<Self>,
        partition: &PartitionName,
        directory: &Path,
        clean_shutdown: bool,
        config: Arc<LogConfig>,
    ) -> Result<LoadedLog, StorageError> {
        let high_watermark = self.high_watermarks.get(partition).unwrap_or_default();
        let (log, recovery) = Log::open(
            directory,
            config,
            LogOptions {
                log_start_offset: self.log_start_offsets.get(partition).unwrap_or_default(),
                recovery_point: self.recovery_points.get(partition).unwrap_or_default(),
                high_watermark,
                clean_shutdown,
                defer_flush: true,
                distrusts_cache: self.distrusts_cache,
                progress: self.progress.clone(),
                recovery_points: Some(self.recovery_points_of(partition)),
            },
        )?;
        if recovery != RecoveryReport::default() {
            tracing::info!(
                %partition,
                bytes_scanned = recovery.bytes_scanned,
                bytes_cut = recovery.bytes_cut,
                indexes_rebuilt = recovery.indexes_rebuilt,
                log_end_offset = %log.log_end_offset(),
                "recovered a log"
            );
        }
        if let Some(lost_below) = recovery.lost_below {
            tracing::error!(%partition, log_end_offset = %log.log_end_offset(), %lost_below, "the disk lost records");
        }
        // What is appended over a part that was lost was never cleaned.
        self.cleaned.lower(partition, log.log_end_offset())?;
        let high_watermark = high_watermark.clamp(log.log_start_offset(), log.log_end_offset());
        Ok(LoadedLog { partition: partition.clone(), log, recovery, high_watermark, log_dir: Arc::clone(self) })
    }
}

/// Whether a crash interrupted the creation of a log: it has no identity yet, and no records.
fn is_unfinished(directory: &Path) -> Result<bool, StorageError> {
    if partition_metadata::read(directory).is_ok_and(|topic_id| topic_id.is_some()) {
        return Ok(false);
    }
    for entry in fs::read_dir(directory).at(directory)? {
        let path = entry.at(directory)?.path();
        let is_log = path.extension().is_some_and(|extension| extension == LOG_SUFFIX);
        if is_log && fs::metadata(&path).at(&path)?.len() > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
