//! Doors for the fuzzers in `/fuzz`: what comes from other nodes and from the disk, as bytes.

use bytes::Bytes;
use vltava_peer::fuzzing::{raft_message as decode, snapshot_header};

use crate::encoding::{decode_payload, decode_snapshot_meta, encode_payload};
use crate::state_file::StateFile;
use crate::{snapshot, wire};

/// A message of Raft, from its bytes to what OpenRaft is given.
pub fn raft_message(kind: u8, bytes: Bytes) {
    match kind {
        0 => {
            if let Some(Ok(request)) = decode(bytes).map(wire::append_from_wire) {
                for pair in request.entries.windows(2) {
                    assert_eq!(pair[0].log_id.index + 1, pair[1].log_id.index, "entries have no gap");
                }
            }
        }
        1 => _ = decode(bytes).map(wire::appended_from_wire),
        2 => _ = decode(bytes).map(wire::vote_request_from_wire),
        3 => _ = decode(bytes).map(wire::voted_from_wire),
        4 => _ = decode(bytes).map(wire::transfer_from_wire),
        _ => {
            if let Some(header) = snapshot_header(bytes) {
                let _ = (wire::vote_from_wire(header.vote), decode_snapshot_meta(header.meta));
            }
        }
    }
}

/// The payload of an entry of the log.
pub fn log_entry(bytes: Bytes) {
    let Ok(payload) = decode_payload(bytes) else { return };
    let again = decode_payload(encode_payload(&payload)).expect("what we encoded can be decoded");
    assert_eq!(again, payload, "an entry keeps its meaning");
}

/// The contents of a snapshot file; returns the records of the image in it.
#[must_use]
pub fn snapshot(contents: Bytes) -> Option<Bytes> {
    snapshot::parse(contents).ok().map(|snapshot| snapshot.snapshot)
}

/// The contents of `quorum-state`.
pub fn quorum_state(text: &str) {
    let Some(state) = StateFile::parse(text) else { return };
    assert_eq!(StateFile::parse(&state.format()).as_ref(), Some(&state), "the file keeps its meaning");
}
