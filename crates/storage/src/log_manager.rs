//! All log directories of a broker.

use std::path::PathBuf;
use std::sync::Arc;

use vltava_types::DirectoryId;

use crate::{LogDir, StorageError};

/// The entries of `log.dirs`. A directory that fails is taken out; the others go on.
pub struct LogManager {}

impl LogManager {
    /// Opens every directory. Those that fail are reported, not fatal, as long as one is left.
    pub fn open(paths: &[PathBuf]) -> (Self, Vec<(PathBuf, StorageError)>) {
        let _ = paths;
        unimplemented!()
    }

    /// The directories that work.
    #[must_use]
    pub fn online(&self) -> Vec<Arc<LogDir>> {
        unimplemented!()
    }

    #[must_use]
    pub fn by_id(&self, id: DirectoryId) -> Option<Arc<LogDir>> {
        let _ = id;
        unimplemented!()
    }

    /// Where a new partition goes: the working directory with the fewest logs.
    #[must_use]
    pub fn for_new_log(&self) -> Option<Arc<LogDir>> {
        unimplemented!()
    }

    /// Takes a failed directory out of service. Returns whether it was in service.
    pub fn take_offline(&self, directory: &LogDir) -> bool {
        let _ = directory;
        unimplemented!()
    }
}
