//! Frames: `int32 length`, header, body. The connection reads the length and the bytes; here they become requests, and
//! responses become bytes.

use bytes::{Bytes, BytesMut};
use kafka_wire_core::{ApiVersion, DecodeError, DecodeLimits, Decoder, EncodeError, Encoder, KafkaDecode, KafkaEncode};

use crate::messages::{KafkaRequest, KafkaResponse, RequestHeader, ResponseHeader, StrBytes};
use crate::refusal::refuse;
use crate::versions::ApiKey;

/// Frames of other requests than those that carry bulk data are refused above this size. A structure may take some thirty
/// times its size on the wire once decoded, so this bounds what one request can make the broker allocate.
pub const MAX_CONTROL_FRAME_BYTES: usize = 4 * 1024 * 1024;

/// No array of a request may have more elements. A Produce request may not have more topics and partitions in total.
const MAX_ARRAY_ELEMENTS: usize = 200_000;

/// What a request says of itself before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub api: ApiKey,
    pub version: i16,
    pub correlation_id: i32,
    pub client_id: Option<StrBytes>,
}

/// What to do with a frame, as far as its header tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// To be served; the body is still encoded.
    Request { header: Header, body: Bytes },
    /// ApiVersions above what we speak: answered with a version 0 body that names our maximum (KIP-511).
    ApiVersionsTooNew { correlation_id: i32 },
    /// Kafka knows this API and we do not serve it: answered with `response`, which says so.
    NotBuilt { api_key: i16, version: i16, response: Bytes },
}

/// The frame cannot be answered: the connection is closed, as Kafka does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("unknown or unsupported api key {api_key} (version {version})")]
    UnknownApi { api_key: i16, version: i16 },
    #[error("version {version} of {} is not supported", api.name())]
    UnsupportedVersion { api: ApiKey, version: i16 },
    #[error("{} request of {size} bytes exceeds the limit of {limit}", api.name())]
    TooLarge { api: ApiKey, size: usize, limit: usize },
    #[error("malformed request header: {0}")]
    MalformedHeader(DecodeError),
    #[error("malformed {} request: {error}", api.name())]
    MalformedBody { api: ApiKey, error: DecodeError },
}

/// Reads the header of a frame (without its length prefix).
pub fn read_header(frame: Bytes) -> Result<Incoming, FrameError> {
    // Key, version and correlation id have the same place in every header version.
    let size = frame.len();
    let mut peek = Decoder::new(frame.clone(), limits(size)).map_err(FrameError::MalformedHeader)?;
    let api_key = peek.read_i16().map_err(FrameError::MalformedHeader)?;
    let version = peek.read_i16().map_err(FrameError::MalformedHeader)?;
    let correlation_id = peek.read_i32().map_err(FrameError::MalformedHeader)?;

    let Some(api) = ApiKey::from_code(api_key) else {
        return match refuse(api_key, version, correlation_id) {
            Some(response) => Ok(Incoming::NotBuilt { api_key, version, response }),
            None => Err(FrameError::UnknownApi { api_key, version }),
        };
    };
    if !api.accepts(version) {
        if api == ApiKey::ApiVersions {
            return Ok(Incoming::ApiVersionsTooNew { correlation_id });
        }
        return Err(FrameError::UnsupportedVersion { api, version });
    }
    if !carries_bulk_data(api) && size > MAX_CONTROL_FRAME_BYTES {
        return Err(FrameError::TooLarge { api, size, limit: MAX_CONTROL_FRAME_BYTES });
    }

    let mut decoder = Decoder::new(frame, limits(size)).map_err(FrameError::MalformedHeader)?;
    let header_version = ApiVersion::new(api.request_header_version(version));
    let header = RequestHeader::decode(&mut decoder, header_version).map_err(FrameError::MalformedHeader)?;
    let body = decoder.take_bytes(decoder.remaining()).map_err(FrameError::MalformedHeader)?;
    let header = Header { api, version, correlation_id, client_id: header.client_id };
    Ok(Incoming::Request { header, body })
}

