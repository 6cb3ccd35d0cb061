//! kafka-broker-api-versions: the APIs that each broker speaks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vltava_client::Admin;
use vltava_protocol::messages::api_versions_response::ApiVersion;

use super::options::{OptionSpec, Options, value};
use super::{Failure, last_words};
use crate::connect::Connection;
use crate::console::Console;

const OPTIONS: &[OptionSpec] = &[
    value("command-config", "command config property file", "A properties file with settings of the client."),
    value(
        "bootstrap-server",
        "server(s) to use for bootstrapping",
        "REQUIRED: The brokers to begin with, host:port, by commas.",
    ),
];

/// Kafka 4.3's APIs for clients: key, name, oldest and newest version.
const APIS: &[(i16, &str, i16, i16)] = &[
    (0, "Produce", 3, 13),
    (1, "Fetch", 4, 18),
    (2, "ListOffsets", 1, 11),
    (3, "Metadata", 0, 13),
    (8, "OffsetCommit", 2, 10),
    (9, "OffsetFetch", 1, 10),
    (10, "FindCoordinator", 0, 6),
    (11, "JoinGroup", 0, 9),
    (12, "Heartbeat", 0, 4),
    (13, "LeaveGroup", 0, 5),
    (14, "SyncGroup", 0, 5),
    (15, "DescribeGroups", 0, 6),
    (16, "ListGroups", 0, 5),
    (17, "SaslHandshake", 0, 1),
    (18, "ApiVersions", 0, 4),
    (19, "CreateTopics", 2, 7),
    (20, "DeleteTopics", 1, 6),
    (21, "DeleteRecords", 0, 2),
    (22, "InitProducerId", 0, 6),
    (23, "OffsetForLeaderEpoch", 2, 4),
    (24, "AddPartitionsToTxn", 0, 5),
    (25, "AddOffsetsToTxn", 0, 4),
    (26, "EndTxn", 0, 5),
    (27, "WriteTxnMarkers", 1, 2),
    (28, "TxnOffsetCommit", 0, 5),
    (29, "DescribeAcls", 1, 3),
    (30, "CreateAcls", 1, 3),
    (31, "DeleteAcls", 1, 3),
    (32, "DescribeConfigs", 1, 4),
    (33, "AlterConfigs", 0, 2),
    (34, "AlterReplicaLogDirs", 1, 2),
    (35, "DescribeLogDirs", 1, 5),
    (36, "SaslAuthenticate", 0, 2),
    (37, "CreatePartitions", 0, 3),
    (38, "CreateDelegationToken", 1, 3),
    (39, "RenewDelegationToken", 1, 2),
    (40, "ExpireDelegationToken", 1, 2),
    (41, "DescribeDelegationToken", 1, 3),
    (42, "DeleteGroups", 0, 2),
    (43, "ElectLeaders", 0, 2),
    (44, "IncrementalAlterConfigs", 0, 1),
    (45, "AlterPartitionReassignments", 0, 1),
    (46, "ListPartitionReassignments", 0, 0),
    (47, "OffsetDelete", 0, 0),
    (48, "DescribeClientQuotas", 0, 1),
    (49, "AlterClientQuotas", 0, 1),
    (50, "DescribeUserScramCredentials", 0, 0),
    (51, "AlterUserScramCredentials", 0, 0),
    (55, "DescribeQuorum", 0, 2),
    (57, "UpdateFeatures", 0, 2),
    (60, "DescribeCluster", 0, 2),
    (61, "DescribeProducers", 0, 0),
    (64, "UnregisterBroker", 0, 0),
    (65, "DescribeTransactions", 0, 0),
    (66, "ListTransactions", 0, 2),
    (68, "ConsumerGroupHeartbeat", 0, 1),
    (69, "ConsumerGroupDescribe", 0, 1),
    (71, "GetTelemetrySubscriptions", 0, 0),
    (72, "PushTelemetry", 0, 0),
    (74, "ListConfigResources", 0, 1),
    (75, "DescribeTopicPartitions", 0, 0),
    (76, "ShareGroupHeartbeat", 1, 1),
    (77, "ShareGroupDescribe", 1, 1),
    (78, "ShareFetch", 1, 2),
    (79, "ShareAcknowledge", 1, 2),
    (80, "AddRaftVoter", 0, 1),
    (81, "RemoveRaftVoter", 0, 0),
    (83, "InitializeShareGroupState", 0, 0),
    (84, "ReadShareGroupState", 0, 0),
    (85, "WriteShareGroupState", 0, 1),
    (86, "DeleteShareGroupState", 0, 0),
    (87, "ReadShareGroupStateSummary", 0, 1),
    (88, "StreamsGroupHeartbeat", 0, 0),
    (89, "StreamsGroupDescribe", 0, 0),
    (90, "DescribeShareGroupOffsets", 0, 1),
    (91, "AlterShareGroupOffsets", 0, 0),
    (92, "DeleteShareGroupOffsets", 0, 0),
];

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to retrieve broker version information.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    options.require(&["bootstrap-server"])?;
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let connection = Connection::new(bootstrap, options.value("command-config")?)?;
    let mut admin = super::reach(&connection, console).await?;
    print(&mut admin, console).await?;
    Ok(0)
}

