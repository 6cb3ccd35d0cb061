//! Room kept for the metadata log on a disk that it shares with records.
//!
//! A file of that size stands beside the log. When the file system has no room left, the file is removed and the write
//! repeated: votes, entries and snapshots go on while records are refused. The file comes back when there is room for it
//! and as much again.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};
use vltava_host::fs;

const FILE_NAME: &str = "vltava-reserve";

/// How often it is tried to take the room back.
const TAKE_INTERVAL: Duration = Duration::from_secs(10);

/// The reserved room of one metadata log.
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    state: Mutex<State>,
}

struct State {
    is_held: bool,
    tried_at: Option<Instant>,
}

impl Reserve {
    /// Holds nothing yet: what an earlier run has left is given back, so that opening the log finds room.
    pub fn new(directory: &Path, bytes: u64) -> Self {
        let path = directory.join(FILE_NAME);
        let _ = fs::remove_file(&path);
        Self { path, bytes, state: Mutex::new(State { is_held: false, tried_at: None }) }
    }

    /// Gives the room back to the file system. Returns whether there was any.
    pub fn release(&self) -> bool {
        let mut state = self.state.lock();
        let released = std::mem::take(&mut state.is_held) && fs::remove_file(&self.path).is_ok();
        if released {
            state.tried_at = Some(Instant::now());
            tracing::warn!(bytes = self.bytes, "the disk is full: the metadata log goes on with its reserve");
        }
        released
    }

    /// Takes the room, if it is not held and there is enough. Tried only now and then.
    pub fn take(&self) {
        let mut state = self.state.lock();
        if state.is_held || self.bytes == 0 || state.tried_at.is_some_and(|at| at.elapsed() < TAKE_INTERVAL) {
            return;
        }
        state.tried_at = Some(Instant::now());
        let Some(directory) = self.path.parent() else { return };
        let has_room = fs::space(directory).is_ok_and(|space| space.available_bytes / 2 >= self.bytes);
        if has_room {
            match fs::allocate(&self.path, self.bytes) {
                Ok(()) => state.is_held = true,
                Err(error) => {
                    let _ = fs::remove_file(&self.path);
                    tracing::warn!(%error, "no room can be reserved for the metadata log");
                }
            }
        }
    }

    /// Performs a write that changes nothing if there is no room for it; then once more, with the reserve.
    pub fn with_room<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if is_full(&error) && self.release() => write(),
            outcome => outcome,
        }
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_without_room_is_repeated_once_with_the_reserve() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let reserve = Reserve::new(directory.path(), 8192);
        let path = directory.path().join(FILE_NAME);
        reserve.take();
        assert_eq!(fs::metadata(&path).expect("the reserve").len(), 8192);
        let attempts = |reserve: &Reserve| {
            let mut attempts = 0;
            let outcome = reserve.with_room(|| {
                attempts += 1;
                Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull))
            });
            assert!(outcome.is_err());
            attempts
        };
        assert_eq!(attempts(&reserve), 2);
        assert!(fs::metadata(&path).is_err(), "the room was given back");
        assert_eq!(attempts(&reserve), 1, "there is no other reserve");
    }

    #[test]
    fn other_errors_leave_the_reserve_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let reserve = Reserve::new(directory.path(), 8192);
        reserve.take();
        assert!(reserve.with_room(|| Err::<(), _>(io::Error::other("broken"))).is_err());
        assert!(reserve.release(), "it is still held");
    }

    #[test]
    fn more_than_there_is_is_not_reserved() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let reserve = Reserve::new(directory.path(), u64::MAX);
        reserve.take();
        assert!(!reserve.release());
    }
}
