//! What the metadata quorum keeps on disk, and what it sends as opaque bytes: records, requests and responses of the
//! controller, entries of the Raft log, snapshot files, `quorum-state`.

use bytes::Bytes;
use vltava_metadata::codec::{
    decode_records, decode_request, decode_response, encode_records, encode_request, encode_response,
};
use vltava_quorum::fuzzing;

use crate::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let bytes = input.rest();
    match kind % 6 {
        0 => check(bytes, decode_records, |records| encode_records(records)),
        1 => check(bytes, decode_request, encode_request),
        2 => check(bytes, decode_response, encode_response),
        3 => fuzzing::log_entry(Bytes::copy_from_slice(bytes)),
        4 => {
            let mut contents = bytes.to_vec();
            let crc = crc32c::crc32c(&contents);
            contents.extend_from_slice(&crc.to_be_bytes());
            if let Some(records) = fuzzing::snapshot(Bytes::from(contents)) {
                check(&records, decode_records, |records| encode_records(records));
            }
        }
        _ => {
            if let Ok(text) = std::str::from_utf8(bytes) {
                fuzzing::quorum_state(text);
            }
        }
    }
}

/// What was decoded says the same once it is encoded and decoded again. A newer release may have sent more.
fn check<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    let Ok(value) = decode(bytes) else { return };
    let again = decode(&encode(&value)).expect("what we encoded can be decoded");
    assert_eq!(again, value, "a value keeps its meaning");
}
