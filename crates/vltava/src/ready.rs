//! Asks a broker how many live brokers it knows.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vltava_host::net;

/// A broker that does not answer within this is asked again later.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A Metadata request, version 1, for no topics, behind its length and a header without client id.
const METADATA_REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];

/// The number of brokers in the answer: those that are registered and not fenced. `None` without an answer.
pub async fn live_brokers(address: &str) -> Option<usize> {
    let ask = async {
        let (host, port) = address.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = net::connect(host, port.parse().ok()?).await.ok()?;
        stream.write_all(&METADATA_REQUEST).await.ok()?;
        // Length, correlation id, and the count that opens the list of brokers.
        let mut answer = [0u8; 12];
        stream.read_exact(&mut answer).await.ok()?;
        let count = i32::from_be_bytes(answer[8..].try_into().expect("four bytes"));
        usize::try_from(count).ok()
    };
    tokio::time::timeout(TIMEOUT, ask).await.ok().flatten()
}
