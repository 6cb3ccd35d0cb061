//! --generate: a proposal, which moves nothing.

use std::collections::BTreeMap;

use vltava_client::Admin;
use vltava_host::random;

use super::current::{directories, replicas};
use super::{MoveError, document, placement};
use crate::console::Console;
use crate::kafka::names;
use crate::kafka::options::Options;

pub async fn generate(
    options: &Options,
    text: &str,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), MoveError> {
    let list = options.value("broker-list")?.unwrap_or_default();
    let wanted: Result<Vec<i32>, _> = list.split(',').map(|id| id.trim().parse()).collect();
    let wanted = wanted.map_err(|_| MoveError::Failed(format!("For input string: \"{list}\"")))?;
    let repeated = names::repeated(&wanted);
    if !repeated.is_empty() {
        return Err(MoveError::Failed(format!("Broker list contains duplicate entries: {repeated:?}")));
    }
    let topics = document::topics(text).map_err(MoveError::Failed)?;
    let repeated = names::repeated(&topics);
    if !repeated.is_empty() {
        let repeated = repeated.join(", ");
        let message = format!("List of topics to reassign contains duplicate entries: [{repeated}]");
        return Err(MoveError::Failed(message));
    }
    let current = replicas(topics.into_iter().collect(), admin).await?;
    let directories = directories(&current, admin).await?;
    let mut brokers = vec![];
    for broker in admin.describe_cluster(false).await?.brokers {
        if wanted.contains(&broker.broker_id) {
            let rack = broker.rack.map(|rack| rack.to_string()).filter(|_| !options.has("disable-rack-aware"));
            brokers.push((broker.broker_id, rack));
        }
    }
    let proposed = placement::propose(&current, &brokers, random::u64()).map_err(MoveError::Failed)?;
    console
        .line(format_args!("Current partition replica assignment\n{}\n", document::format(&current, &directories)))?;
    console.line(format_args!(
        "Proposed partition reassignment configuration\n{}",
        document::format(&proposed, &BTreeMap::new())
    ))?;
    Ok(())
}
