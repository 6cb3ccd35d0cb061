//! Whether the process that a node was known by is gone.
//!
//! Two things prove it: the machine answers that nothing listens at its address, or the same node answers there in
//! another run. Silence proves nothing. A dying process closes its sockets one after another, so that a connection may
//! be reset while its listener still accepts; that is why one look is not enough.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use vltava_metadata::Endpoint;
use vltava_peer::client::{Probe, probe};
use vltava_peer::raft::{DescribeResponse, RaftClient};
use vltava_types::IncarnationId;

use crate::identity::incarnation_from_wire;

/// How long a process that accepts connections may take to say which run it is.
const DESCRIBE_DEADLINE: Duration = Duration::from_millis(500);

/// The pause after a look that proved nothing; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// What one look at a process has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Gone,
    Alive,
    Unknown,
}

/// Whether this run of the node has ended. `known` is `None` if nobody knows which run it was. Looks again for as long
/// as `patience` says, unless the answer is clear.
pub(crate) async fn is_gone(
    endpoint: &Endpoint,
    node_id: u64,
    known: Option<IncarnationId>,
    patience: Duration,
) -> bool {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        match timeout_at(deadline, look(endpoint, node_id, known)).await {
            Ok(Fate::Gone) => return true,
            Ok(Fate::Alive) | Err(_) => return false,
            Ok(Fate::Unknown) => {}
        }
        if Instant::now() + pause >= deadline {
            return false;
        }
        sleep(pause).await;
        pause *= 2;
    }
}

async fn look(endpoint: &Endpoint, node_id: u64, known: Option<IncarnationId>) -> Fate {
    match probe(endpoint).await {
        Probe::Refused => Fate::Gone,
        Probe::Unknown => Fate::Unknown,
        Probe::Listening => match (incarnation_at(endpoint, node_id, DESCRIBE_DEADLINE).await, known) {
            (Some(found), Some(known)) if found != known => Fate::Gone,
            (Some(_), _) => Fate::Alive,
            (None, _) => Fate::Unknown,
        },
    }
}

/// The run of the node that answers at this address. `None` if it does not answer, or is another node.
pub(crate) async fn incarnation_at(endpoint: &Endpoint, node_id: u64, deadline: Duration) -> Option<IncarnationId> {
    let description: DescribeResponse = RaftClient::new(endpoint).describe(deadline).await.ok()?;
    if description.node_id != node_id {
        return None;
    }
    incarnation_from_wire(&description.incarnation_id).filter(|incarnation_id| !incarnation_id.is_zero())
}
