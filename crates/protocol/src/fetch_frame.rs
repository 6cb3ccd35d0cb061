//! Fetch responses whose records lie elsewhere, so that they need not be copied into the frame.
//!
//! The generated codec writes a response as one buffer with all records in it. Here it writes everything around them:
//! the response without topics, each topic without partitions, and each partition without records. These parts are cut
//! where the left-out part belongs, which is at the end but for tagged fields, and put together again.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_wire::{ResponseHeader, fetch_response::FetchableTopicResponse};
use kafka_wire_core::{ApiVersion, EncodeError, KafkaEncode};

use crate::messages::FetchResponse;
use crate::versions::ApiKey;

/// A frame as what has to be written one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Bytes(Bytes),
    /// The records of the partition with this number, counting those without records of their own in the response.
    Records(usize),
}

/// Encodes a whole frame. Partitions whose `records` are null get records from elsewhere, with these lengths, in their
/// order in the response.
pub fn encode_fetch_response(
    version: i16,
    correlation_id: i32,
    response: &FetchResponse,
    record_lengths: &[usize],
) -> Result<Vec<Part>, EncodeError> {
    let api = ApiKey::Fetch;
    let is_flexible = api.is_flexible(version);
    let header_version = ApiVersion::new(api.response_header_version(version));
    let mut header = ResponseHeader::default();
    header.correlation_id = correlation_id;
    let version = ApiVersion::new(version);
    let mut frame = Frame { parts: Vec::new(), open: BytesMut::new(), bytes: 0, record_lengths, is_flexible };

    frame.open.put_i32(0);
    header.encode_into(&mut frame.open, header_version)?;
    let mut outer = FetchResponse::default();
    outer.throttle_time_ms = response.throttle_time_ms;
    outer.error_code = response.error_code;
    outer.session_id = response.session_id;
    outer.node_endpoints = response.node_endpoints.clone();
    // Of the flexible versions, all have the same fields before the topics; of the others, none has one after them.
    let before_topics = if is_flexible { Some(FLEXIBLE_BYTES_BEFORE_TOPICS) } else { None };
    let rest = frame.begin_array(&outer, version, before_topics, response.responses.len())?;
    for topic in &response.responses {
        frame.topic(topic, version)?;
    }
    frame.open.put(rest);
    frame.finish()
}

/// Throttle time, error code and session id.
const FLEXIBLE_BYTES_BEFORE_TOPICS: usize = 4 + 2 + 4;

struct Frame<'a> {
    parts: Vec<Part>,
    open: BytesMut,
    /// In `parts`, and in records.
    bytes: usize,
    /// Of the records that are still to come.
    record_lengths: &'a [usize],
    is_flexible: bool,
}

