//! kafka-metadata-quorum: the leader of the metadata quorum, its voters and its observers.

use std::fmt::Write as _;

use vltava_host::clock;
use vltava_protocol::messages::WireId as _;
use vltava_protocol::messages::describe_quorum_response::{Node, PartitionData, ReplicaState};
use vltava_types::Uuid;

use super::subcommands::{Command, Grammar, Request, option, switch};
use super::{Failure, last_words};
use crate::connect::Connection;
use crate::console::Console;

const GRAMMAR: Grammar = Grammar {
    tool: "kafka-metadata-quorum",
    purpose: "This tool describes kraft metadata quorum status.",
    arguments: &[
        option("--bootstrap-server", "", "The brokers to begin with, host:port, by commas."),
        option("--bootstrap-controller", "", "Not supported: ask the brokers."),
        option("--command-config", "", "A properties file with settings of the client."),
    ],
    commands: &[
        Command {
            name: "describe",
            help: "Describe the metadata quorum info",
            arguments: &[
                switch("--status", "A short summary."),
                switch("--replication", "One row for each replica."),
                switch("--human-readable", "With --replication: times as how long ago."),
            ],
        },
        Command {
            name: "add-controller",
            help: "Add a controller. (Not built yet: voters are named by controller.quorum.voters.)",
            arguments: &[switch("--dry-run", "Only say what would be done.")],
        },
        Command {
            name: "remove-controller",
            help: "Remove a controller. (Not built yet: voters are named by controller.quorum.voters.)",
            arguments: &[
                option("--controller-id", "-i", "The controller."),
                option("--controller-directory-id", "-d", "Its directory."),
                switch("--dry-run", "Only say what would be done."),
                switch("--unregister", "Unregister it too."),
            ],
        },
    ],
};

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let parsed = match GRAMMAR.parse(arguments)? {
        Request::Run(parsed) => parsed,
        Request::Help(text) => {
            console.text(text)?;
            return Ok(0);
        }
    };
    GRAMMAR.require(&parsed, &["--bootstrap-server", "--bootstrap-controller"])?;
    let refuse = |message: &str| Err(Failure::Message(message.to_owned()));
    if parsed.has("--bootstrap-controller") {
        return refuse("--bootstrap-controller is not supported: any broker answers for its controller");
    }
    if parsed.command != "describe" {
        return refuse(
            "voters are named by controller.quorum.voters; changing them in a running cluster is not built yet",
        );
    }
    let (is_status, is_replication) = (parsed.has("--status"), parsed.has("--replication"));
    match (is_status, is_replication) {
        (true, true) => {
            return refuse("Only one of --status or --replication should be specified with describe sub-command");
        }
        (false, false) => {
            return refuse("One of --status or --replication must be specified with describe sub-command");
        }
        (true, false) if parsed.has("--human-readable") => {
            return refuse("The option --human-readable is only supported along with --replication");
        }
        _ => {}
    }
    let bootstrap = parsed.value("--bootstrap-server").unwrap_or_default();
    let connection = Connection::new(bootstrap, parsed.value("--command-config"))?;
    let mut admin = super::reach(&connection, console).await?;
    let failed = |error| Failure::Message(last_words(&error));
    let answer = admin.describe_quorum().await.map_err(failed)?;
    let Some(quorum) = answer.topics.first().and_then(|topic| topic.partitions.first()) else {
        return refuse("the broker's answer says nothing of the metadata quorum");
    };
    if is_status {
        let cluster = admin.describe_cluster(false).await.map_err(failed)?;
        console.text(status(&cluster.cluster_id, quorum, &answer.nodes))?;
    } else {
        let now = parsed.has("--human-readable").then(|| clock::now().value());
        console.text(replication(quorum, now))?;
    }
    Ok(0)
}

fn status(cluster_id: &str, quorum: &PartitionData, nodes: &[Node]) -> String {
    let leader = quorum.current_voters.iter().find(|voter| voter.replica_id == quorum.leader_id);
    let slowest = quorum.current_voters.iter().min_by_key(|voter| voter.log_end_offset);
    let (lag, lag_time) = match (leader, slowest) {
        (Some(leader), Some(slowest)) => (leader.log_end_offset - slowest.log_end_offset, time_behind(leader, slowest)),
        _ => (-1, -1),
    };
    let rows = [
        ("ClusterId", cluster_id.to_owned()),
        ("LeaderId", quorum.leader_id.to_string()),
        ("LeaderEpoch", quorum.leader_epoch.to_string()),
        ("HighWatermark", quorum.high_watermark.to_string()),
        ("MaxFollowerLag", lag.to_string()),
        ("MaxFollowerLagTimeMs", lag_time.to_string()),
        ("CurrentVoters", replicas(&quorum.current_voters, nodes)),
        ("CurrentObservers", replicas(&quorum.observers, nodes)),
    ];
    rows.iter().map(|(name, value)| format!("{:<24}{value}\n", format!("{name}:"))).collect()
}

