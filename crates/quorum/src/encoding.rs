//! Our own encoding of what Raft keeps and sends: log entries, memberships and snapshot metadata. OpenRaft's is not
//! stable between releases, ours begins with a version. All numbers are big-endian.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use vltava_metadata::Endpoint;
use vltava_types::{DirectoryId, Uuid};

use crate::types::{LogId, Member, Membership, Payload, RecordSet, SnapshotMeta, StoredMembership, log_id, term_of};

const VERSION: u8 = 1;

const KIND_BLANK: u8 = 0;
const KIND_RECORDS: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// The bytes are not what this release, or any before it, has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}")]
pub struct Malformed {
    what: &'static str,
}

impl From<Malformed> for std::io::Error {
    fn from(error: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

/// A log entry without its log id: that is the batch's base offset and leader epoch.
pub(crate) fn encode_payload(payload: &Payload) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    match payload {
        Payload::Blank => out.put_u8(KIND_BLANK),
        Payload::Normal(set) => {
            out.put_u8(KIND_RECORDS);
            out.put_u64(set.term);
            out.put_slice(&set.records);
        }
        Payload::Membership(membership) => {
            out.put_u8(KIND_MEMBERSHIP);
            put_membership(&mut out, membership);
        }
    }
    out.freeze()
}

/// The inverse of [`encode_payload`].
pub(crate) fn decode_payload(mut bytes: Bytes) -> Result<Payload, Malformed> {
    check_version(&mut bytes, "log entry")?;
    match bytes.try_get_u8().map_err(|_| Malformed { what: "log entry" })? {
        KIND_BLANK => Ok(Payload::Blank),
        KIND_RECORDS => {
            let term = bytes.try_get_u64().map_err(|_| Malformed { what: "log entry" })?;
            Ok(Payload::Normal(RecordSet { term, records: bytes }))
        }
        KIND_MEMBERSHIP => Ok(Payload::Membership(get_membership(&mut bytes)?)),
        _ => Err(Malformed { what: "kind of log entry" }),
    }
}

/// A snapshot's metadata.
pub(crate) fn encode_snapshot_meta(meta: &SnapshotMeta) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    put_log_id(&mut out, meta.last_log_id.as_ref());
    put_log_id(&mut out, meta.last_membership.log_id().as_ref());
    put_membership(&mut out, meta.last_membership.membership());
    out.freeze()
}

/// The inverse of [`encode_snapshot_meta`].
pub(crate) fn decode_snapshot_meta(mut bytes: Bytes) -> Result<SnapshotMeta, Malformed> {
    check_version(&mut bytes, "snapshot metadata")?;
    let last_log_id = get_log_id(&mut bytes)?;
    let membership_log_id = get_log_id(&mut bytes)?;
    let membership = get_membership(&mut bytes)?;
    Ok(SnapshotMeta { last_log_id, last_membership: StoredMembership::new(membership_log_id, membership) })
}

fn check_version(bytes: &mut Bytes, what: &'static str) -> Result<(), Malformed> {
    match bytes.try_get_u8() {
        Ok(VERSION) => Ok(()),
        _ => Err(Malformed { what }),
    }
}

fn put_log_id(out: &mut BytesMut, log_id: Option<&LogId>) {
    match log_id {
        None => out.put_u8(0),
        Some(log_id) => {
            out.put_u8(1);
            out.put_u64(term_of(log_id));
            out.put_u64(log_id.index);
        }
    }
}

