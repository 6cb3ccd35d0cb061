//! Snapshot files: `<20-digit offset>-<10-digit term>.checkpoint`, named as Kafka names them.
//!
//! Contents, big-endian: the bytes `VLTS`, a version, the length of the metadata, the metadata, the encoded image
//! records, and the CRC-32C of all that.

use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use vltava_host::fs;

use crate::encoding::{decode_snapshot_meta, encode_snapshot_meta};
use crate::types::{Snapshot, SnapshotMeta, term_of};

const MAGIC: &[u8; 4] = b"VLTS";
const VERSION: u8 = 1;
const EXTENSION: &str = "checkpoint";

/// Makes a snapshot durable, then removes all others.
pub(crate) fn write(directory: &Path, meta: &SnapshotMeta, records: &[u8]) -> io::Result<()> {
    let encoded_meta = encode_snapshot_meta(meta);
    let mut contents = BytesMut::with_capacity(records.len() + encoded_meta.len() + 16);
    contents.put_slice(MAGIC);
    contents.put_u8(VERSION);
    contents.put_u32(u32::try_from(encoded_meta.len()).expect("a membership is small"));
    contents.put_slice(&encoded_meta);
    contents.put_slice(records);
    contents.put_u32(crc32c::crc32c(&contents));
    let path = path(directory, meta);
    fs::write_atomically(&path, &contents)?;
    for other in list(directory)? {
        if other != path {
            fs::remove_file(&other)?;
        }
    }
    Ok(())
}

/// The newest snapshot that is intact. A snapshot is the only copy of the log it replaces, so a damaged newest one is
/// an error, unless an older one and the log after it still exist.
pub(crate) fn read_newest(directory: &Path) -> io::Result<Option<Snapshot>> {
    let mut first_error = None;
    for path in list(directory)?.into_iter().rev() {
        match read(&path) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a snapshot of the metadata is damaged");
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(None), Err)
}

fn read(path: &Path) -> io::Result<Snapshot> {
    parse(Bytes::from(fs::read(path)?))
}

pub(crate) fn parse(mut contents: Bytes) -> io::Result<Snapshot> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "not a snapshot");
    if contents.len() < MAGIC.len() + 1 + 4 + 4 {
        return Err(damaged());
    }
    let crc = contents.split_off(contents.len() - 4).get_u32();
    if crc32c::crc32c(&contents) != crc || contents.split_to(MAGIC.len())[..] != MAGIC[..] {
        return Err(damaged());
    }
    if contents.get_u8() != VERSION {
        return Err(damaged());
    }
    let meta_length = contents.get_u32() as usize;
    if contents.len() < meta_length {
        return Err(damaged());
    }
    let meta = decode_snapshot_meta(contents.split_to(meta_length))?;
    Ok(Snapshot { meta, snapshot: contents })
}

/// All snapshot files, oldest first.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn path(directory: &Path, meta: &SnapshotMeta) -> PathBuf {
    // Kafka's names carry the end offset, exclusive.
    let (end_offset, term) = meta.last_log_id.as_ref().map_or((0, 0), |last| (last.index + 1, term_of(last)));
    directory.join(format!("{end_offset:020}-{term:010}.{EXTENSION}"))
}
