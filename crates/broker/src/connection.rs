//! One client connection: frames in, answers out, in order.

use std::net::SocketAddr;

/// Who asks, and over which listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub peer: SocketAddr,
    /// The client is told the endpoints that brokers advertise under this name.
    pub listener: String,
}
