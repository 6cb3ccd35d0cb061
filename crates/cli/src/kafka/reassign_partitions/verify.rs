//! --verify and --cancel: how far the moves of a file are, and their end.

use std::collections::{BTreeMap, BTreeSet};

use vltava_client::Admin;
use vltava_client::admin::Partition;

use super::current::{live_brokers, moves, placements};
use super::directory_moves::{begin, placed_replicas, under_way};
use super::document::Target;
use super::progress::{directory_states, states};
use super::{MoveError, document, failures, name, throttles, timeout};
use crate::console::Console;
use crate::kafka::join;
use crate::kafka::options::Options;

pub async fn verify(
    options: &Options,
    text: &str,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), MoveError> {
    let targets = document::parse(text).map_err(MoveError::Failed)?;
    let under_way = moves(admin).await?;
    let mut current = BTreeMap::new();
    let names: BTreeSet<String> = targets.iter().map(|target| target.partition.0.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    // Unlike elsewhere, a topic that is gone is no failure: its replicas are none.
    for topic in if names.is_empty() { vec![] } else { admin.topics(Some(&names)).await? } {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let partitions = topic.partitions.into_iter();
        current.extend(partitions.map(|found| ((name.clone(), found.partition_index), found.replica_nodes)));
    }
    console.line(states(&targets, &under_way, &current))?;
    let placed = placed_replicas(&targets);
    let found = placements(placed.keys().map(|replica| replica.broker), admin).await?;
    console.line(directory_states(&placed, &found))?;
    let is_moving = |replica| found.get(replica).is_some_and(|placement| placement.future.is_some());
    if under_way.is_empty() && !placed.keys().any(is_moving) && !options.has("preserve-throttles") {
        clear_throttles(&targets, admin, console).await?;
    }
    Ok(())
}

async fn clear_throttles(targets: &[Target], admin: &mut Admin, console: &mut Console<'_>) -> Result<(), MoveError> {
    let mut brokers = live_brokers(admin).await?;
    brokers.extend(targets.iter().flat_map(|target| target.replicas.iter().copied()));
    let topics: BTreeSet<String> = targets.iter().map(|target| target.partition.0.clone()).collect();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let ids = join(&brokers.iter().copied().collect::<Vec<_>>());
    console.line(format_args!("Clearing broker-level throttles on broker{} {ids}", plural(brokers.len())))?;
    throttles::clear_brokers(brokers, admin).await?;
    let names = topics.iter().cloned().collect::<Vec<_>>().join(",");
    console.line(format_args!("Clearing topic-level throttles on topic{} {names}", plural(topics.len())))?;
    throttles::clear_topics(topics, admin).await?;
    Ok(())
}

pub async fn cancel(
    options: &Options,
    text: &str,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), MoveError> {
    let timeout = timeout(options)?;
    let targets = document::parse(text).map_err(MoveError::Failed)?;
    let all = moves(admin).await?;
    let moving = targets.iter().map(|target| &target.partition).filter(|partition| all.contains_key(*partition));
    let cancelled: BTreeMap<Partition, Option<Vec<i32>>> = moving.map(|partition| (partition.clone(), None)).collect();
    if cancelled.is_empty() {
        console.line("None of the specified partition reassignments are active.")?;
    } else {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let outcomes = admin.alter_reassignments(&cancelled, true).await?;
        let failed = outcomes.values().filter(|outcome| outcome.is_err()).count();
        failures(&outcomes, &format!("Error cancelling partition reassignment{} for:", plural(failed)))?;
        let named = cancelled.keys().map(name).collect::<Vec<_>>().join(",");
        console.line(format_args!(
            "Successfully cancelled partition reassignment{} for: {named}",
            plural(cancelled.len())
        ))?;
    }
    let directories = under_way(&placed_replicas(&targets), admin).await?;
    if directories.is_empty() {
        // Kafka ends no line here.
        console.text("None of the specified partition moves are active.")?;
    } else {
        begin(directories, timeout, admin, console).await?;
    }
    if !options.has("preserve-throttles") {
        clear_throttles(&targets, admin, console).await?;
    }
    Ok(())
}
