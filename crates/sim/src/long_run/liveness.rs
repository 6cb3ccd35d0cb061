//! What must come true again after everything was healed.

use std::time::Duration;

use super::inspector::Inspector;
use super::ledger::{Key, Ledger, Outcome};
use super::plan::{AdminOp, Plan, TopicKind};
use super::workload::Context;
use crate::cluster::Cluster;

/// Operations that have not succeeded yet are asked for again so long after.
pub const ASK_AGAIN: Duration = Duration::from_secs(10);

/// One operation of each kind.
fn operations(plan: &Plan) -> Vec<AdminOp> {
    let mut all = vec![
        AdminOp::CreatePartitions { topic: 0, total: plan.topics[0].partitions + 3 },
        AdminOp::Reassign {
            topic: 0,
            partition: 0,
            replicas: (1..=i32::from(plan.topics[0].replication_factor)).rev().collect(),
        },
        AdminOp::ElectPreferred,
        AdminOp::AlterConfig { topic: 0, name: "segment.ms", value: "10000".to_owned() },
    ];
    let trimmed = plan.topics.iter().position(|topic| topic.kind == TopicKind::Trimmed);
    all.extend(trimmed.map(|topic| AdminOp::DeleteRecords { topic }));
    all
}

/// Asks for each operation that has not succeeded since healing.
pub fn ask(context: &Context) {
    for op in operations(&context.plan) {
        let done = context.ledger().operations.get(op.kind()).map_or(0, |done| done.succeeded_after_healing);
        if done == 0 {
            context.request(op);
        }
    }
}

/// What does not work yet.
pub fn missing(cluster: &Cluster, inspector: &Inspector, plan: &Plan, ledger: &Ledger) -> Vec<String> {
    let mut missing = vec![];
    for broker in 1..=i32::from(plan.brokers) {
        match cluster.view(broker) {
            None => missing.push(format!("broker {broker} does not run")),
            Some(view) => {
                if let Err(reason) = view.readiness() {
                    missing.push(format!("broker {broker}: {reason}"));
                }
                if view.image().offset != inspector.newest().offset {
                    missing.push(format!("broker {broker} lags behind with metadata"));
                }
            }
        }
    }
    let image = inspector.newest();
    for (id, partition) in image.partitions() {
        let name = image.topic_name(id.topic_id).unwrap_or_default();
        if partition.leader.is_none() || partition.isr.len() < partition.replicas.len() {
            missing.push(format!("{name}-{}: {partition:?}", id.partition));
        }
        if !partition.adding_replicas.is_empty() || !partition.removing_replicas.is_empty() {
            missing.push(format!("{name}-{} is being moved: {partition:?}", id.partition));
        }
    }
    let silent = (0..plan.producers.len()).filter(|producer| !ledger.has_produced_after_healing(*producer));
    missing.extend(silent.map(|producer| format!("producer {producer} has no acknowledgement")));
    let mut kinds: Vec<&str> = operations(plan).iter().map(AdminOp::kind).collect();
    kinds.extend(["ListOffsets", "OffsetCommit", "OffsetFetch"]);
    if !plan.readers.is_empty() {
        kinds.push("Fetch");
    }
    for kind in kinds {
        if ledger.operations.get(kind).is_none_or(|done| done.succeeded_after_healing == 0) {
            missing.push(format!("no {kind} has succeeded"));
        }
    }
    missing
}

/// What readers and groups have not read, and producers have not ended.
pub fn unread(cluster: &Cluster, inspector: &Inspector, plan: &Plan, ledger: &Ledger) -> Vec<String> {
    let pending = ledger.writes.iter().filter(|write| write.outcome == Outcome::Pending).count();
    let mut missing = vec![];
    if pending > 0 {
        missing.push(format!("{pending} writes have no outcome"));
    }
    let image = inspector.newest();
    for (topic, planned) in plan.topics.iter().enumerate() {
        let Some(topic_image) = image.topic_by_name(&planned.name) else { continue };
        for (index, partition) in topic_image.indexed_partitions() {
            let key: Key = (planned.name.clone(), index.value());
            let Some(end) = partition.leader.and_then(|leader| {
                let view = cluster.view(leader.value())?;
                let id = vltava_types::TopicPartition { topic_id: topic_image.topic_id, partition: index };
                Some(view.broker()?.replicas.partition(id)?.high_watermark().value())
            }) else {
                missing.push(format!("{}-{index} has no leader", planned.name));
                continue;
            };
            for reader in (0..plan.readers.len()).filter(|reader| plan.readers[*reader].topic == topic) {
                let position = ledger.readings.get(&(reader, key.clone())).map_or(0, |readings| readings.position);
                if position < end {
                    missing.push(format!("reader {reader} is at {position} of {end} in {}-{index}", planned.name));
                }
            }
            for group in (0..plan.groups.len()).filter(|group| plan.groups[*group].topics.contains(&topic)) {
                let committed = ledger.committed.get(&(group, key.clone())).copied().unwrap_or(0);
                if committed < end {
                    missing.push(format!("group {group} is at {committed} of {end} in {}-{index}", planned.name));
                }
            }
        }
    }
    missing
}
