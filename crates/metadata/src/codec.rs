//! The binary form of records, requests and responses: on disk in the metadata log and its snapshots, and as opaque
//! bytes inside the messages of the peer protocol.
//!
//! Numbers are big-endian; texts and lists carry a 32-bit length. Every record, request and response is a frame of its
//! own: type (16 bits), version (8 bits), length of the body (32 bits), body. A newer release may append fields to a
//! body under a higher version, and an older one skips them. What may not be skipped gets a new type, and an unknown
//! type is an error. Types and tags are never reused.
//!
//! Decoding bounds every length by the bytes that are there before it allocates, and never panics.

mod wire;

use vltava_types::{ErrorCode, TopicPartition};

use crate::controller::{
    AlterConfigs, AlterPartition, AlterPartitions, AlteredPartition, ConfigOperation, ControllerError,
    ControllerRequest, ControllerResponse, CreatePartitionsTopic, CreateTopic, CreateTopics, CreatedTopic,
    CreatedTopicDetail, ElectionType, Heartbeat, HeartbeatReply, ProducerIdBlock, Reassignment, RegisterBroker,
    TopicSelector,
};
use crate::record::{BrokerRegistration, ConfigResource, Endpoint, MetadataRecord, PartitionChange, PartitionRecord};
use wire::{Reader, Wire, wire_enum, wire_frames, wire_struct};

/// The bytes are not a value of ours, or one of a release that this one cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the bytes end too early")]
    Truncated,
    #[error("{0} bytes are left over at the end")]
    TrailingBytes(usize),
    #[error("type {0} is not known to this release")]
    UnknownType(u16),
    #[error("version {0} does not exist")]
    UnknownVersion(u8),
    #[error("tag {0} is not known to this release")]
    UnknownTag(u8),
    #[error("{0} is not an error code")]
    UnknownErrorCode(i16),
    #[error("a text is not utf-8")]
    InvalidText,
}

/// Records as the data of one log entry, or as the content of a snapshot.
#[must_use]
pub fn encode_records(records: &[MetadataRecord]) -> Vec<u8> {
    let mut out = vec![];
    wire::write_slice(records, &mut out);
    out
}

/// The inverse of [`encode_records`].
pub fn decode_records(bytes: &[u8]) -> Result<Vec<MetadataRecord>, DecodeError> {
    decode(bytes)
}

/// A request as opaque bytes.
#[must_use]
pub fn encode_request(request: &ControllerRequest) -> Vec<u8> {
    encode(request)
}

/// The inverse of [`encode_request`].
pub fn decode_request(bytes: &[u8]) -> Result<ControllerRequest, DecodeError> {
    decode(bytes)
}

/// A response as opaque bytes.
#[must_use]
pub fn encode_response(response: &ControllerResponse) -> Vec<u8> {
    encode(response)
}

/// The inverse of [`encode_response`].
pub fn decode_response(bytes: &[u8]) -> Result<ControllerResponse, DecodeError> {
    decode(bytes)
}

fn encode<T: Wire>(value: &T) -> Vec<u8> {
    let mut out = vec![];
    value.write(&mut out);
    out
}

fn decode<T: Wire>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut input = Reader::new(bytes);
    let value = T::read(&mut input)?;
    input.finish()?;
    Ok(value)
}

wire_frames! {
    MetadataRecord {
        1 => ClusterId { cluster_id },
        2 => RegisterBroker { 0: registration },
        3 => BrokerRegistrationChange { broker_id, broker_epoch, fenced, in_controlled_shutdown },
        4 => UnregisterBroker { broker_id, broker_epoch },
        5 => BrokerEpochs { last },
        6 => Topic { topic_id, name },
        7 => RemoveTopic { topic_id },
        8 => Partition { 0: partition },
        9 => PartitionChange { 0: change },
        10 => Config { resource, name, value },
        11 => ProducerIds { broker_id, broker_epoch, next },
        12 => FeatureLevel { name, level },
        13 => NoOp {},
    }
}

