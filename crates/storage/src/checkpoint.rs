//! Kafka's checkpoint files of offsets by partition.
//!
//! ```text
//! 0
//! <number of lines that follow>
//! <topic> <partition> <offset>
//! ```

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use vltava_host::fs;
use vltava_types::{Offset, PartitionIndex};

use crate::error::AtPath;
use crate::{PartitionName, StorageError};

/// One checkpoint file and its contents. Changes are durable on return: written to a temporary file, renamed, and the
/// directory flushed (trap 28). Without room for that, the file and what is known of it stay as they were.
#[derive(Debug)]
pub struct OffsetCheckpoint {
    path: PathBuf,
    /// As in the file. Held while the file is written, so that writes cannot overtake each other.
    offsets: Mutex<BTreeMap<PartitionName, Offset>>,
}

impl OffsetCheckpoint {
    /// Reads the file; a missing one is empty.
    pub fn open(path: PathBuf) -> Result<Self, StorageError> {
        let offsets = match fs::read(&path) {
            Ok(contents) => parse(&contents).map_err(|reason| StorageError::corrupt(&path, 0, reason))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error).at(&path),
        };
        Ok(Self { path, offsets: Mutex::new(offsets) })
    }

    /// The same, but a malformed file is passed over, and replaced by the next change. Returns whether it was.
    pub(crate) fn open_or_begin_anew(path: PathBuf) -> Result<(Self, bool), StorageError> {
        match Self::open(path.clone()) {
            Err(error @ StorageError::Corrupt { .. }) => {
                tracing::warn!(%error, "passed over a checkpoint that cannot be read");
                Ok((Self { path, offsets: Mutex::default() }, true))
            }
            outcome => outcome.map(|checkpoint| (checkpoint, false)),
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub fn get(&self, partition: &PartitionName) -> Option<Offset> {
        self.offsets.lock().get(partition).copied()
    }

    /// The partitions that have an offset.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionName> {
        self.offsets.lock().keys().cloned().collect()
    }

    /// Takes over the offsets given and keeps the others. Writes only if something changed.
    #[cfg_attr(vltava_sim, track_caller)]
    pub fn update<P: Borrow<PartitionName>>(
        &self,
        changes: impl IntoIterator<Item = (P, Offset)>,
    ) -> Result<(), StorageError> {
        let mut offsets = self.offsets.lock();
        let is_news = |(partition, offset): &(P, Offset)| offsets.get(partition.borrow()) != Some(offset);
        let changes: Vec<_> = changes.into_iter().filter(is_news).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let named = changes.iter().map(|(partition, offset)| (partition.borrow().clone(), *offset));
        self.change(&mut offsets, |offsets| offsets.extend(named))
    }

    /// Makes sure that the partition's offset is at most `offset`.
    #[cfg_attr(vltava_sim, track_caller)]
    pub fn lower(&self, partition: &PartitionName, offset: Offset) -> Result<(), StorageError> {
        let mut offsets = self.offsets.lock();
        if offsets.get(partition).is_none_or(|known| *known <= offset) {
            return Ok(());
        }
        self.change(&mut offsets, |offsets| _ = offsets.insert(partition.clone(), offset))
    }

    /// Forgets the partition.
    #[cfg_attr(vltava_sim, track_caller)]
    pub fn remove(&self, partition: &PartitionName) -> Result<(), StorageError> {
        let mut offsets = self.offsets.lock();
        if !offsets.contains_key(partition) {
            return Ok(());
        }
        self.change(&mut offsets, |offsets| _ = offsets.remove(partition))
    }

    /// All of a change or nothing of it, in the file as here. Costs as much as there are partitions.
    #[cfg_attr(vltava_sim, track_caller)]
    fn change(
        &self,
        offsets: &mut BTreeMap<PartitionName, Offset>,
        change: impl FnOnce(&mut BTreeMap<PartitionName, Offset>),
    ) -> Result<(), StorageError> {
        let mut changed = offsets.clone();
        change(&mut changed);
        fs::write_atomically(&self.path, print(&changed).as_bytes()).unless_full(&self.path)?;
        *offsets = changed;
        Ok(())
    }
}

fn print(offsets: &BTreeMap<PartitionName, Offset>) -> String {
    let mut text = format!("0\n{}\n", offsets.len());
    for (PartitionName { topic, partition }, offset) in offsets {
        text.push_str(&format!("{topic} {partition} {offset}\n"));
    }
    text
}

fn parse(contents: &[u8]) -> Result<BTreeMap<PartitionName, Offset>, String> {
    let text = std::str::from_utf8(contents).map_err(|_| "not text".to_owned())?;
    let mut lines = text.lines();
    if lines.next() != Some("0") {
        return Err("unknown version".to_owned());
    }
    let count: usize = lines.next().and_then(|line| line.parse().ok()).ok_or("no line count")?;
    let mut offsets = BTreeMap::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let (Some(topic), Some(partition), Some(offset), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(format!("malformed line: {line}"));
        };
        let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else {
            return Err(format!("malformed line: {line}"));
        };
        if partition < 0 || offset < 0 {
            return Err(format!("there are no negative numbers: {line}"));
        }
        offsets.insert(PartitionName::new(topic, PartitionIndex(partition)), Offset(offset));
    }
    if offsets.len() != count {
        return Err(format!("{count} lines were expected, {} found", offsets.len()));
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use vltava_types::{Offset, PartitionIndex};

    use super::{OffsetCheckpoint, parse};
    use crate::PartitionName;

    #[test]
    fn the_file_is_kafkas_and_survives_reopening() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("replication-offset-checkpoint");
        let checkpoint = OffsetCheckpoint::open(path.clone()).expect("a missing file is empty");
        let partition = |index| PartitionName::new("orders", PartitionIndex(index));
        checkpoint.update([(partition(1), Offset(7)), (partition(0), Offset(3))]).expect("written");
        checkpoint.lower(&partition(1), Offset(5)).expect("written");
        checkpoint.lower(&partition(0), Offset(5)).expect("written");
        assert_eq!(vltava_host::fs::read_to_string(&path).expect("the file"), "0\n2\norders 0 3\norders 1 5\n");
        let reopened = OffsetCheckpoint::open(path).expect("the file is well-formed");
        assert_eq!(reopened.get(&partition(1)), Some(Offset(5)));
        reopened.remove(&partition(1)).expect("written");
        assert_eq!(reopened.get(&partition(1)), None);
    }

    #[test]
    fn malformed_files_are_refused() {
        for text in [
            "",
            "1\n0\n",
            "0\n",
            "0\n2\na 0 1\n",
            "0\n1\na 0\n",
            "0\n1\na 0 1 2\n",
            "0\n1\na x 1\n",
            "0\n1\na 0 -1\n",
            "0\n1\na -1 1\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
