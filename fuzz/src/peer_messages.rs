//! gRPC messages between nodes, as their bytes come out of a frame: decoded, and made into what this node works with.

use bytes::Bytes;

use crate::input::Input;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let bytes = Bytes::copy_from_slice(input.rest());
    match kind % 10 {
        0 => vltava_peer::fuzzing::follower_frame(bytes),
        1 => vltava_peer::fuzzing::leader_frame(bytes),
        2 => vltava_peer::fuzzing::controller_messages(bytes),
        raft => vltava_quorum::fuzzing::raft_message(raft - 3, bytes),
    }
}