wire_frames! {
    ControllerRequest {
        1 => RegisterBroker { 0: request },
        2 => Heartbeat { 0: request },
        3 => AlterPartitions { 0: request },
        4 => CreateTopics { 0: request },
        5 => DeleteTopics { topics },
        6 => CreatePartitions { topics, validate_only },
        7 => AlterConfigs { 0: request },
        8 => ElectLeaders { election_type, partitions },
        9 => AlterPartitionReassignments { partitions, allow_replication_factor_change },
        10 => AllocateProducerIds { broker_id, broker_epoch },
        11 => UnregisterBroker { broker_id },
    }
}

wire_frames! {
    ControllerResponse {
        1 => RegisterBroker { 0: result },
        2 => Heartbeat { 0: result },
        3 => AlterPartitions { 0: result },
        4 => CreateTopics { 0: topics },
        5 => DeleteTopics { 0: topics },
        6 => CreatePartitions { 0: topics },
        7 => AlterConfigs { 0: resources },
        8 => ElectLeaders { 0: partitions },
        9 => AlterPartitionReassignments { 0: partitions },
        10 => AllocateProducerIds { 0: result },
        11 => UnregisterBroker { 0: result },
    }
}

wire_struct! { TopicPartition { topic_id, partition } }
wire_struct! { Endpoint { host, port, security_protocol } }
wire_struct! {
    BrokerRegistration {
        broker_id, broker_epoch, incarnation_id, listeners, peer, rack, log_dirs, is_broker, fenced,
        in_controlled_shutdown,
    }
}
wire_struct! {
    PartitionRecord {
        topic_id, partition, replicas, isr, eligible_leader_replicas, last_known_leader, adding_replicas,
        removing_replicas, leader, leader_recovering, leader_epoch, partition_epoch,
    }
}
wire_struct! {
    PartitionChange {
        topic_id, partition, replicas, isr, eligible_leader_replicas, last_known_leader, adding_replicas,
        removing_replicas, leader, leader_recovering, bump_leader_epoch,
    }
}
wire_enum! {
    ConfigResource {
        0 => Topic { 0: topic_id },
        1 => Broker { 0: broker_id },
        2 => ClusterDefault {},
        3 => Group { 0: group_id },
        4 => ClientMetrics { 0: name },
    }
}

wire_struct! { ControllerError { code, message } }
wire_struct! {
    RegisterBroker {
        broker_id, cluster_id, incarnation_id, listeners, peer, rack, log_dirs, is_broker, previous_broker_epoch,
    }
}
wire_struct! {
    Heartbeat { broker_id, broker_epoch, applied, want_fence, want_shutdown, offline_log_dirs, offline_partitions }
}
wire_struct! { HeartbeatReply { is_caught_up, is_fenced, should_shut_down } }
wire_struct! { AlterPartitions { broker_id, broker_epoch, partitions } }
wire_struct! { AlterPartition { partition, leader_epoch, partition_epoch, new_isr, leader_recovered } }
wire_struct! { AlteredPartition { leader, leader_epoch, isr, partition_epoch } }
wire_struct! { CreateTopics { topics, validate_only } }
wire_struct! {
    CreateTopic {
        name, topic_id, partition_count, replication_factor, assignments, configs, clamp_replication_factor,
    }
}
wire_struct! { CreatedTopic { name, result } }
wire_struct! { CreatedTopicDetail { topic_id, partition_count, replication_factor } }
wire_enum! { TopicSelector { 0 => Name { 0: name }, 1 => Id { 0: topic_id } } }
wire_struct! { CreatePartitionsTopic { name, count, assignments } }
wire_struct! { AlterConfigs { resources, replace_all, validate_only } }
wire_enum! {
    ConfigOperation {
        0 => Set { name, value },
        1 => Delete { name },
        2 => Append { name, value },
        3 => Subtract { name, value },
    }
}
wire_enum! { ElectionType { 0 => Preferred {}, 1 => Unclean {} } }
wire_struct! { Reassignment { partition, replicas } }
wire_struct! { ProducerIdBlock { first, length } }

impl Wire for ErrorCode {
    fn write(&self, out: &mut Vec<u8>) {
        self.code().write(out);
    }

