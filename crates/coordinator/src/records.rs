//! The records of `__consumer_offsets`, byte for byte as Kafka writes them.
//!
//! A key begins with a 16-bit number that says what kind of record it is; a value begins with the 16-bit version of its
//! schema. Every version that Kafka has ever written is read. Written are the versions that Kafka 4 writes, which keep
//! a downgrade possible (KIP-915): offsets in version 4 (1 if they carry an explicit expiry), groups in version 3.

use bytes::{BufMut, Bytes};
use vltava_types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, Uuid};

use crate::core::LogRecord;

/// The longest string that a record holds. Flexible requests may carry longer ones, which must be refused.
pub(crate) const MAX_STRING_LENGTH: usize = i16::MAX as usize;

const LEGACY_OFFSET_COMMIT: i16 = 0;
const OFFSET_COMMIT: i16 = 1;
const GROUP_METADATA: i16 = 2;

const OFFSET_COMMIT_VALUE_VERSION: i16 = 4;
const OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY: i16 = 1;
const GROUP_METADATA_VALUE_VERSION: i16 = 3;

/// A decoded record. No value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    OffsetCommit { group_id: String, topic: String, partition: PartitionIndex, value: Option<OffsetCommitValue> },
    GroupMetadata { group_id: String, value: Option<GroupMetadataValue> },
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    pub offset: Offset,
    pub leader_epoch: LeaderEpoch,
    pub metadata: String,
    pub commit_timestamp: TimestampMs,
    /// Set only by clients that ask for a retention of their own (OffsetCommit 2 to 4).
    pub expire_timestamp: Option<TimestampMs>,
    /// Zero in records of Kafka before 4.1.
    pub topic_id: TopicId,
}

/// A generation of a classic group as its leader's assignment made it, or an empty group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// -1 in records before version 2.
    pub current_state_timestamp: TimestampMs,
    pub members: Vec<MemberMetadata>,
}

/// A member of a stored generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// -1 in records of version 0: the session timeout is meant.
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

/// The bytes are not what Kafka writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record has no key")]
    NoKey,
    #[error("the record ends too early")]
    Truncated,
    #[error("a length in the record is impossible")]
    InvalidLength,
    #[error("a string in the record is not UTF-8")]
    NotUtf8,
    #[error("{0} is null and must not be")]
    UnexpectedNull(&'static str),
    #[error("version {version} of {schema} is not known")]
    UnknownVersion { schema: &'static str, version: i16 },
}

impl GroupRecord {
    /// Decodes a record; `None` for a kind that is not known here.
    pub fn decode(record: &LogRecord) -> Result<Option<Self>, RecordError> {
        let mut key = Reader(&record.key);
        match key.i16()? {
            LEGACY_OFFSET_COMMIT | OFFSET_COMMIT => {
                let group_id = key.string("group")?;
                let topic = key.string("topic")?;
                let partition = PartitionIndex(key.i32()?);
                let value = record.value.as_deref().map(OffsetCommitValue::decode).transpose()?;
                Ok(Some(Self::OffsetCommit { group_id, topic, partition, value }))
            }
            GROUP_METADATA => {
                let group_id = key.string("group")?;
                let value = record.value.as_deref().map(GroupMetadataValue::decode).transpose()?;
                Ok(Some(Self::GroupMetadata { group_id, value }))
            }
            _ => Ok(None),
        }
    }

    /// Encodes the record in the versions that Kafka 4 writes.
    #[must_use]
    pub fn encode(&self) -> LogRecord {
        let mut key = Vec::new();
        match self {
            Self::OffsetCommit { group_id, topic, partition, value } => {
                key.put_i16(OFFSET_COMMIT);
                put_string(&mut key, group_id);
                put_string(&mut key, topic);
                key.put_i32(partition.value());
                LogRecord { key: key.into(), value: value.as_ref().map(OffsetCommitValue::encode) }
            }
            Self::GroupMetadata { group_id, value } => {
                key.put_i16(GROUP_METADATA);
                put_string(&mut key, group_id);
                LogRecord { key: key.into(), value: value.as_ref().map(GroupMetadataValue::encode) }
            }
        }
    }
}

impl OffsetCommitValue {
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::UnknownVersion { schema: "OffsetCommitValue", version });
        }
        let flexible = version >= 4;
        let offset = Offset(reader.i64()?);
        let leader_epoch = if version >= 3 { LeaderEpoch(reader.i32()?) } else { LeaderEpoch::NONE };
        let metadata = if flexible { reader.compact_string("metadata")? } else { reader.string("metadata")? };
        let commit_timestamp = TimestampMs(reader.i64()?);
        let expire_timestamp = if version == 1 { Some(reader.i64()?).filter(|ms| *ms != -1) } else { None };
        let mut topic_id = TopicId::ZERO;
        if flexible {
            reader.tagged_fields(|tag, mut field| {
                if tag == 0 {
                    topic_id = TopicId(Uuid(field.array()?));
                }
                Ok(())
            })?;
        }
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp: expire_timestamp.map(TimestampMs),
            topic_id,
        })
    }

    fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        if let Some(expire_timestamp) = self.expire_timestamp {
            // The only version with an expiry has neither leader epoch nor topic id.
            bytes.put_i16(OFFSET_COMMIT_VALUE_VERSION_WITH_EXPIRY);
            bytes.put_i64(self.offset.value());
            put_string(&mut bytes, &self.metadata);
            bytes.put_i64(self.commit_timestamp.value());
            bytes.put_i64(expire_timestamp.value());
            return bytes.into();
        }
        bytes.put_i16(OFFSET_COMMIT_VALUE_VERSION);
        bytes.put_i64(self.offset.value());
        bytes.put_i32(self.leader_epoch.value());
        put_varint(&mut bytes, self.metadata.len() as u64 + 1);
        bytes.put_slice(self.metadata.as_bytes());
        bytes.put_i64(self.commit_timestamp.value());
        if self.topic_id.is_zero() {
            put_varint(&mut bytes, 0);
        } else {
            put_varint(&mut bytes, 1); // one tagged field,
            put_varint(&mut bytes, 0); // of tag 0,
            put_varint(&mut bytes, 16); // sixteen bytes long
            bytes.put_slice(&self.topic_id.0.0);
        }
        bytes.into()
    }
}

