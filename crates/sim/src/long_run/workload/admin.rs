//! Administration: forms the topics, and does what the plan's steps ask for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vltava_client::admin::{AdminError, ConfigChange, ConfigResourceType, ElectionType};
use vltava_client::{Admin, ClientError};
use vltava_host::task;
use vltava_protocol::make;
use vltava_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use vltava_types::ErrorCode;

use super::{Context, now};
use crate::long_run::ledger::{Key, Stage};
use crate::long_run::plan::{AdminOp, TopicPlan};

pub type Requests = Arc<Mutex<VecDeque<AdminOp>>>;

/// How long an operation is tried.
const PATIENCE: Duration = Duration::from_secs(15);

/// Creates the topics and waits until all replicas are in sync.
pub async fn form(context: &Context) -> turmoil::Result {
    let mut client = context.client("founder");
    for topic in &context.plan.topics {
        let TopicPlan { name, partitions, replication_factor, configs, .. } = topic;
        let configs: Vec<(&str, &str)> = configs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        loop {
            match client.create_topic(name, *partitions, *replication_factor, &configs).await {
                Ok(()) | Err(ClientError::Refused(ErrorCode::TopicAlreadyExists)) => break,
                // Not all brokers have registered yet.
                Err(ClientError::Refused(ErrorCode::InvalidReplicationFactor)) => {}
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        context.ledger().partitions.insert(name.clone(), *partitions);
    }
    Ok(())
}

/// Begins every operation that is asked for.
pub async fn serve(context: Context) {
    while context.stage() < Stage::Auditing {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let next = context.requests.lock().expect("no holder panics").pop_front();
        if let Some(op) = next {
            let context = context.clone();
            task::spawn(async move {
                let began = now();
                let outcome = perform(&context, &op).await;
                let mut ledger = context.ledger();
                ledger.operation(op.kind(), began, outcome.is_ok());
                match outcome {
                    Ok(()) => ledger.note(now(), format!("{op:?} succeeded")),
                    Err(error) => ledger.note(now(), format!("{op:?}: {error}")),
                }
            });
        }
    }
}

async fn perform(context: &Context, op: &AdminOp) -> Result<(), AdminError> {
    let mut admin = Admin::new(&context.bootstrap, context.options("admin"), PATIENCE);
    admin.reach(|_| ()).await?;
    match op {
        AdminOp::CreatePartitions { topic, total } => {
            let name = context.topic_name(*topic);
            let grown = make!(CreatePartitionsTopic { name: name.as_str().into(), count: *total, assignments: None });
            match admin.create_partitions(vec![grown]).await {
                // Asked for before, or another one was faster.
                Ok(()) | Err(AdminError::Api(vltava_client::ApiError { code: ErrorCode::InvalidPartitions, .. })) => {}
                Err(error) => return Err(error),
            }
            let found = admin.topics(Some(std::slice::from_ref(&name))).await?;
            let count = found.first().map_or(0, |topic| topic.partitions.len() as i32);
            let mut ledger = context.ledger();
            let known = ledger.partitions.entry(name).or_default();
            *known = (*known).max(count);
            Ok(())
        }
        AdminOp::Reassign { topic, partition, replicas } => {
            let moves = BTreeMap::from([((context.topic_name(*topic), *partition), Some(replicas.clone()))]);
            let outcomes = admin.alter_reassignments(&moves, true).await?;
            outcomes.into_values().try_for_each(|outcome| Ok(outcome?))
        }
        AdminOp::ElectPreferred => {
            let outcomes = admin.elect_leaders(ElectionType::Preferred, None).await?;
            // Each partition may have its reasons; that they are told is what matters.
            drop(outcomes);
            Ok(())
        }
        AdminOp::DeleteRecords { topic } => delete_records(context, &mut admin, *topic).await,
        AdminOp::AlterConfig { topic, name, value } => {
            let change = ConfigChange { name: (*name).to_owned(), value: Some(value.clone()) };
            admin.alter_configs(None, ConfigResourceType::Topic, &context.topic_name(*topic), &[change]).await
        }
    }
}

/// Deletes half of what is known to be there.
async fn delete_records(context: &Context, admin: &mut Admin, topic: usize) -> Result<(), AdminError> {
    let name = context.topic_name(topic);
    let wanted: BTreeMap<Key, i64> = {
        let mut ledger = context.ledger();
        let ends: Vec<(Key, i64)> = ledger
            .told
            .iter()
            .filter(|((topic, _), _)| *topic == name)
            .filter_map(|(key, told)| {
                let (last, _) = told.last_key_value()?;
                let start = ledger.earliest.get(key).copied().unwrap_or(0);
                Some((key.clone(), start.midpoint(*last).max(start)))
            })
            .collect();
        for (key, offset) in &ends {
            let deleted_to = ledger.deleted_to.entry(key.clone()).or_default();
            *deleted_to = (*deleted_to).max(*offset);
        }
        ends.into_iter().collect()
    };
    if wanted.is_empty() {
        return Ok(());
    }
    let outcomes = admin.delete_records(&wanted).await?;
    for (key, outcome) in outcomes {
        let low_watermark = outcome?;
        let mut ledger = context.ledger();
        let earliest = ledger.earliest.entry(key.clone()).or_default();
        // Readers may not be told an earlier start from here on.
        *earliest = (*earliest).max(wanted[&key].min(low_watermark.max(0)));
    }
    Ok(())
}
