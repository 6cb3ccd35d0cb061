//! Files that are opened when they are used and closed when they are not.
//!
//! A broker has three files a segment, and most of them rest: holding them all open, ten thousand partitions would need
//! more descriptors than most systems give to a process. A file stays open from its first use until
//! [`LazyFile::close_if_unused`] finds that nobody has used it for a round. At most half of the process's descriptors
//! are held in this way, so that the rest is left to connections: beyond that, a file is opened for one use and closed
//! again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use vltava_host::fs::{self, File};

use crate::StorageError;
use crate::error::AtPath;

/// How many files are held open, of all logs of the process: descriptors are the process's.
static HELD: AtomicUsize = AtomicUsize::new(0);

static MAX_HELD: LazyLock<usize> = LazyLock::new(|| fs::max_open_files() / 2);

#[derive(Debug)]
pub(crate) struct LazyFile {
    path: PathBuf,
    held: Mutex<Option<Arc<File>>>,
    was_used: AtomicBool,
}

impl LazyFile {
    /// Creates the file if it is missing. Returns its length too.
    pub fn create_or_open(path: PathBuf) -> Result<(Self, u64), StorageError> {
        let file = open(&path, true).unless_full(&path)?;
        let length = file.metadata().at(&path)?.len();
        let lazy = Self { path, held: Mutex::new(None), was_used: AtomicBool::new(true) };
        lazy.hold(&Arc::new(file), false);
        Ok((lazy, length))
    }

    /// An existing file, which is held open.
    pub fn open_and_keep(path: PathBuf) -> Result<Self, StorageError> {
        let lazy = Self { path, held: Mutex::new(None), was_used: AtomicBool::new(true) };
        lazy.keep_open()?;
        Ok(lazy)
    }

    /// An existing file that is not to be changed. It is held open.
    pub fn for_reading(path: PathBuf) -> Result<Self, StorageError> {
        let file = fs::OpenOptions::new().read(true).open(&path).at(&path)?;
        let lazy = Self { path, held: Mutex::new(None), was_used: AtomicBool::new(true) };
        lazy.hold(&Arc::new(file), true);
        Ok(lazy)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file. It stays open as long as the caller holds it, whatever happens to its name.
    pub fn handle(&self) -> Result<Arc<File>, StorageError> {
        self.was_used.store(true, Ordering::Relaxed);
        self.open_and_hold(false)
    }

    /// Blocks until the contents are on disk.
    #[cfg_attr(vltava_sim, track_caller)]
    pub fn sync_data(&self) -> Result<(), StorageError> {
        self.handle()?.sync_data().at(&self.path)
    }

    /// Holds the descriptor, however many there are, so that users go on after the file is renamed or removed.
    pub fn keep_open(&self) -> Result<(), StorageError> {
        self.open_and_hold(true).map(drop)
    }

    /// Lets go of the descriptor.
    pub fn close(&self) {
        if self.held.lock().take().is_some() {
            HELD.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Lets go of the descriptor if the file was not used since the last call.
    pub fn close_if_unused(&self) {
        if !self.was_used.swap(false, Ordering::Relaxed) {
            self.close();
        }
    }

    fn open_and_hold(&self, in_any_case: bool) -> Result<Arc<File>, StorageError> {
        if let Some(file) = &*self.held.lock() {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(open(&self.path, false).at(&self.path)?);
        self.hold(&file, in_any_case);
        Ok(file)
    }

    fn hold(&self, file: &Arc<File>, in_any_case: bool) {
        if !in_any_case && HELD.load(Ordering::Relaxed) >= *MAX_HELD {
            return;
        }
        if self.held.lock().replace(Arc::clone(file)).is_none() {
            HELD.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for LazyFile {
    fn drop(&mut self) {
        self.close();
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    fs::OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use vltava_host::fs::FileExt as _;

    use super::LazyFile;

    #[test]
    fn an_unused_file_is_closed_and_opens_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("f");
        let (file, length) = LazyFile::create_or_open(path.clone()).expect("created");
        assert_eq!(length, 0);
        file.handle().expect("open").write_all_at(b"ab", 0).expect("written");
        file.close_if_unused();
        assert!(file.held.lock().is_some(), "it was used");
        file.close_if_unused();
        assert!(file.held.lock().is_none(), "it was not used since");
        let mut bytes = [0; 2];
        file.handle().expect("opened again").read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"ab");
        assert!(file.held.lock().is_some());
    }

    #[test]
    fn a_file_that_is_kept_open_survives_its_name_and_others_do_not_come_back_empty() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let [kept, closed] = ["kept", "closed"].map(|name| {
            let (file, _) = LazyFile::create_or_open(directory.path().join(name)).expect("created");
            file.close();
            file
        });
        kept.keep_open().expect("there");
        for file in [&kept, &closed] {
            vltava_host::fs::remove_file(file.path()).expect("there");
        }
        assert!(kept.handle().is_ok());
        assert!(closed.handle().is_err());
    }
}
