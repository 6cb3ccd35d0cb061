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
            if is_noticeable(&path, &fs::read(&path).unwrap_or_default(), position, bit) {
                self.disk(broker).flip_bit(&path, position, bit).expect("the file was found");
            }
        }
    }
}

/// Whether anything tells that the bit at `position` of a segment is turned over. No CRC covers where a batch begins, in
/// Kafka's format: the batches around it tell, unless it would lie in a gap between them, or is its segment's last.
#[must_use]
pub fn is_noticeable(path: &Path, segment: &[u8], position: u64, bit: u8) -> bool {
    let file_name = path.file_stem().and_then(|name| name.to_str()).expect("a segment's name");
    let mut lowest: i64 = file_name.parse().expect("a base offset");
    let mut walk = batches(segment).flatten().peekable();
    while let Some(batch) = walk.next() {
        let byte = (position as usize).wrapping_sub(batch.position);
        if byte < size_of::<i64>() {
            let mut bytes = batch.header.base_offset.value().to_be_bytes();
            bytes[byte] ^= 1 << (bit % 8);
            let begins = i64::from_be_bytes(bytes);
            let ends = begins.saturating_add(i64::from(batch.header.last_offset_delta));
            return begins < lowest || walk.peek().is_some_and(|next| next.header.base_offset.value() <= ends);
        }
        lowest = batch.header.next_offset().value();
    }
    true
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