/// Decodes a request's body. Byte fields stay slices of `body`.
pub fn decode_body<R: KafkaRequest>(header: &Header, body: Bytes) -> Result<R, FrameError> {
    assert_eq!(R::API_KEY.value(), header.api.code(), "the caller picks the request type by the header's key");
    let limits = limits(body.len());
    let malformed = |error| FrameError::MalformedBody { api: header.api, error };
    if header.api == ApiKey::Produce {
        bound_produce(body.clone(), header.version).map_err(malformed)?;
    }
    // Bytes after the body are left alone, as Kafka does: librdkafka's Metadata requests carry some.
    let mut decoder = Decoder::new(body, limits).map_err(malformed)?;
    R::decode(&mut decoder, ApiVersion::new(header.version)).map_err(malformed)
}

/// Encodes a whole response frame: length, header, body.
pub fn encode_response<R: KafkaResponse>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    response: &R,
) -> Result<Bytes, EncodeError> {
    assert_eq!(R::API_KEY.value(), api.code(), "a response answers the request of the same key");
    let mut header = ResponseHeader::default();
    header.correlation_id = correlation_id;
    let header_version = ApiVersion::new(api.response_header_version(version));
    let version = ApiVersion::new(version);

    let length = header.encoded_len(header_version)? + response.encoded_len(version)?;
    let prefix = i32::try_from(length).map_err(|_| EncodeError::FrameTooLarge { bytes: length })?;
    let mut buffer = BytesMut::with_capacity(4 + length);
    buffer.extend_from_slice(&prefix.to_be_bytes());
    let mut encoder = Encoder::new(&mut buffer);
    header.encode(&mut encoder, header_version)?;
    response.encode(&mut encoder, version)?;
    assert_eq!(buffer.len(), 4 + length, "the encoder must write what it measured");
    Ok(buffer.freeze())
}

/// Whether requests of this API may be as large as `socket.request.max.bytes`. Group assignments are flat arrays of
/// bytes, which the limit of elements bounds.
const fn carries_bulk_data(api: ApiKey) -> bool {
    matches!(api, ApiKey::Produce | ApiKey::JoinGroup | ApiKey::SyncGroup)
}

/// Walks a Produce request without keeping anything. Its frames may be large, so that partitions of a few bytes each
/// would unfold to gigabytes: their number is checked before they are decoded.
fn bound_produce(body: Bytes, version: i16) -> Result<(), DecodeError> {
    let is_flexible = ApiKey::Produce.is_flexible(version);
    let size = body.len();
    let mut decoder = Decoder::new(body, limits(size))?;
    let mut budget = MAX_ARRAY_ELEMENTS;
    let mut take_array = |decoder: &mut Decoder| {
        let offset = decoder.offset();
        let count = if is_flexible { decoder.read_compact_array_len()? } else { decoder.read_array_len()? }.get();
        budget = budget.checked_sub(count).ok_or(DecodeError::LimitExceeded {
            kind: "topics and partitions",
            length: count,
            limit: budget,
            offset,
        })?;
        Ok::<usize, DecodeError>(count)
    };
    let _transactional_id =
        if is_flexible { decoder.read_compact_nullable_string()? } else { decoder.read_nullable_string()? };
    let _acks = decoder.read_i16()?;
    let _timeout_ms = decoder.read_i32()?;
    for _ in 0..take_array(&mut decoder)? {
        match (version >= 13, is_flexible) {
            (true, _) => _ = decoder.read_uuid()?,
            (false, true) => _ = decoder.read_compact_string()?,
            (false, false) => _ = decoder.read_string()?,
        }
        for _ in 0..take_array(&mut decoder)? {
            let _index = decoder.read_i32()?;
            let _records =
                if is_flexible { decoder.read_compact_nullable_bytes()? } else { decoder.read_nullable_bytes()? };
            if is_flexible {
                decoder.read_tagged_fields()?;
            }
        }
        if is_flexible {
            decoder.read_tagged_fields()?;
        }
    }
    Ok(())
}

/// Nothing in a frame can be longer than the frame, and nothing is allocated ahead of the bytes that pay for it.
fn limits(size: usize) -> DecodeLimits {
    let mut limits = DecodeLimits::default();
    limits.max_frame_bytes = size;
    limits.max_string_bytes = size;
    limits.max_bytes_bytes = size;
    limits.max_array_elements = MAX_ARRAY_ELEMENTS.min(size);
    limits.max_tagged_fields = 64;
    limits.max_tag_bytes = size;
    limits.max_total_tag_bytes = size;
    limits
}
