//! All log directories of a broker.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use vltava_types::DirectoryId;

use crate::{LoadProgress, LogDir, StorageError};

/// The entries of `log.dirs`. A directory that fails is taken out; the others go on.
#[derive(Debug)]
pub struct LogManager {
    /// Those that work, in the order of the configuration.
    online: Mutex<Vec<Arc<LogDir>>>,
}

impl LogManager {
    /// Opens every directory. Those that fail are reported; whether the others suffice is the caller's decision.
    #[must_use]
    pub fn open(paths: &[PathBuf]) -> (Self, Vec<(PathBuf, StorageError)>) {
        Self::open_observed(paths, &LoadProgress::default())
    }

    /// The same, with who counts the logs that are opened then.
    #[must_use]
    pub fn open_observed(paths: &[PathBuf], progress: &LoadProgress) -> (Self, Vec<(PathBuf, StorageError)>) {
        let mut online = Vec::new();
        let mut failed = Vec::new();
        for path in paths {
            match LogDir::open_observed(path, progress.clone()) {
                Ok(log_dir) => online.push(Arc::new(log_dir)),
                Err(error) => failed.push((path.clone(), error)),
            }
        }
        (Self { online: Mutex::new(online) }, failed)
    }

    /// The directories that work.
    #[must_use]
    pub fn online(&self) -> Vec<Arc<LogDir>> {
        self.online.lock().clone()
    }

    #[must_use]
    pub fn by_id(&self, id: DirectoryId) -> Option<Arc<LogDir>> {
        self.online.lock().iter().find(|log_dir| log_dir.directory_id() == id).cloned()
    }

    /// Where a new partition goes: the working directory with the fewest logs, of which `log_counts` tells how many each
    /// holds. The first one in the configuration's order among equals.
    #[must_use]
    pub fn for_new_log(&self, log_counts: &BTreeMap<DirectoryId, usize>) -> Option<Arc<LogDir>> {
        let online = self.online.lock();
        online.iter().min_by_key(|log_dir| log_counts.get(&log_dir.directory_id()).copied().unwrap_or(0)).cloned()
    }

    /// Takes a failed directory out of service. Returns whether it was in service. Its lock stays until its last user
    /// lets go.
    pub fn take_offline(&self, failed: &LogDir) -> bool {
        let mut online = self.online.lock();
        let before = online.len();
        online.retain(|log_dir| log_dir.path() != failed.path());
        online.len() < before
    }
}
