//! Frames: `int32 length`, header, body. The connection reads the length and the bytes; here they become requests, and
//! responses become bytes.

use bytes::{Bytes, BytesMut};
use kafka_wire_core::{ApiVersion, DecodeError, DecodeLimits, Decoder, EncodeError, Encoder, KafkaDecode, KafkaEncode};

use crate::messages::{KafkaRequest, KafkaResponse, RequestHeader, ResponseHeader, StrBytes};
use crate::versions::ApiKey;

/// Frames of other requests than those that carry bulk data are refused above this size. Decoding a structure may take
/// some thirty times its size on the wire, so this bounds what one request can make the broker allocate.
pub const MAX_CONTROL_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// No array of a request may have more elements.
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
        return Err(FrameError::UnknownApi { api_key, version });
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
    R::decode_from_bytes(body, ApiVersion::new(header.version), limits)
        .map_err(|error| FrameError::MalformedBody { api: header.api, error })
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

/// Whether requests of this API may be as large as `socket.request.max.bytes`.
const fn carries_bulk_data(api: ApiKey) -> bool {
    matches!(api, ApiKey::Produce)
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
