//! Doors for the fuzzers in `/fuzz`: messages as bytes, on the way that the services above them take.

use bytes::Bytes;
use prost::Message as _;
use vltava_types::BrokerId;

use crate::{controller, raft, replica};

/// The bytes as a message of Raft, if they are one.
#[must_use]
pub fn raft_message<M: prost::Message + Default>(bytes: Bytes) -> Option<M> {
    M::decode(bytes).ok()
}

/// What a leader makes of a follower's frame.
pub fn follower_frame(bytes: Bytes) {
    let Ok(message) = replica::messages::FollowerFrame::decode(bytes) else { return };
    let _hello = message.hello.clone().map(replica::Hello::from);
    let Ok(frame) = replica::read_frame(BrokerId(1), message) else { return };
    let sent = replica::messages::FollowerFrame::from(frame.clone());
    assert_eq!(replica::read_frame(BrokerId(1), sent), Ok(frame), "a frame keeps its meaning");
}

/// What a follower makes of a leader's frame.
pub fn leader_frame(bytes: Bytes) {
    let Ok(message) = replica::messages::LeaderFrame::decode(bytes) else { return };
    let Ok(frame) = replica::LeaderFrame::try_from(message) else { return };
    let sent = replica::messages::LeaderFrame::from(frame.clone());
    assert_eq!(replica::LeaderFrame::try_from(sent), Ok(frame), "a frame keeps its meaning");
}

/// Requests to a controller, and its answers.
pub fn controller_messages(bytes: Bytes) {
    use controller::messages::{SessionRequest, SessionResponse};
    if let Ok(SessionRequest { call: Some(call), .. }) = SessionRequest::decode(bytes.clone()) {
        let call = controller::ControllerCall::from(call);
        assert_eq!(controller::ControllerCall::from(controller::messages::CallRequest::from(call.clone())), call);
    }
    if let Ok(SessionResponse { reply: Some(reply), .. }) = SessionResponse::decode(bytes) {
        let Ok(reply) = controller::ControllerReply::try_from(reply) else { return };
        let sent = controller::messages::CallResponse::from(reply.clone());
        assert_eq!(controller::ControllerReply::try_from(sent), Ok(reply), "an answer keeps its meaning");
    }
}

/// How a snapshot announces itself.
#[must_use]
pub fn snapshot_header(bytes: Bytes) -> Option<raft::SnapshotHeader> {
    raft::messages::SnapshotChunk::decode(bytes).ok()?.header
}
