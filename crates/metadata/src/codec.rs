//! The binary form of records, requests and responses: on disk in the metadata log and its snapshots, and as opaque
//! bytes inside the messages of the peer protocol.

use crate::controller::{ControllerRequest, ControllerResponse};
use crate::record::MetadataRecord;

/// The bytes are not a value of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the bytes end too early")]
    Truncated,
}

/// Records as the data of one log entry, or as the content of a snapshot.
#[must_use]
pub fn encode_records(records: &[MetadataRecord]) -> Vec<u8> {
    unimplemented!("{records:?}")
}

/// The inverse of [`encode_records`].
pub fn decode_records(bytes: &[u8]) -> Result<Vec<MetadataRecord>, DecodeError> {
    unimplemented!("{bytes:?}")
}

#[must_use]
pub fn encode_request(request: &ControllerRequest) -> Vec<u8> {
    unimplemented!("{request:?}")
}

/// The inverse of [`encode_request`].
pub fn decode_request(bytes: &[u8]) -> Result<ControllerRequest, DecodeError> {
    unimplemented!("{bytes:?}")
}

#[must_use]
pub fn encode_response(response: &ControllerResponse) -> Vec<u8> {
    unimplemented!("{response:?}")
}

/// The inverse of [`encode_response`].
pub fn decode_response(bytes: &[u8]) -> Result<ControllerResponse, DecodeError> {
    unimplemented!("{bytes:?}")
}
