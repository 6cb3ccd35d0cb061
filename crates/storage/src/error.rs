use std::io;
use std::path::{Path, PathBuf};

use vltava_types::Offset;

/// Why the log could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The disk failed. The log directory goes offline and nothing on it is retried: after a failed flush the page
    /// cache may claim to be clean while the data are gone (trap 27).
    #[error("i/o error on {}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file system, or a quota on it, has no room. What was begun was taken back, so that nothing has changed: it
    /// may be tried again when there is space.
    #[error("no space left for {}", path.display())]
    Full { path: PathBuf },
    /// What is stored is not what was written. The replica leaves the ISR and fetches again (trap 26).
    #[error("corrupt data in {} at position {position}: {reason}", path.display())]
    Corrupt { path: PathBuf, position: u64, reason: String },
    /// The offset is not in the log.
    #[error("offset {offset} is not in [{log_start_offset}, {log_end_offset}]")]
    OffsetOutOfRange { offset: Offset, log_start_offset: Offset, log_end_offset: Offset },
    /// The batches to append do not continue the log. Nothing was written.
    #[error("cannot append at log end offset {log_end_offset}: {reason}")]
    InvalidAppend { log_end_offset: Offset, reason: String },
    /// The log was truncated while it was read: take a new reader and check the offset again.
    #[error("the log was truncated during the read")]
    Truncated,
    /// Another process uses the log directory.
    #[error("log directory {} is in use by another process", path.display())]
    Locked { path: PathBuf },
    /// A directory's contents contradict what the node is told to be: another node's disk, or another cluster's.
    #[error("{}: {reason}", path.display())]
    Foreign { path: PathBuf, reason: String },
    /// The partition has a log here already, or is being created twice.
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
}

impl StorageError {
    /// Whether the disk itself failed, which takes the whole log directory offline.
    #[must_use]
    pub const fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. })
    }

    /// Whether there was no room, which nothing but time is lost by.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Where something was left half done, a lack of room is a failure like any other.
    pub(crate) fn or_failed(self) -> Self {
        match self {
            Self::Full { path } => Self::Io { path, source: io::ErrorKind::StorageFull.into() },
            other => other,
        }
    }

    pub(crate) fn corrupt(path: &Path, position: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), position, reason: reason.into() }
    }
}

/// Adds the path to an I/O error.
pub(crate) trait AtPath<T> {
    fn at(self, path: &Path) -> Result<T, StorageError>;

    /// For what leaves nothing behind when there is no room for it, or is taken back: that is no failure of the disk.
    fn unless_full(self, path: &Path) -> Result<T, StorageError>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| match source.kind() {
            // Nobody reads beyond what was written: somebody has shortened the file.
            io::ErrorKind::UnexpectedEof => StorageError::corrupt(path, 0, "the file ends too early"),
            _ => StorageError::Io { path: path.to_owned(), source },
        })
    }

    fn unless_full(self, path: &Path) -> Result<T, StorageError> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full { path: path.to_owned() },
            _ => StorageError::Io { path: path.to_owned(), source },
        })
    }
}
