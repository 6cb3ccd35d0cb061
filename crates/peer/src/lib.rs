//! gRPC between nodes: Raft, calls to the active controller, and replica streams.
//!
//! This crate is the only user of tonic and prost. It moves messages; what they mean is decided by the handlers that
//! the quorum and the broker implement.
//!
//! All traffic between two nodes goes to one port, on two planes. A *control* connection (Raft, controller calls) is
//! plain HTTP/2. A *data* connection (replica streams) sends [`server::DATA_PREAMBLE`] before its HTTP/2 preface, so
//! that the acceptor can hand it to a server on another runtime: replication at full speed never delays a vote.

pub mod client;
pub mod controller;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod positions;
pub mod raft;
pub mod replica;
pub mod server;

/// The longest message either side accepts, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;

/// Flow-control window of one HTTP/2 stream, in bytes. The default of about 64 KiB would cap a replica stream at one
/// window per round trip.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Flow-control window of one connection, in bytes.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// Which of a node's two servers a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plane {
    /// Raft and controller calls: small messages that must never wait.
    Control,
    /// Replica streams: as much as the network carries.
    Data,
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Connecting or transport failed, or the deadline passed. The call may or may not have been carried out.
    #[error("peer unreachable: {0}")]
    Unreachable(String),
    /// The peer answered that the call is not for it, or that it is malformed. Nothing was carried out.
    #[error("peer refused: {0}")]
    Refused(String),
}

impl From<tonic::Status> for CallError {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument | tonic::Code::Unimplemented => {
                Self::Refused(status.message().to_owned())
            }
            _ => Self::Unreachable(format!("{:?}: {}", status.code(), status.message())),
        }
    }
}