impl Frame<'_> {
    fn topic(&mut self, topic: &FetchableTopicResponse, version: ApiVersion) -> Result<(), EncodeError> {
        let mut outer = FetchableTopicResponse::default();
        outer.topic = topic.topic.clone();
        outer.topic_id = topic.topic_id;
        let rest = self.begin_array(&outer, version, None, topic.partitions.len())?;
        for partition in &topic.partitions {
            let start = self.open.len();
            partition.encode_into(&mut self.open, version)?;
            if partition.records.is_none() {
                assert!(partition.unknown_tagged_fields.is_empty(), "nothing but what is known is answered");
                self.records(start)?;
            }
        }
        self.open.put(rest);
        Ok(())
    }

    /// Encodes a message whose array is empty, and begins the array at `position`, by default the last place but for the
    /// number of tagged fields. Returns what comes after it.
    fn begin_array<M: KafkaEncode>(
        &mut self,
        outer: &M,
        version: ApiVersion,
        position: Option<usize>,
        count: usize,
    ) -> Result<Bytes, EncodeError> {
        let start = self.open.len();
        outer.encode_into(&mut self.open, version)?;
        // An empty array, as the codec writes it.
        let (width, after) = if self.is_flexible { (1, 1) } else { (4, 0) };
        let position = position.map_or(self.open.len() - width - after, |position| start + position);
        let mut rest = self.open.split_off(position);
        assert_eq!(rest.split_to(width), if self.is_flexible { &[1][..] } else { &[0, 0, 0, 0] }, "an empty array");
        self.length("array", count)?;
        Ok(rest.freeze())
    }

    /// The partition that was written from `start` on has null records: others take their place.
    fn records(&mut self, start: usize) -> Result<(), EncodeError> {
        let number = self.parts.iter().filter(|part| matches!(part, Part::Records(_))).count();
        let (&length, left) = self.record_lengths.split_first().expect("a length for each partition without records");
        self.record_lengths = left;
        let (width, null) = if self.is_flexible { (1, &[0][..]) } else { (4, &[0xff; 4][..]) };
        let after = usize::from(self.is_flexible);
        let mut rest = self.open.split_off(self.open.len() - width - after);
        assert!(self.open.len() > start, "records are not all that a partition has");
        assert_eq!(rest.split_to(width), null, "null records");
        assert!(rest.iter().all(|byte| *byte == 0), "a partition with records has no tagged fields");
        self.length("bytes", length)?;
        self.close();
        self.parts.push(Part::Records(number));
        self.bytes += length;
        self.open.put(rest);
        Ok(())
    }

    fn length(&mut self, kind: &'static str, length: usize) -> Result<(), EncodeError> {
        let maximum = i32::MAX as usize;
        let wire = i32::try_from(length).map_err(|_| EncodeError::LengthOverflow { kind, length, maximum })?;
        if !self.is_flexible {
            self.open.put_i32(wire);
            return Ok(());
        }
        let mut rest = wire.unsigned_abs() + 1;
        while rest >= 0x80 {
            self.open.put_u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.open.put_u8(rest as u8);
        Ok(())
    }

    fn close(&mut self) {
        let bytes = self.open.split().freeze();
        self.bytes += bytes.len();
        self.parts.push(Part::Bytes(bytes));
    }

    fn finish(mut self) -> Result<Vec<Part>, EncodeError> {
        assert!(self.record_lengths.is_empty(), "a partition without records for each length");
        self.close();
        let length = self.bytes - 4;
        let prefix = i32::try_from(length).map_err(|_| EncodeError::FrameTooLarge { bytes: length })?;
        let Some(Part::Bytes(first)) = self.parts.first_mut() else { unreachable!("a frame begins with its header") };
        let mut patched = BytesMut::from(&first[..]);
        patched[..4].copy_from_slice(&prefix.to_be_bytes());
        *first = patched.freeze();
        Ok(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::{Part, encode_fetch_response};
    use crate::frame::encode_response;
    use crate::make;
    use crate::messages::fetch_response::{FetchableTopicResponse, NodeEndpoint, PartitionData};
    use crate::messages::{FetchResponse, Uuid};
    use crate::versions::ApiKey;

    /// Topics, each a list of partitions, each with records of a length, and whether they lie elsewhere.
    fn check(version: i16, topics: &[Vec<(usize, bool)>], has_endpoints: bool) {
        let response = |with_records: bool| {
            let topic = |partitions: &Vec<(usize, bool)>| {
                let partition = |&(length, elsewhere): &(usize, bool)| {
                    make!(PartitionData {
                        partition_index: 7,
                        high_watermark: 1 << 40,
                        log_start_offset: if version >= 5 { 3 } else { -1 },
                        aborted_transactions: Some(vec![]),
                        records: (with_records || !elsewhere).then(|| Bytes::from(vec![length as u8; length])),
                    })
                };
                let partitions = partitions.iter().map(partition).collect();
                if version >= 13 {
                    make!(FetchableTopicResponse { topic_id: Uuid::from_bytes([9; 16]), partitions })
                } else {
                    make!(FetchableTopicResponse { topic: "topic".into(), partitions })
                }
            };
            let mut response = make!(FetchResponse { responses: topics.iter().map(topic).collect() });
            if version >= 7 {
                response.session_id = 77;
            }
            if version >= 16 && has_endpoints {
                response.node_endpoints = vec![make!(NodeEndpoint { node_id: 3, host: "h".into(), port: 9 })];
            }
            response
        };
        let lengths: Vec<usize> = topics.iter().flatten().filter(|p| p.1).map(|p| p.0).collect();
        let parts = encode_fetch_response(version, 5, &response(false), &lengths).expect("encoded");
        let joined: Vec<u8> = parts
            .iter()
            .flat_map(|part| match part {
                Part::Bytes(bytes) => bytes.to_vec(),
                Part::Records(number) => vec![lengths[*number] as u8; lengths[*number]],
            })
            .collect();
        let whole = encode_response(ApiKey::Fetch, version, 5, &response(true)).expect("encoded");
        assert_eq!(joined, whole, "version {version}");
    }

    proptest! {
        #[test]
        fn parts_make_the_frame_that_the_codec_makes(
            version in 4..=18_i16,
            topics in prop::collection::vec(prop::collection::vec((0..300_usize, any::<bool>()), 0..4), 0..4),
            has_endpoints in any::<bool>(),
        ) {
            check(version, &topics, has_endpoints);
        }
    }

    #[test]
    fn more_topics_partitions_and_bytes_than_one_digit_holds() {
        for version in [4, 11, 12, 16, 18] {
            check(version, &vec![vec![(20_000, true); 150]; 2], true);
            check(version, &vec![vec![(3, true)]; 200], true);
        }
    }
}
