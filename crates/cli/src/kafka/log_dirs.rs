//! kafka-log-dirs: what lies in the log directories of brokers, as JSON.

use std::collections::BTreeSet;

use serde_json::json;
use vltava_client::ApiError;
use vltava_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;

use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, exceptions, join, last_words};
use crate::connect::Connection;
use crate::console::Console;

const OPTIONS: &[OptionSpec] = &[
    value(
        "bootstrap-server",
        "The server(s) to use for bootstrapping",
        "REQUIRED: The brokers to begin with, host:port, by commas.",
    ),
    value("command-config", "Admin client property file", "A properties file with settings of the client."),
    flag("describe", "REQUIRED: Describe the log directories."),
    value("topic-list", "Topic list", "The topics, separated by commas. All if not given."),
    value("broker-list", "Broker list", "The brokers, separated by commas. All if not given."),
];

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to query log directory usage on the specified brokers.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    options.require(&["bootstrap-server", "describe"])?;
    let listed = |name: &str| -> Result<BTreeSet<String>, Failure> {
        let list = options.value(name)?.unwrap_or_default();
        Ok(list.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect())
    };
    let topics = listed("topic-list")?;
    let wanted = listed("broker-list")?.iter().map(|id| id.parse()).collect::<Result<BTreeSet<i32>, _>>();
    let wanted = wanted.map_err(|error| Failure::Message(format!("--broker-list: {error}")))?;
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let connection = Connection::new(bootstrap, options.value("command-config")?)?;
    let mut admin = super::reach(&connection, console).await?;
    let failed = |error| Failure::Message(last_words(&error));
    let cluster = admin.describe_cluster(false).await.map_err(failed)?;
    let live: BTreeSet<i32> = cluster.brokers.iter().map(|broker| broker.broker_id).collect();
    let sorted = |ids: &BTreeSet<i32>| join(&ids.iter().copied().collect::<Vec<_>>());
    let missing: BTreeSet<i32> = wanted.difference(&live).copied().collect();
    if !missing.is_empty() {
        return Err(Failure::Message(format!(
            "ERROR: The given brokers do not exist from --broker-list: {}. Current existent brokers: {}",
            sorted(&missing),
            sorted(&live)
        )));
    }
    let asked = if wanted.is_empty() { live } else { wanted };
    console.line("Querying brokers for log directories information")?;
    let mut found = vec![];
    for broker in &asked {
        found.push((*broker, admin.describe_log_dirs(*broker).await.map_err(failed)?));
    }
    console.line(format_args!("Received log directory information from brokers {}", sorted(&asked)))?;
    console.line(document(&found, &topics))?;
    Ok(0)
}

/// Fields in the order in which Kafka's tool prints them.
fn document(brokers: &[(i32, Vec<DescribeLogDirsResult>)], topics: &BTreeSet<String>) -> String {
    let partitions = |directory: &DescribeLogDirsResult| {
        let mut found = vec![];
        for topic in directory.topics.iter().filter(|topic| topics.is_empty() || topics.contains(topic.name.as_str())) {
            for partition in &topic.partitions {
                let name = json!(format!("{}-{}", topic.name, partition.partition_index));
                let (size, lag) = (partition.partition_size, partition.offset_lag);
                let is_future = partition.is_future_key;
                found.push(format!(
                    "{{\"partition\":{name},\"size\":{size},\"offsetLag\":{lag},\"isFuture\":{is_future}}}"
                ));
            }
        }
        found.join(",")
    };
    let directory = |directory: &DescribeLogDirsResult| {
        let error = ApiError::check(directory.error_code, None).err().map(|error| exceptions::class(&error));
        let (partitions, error) = (partitions(directory), json!(error));
        format!("{{\"partitions\":[{partitions}],\"error\":{error},\"logDir\":{}}}", json!(directory.log_dir.as_str()))
    };
    let broker = |(id, directories): &(i32, Vec<DescribeLogDirsResult>)| {
        let directories = directories.iter().map(directory).collect::<Vec<_>>().join(",");
        format!("{{\"broker\":{id},\"logDirs\":[{directories}]}}")
    };
    format!("{{\"brokers\":[{}],\"version\":1}}", brokers.iter().map(broker).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use expect_test::expect;
    use vltava_protocol::make;
    use vltava_protocol::messages::describe_log_dirs_response::{DescribeLogDirsPartition, DescribeLogDirsTopic};

    use super::{DescribeLogDirsResult, document};

    #[test]
    fn directories_are_listed_by_broker() {
        let partition = make!(DescribeLogDirsPartition { partition_index: 0, partition_size: 5, offset_lag: 1 });
        let topic = |name: &str| make!(DescribeLogDirsTopic { name: name.into(), partitions: vec![partition.clone()] });
        let good = make!(DescribeLogDirsResult { log_dir: "/d".into(), topics: vec![topic("t"), topic("u")] });
        let bad = make!(DescribeLogDirsResult { log_dir: "/e".into(), error_code: 56 });
        expect![[r#"{"brokers":[{"broker":1,"logDirs":[{"partitions":[{"partition":"t-0","size":5,"offsetLag":1,"isFuture":false}],"error":null,"logDir":"/d"},{"partitions":[],"error":"org.apache.kafka.common.errors.KafkaStorageException","logDir":"/e"}]}],"version":1}"#]]
        .assert_eq(&document(&[(1, vec![good, bad])], &BTreeSet::from(["t".to_owned()])));
    }
}
