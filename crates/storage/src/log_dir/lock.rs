//! One process at a time.

use std::path::Path;

use vltava_host::fs;

use crate::StorageError;
use crate::error::AtPath;

const LOCK_FILE: &str = ".lock";

/// An exclusive lock on `.lock`, released by the operating system when the process ends, however it ends. Simulated
/// hosts have disks of their own and need none.
#[derive(Debug)]
pub(crate) struct Lock {
    #[cfg(not(vltava_sim))]
    _file: fs::File,
}

impl Lock {
    #[cfg(not(vltava_sim))]
    pub(super) fn take(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(LOCK_FILE);
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at(&path)?;
        Self::take_file(file, directory)
    }

    /// `None` if nobody has ever locked the directory. Creates nothing.
    pub(crate) fn take_if_there(directory: &Path) -> Result<Option<Self>, StorageError> {
        match fs::OpenOptions::new().read(true).open(directory.join(LOCK_FILE)) {
            Ok(file) => Self::take_file(file, directory).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at(directory),
        }
    }

    #[cfg(not(vltava_sim))]
    fn take_file(file: fs::File, directory: &Path) -> Result<Self, StorageError> {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StorageError::Locked { path: directory.to_owned() }),
            Err(error) => Err(std::io::Error::from(error)).at(&directory.join(LOCK_FILE)),
        }
    }

    #[cfg(vltava_sim)]
    fn take_file(_file: fs::File, _directory: &Path) -> Result<Self, StorageError> {
        Ok(Self {})
    }

    #[cfg(vltava_sim)]
    pub(super) fn take(directory: &Path) -> Result<Self, StorageError> {
        let path = directory.join(LOCK_FILE);
        fs::write(&path, b"").at(&path)?;
        Ok(Self {})
    }
}
