//! --execute: begins the moves of a file.

use std::collections::BTreeMap;

use vltava_client::admin::Partition;
use vltava_client::{Admin, ApiError};
use vltava_types::ErrorCode;

use super::current::{directories, live_brokers, moves, replicas};
use super::directory_moves::{begin, placed_replicas};
use super::{MoveError, document, failures, name, throttles, timeout};
use crate::console::Console;
use crate::kafka::exceptions;
use crate::kafka::options::Options;

pub async fn execute(
    options: &Options,
    text: &str,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), MoveError> {
    let targets = document::parse(text).map_err(MoveError::Failed)?;
    document::check(&targets).map_err(MoveError::Failed)?;
    let timeout = timeout(options)?;
    let under_way = moves(admin).await?;
    if !options.has("additional") && !under_way.is_empty() {
        return Err(MoveError::Terse(
            "Cannot execute because there is an existing partition assignment.  Use --additional to override this and \
             create a new partition assignment in addition to the existing one. The --additional flag can also be used \
             to change the throttle by resubmitting the current reassignment."
                .to_owned(),
        ));
    }
    let live = live_brokers(admin).await?;
    if let Some(unknown) = targets.iter().flat_map(|target| &target.replicas).find(|broker| !live.contains(broker)) {
        return Err(MoveError::Failed(format!("Unknown broker id {unknown}")));
    }
    let all = replicas(targets.iter().map(|target| target.partition.0.clone()).collect(), admin).await?;
    let mut current = BTreeMap::new();
    let mut missing = vec![];
    for target in &targets {
        match all.get(&target.partition) {
            Some(replicas) => _ = current.insert(target.partition.clone(), replicas.clone()),
            None => missing.push(target.name()),
        }
    }
    if !missing.is_empty() {
        let missing = ApiError {
            code: ErrorCode::UnknownTopicOrPartition,
            message: Some(format!("Unable to find partition: {}", missing.join(", "))),
        };
        return Err(MoveError::Failed(exceptions::full(&missing)));
    }
    let placed = placed_replicas(&targets);
    let directories = directories(&current, admin).await?;
    console.line(format_args!(
        "Current partition replica assignment\n\n{}\n\nSave this to use as the --reassignment-json-file option during \
         rollback",
        document::format(&current, &directories)
    ))?;
    let throttle = options.number::<i64>("throttle")?.filter(|rate| *rate >= 0);
    let directory_throttle = options.number::<i64>("replica-alter-log-dirs-throttle")?.filter(|rate| *rate >= 0);
    if throttle.is_some() || directory_throttle.is_some() {
        console.line(
            "Warning: You must run --verify periodically, until the reassignment completes, to ensure the throttle is \
             removed.",
        )?;
    }
    if let Some(rate) = throttle {
        throttles::set(rate, &under_way, &targets, &current, admin).await?;
        console.line(format_args!("The inter-broker throttle limit was set to {rate} B/s"))?;
    }
    if let Some(rate) = directory_throttle {
        let brokers = placed.keys().map(|replica| replica.broker).collect();
        throttles::set_for_directories(rate, brokers, admin).await?;
        console.line(format_args!("The replica-alter-dir throttle limit was set to {rate} B/s"))?;
    }
    let wanted: BTreeMap<Partition, Option<Vec<i32>>> =
        targets.iter().map(|target| (target.partition.clone(), Some(target.replicas.clone()))).collect();
    let outcomes = admin.alter_reassignments(&wanted, !options.has("disallow-replication-factor-change")).await?;
    failures(&outcomes, "Error reassigning partition(s):")?;
    let plural = if wanted.len() == 1 { "" } else { "s" };
    let named = wanted.keys().map(name).collect::<Vec<_>>().join(",");
    console.line(format_args!("Successfully started partition reassignment{plural} for {named}"))?;
    begin(placed, timeout, admin, console).await
}
