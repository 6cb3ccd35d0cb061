//! Moves of replicas between the log directories of a broker (KIP-113).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use vltava_client::admin::Partition;
use vltava_client::{Admin, AdminError};
use vltava_types::ErrorCode;

use super::document::{Replica, Target};
use super::{MoveError, current};
use crate::console::Console;
use crate::kafka::exceptions;

/// How long to wait until a replica that is not at its broker yet is asked for again.
const RETRY: Duration = Duration::from_millis(100);

/// Replicas that were given a log directory of their own.
pub fn placed_replicas(targets: &[Target]) -> BTreeMap<Replica, String> {
    let placed = targets.iter().flat_map(|target| {
        target.directories.iter().map(|(broker, directory)| {
            let (topic, partition) = target.partition.clone();
            (Replica { broker: *broker, topic, partition }, directory.clone())
        })
    });
    placed.collect()
}

/// Begins these moves. A replica that comes from another broker is waited for until it is there.
pub async fn begin(
    mut pending: BTreeMap<Replica, String>,
    timeout: Duration,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), MoveError> {
    let deadline = Instant::now() + timeout;
    while !pending.is_empty() {
        for replica in ask(&pending, admin).await? {
            let Some(directory) = pending.remove(&replica) else { continue };
            let Replica { broker, topic, partition } = replica;
            console.line(format_args!(
                "Successfully started moving log directory to {directory} for replica {topic}-{partition} with broker \
                 {broker} "
            ))?;
        }
        if pending.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            let plural = if pending.len() == 1 { "" } else { "s" };
            let named = pending.keys().map(ToString::to_string).collect::<Vec<_>>().join(",");
            return Err(MoveError::Terse(format!(
                "Timed out before log directory move{plural} could be started for: {named}"
            )));
        }
        sleep(RETRY).await;
    }
    Ok(())
}

/// Asks for each move once; gives those that have begun.
async fn ask(pending: &BTreeMap<Replica, String>, admin: &mut Admin) -> Result<Vec<Replica>, MoveError> {
    let brokers: BTreeSet<i32> = pending.keys().map(|replica| replica.broker).collect();
    let mut begun = vec![];
    for broker in brokers {
        let wanted = pending.iter().filter(|(replica, _)| replica.broker == broker);
        let wanted: BTreeMap<Partition, String> = wanted
            .map(|(replica, directory)| ((replica.topic.clone(), replica.partition), directory.clone()))
            .collect();
        for ((topic, partition), outcome) in admin.alter_replica_log_dirs(broker, &wanted).await? {
            let replica = Replica { broker, topic, partition };
            match outcome {
                Ok(()) => begun.push(replica),
                Err(error) if error.code == ErrorCode::ReplicaNotAvailable => {}
                Err(error) => {
                    let cause = exceptions::full(&error);
                    return Err(MoveError::Failed(format!("Failed to alter dir for {replica}\n{cause}")));
                }
            }
        }
    }
    Ok(begun)
}

/// Those of these replicas that are on their way to another directory, with the one that they are still in: a move
/// there ends the other.
pub async fn under_way(
    placed: &BTreeMap<Replica, String>,
    admin: &mut Admin,
) -> Result<BTreeMap<Replica, String>, AdminError> {
    let found = current::placements(placed.keys().map(|replica| replica.broker), admin).await?;
    let moving = placed.keys().filter_map(|replica| {
        let placement = found.get(replica)?;
        placement.future.as_ref()?;
        Some((replica.clone(), placement.current.clone()?))
    });
    Ok(moving.collect())
}