/// One paragraph for each broker.
pub async fn print(admin: &mut Admin, console: &mut Console<'_>) -> Result<(), Failure> {
    let cluster = admin.describe_cluster(false).await.map_err(|error| Failure::Message(last_words(&error)))?;
    for broker in cluster.brokers {
        let rack = broker.rack.as_ref().map_or("null", |rack| rack.as_str());
        let (id, host, port) = (broker.broker_id, &broker.host, broker.port);
        console.text(format_args!("{host}:{port} (id: {id} rack: {rack} isFenced: {}) -> ", broker.is_fenced))?;
        match admin.api_versions(id).await {
            Ok(answer) => console.line(paragraph(&answer.api_keys))?,
            Err(error) => console.line(format_args!("ERROR: {}", last_words(&error)))?,
        }
    }
    Ok(())
}

fn paragraph(spoken: &[ApiVersion]) -> String {
    let mut lines = BTreeMap::new();
    for (key, name, ..) in APIS {
        lines.insert(*key, format!("{name}({key}): UNSUPPORTED"));
    }
    for api in spoken {
        let (key, min, max) = (api.api_key, api.min_version, api.max_version);
        let range = if min == max { min.to_string() } else { format!("{min} to {max}") };
        let line = match APIS.iter().find(|(known, ..)| *known == key) {
            None => format!("UNKNOWN({key}): {range}"),
            Some((_, name, oldest, newest)) => {
                let usable = if newest < &min {
                    "unusable: node too new".to_owned()
                } else if max < *oldest {
                    "unusable: node too old".to_owned()
                } else {
                    format!("usable: {}", max.min(*newest))
                };
                format!("{name}({key}): {range} [{usable}]")
            }
        };
        lines.insert(key, line);
    }
    let mut text = "(\n\t".to_owned();
    let _ = write!(text, "{}\n)", lines.into_values().collect::<Vec<_>>().join(",\n\t"));
    text
}

#[cfg(test)]
mod tests {
    use vltava_protocol::make;

    use super::{APIS, ApiVersion, paragraph};

    #[test]
    fn every_api_of_kafka_is_named() {
        let api = |api_key, min_version, max_version| make!(ApiVersion { api_key, min_version, max_version });
        let text = paragraph(&[api(0, 0, 13), api(1, 20, 21), api(3, 0, 12), api(46, 0, 0), api(4711, 0, 1)]);
        let lines: Vec<&str> = text.lines().map(|line| line.trim_start_matches('\t')).collect();
        assert_eq!(lines[1], "Produce(0): 0 to 13 [usable: 13],");
        assert_eq!(lines[2], "Fetch(1): 20 to 21 [unusable: node too new],");
        assert_eq!(lines[3], "ListOffsets(2): UNSUPPORTED,");
        assert_eq!(lines[4], "Metadata(3): 0 to 12 [usable: 12],");
        assert!(lines.contains(&"ListPartitionReassignments(46): 0 [usable: 0],"));
        assert_eq!(lines[lines.len() - 2..], ["UNKNOWN(4711): 0 to 1", ")"]);
        assert_eq!(lines.len(), APIS.len() + 3);
    }
}