    fn read(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let code = i16::read(input)?;
        Self::from_code(code).ok_or(DecodeError::UnknownErrorCode(code))
    }

    #[cfg(test)]
    fn sample(entropy: &mut wire::Entropy<'_>) -> Self {
        Self::from_code(i16::from(u8::sample(entropy) % 134)).expect("codes have no gaps")
    }
}

/// Some request, for tests of whoever decides them.
#[cfg(test)]
pub(crate) fn sample_request(entropy: &[u8]) -> ControllerRequest {
    ControllerRequest::sample(&mut wire::Entropy::new(entropy))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;
    use vltava_types::TopicId;

    use super::wire::{Entropy, Wire};
    use super::*;

    fn check_round_trip<T: Wire + PartialEq + std::fmt::Debug>(entropy: &[u8]) {
        let value = T::sample(&mut Entropy::new(entropy));
        let bytes = encode(&value);
        assert_eq!(decode(&bytes), Ok(value));
        for end in 0..bytes.len() {
            assert!(decode::<T>(&bytes[..end]).is_err(), "a cut value is never complete");
        }
    }

    fn check_damage<T: Wire + PartialEq + std::fmt::Debug>(entropy: &[u8], at: usize, damage: u8) {
        let mut bytes = encode(&T::sample(&mut Entropy::new(entropy)));
        let at = at % bytes.len();
        bytes[at] ^= damage;
        // Any answer will do, as long as it is one.
        let _ = decode::<T>(&bytes);
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_were(entropy in proptest::collection::vec(any::<u8>(), 0..400)) {
            check_round_trip::<Vec<MetadataRecord>>(&entropy);
            check_round_trip::<ControllerRequest>(&entropy);
            check_round_trip::<ControllerResponse>(&entropy);
        }

        #[test]
        fn damaged_bytes_are_answered(
            entropy in proptest::collection::vec(any::<u8>(), 0..400), at: usize, damage: u8
        ) {
            check_damage::<Vec<MetadataRecord>>(&entropy, at, damage);
            check_damage::<ControllerRequest>(&entropy, at, damage);
            check_damage::<ControllerResponse>(&entropy, at, damage);
        }

        #[test]
        fn random_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (decode_records(&bytes), decode_request(&bytes), decode_response(&bytes));
        }
    }

    /// The form on disk must not change by accident.
    #[test]
    fn bytes_of_a_topic_record() {
        let record = MetadataRecord::Topic { topic_id: TopicId::from_random([7; 16]), name: "orders".to_owned() };
        let bytes = encode_records(&[record]);
        expect!["00000001000601000000 1a0707070707074707870707070707070700000006 6f7264657273"].assert_eq(&format!(
            "{} {} {}",
            hex(&bytes[..10]),
            hex(&bytes[10..31]),
            hex(&bytes[31..])
        ));
    }

    #[test]
    fn fields_of_a_newer_version_are_skipped() {
        // type 13 (NoOp), version 2, a body of three bytes.
        let newer = [0, 0, 0, 1, 0, 13, 2, 0, 0, 0, 3, 9, 9, 9];
        assert_eq!(decode_records(&newer), Ok(vec![MetadataRecord::NoOp]));
        let same = [0, 0, 0, 1, 0, 13, 1, 0, 0, 0, 3, 9, 9, 9];
        assert_eq!(decode_records(&same), Err(DecodeError::TrailingBytes(3)));
    }

    #[test]
    fn what_is_unknown_is_refused() {
        assert_eq!(decode_records(&[0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0]), Err(DecodeError::UnknownType(256)));
        assert_eq!(decode_records(&[0, 0, 0, 1, 0, 13, 0, 0, 0, 0, 0]), Err(DecodeError::UnknownVersion(0)));
        assert_eq!(decode_records(&[0, 0, 0, 0, 5]), Err(DecodeError::TrailingBytes(1)));
    }

    #[test]
    fn a_hostile_length_allocates_nothing() {
        assert_eq!(decode_records(&[0xff; 4]), Err(DecodeError::Truncated));
        assert_eq!(decode_request(&[0, 5, 1, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]), Err(DecodeError::Truncated));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