impl GroupMetadataValue {
    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader(bytes);
        let version = reader.i16()?;
        if !(0..=4).contains(&version) {
            return Err(RecordError::UnknownVersion { schema: "GroupMetadataValue", version });
        }
        let flexible = version >= 4;
        let protocol_type = reader.text(flexible)?.ok_or(RecordError::UnexpectedNull("protocolType"))?;
        let generation = reader.i32()?;
        let protocol = reader.text(flexible)?;
        let leader = reader.text(flexible)?;
        let current_state_timestamp = if version >= 2 { TimestampMs(reader.i64()?) } else { TimestampMs::NONE };
        let count = reader.array_length(flexible)?;
        // The count is not trusted: each member read proves that the next may exist.
        let mut members = Vec::new();
        for _ in 0..count {
            let member_id = reader.text(flexible)?.ok_or(RecordError::UnexpectedNull("memberId"))?;
            let group_instance_id = if version >= 3 { reader.text(flexible)? } else { None };
            let client_id = reader.text(flexible)?.ok_or(RecordError::UnexpectedNull("clientId"))?;
            let client_host = reader.text(flexible)?.ok_or(RecordError::UnexpectedNull("clientHost"))?;
            let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { -1 };
            let session_timeout_ms = reader.i32()?;
            let subscription = reader.blob(flexible, "subscription")?;
            let assignment = reader.blob(flexible, "assignment")?;
            if flexible {
                reader.tagged_fields(|_, _| Ok(()))?;
            }
            members.push(MemberMetadata {
                member_id,
                group_instance_id,
                client_id,
                client_host,
                rebalance_timeout_ms,
                session_timeout_ms,
                subscription,
                assignment,
            });
        }
        if flexible {
            reader.tagged_fields(|_, _| Ok(()))?;
        }
        Ok(Self { protocol_type, generation, protocol, leader, current_state_timestamp, members })
    }

    fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        bytes.put_i16(GROUP_METADATA_VALUE_VERSION);
        put_string(&mut bytes, &self.protocol_type);
        bytes.put_i32(self.generation);
        put_nullable_string(&mut bytes, self.protocol.as_deref());
        put_nullable_string(&mut bytes, self.leader.as_deref());
        bytes.put_i64(self.current_state_timestamp.value());
        bytes.put_i32(i32::try_from(self.members.len()).expect("a group has fewer than two thousand million members"));
        for member in &self.members {
            put_string(&mut bytes, &member.member_id);
            put_nullable_string(&mut bytes, member.group_instance_id.as_deref());
            put_string(&mut bytes, &member.client_id);
            put_string(&mut bytes, &member.client_host);
            bytes.put_i32(member.rebalance_timeout_ms);
            bytes.put_i32(member.session_timeout_ms);
            put_blob(&mut bytes, &member.subscription);
            put_blob(&mut bytes, &member.assignment);
        }
        bytes.into()
    }
}

