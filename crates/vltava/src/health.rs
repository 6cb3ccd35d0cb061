//! `vltava health`: asks a node's HTTP listener, for probes that run a command. Starts no runtime, so that it is over in
//! a few milliseconds.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::HealthArguments;

const TIMEOUT: Duration = Duration::from_secs(2);

/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Prints what the node says; an error if it is not well, or does not answer.
pub fn run(arguments: &HealthArguments) -> anyhow::Result<()> {
    let path = if arguments.ready { "/readyz" } else { "/livez" };
    let address = reachable(&arguments.address);
    let nobody = || format!("no node answers at http://{address}{path}");
    let resolved = address.to_socket_addrs().with_context(nobody)?;
    let mut connection = None;
    for candidate in resolved {
        connection = TcpStream::connect_timeout(&candidate, TIMEOUT).ok();
        if connection.is_some() {
            break;
        }
    }
    let mut connection = connection.with_context(nobody)?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").with_context(nobody)?;
    let mut answer = String::new();
    connection.take(MAX_ANSWER_BYTES).read_to_string(&mut answer).with_context(nobody)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(nobody)?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!("{}", body.trim_end());
    }
    print!("{body}");
    Ok(())
}

/// A listener on all interfaces is reached on this machine at the loopback address.
fn reachable(listener: &str) -> String {
    match listener.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("127.0.0.1:{port}"),
        _ => listener.to_owned(),
    }
}
