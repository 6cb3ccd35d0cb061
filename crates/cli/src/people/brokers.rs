//! `vltava brokers` and `vltava quorum`: the nodes of the cluster.

use clap::{Args, Subcommand};
use serde_json::json;
use vltava_host::clock;
use vltava_protocol::messages::WireId as _;
use vltava_protocol::messages::describe_quorum_response::{PartitionData, ReplicaState};
use vltava_types::Uuid;

use super::drain::{self, DrainArguments};
use super::report::Report;
use super::{Common, Outcome, cannot};
use crate::console::Console;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BrokersArguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Option<BrokersCommand>,
}

#[derive(Debug, Subcommand)]
enum BrokersCommand {
    /// List the brokers, as it is done without a command.
    List(ListArguments),
    /// Move all replicas away from brokers that are to go, and wait until that is done. Broken off, it goes on when typed
    /// again.
    Drain(DrainArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    common: Common,
}

pub async fn brokers(arguments: BrokersArguments, console: &mut Console<'_>) -> Outcome {
    match arguments.command {
        None => list(&arguments.common, console).await,
        Some(BrokersCommand::List(arguments)) => list(&arguments.common, console).await,
        Some(BrokersCommand::Drain(arguments)) => drain::run(arguments, console).await,
    }
}

/// The brokers that are registered, living or not.
async fn list(common: &Common, console: &mut Console<'_>) -> Outcome {
    let cluster = common.admin().await?.describe_cluster(true).await.map_err(cannot("list brokers"))?;
    let mut report = Report::new(&["broker", "host", "port", "rack", "state"])
        .with_alarm(|name, value| name == "state" && *value != json!("live"));
    for broker in &cluster.brokers {
        report.push(vec![
            json!(broker.broker_id),
            json!(broker.host.as_str()),
            json!(broker.port),
            json!(broker.rack.as_ref().map(ToString::to_string)),
            json!(if broker.is_fenced { "fenced" } else { "live" }),
        ]);
    }
    common.show(&report, console)
}

#[derive(Debug, Args)]
pub struct QuorumArguments {
    #[command(flatten)]
    common: Common,
}

/// The nodes of the metadata quorum.
pub async fn quorum(arguments: QuorumArguments, console: &mut Console<'_>) -> Outcome {
    let answer = arguments.common.admin().await?.describe_quorum().await.map_err(cannot("describe the quorum"))?;
    let partition = answer.topics.first().and_then(|topic| topic.partitions.first());
    let Some(quorum) = partition else { anyhow::bail!("the broker's answer says nothing of the metadata quorum") };
    arguments.common.show(&members(quorum, clock::now().value()), console)
}

fn members(quorum: &PartitionData, now: i64) -> Report {
    let columns = ["node", "role", "log_end_offset", "lag", "last_fetch_ms_ago", "directory"];
    let mut report = Report::new(&columns);
    let is_leader = |replica: &ReplicaState| replica.replica_id == quorum.leader_id;
    let leader_end = quorum.current_voters.iter().find(|voter| is_leader(voter)).map(|leader| leader.log_end_offset);
    let voters = quorum.current_voters.iter().map(|voter| (voter, if is_leader(voter) { "leader" } else { "voter" }));
    for (replica, role) in voters.chain(quorum.observers.iter().map(|observer| (observer, "learner"))) {
        let fetched = replica.last_fetch_timestamp;
        report.push(vec![
            json!(replica.replica_id),
            json!(role),
            json!(replica.log_end_offset),
            json!(leader_end.map(|end| end - replica.log_end_offset)),
            json!((fetched >= 0).then(|| (now - fetched).max(0))),
            json!(Uuid::from_wire(replica.replica_directory_id).to_string()),
        ]);
    }
    report
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_protocol::make;

    use super::super::report::Format;
    use super::{PartitionData, ReplicaState, members};

    #[test]
    fn nodes_have_roles() {
        let replica = |replica_id, log_end_offset, last_fetch_timestamp| {
            make!(ReplicaState { replica_id, log_end_offset, last_fetch_timestamp })
        };
        let quorum = make!(PartitionData {
            leader_id: 2,
            current_voters: vec![replica(1, 80, 900), replica(2, 100, -1)],
            observers: vec![replica(3, 100, 990)],
        });
        expect![[r#"
            NODE  ROLE     LOG END OFFSET  LAG  LAST FETCH MS AGO  DIRECTORY
               1  voter                80   20                100  AAAAAAAAAAAAAAAAAAAAAA
               2  leader              100    0                  -  AAAAAAAAAAAAAAAAAAAAAA
               3  learner             100    0                 10  AAAAAAAAAAAAAAAAAAAAAA
        "#]]
        .assert_eq(&members(&quorum, 1000).show(Format::Table, false));
    }
}