fn get_log_id(bytes: &mut Bytes) -> Result<Option<LogId>, Malformed> {
    let malformed = |_| Malformed { what: "log id" };
    match bytes.try_get_u8().map_err(malformed)? {
        0 => Ok(None),
        _ => {
            let term = bytes.try_get_u64().map_err(malformed)?;
            let index = bytes.try_get_u64().map_err(malformed)?;
            Ok(Some(log_id(term, index)))
        }
    }
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u32(length(configs.len()));
    for voters in configs {
        out.put_u32(length(voters.len()));
        for voter in voters {
            out.put_u64(*voter);
        }
    }
    let nodes: BTreeMap<_, _> = membership.nodes().collect();
    out.put_u32(length(nodes.len()));
    for (node_id, member) in nodes {
        out.put_u64(*node_id);
        out.put_slice(&member.directory_id.0.0);
        put_string(out, &member.endpoint.host);
        out.put_u16(member.endpoint.port);
        put_string(out, &member.endpoint.security_protocol);
    }
}

fn get_membership(bytes: &mut Bytes) -> Result<Membership, Malformed> {
    let malformed = |_| Malformed { what: "membership" };
    let mut configs = Vec::new();
    for _ in 0..bytes.try_get_u32().map_err(malformed)? {
        let mut voters = BTreeSet::new();
        for _ in 0..bytes.try_get_u32().map_err(malformed)? {
            voters.insert(bytes.try_get_u64().map_err(malformed)?);
        }
        configs.push(voters);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..bytes.try_get_u32().map_err(malformed)? {
        let node_id = bytes.try_get_u64().map_err(malformed)?;
        let mut directory_id = [0; 16];
        bytes.try_copy_to_slice(&mut directory_id).map_err(malformed)?;
        let host = get_string(bytes)?;
        let port = bytes.try_get_u16().map_err(malformed)?;
        let security_protocol = get_string(bytes)?;
        let endpoint = Endpoint { host, port, security_protocol };
        nodes.insert(node_id, Member { directory_id: DirectoryId(Uuid(directory_id)), endpoint });
    }
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| Malformed { what: "membership" })
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_u32(length(text.len()));
    out.put_slice(text.as_bytes());
}

fn get_string(bytes: &mut Bytes) -> Result<String, Malformed> {
    let malformed = Malformed { what: "text" };
    let length = bytes.try_get_u32().map_err(|_| malformed)? as usize;
    if bytes.remaining() < length {
        return Err(malformed);
    }
    String::from_utf8(bytes.split_to(length).to_vec()).map_err(|_| malformed)
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("a membership is small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let member = |seed: u8, port| Member {
            directory_id: DirectoryId(Uuid([seed; 16])),
            endpoint: Endpoint { host: "broker".to_owned(), port, security_protocol: "PLAINTEXT".to_owned() },
        };
        let nodes = BTreeMap::from([(1, member(1, 9093)), (2, member(2, 9094)), (7, member(7, 9095))]);
        Membership::new(vec![BTreeSet::from([1, 2]), BTreeSet::from([1])], nodes).expect("voters are nodes")
    }

    #[test]
    fn entries_round_trip() {
        let records = RecordSet { term: 4, records: Bytes::from_static(b"records") };
        for payload in [Payload::Blank, Payload::Normal(records), Payload::Membership(membership())] {
            assert_eq!(decode_payload(encode_payload(&payload)), Ok(payload));
        }
    }

    #[test]
    fn snapshot_metadata_round_trips() {
        let last_membership = StoredMembership::new(Some(log_id(1, 2)), membership());
        for meta in [SnapshotMeta { last_log_id: Some(log_id(3, 9)), last_membership }, SnapshotMeta::default()] {
            assert_eq!(decode_snapshot_meta(encode_snapshot_meta(&meta)), Ok(meta));
        }
    }

    #[test]
    fn cut_off_or_foreign_bytes_are_refused() {
        let whole = encode_payload(&Payload::Membership(membership()));
        for length in 0..whole.len() {
            assert!(decode_payload(whole.slice(..length)).is_err(), "cut at {length}");
        }
        assert!(decode_payload(Bytes::from_static(&[2, 0])).is_err(), "another version");
        assert!(decode_payload(Bytes::from_static(&[1, 9])).is_err(), "another kind");
    }
}
