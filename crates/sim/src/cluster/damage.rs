//! What a disk does to what was safely on it.

use std::io;
use std::path::{Path, PathBuf};

use vltava_host::fs;
use vltava_protocol::batch::batches;

use super::{Cluster, mount_point};

/// The metadata's log is the voter's own, and no other replica can give it back.
const METADATA: &str = "__cluster_metadata-0";

impl Cluster {
    /// Turns a bit over in each of so many segments of the broker's partitions, which must have no process.
    pub fn flip_bits(&mut self, broker: i32, segments: usize) {
        // A disk without power, or without partitions, has nothing to offer.
        let mut found = find_segments(&Path::new(&mount_point(broker as u16)).join("data")).unwrap_or_default();
        for _ in 0..segments.min(found.len()) {
            let (path, length) = found.swap_remove(self.random.below(found.len() as u64) as usize);
            let (position, bit) = (self.random.below(length), self.random.below(8) as u8);
            let position = beyond_base_offset(&fs::read(&path).unwrap_or_default(), position);
            self.disk(broker).flip_bit(&path, position, bit).expect("the file was found");
        }
    }
}

/// No CRC covers a batch's base offset, in Kafka's format, and nothing promises that damage there is noticed.
fn beyond_base_offset(segment: &[u8], position: u64) -> u64 {
    const BASE_OFFSET_BYTES: u64 = 8;
    let starts = batches(segment).flatten().map(|batch| batch.position as u64);
    let start = starts.take_while(|start| *start <= position).last();
    start.map_or(position, |start| position.max(start + BASE_OFFSET_BYTES))
}

/// Segments that hold something, each with its length.
fn find_segments(log_dir: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = vec![];
    for partition in fs::read_dir(log_dir)? {
        let partition = partition?.path();
        if partition.ends_with(METADATA) || !fs::metadata(&partition)?.is_dir() {
            continue;
        }
        for file in fs::read_dir(&partition)? {
            let file = file?;
            let length = file.metadata()?.len();
            if length > 0 && file.path().extension().is_some_and(|extension| extension == "log") {
                found.push((file.path(), length));
            }
        }
    }
    Ok(found)
}