/// The topics of a consumer's subscription. Only the base that all versions share is read (version, then topics), as
/// Kafka does, so that newer clients need no newer broker.
pub(crate) fn subscribed_topics(subscription: &[u8]) -> Result<Vec<String>, RecordError> {
    let mut reader = Reader(subscription);
    let _version = reader.i16()?;
    let count = reader.array_length(false)?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(reader.string("topic")?);
    }
    Ok(topics)
}

/// Reads from the front of a slice; every length is checked against what remains.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RecordError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        Ok(self.take(N)?.try_into().expect("take returns the length asked for"))
    }

    fn i16(&mut self) -> Result<i16, RecordError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, RecordError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, RecordError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    fn varint(&mut self) -> Result<usize, RecordError> {
        let mut value: u64 = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| RecordError::InvalidLength);
            }
        }
        Err(RecordError::InvalidLength)
    }

    /// A compact length is one more than the length; zero is null.
    fn compact_length(&mut self) -> Result<Option<usize>, RecordError> {
        Ok(self.varint()?.checked_sub(1))
    }

    /// A string of 16-bit length or, in flexible versions, of compact length.
    fn text(&mut self, flexible: bool) -> Result<Option<String>, RecordError> {
        let length = if flexible {
            self.compact_length()?
        } else {
            match self.i16()? {
                -1 => None,
                length => Some(usize::try_from(length).map_err(|_| RecordError::InvalidLength)?),
            }
        };
        let Some(length) = length else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| RecordError::NotUtf8)?;
        Ok(Some(text.to_owned()))
    }

    fn string(&mut self, field: &'static str) -> Result<String, RecordError> {
        self.text(false)?.ok_or(RecordError::UnexpectedNull(field))
    }

    fn compact_string(&mut self, field: &'static str) -> Result<String, RecordError> {
        self.text(true)?.ok_or(RecordError::UnexpectedNull(field))
    }

    fn blob(&mut self, flexible: bool, field: &'static str) -> Result<Bytes, RecordError> {
        let length = if flexible {
            self.compact_length()?.ok_or(RecordError::UnexpectedNull(field))?
        } else {
            usize::try_from(self.i32()?).map_err(|_| RecordError::InvalidLength)?
        };
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    fn array_length(&mut self, flexible: bool) -> Result<usize, RecordError> {
        if flexible {
            return self.compact_length()?.ok_or(RecordError::UnexpectedNull("an array"));
        }
        usize::try_from(self.i32()?).map_err(|_| RecordError::InvalidLength)
    }

    fn tagged_fields(
        &mut self,
        mut field: impl FnMut(usize, Reader<'a>) -> Result<(), RecordError>,
    ) -> Result<(), RecordError> {
        let count = self.varint()?;
        for _ in 0..count {
            let tag = self.varint()?;
            let length = self.varint()?;
            field(tag, Reader(self.take(length)?))?;
        }
        Ok(())
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.put_u8(value as u8);
}

fn put_string(bytes: &mut Vec<u8>, text: &str) {
    bytes.put_i16(i16::try_from(text.len()).expect("longer strings were refused when they came in a request"));
    bytes.put_slice(text.as_bytes());
}

fn put_nullable_string(bytes: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => bytes.put_i16(-1),
        Some(text) => put_string(bytes, text),
    }
}

fn put_blob(bytes: &mut Vec<u8>, blob: &[u8]) {
    bytes.put_i32(i32::try_from(blob.len()).expect("blobs of requests are shorter than a frame"));
    bytes.put_slice(blob);
}
