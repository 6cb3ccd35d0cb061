//! `vltava topics`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use vltava_client::ApiError;
use vltava_protocol::make;
use vltava_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use vltava_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use vltava_protocol::messages::metadata_response::MetadataResponseTopic;

use super::report::Report;
use super::{Common, Outcome, cannot, pair};
use crate::console::Console;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List topics.
    List {
        #[command(flatten)]
        common: Common,
        /// Internal topics too.
        #[arg(long)]
        internal: bool,
    },
    /// Show the partitions of topics, or of all.
    Describe {
        #[command(flatten)]
        common: Common,
        topics: Vec<String>,
    },
    /// Create topics.
    Create(Create),
    /// Raise the number of partitions of a topic.
    Grow {
        #[command(flatten)]
        common: Common,
        topic: String,
        /// How many there are to be.
        #[arg(short, long)]
        partitions: i32,
    },
    /// Delete topics with all their records.
    Delete {
        #[command(flatten)]
        common: Common,
        #[arg(required = true)]
        topics: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    #[command(flatten)]
    common: Common,
    #[arg(required = true)]
    topics: Vec<String>,
    /// The number of partitions; the cluster's default if not given.
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// The number of replicas; the cluster's default if not given.
    #[arg(short, long, value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A config of the topic. May be repeated.
    #[arg(short, long = "config", value_name = "NAME=VALUE", value_parser = pair)]
    configs: Vec<(String, String)>,
    /// No failure where there is such a topic already.
    #[arg(long)]
    if_not_exists: bool,
}

pub async fn run(command: Command, console: &mut Console<'_>) -> Outcome {
    match command {
        Command::List { common, internal } => {
            let topics = common.admin().await?.topics(None).await.map_err(cannot("list topics"))?;
            let shown: Vec<_> = topics.into_iter().filter(|topic| internal || !topic.is_internal).collect();
            common.show(&list(&shown), console)
        }
        Command::Describe { common, topics } => {
            let wanted = (!topics.is_empty()).then_some(&topics[..]);
            let found = common.admin().await?.topics(wanted).await.map_err(cannot("describe topics"))?;
            for topic in &found {
                let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
                ApiError::check(topic.error_code, None)
                    .map_err(|error| cannot(format!("describe {name}"))(error.into()))?;
            }
            common.show(&describe(&found), console)
        }
        Command::Create(arguments) => create(arguments, console).await,
        Command::Grow { common, topic, partitions } => {
            let wanted =
                make!(CreatePartitionsTopic { name: topic.as_str().into(), count: partitions, assignments: None });
            let grown = common.admin().await?.create_partitions(vec![wanted]).await;
            grown.map_err(cannot(format!("grow {topic}")))?;
            Ok(console.complain(format_args!("{topic} has {partitions} partitions now"))?)
        }
        Command::Delete { common, topics } => {
            common.admin().await?.delete_topics(&topics).await.map_err(cannot("delete all of these topics"))?;
            Ok(console.complain(format_args!("deleted {}", topics.join(", ")))?)
        }
    }
}

async fn create(arguments: Create, console: &mut Console<'_>) -> Outcome {
    let mut admin = arguments.common.admin().await?;
    for name in &arguments.topics {
        let config = |(name, value): &(String, String)| {
            make!(CreatableTopicConfig { name: name.as_str().into(), value: Some(value.as_str().into()) })
        };
        let topic = make!(CreatableTopic {
            name: name.as_str().into(),
            num_partitions: arguments.partitions.unwrap_or(-1),
            replication_factor: arguments.replication_factor.unwrap_or(-1),
            configs: arguments.configs.iter().map(config).collect(),
        });
        match admin.create_topic(topic).await {
            Ok(()) => console.complain(format_args!("created {name}"))?,
            Err(vltava_client::AdminError::Api(error))
                if arguments.if_not_exists && error.code == vltava_types::ErrorCode::TopicAlreadyExists =>
            {
                console.complain(format_args!("{name} is there already"))?;
            }
            Err(error) => return Err(cannot(format!("create {name}"))(error)),
        }
    }
    Ok(())
}

fn list(topics: &[MetadataResponseTopic]) -> Report {
    let is_bad = |name: &str, value: &Value| name == "under_replicated" && *value != json!(0);
    let mut report = Report::new(&["topic", "partitions", "replication_factor", "under_replicated"]).with_alarm(is_bad);
    for topic in topics {
        let replicas = topic.partitions.iter().map(|partition| partition.replica_nodes.len()).max();
        let behind = topic.partitions.iter().filter(|p| p.isr_nodes.len() < p.replica_nodes.len()).count();
        report.push(vec![
            json!(topic.name.as_ref().map(ToString::to_string)),
            json!(topic.partitions.len()),
            json!(replicas.unwrap_or(0)),
            json!(behind),
        ]);
    }
    report
}

fn describe(topics: &[MetadataResponseTopic]) -> Report {
    let is_bad = |name: &str, value: &Value| match name {
        "leader" => value.is_null(),
        "out_of_sync" => value.as_array().is_some_and(|replicas| !replicas.is_empty()),
        _ => false,
    };
    let columns = ["topic", "partition", "leader", "leader_epoch", "replicas", "isr", "out_of_sync"];
    let mut report = Report::new(&columns).with_alarm(is_bad);
    for topic in topics {
        let mut partitions: Vec<_> = topic.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        for partition in partitions {
            let missing: Vec<_> =
                partition.replica_nodes.iter().filter(|replica| !partition.isr_nodes.contains(replica)).collect();
            report.push(vec![
                json!(topic.name.as_ref().map(ToString::to_string)),
                json!(partition.partition_index),
                json!((partition.leader_id >= 0).then_some(partition.leader_id)),
                json!(partition.leader_epoch),
                json!(partition.replica_nodes),
                json!(partition.isr_nodes),
                json!(missing),
            ]);
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_protocol::make;
    use vltava_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::super::report::Format;
    use super::{describe, list};

    fn topic() -> MetadataResponseTopic {
        let partition = |index, leader, isr: &[i32]| {
            make!(MetadataResponsePartition {
                partition_index: index,
                leader_id: leader,
                leader_epoch: 7,
                replica_nodes: vec![1, 2],
                isr_nodes: isr.to_vec(),
            })
        };
        make!(MetadataResponseTopic {
            name: Some("t".into()),
            partitions: vec![partition(1, -1, &[]), partition(0, 1, &[1, 2])]
        })
    }

    #[test]
    fn lists_count_what_is_behind() {
        expect![[r#"
            TOPIC  PARTITIONS  REPLICATION FACTOR  UNDER REPLICATED
            t               2                   2                 1
        "#]]
        .assert_eq(&list(&[topic()]).show(Format::Table, false));
    }

    #[test]
    fn descriptions_name_replicas_out_of_sync() {
        expect![[r#"
            TOPIC  PARTITION  LEADER  LEADER EPOCH  REPLICAS  ISR  OUT OF SYNC
            t              0       1             7  1,2       1,2  -
            t              1       -             7  1,2       -    1,2
        "#]]
        .assert_eq(&describe(&[topic()]).show(Format::Table, false));
    }
}
