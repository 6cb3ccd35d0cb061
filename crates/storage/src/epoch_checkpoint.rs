//! `leader-epoch-checkpoint`: the epochs of a log, in Kafka's format.
//!
//! ```text
//! 0
//! <number of lines that follow>
//! <epoch> <start offset>
//! ```
//!
//! The file must be right for everything below the recovery point; what comes after is read from the batches again. It
//! is therefore written with the flush that moves the recovery point, away from the append path, and at once by a
//! truncation.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use vltava_host::fs;
use vltava_replication::{EpochCache, EpochEntry};
use vltava_types::{LeaderEpoch, Offset};

use crate::StorageError;
use crate::error::AtPath;

pub(crate) const FILE_NAME: &str = "leader-epoch-checkpoint";

#[derive(Debug)]
pub(crate) struct EpochCheckpoint {
    path: PathBuf,
    /// The version of the contents. A flush runs without the log's lock and may come late: it must not overwrite what
    /// a truncation has written since.
    written: Mutex<u64>,
}

/// The contents of the file at one moment.
#[derive(Clone, Debug)]
pub(crate) struct EpochsVersion {
    pub version: u64,
    pub entries: Vec<EpochEntry>,
}

impl EpochCheckpoint {
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join(FILE_NAME), written: Mutex::new(0) }
    }

    /// Writes the first, empty version, which is durable when its directory is flushed.
    pub fn create(&self) -> Result<(), StorageError> {
        let open = fs::OpenOptions::new().write(true).create(true).truncate(true).open(&self.path);
        let mut file = open.unless_full(&self.path)?;
        file.write_all(print(&[]).as_bytes()).and_then(|()| file.sync_data()).unless_full(&self.path)?;
        *self.written.lock() = 1;
        Ok(())
    }

    /// `None` if the file is missing or malformed: the epochs have to be read from the log.
    pub fn read(&self) -> Result<Option<EpochCache>, StorageError> {
        match fs::read(&self.path) {
            Ok(contents) => Ok(parse(&contents)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at(&self.path),
        }
    }

    /// Durable on return, unless something newer is there.
    #[cfg_attr(vltava_sim, track_caller)]
    pub fn write(&self, epochs: &EpochsVersion) -> Result<(), StorageError> {
        self.write_if_newer(epochs, true)
    }

    /// Durable when the file system is. A crash before that may leave a file that counts as missing.
    pub fn write_unflushed(&self, epochs: &EpochsVersion) -> Result<(), StorageError> {
        self.write_if_newer(epochs, false)
    }

    #[cfg_attr(vltava_sim, track_caller)]
    fn write_if_newer(&self, epochs: &EpochsVersion, durably: bool) -> Result<(), StorageError> {
        let mut written = self.written.lock();
        if *written < epochs.version {
            let contents = print(&epochs.entries);
            let outcome = match durably {
                true => fs::write_atomically(&self.path, contents.as_bytes()),
                false => fs::write(&self.path, contents),
            };
            outcome.unless_full(&self.path)?;
            *written = epochs.version;
        }
        Ok(())
    }
}

fn print(entries: &[EpochEntry]) -> String {
    let mut text = format!("0\n{}\n", entries.len());
    for entry in entries {
        text.push_str(&format!("{} {}\n", entry.epoch, entry.start_offset));
    }
    text
}

fn parse(contents: &[u8]) -> Option<EpochCache> {
    let mut lines = std::str::from_utf8(contents).ok()?.lines();
    if lines.next() != Some("0") {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut entries = Vec::new();
    for line in lines {
        let (epoch, start_offset) = line.split_once(' ')?;
        let (epoch, start_offset) = (LeaderEpoch(epoch.parse().ok()?), Offset(start_offset.parse().ok()?));
        if epoch <= LeaderEpoch::NONE || start_offset < Offset(0) {
            return None;
        }
        entries.push(EpochEntry { epoch, start_offset });
    }
    (entries.len() == count).then(|| EpochCache::from_entries(entries))
}

#[cfg(test)]
mod tests {
    use vltava_replication::EpochEntry;
    use vltava_types::{LeaderEpoch, Offset};

    use super::{EpochCheckpoint, EpochsVersion, parse};

    fn version(version: u64, entries: &[(i32, i64)]) -> EpochsVersion {
        let entries = entries
            .iter()
            .map(|&(epoch, start)| EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(start) })
            .collect();
        EpochsVersion { version, entries }
    }

    #[test]
    fn a_late_flush_does_not_overwrite_a_truncation() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let checkpoint = EpochCheckpoint::new(directory.path());
        assert_eq!(checkpoint.read().expect("readable"), None);
        checkpoint.write(&version(2, &[(1, 0), (3, 10)])).expect("written");
        checkpoint.write(&version(1, &[(1, 0), (2, 5)])).expect("skipped");
        let text = vltava_host::fs::read_to_string(directory.path().join("leader-epoch-checkpoint")).expect("the file");
        assert_eq!(text, "0\n2\n1 0\n3 10\n");
        let epochs = checkpoint.read().expect("readable").expect("well-formed");
        assert_eq!(epochs.entries(), version(2, &[(1, 0), (3, 10)]).entries);
    }

    #[test]
    fn malformed_files_count_as_missing() {
        for text in [
            "",
            "1\n0\n",
            "0\n",
            "0\n2\n1 0\n",
            "0\n1\n1\n",
            "0\n1\n1 x\n",
            "0\n1\n1 2 3\n",
            "0\n1\n-1 2\n",
            "0\n1\n1 -2\n",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