/// How long ago the slowest voter had what the leader has; -1 if that is not known.
fn time_behind(leader: &ReplicaState, slowest: &ReplicaState) -> i64 {
    if leader.replica_id == slowest.replica_id {
        0
    } else if leader.last_caught_up_timestamp >= 0 && slowest.last_caught_up_timestamp >= 0 {
        leader.last_caught_up_timestamp - slowest.last_caught_up_timestamp
    } else {
        -1
    }
}

/// `[{"id": 1, "directoryId": "...", "endpoints": ["CONTROLLER://host:9093"]}]`.
fn replicas(replicas: &[ReplicaState], nodes: &[Node]) -> String {
    let shown = replicas.iter().map(|replica| {
        let mut fields = vec![format!("\"id\": {}", replica.replica_id)];
        let directory = Uuid::from_wire(replica.replica_directory_id);
        if !directory.is_zero() {
            fields.push(format!("\"directoryId\": \"{directory}\""));
        }
        let node = nodes.iter().find(|node| node.node_id == replica.replica_id);
        let endpoints: Vec<String> = node
            .iter()
            .flat_map(|node| &node.listeners)
            .map(|listener| match listener.host.contains(':') {
                true => format!("\"{}://[{}]:{}\"", listener.name, listener.host, listener.port),
                false => format!("\"{}://{}:{}\"", listener.name, listener.host, listener.port),
            })
            .collect();
        if !endpoints.is_empty() {
            fields.push(format!("\"endpoints\": [{}]", endpoints.join(", ")));
        }
        format!("{{{}}}", fields.join(", "))
    });
    format!("[{}]", shown.collect::<Vec<_>>().join(", "))
}

/// With `now`, times are shown as how long ago.
fn replication(quorum: &PartitionData, now: Option<i64>) -> String {
    let titles =
        ["NodeId", "DirectoryId", "LogEndOffset", "Lag", "LastFetchTimestamp", "LastCaughtUpTimestamp", "Status"];
    let is_leader = |voter: &&ReplicaState| voter.replica_id == quorum.leader_id;
    let leader_end = quorum.current_voters.iter().find(is_leader).map_or(0, |leader| leader.log_end_offset);
    let time = |timestamp: i64| match now {
        _ if timestamp < 0 => "-1".to_owned(),
        Some(now) => format!("{} ms ago", (now - timestamp).max(0)),
        None => timestamp.to_string(),
    };
    let row = |replica: &ReplicaState, status: &str| {
        [
            replica.replica_id.to_string(),
            Uuid::from_wire(replica.replica_directory_id).to_string(),
            replica.log_end_offset.to_string(),
            (leader_end - replica.log_end_offset).to_string(),
            time(replica.last_fetch_timestamp),
            time(replica.last_caught_up_timestamp),
            status.to_owned(),
        ]
    };
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(quorum.current_voters.iter().filter(is_leader).map(|voter| row(voter, "Leader")));
    rows.extend(quorum.current_voters.iter().filter(|voter| !is_leader(voter)).map(|voter| row(voter, "Follower")));
    rows.extend(quorum.observers.iter().map(|observer| row(observer, "Observer")));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}\t");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_protocol::make;
    use vltava_protocol::messages::describe_quorum_response::Listener;

    use super::{Node, PartitionData, ReplicaState, replication, status};

    fn quorum() -> PartitionData {
        let replica = |replica_id, log_end_offset, time| {
            make!(ReplicaState {
                replica_id,
                log_end_offset,
                last_fetch_timestamp: time,
                last_caught_up_timestamp: time,
            })
        };
        make!(PartitionData {
            leader_id: 2,
            leader_epoch: 7,
            high_watermark: 90,
            current_voters: vec![replica(1, 80, 1000), replica(2, 100, 1500)],
            observers: vec![replica(3, 100, -1)],
        })
    }

    #[test]
    fn status_sums_up() {
        let listener = make!(Listener { name: "CONTROLLER".into(), host: "h".into(), port: 9093 });
        let nodes = [make!(Node { node_id: 1, listeners: vec![listener] })];
        expect![[r#"
            ClusterId:              abc
            LeaderId:               2
            LeaderEpoch:            7
            HighWatermark:          90
            MaxFollowerLag:         20
            MaxFollowerLagTimeMs:   500
            CurrentVoters:          [{"id": 1, "endpoints": ["CONTROLLER://h:9093"]}, {"id": 2}]
            CurrentObservers:       [{"id": 3}]
        "#]]
        .assert_eq(&status("abc", &quorum(), &nodes));
    }

    #[test]
    fn replication_begins_with_the_leader() {
        expect![[r#"
            NodeId|DirectoryId           |LogEndOffset|Lag|LastFetchTimestamp|LastCaughtUpTimestamp|Status  |
            2     |AAAAAAAAAAAAAAAAAAAAAA|100         |0  |500 ms ago        |500 ms ago           |Leader  |
            1     |AAAAAAAAAAAAAAAAAAAAAA|80          |20 |1000 ms ago       |1000 ms ago          |Follower|
            3     |AAAAAAAAAAAAAAAAAAAAAA|100         |0  |-1                |-1                   |Observer|
        "#]]
        .assert_eq(&replication(&quorum(), Some(2000)).replace('\t', "|"));
    }
}
