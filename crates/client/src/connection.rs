//! One connection to one broker.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vltava_host::net::{self, TcpStream};
use vltava_protocol::messages::{
    ApiVersion, DecodeError, DecodeLimits, Decoder, KafkaDecode as _, OutboundFrameLimits, RequestResponsePair,
    ResponseHeader, StrBytes, encode_request, response_header_version_for,
};

use crate::ClientError;

/// How to talk.
#[derive(Clone, Debug)]
pub struct Options {
    pub client_id: String,
    /// To connect. Short, because there are other brokers to ask.
    pub connect_timeout: Duration,
    /// From each request to its answer.
    pub timeout: Duration,
    /// Longer answers are refused, and longer requests are not sent.
    pub max_frame_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_id: "vltava".to_owned(),
            connect_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
            max_frame_bytes: 128 * 1024 * 1024,
        }
    }
}

/// Ties an answer to its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorrelationId(pub i32);

/// One socket to one broker.
pub struct Connection {
    stream: TcpStream,
    options: Options,
    received: BytesMut,
    next_correlation_id: i32,
}

const LENGTH_BYTES: usize = 4;

impl Connection {
    /// Connects to `host:port`; IPv6 addresses stand in brackets.
    pub async fn connect(address: &str, options: Options) -> Result<Self, ClientError> {
        let bad_address = || ClientError::BadAddress(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(bad_address)?;
        let port = port.parse().map_err(|_| bad_address())?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = tokio::time::timeout(options.connect_timeout, net::connect(host, port))
            .await
            .map_err(|_| ClientError::TimedOut)??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, options, received: BytesMut::new(), next_correlation_id: 0 })
    }

    /// Sends a request in `version` and waits for its answer.
    pub async fn call<R: RequestResponsePair>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let correlation_id = self.send(version, request).await?;
        self.receive::<R>(version, correlation_id).await
    }

    /// Sends a request without waiting. Answers come in the order of the requests.
    pub async fn send<R: RequestResponsePair>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<CorrelationId, ClientError> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        let frame = encode_frame(request, version, CorrelationId(correlation_id), &self.options)?;
        self.send_bytes(&frame).await?;
        Ok(CorrelationId(correlation_id))
    }

    /// Waits for the answer to the oldest request that has none yet.
    pub async fn receive<R: RequestResponsePair>(
        &mut self,
        version: i16,
        correlation_id: CorrelationId,
    ) -> Result<R::Response, ClientError> {
        let frame = self.receive_frame().await?;
        decode_answer::<R>(frame, version, correlation_id, &self.options)
    }

    /// Sends bytes as they are; for tests of what should not be sent.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let write = self.stream.write_all(bytes);
        Ok(tokio::time::timeout(self.options.timeout, write).await.map_err(|_| ClientError::TimedOut)??)
    }

    /// The next answer, still encoded, without its length.
    pub async fn receive_frame(&mut self) -> Result<Bytes, ClientError> {
        let timeout = self.options.timeout;
        tokio::time::timeout(timeout, self.next_frame()).await.map_err(|_| ClientError::TimedOut)?
    }

    /// As [`Connection::receive_frame`], without a time limit. Nothing is lost when the future is dropped.
    pub(crate) async fn next_frame(&mut self) -> Result<Bytes, ClientError> {
        loop {
            if let Some(length) = self.received.first_chunk::<LENGTH_BYTES>() {
                // A negative length is as impossible as one beyond any limit.
                let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                if length > self.options.max_frame_bytes {
                    return Err(ClientError::AnswerTooLarge { length, limit: self.options.max_frame_bytes });
                }
                if self.received.len() >= LENGTH_BYTES + length {
                    self.received.advance(LENGTH_BYTES);
                    return Ok(self.received.split_to(length).freeze());
                }
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(ClientError::Closed);
            }
        }
    }
}

/// A request with its header and length, as it goes on the wire.
pub(crate) fn encode_frame<R: RequestResponsePair>(
    request: &R,
    version: i16,
    correlation_id: CorrelationId,
    options: &Options,
) -> Result<Bytes, ClientError> {
    let mut frame = BytesMut::new();
    let limits = OutboundFrameLimits::new(options.max_frame_bytes);
    let client_id = StrBytes::from(options.client_id.as_str());
    encode_request(&mut frame, correlation_id.0, Some(client_id), request, ApiVersion::new(version), limits)?;
    Ok(frame.freeze())
}

/// Reads an answer, which must be the one to this request and nothing more.
pub(crate) fn decode_answer<R: RequestResponsePair>(
    frame: Bytes,
    version: i16,
    correlation_id: CorrelationId,
    options: &Options,
) -> Result<R::Response, ClientError> {
    let version = ApiVersion::new(version);
    let mut limits = DecodeLimits::default();
    limits.max_frame_bytes = options.max_frame_bytes;
    limits.max_bytes_bytes = options.max_frame_bytes;
    let mut decoder = Decoder::new(frame, limits)?;
    let header_version = ApiVersion::new(response_header_version_for::<R>(version)?);
    let found = ResponseHeader::decode(&mut decoder, header_version)?.correlation_id;
    if found != correlation_id.0 {
        return Err(ClientError::WrongCorrelation { expected: correlation_id.0, found });
    }
    let response = R::Response::decode(&mut decoder, version)?;
    match decoder.remaining() {
        0 => Ok(response),
        remaining => Err(DecodeError::TrailingBytes { remaining }.into()),
    }
}
