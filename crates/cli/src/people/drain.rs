//! `vltava brokers drain`: moves everything away from brokers that are to go, and says when they can.
//!
//! Nothing is remembered between two runs: each look at the cluster tells what is still there and what is on its way, so
//! that a drain that was broken off is gone on with by typing it again.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use vltava_client::Admin;
use vltava_client::admin::Partition;
use vltava_types::ErrorCode;

use super::report::Report;
use super::{Common, Outcome, cannot};
use crate::console::Console;
use crate::progress::Progress;
use plan::{Hosted, Move, Target, plan};

/// The pause between two looks at how far the moves have come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub struct DrainArguments {
    #[command(flatten)]
    common: Common,
    /// The brokers that are to go.
    #[arg(required = true)]
    brokers: Vec<i32>,
    /// Only show what would be moved, and where to.
    #[arg(long)]
    dry_run: bool,
    /// How many partitions are moved at a time.
    #[arg(long, default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    at_a_time: u16,
}

/// What the cluster says of itself.
struct Look {
    hosted: BTreeMap<Partition, Hosted>,
    targets: Vec<Target>,
}

pub async fn run(arguments: DrainArguments, console: &mut Console<'_>) -> Outcome {
    let leaving: BTreeSet<i32> = arguments.brokers.iter().copied().collect();
    let mut admin = arguments.common.admin().await?;
    let mut look = look(&mut admin, &leaving).await?;
    if arguments.dry_run {
        return arguments.common.show(&report(&plan(&look.hosted, &leaving, &look.targets)?), console);
    }
    let mut progress: Option<Progress> = None;
    loop {
        // Refuses before anything is moved; later, topics may have been created on the brokers meanwhile.
        let moves = plan(&look.hosted, &leaving, &look.targets)?;
        let under_way = look.hosted.values().filter(|hosted| hosted.is_leaving(&leaving)).count();
        let left = moves.len() + under_way;
        let progress = progress.get_or_insert_with(|| Progress::new("partitions moved", left as u64));
        progress.show_left(left as u64, console)?;
        if left == 0 {
            break;
        }
        let free = usize::from(arguments.at_a_time).saturating_sub(under_way);
        begin(&mut admin, moves.into_iter().take(free)).await?;
        tokio::time::sleep(LOOK_EVERY).await;
        look = self::look(&mut admin, &leaving).await?;
    }
    if let Some(progress) = progress {
        progress.finish(console)?;
    }
    let ids = leaving.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    console.complain(format_args!("no replica is left on {ids}"))?;
    tell_what_is_next(&mut admin, &leaving, console).await
}

/// A drained broker may still vote, and new topics may still be put on it.
async fn tell_what_is_next(admin: &mut Admin, leaving: &BTreeSet<i32>, console: &mut Console<'_>) -> Outcome {
    let quorum = admin.describe_quorum().await.map_err(cannot("describe the quorum"))?;
    let voters = quorum.topics.iter().flat_map(|topic| &topic.partitions).flat_map(|quorum| &quorum.current_voters);
    let voting: Vec<i32> = voters.map(|voter| voter.replica_id).filter(|id| leaving.contains(id)).collect();
    for id in voting {
        console.complain(format_args!(
            "broker {id} votes in the metadata quorum: without it a majority of the voters must still run"
        ))?;
    }
    Ok(console.complain("stop them soon: topics that are created meanwhile may be put there")?)
}

async fn begin(admin: &mut Admin, moves: impl Iterator<Item = Move>) -> Outcome {
    let moves: BTreeMap<Partition, Option<Vec<i32>>> = moves.map(|m| (m.partition, Some(m.to))).collect();
    if moves.is_empty() {
        return Ok(());
    }
    let outcomes = admin.alter_reassignments(&moves, false).await.map_err(cannot("move partitions"))?;
    for ((topic, index), outcome) in outcomes {
        match outcome {
            // It was deleted meanwhile.
            Err(error) if error.code == ErrorCode::UnknownTopicOrPartition => {}
            outcome => outcome.map_err(|error| cannot(format!("move {topic}-{index}"))(error.into()))?,
        }
    }
    Ok(())
}

async fn look(admin: &mut Admin, leaving: &BTreeSet<i32>) -> anyhow::Result<Look> {
    let cluster = admin.describe_cluster(true).await.map_err(cannot("list brokers"))?;
    for id in leaving {
        let is_known = cluster.brokers.iter().any(|broker| broker.broker_id == *id);
        anyhow::ensure!(is_known, "there is no broker {id} in this cluster; see `vltava brokers`");
    }
    let targets = cluster.brokers.iter().filter(|broker| !broker.is_fenced && !leaving.contains(&broker.broker_id));
    let targets = targets
        .map(|broker| Target { id: broker.broker_id, rack: broker.rack.as_ref().map(ToString::to_string) })
        .collect();
    // Asked for first: a move that ends in between is then seen as under way a little longer.
    let moving = admin.list_reassignments(None).await.map_err(cannot("list moves"))?;
    let moving: BTreeMap<Partition, Vec<i32>> = moving
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
        .map(|(topic, partition)| {
            ((topic.name.to_string(), partition.partition_index), partition.removing_replicas.clone())
        })
        .collect();
    let mut hosted = BTreeMap::new();
    for topic in admin.topics(None).await.map_err(cannot("list topics"))? {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        for partition in &topic.partitions {
            let key = (name.clone(), partition.partition_index);
            let replicas = partition.replica_nodes.clone();
            let removing = moving.get(&key).cloned().unwrap_or_default();
            hosted.insert(key, Hosted { replicas, removing });
        }
    }
    Ok(Look { hosted, targets })
}

fn report(moves: &[Move]) -> Report {
    let mut report = Report::new(&["topic", "partition", "from", "to"]);
    for Move { partition: (topic, index), from, to } in moves {
        report.push(vec![json!(topic), json!(index), json!(from), json!(to)]);
    }
    report
}
