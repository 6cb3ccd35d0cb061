//! A log directory in service: its logs' flusher, whether it has failed, and how much room is left.
//!
//! Room and failure are different things. A disk that failed is given up for good. One that is full refuses what would
//! grow it, goes on with everything else (reads, deletions, metadata), and takes records again when there is space.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use vltava_protocol::batch::Origin;
use vltava_storage::{Flusher, LogDir, StorageError};

/// A log directory in service, with what happens to all of its logs.
pub struct Disk {
    pub log_dir: Arc<LogDir>,
    pub flusher: Flusher,
    pub room: Room,
    /// An I/O error was seen. Nothing on this disk is used any more (trap 27).
    pub has_failed: AtomicBool,
    /// Rung at the first failure.
    pub failure: Arc<Notify>,
    /// Held while log starts are checkpointed, so that partitions are told in the order of the writes.
    pub log_start_checkpoint: Mutex<()>,
}

impl Disk {
    /// Takes note of an error: an I/O error fails the disk, and a lack of room stops appends until the next look.
    pub fn on_error(&self, error: &StorageError) {
        if error.is_full() {
            self.room.exhaust();
            self.log_if_changed(true);
        }
        if error.is_io() && !self.has_failed.swap(true, Ordering::AcqRel) {
            tracing::error!(log_dir = %self.log_dir.path().display(), %error, "log directory failed");
            self.log_dir.mark_failed();
            self.failure.notify_one();
        }
    }

    /// Looks how much room there is.
    pub fn look(&self) {
        // A file system that does not tell is not full.
        let space = vltava_host::fs::space(self.log_dir.path()).ok();
        self.room.look(space.map(|space| space.available_bytes));
        self.log_if_changed(!self.room.admits(Writer::Client, 0));
    }

    fn log_if_changed(&self, is_full: bool) {
        if self.room.is_full.swap(is_full, Ordering::AcqRel) == is_full {
            return;
        }
        let (log_dir, reserve_bytes) = (self.log_dir.path().display(), self.room.reserve_bytes);
        if is_full {
            tracing::warn!(%log_dir, reserve_bytes, "the log directory is full: records are refused until there is room");
        } else {
            tracing::info!(%log_dir, reserve_bytes, "the log directory has room again: records are taken");
        }
    }
}

/// Who wants to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Client,
    Coordinator,
    Follower,
}

impl From<Origin> for Writer {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Client => Self::Client,
            Origin::Coordinator => Self::Coordinator,
        }
    }
}

/// How much may still be written to a file system, as of the last look and what was appended since.
pub struct Room {
    free_bytes: AtomicI64,
    /// `vltava.disk.reserve.bytes`.
    reserve_bytes: i64,
    /// As last logged.
    is_full: AtomicBool,
}

impl Room {
    /// Unlimited until the first look.
    #[must_use]
    pub fn new(reserve_bytes: u64) -> Self {
        Self {
            free_bytes: AtomicI64::new(i64::MAX),
            reserve_bytes: i64::try_from(reserve_bytes).unwrap_or(i64::MAX),
            is_full: AtomicBool::new(false),
        }
    }

    /// Whether `bytes` may be appended.
    #[must_use]
    pub fn admits(&self, writer: Writer, bytes: usize) -> bool {
        admits(self.free_bytes.load(Ordering::Acquire), self.reserve_bytes, writer, bytes)
    }

    /// So many bytes were appended.
    pub fn on_appended(&self, bytes: usize) {
        self.free_bytes.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::AcqRel);
    }

    fn look(&self, available_bytes: Option<u64>) {
        let free_bytes = available_bytes.map_or(i64::MAX, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
        self.free_bytes.store(free_bytes, Ordering::Release);
    }

    /// The file system said that there is nothing left, whatever the last look saw.
    fn exhaust(&self) {
        self.free_bytes.store(-1, Ordering::Release);
    }
}

/// Clients leave the reserve alone. Coordinators and followers may use half of it: consumers commit their offsets while
/// producers wait, and of replicas whose disks fill up alike the leader stops first, so that what it has taken is
/// replicated and nobody leaves the ISR. The other half is for what keeps a broker going: indexes, checkpoints, and the
/// metadata log where it shares the disk.
const fn admits(free_bytes: i64, reserve_bytes: i64, writer: Writer, bytes: usize) -> bool {
    let kept = match writer {
        Writer::Client => reserve_bytes,
        Writer::Coordinator | Writer::Follower => reserve_bytes / 2,
    };
    let left = free_bytes.saturating_sub(kept);
    left >= 0 && bytes as u64 <= left.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::{Room, Writer, admits};

    #[test]
    fn clients_leave_the_reserve_and_others_half_of_it() {
        for (free, client, other) in [(300, true, true), (200, true, true), (199, false, true), (99, false, false)] {
            assert_eq!(admits(free, 100, Writer::Client, 100), client, "{free}");
            assert_eq!(admits(free, 100, Writer::Coordinator, 100), other, "{free}");
            assert_eq!(admits(free, 100, Writer::Follower, 100), other, "{free}");
        }
        assert!(admits(i64::MAX, i64::MAX, Writer::Client, 0));
        assert!(!admits(i64::MIN, i64::MAX, Writer::Client, 0));
    }

    #[test]
    fn appends_use_up_what_the_last_look_saw() {
        let room = Room::new(100);
        assert!(room.admits(Writer::Client, 1 << 40), "nobody has looked yet");
        room.look(Some(1_000));
        assert!(room.admits(Writer::Client, 900));
        assert!(!room.admits(Writer::Client, 901));
        room.on_appended(850);
        assert!(!room.admits(Writer::Client, 100));
        assert!(room.admits(Writer::Follower, 100));
        room.look(Some(1_000));
        assert!(room.admits(Writer::Client, 900));
        room.look(None);
        assert!(room.admits(Writer::Client, 1 << 40), "a file system that does not tell is not full");
    }

    #[test]
    fn an_exhausted_disk_takes_nothing_until_the_next_look_even_without_a_reserve() {
        let room = Room::new(0);
        room.look(Some(1));
        room.exhaust();
        for writer in [Writer::Client, Writer::Coordinator, Writer::Follower] {
            assert!(!room.admits(writer, 0));
        }
        room.look(Some(1));
        assert!(room.admits(Writer::Client, 1));
        assert!(!room.admits(Writer::Client, 2));
    }
}
