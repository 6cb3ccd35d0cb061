//! `vltava offsets`, `producers`, `log-dirs`, `elect` and `reassign`: what there is to know and do about partitions.

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use vltava_client::ApiError;
use vltava_client::admin::{EARLIEST, ElectionType, LATEST, Partition};
use vltava_types::ErrorCode;

use super::report::Report;
use super::{Common, Outcome, cannot};
use crate::console::Console;

#[derive(Debug, Args)]
pub struct OffsetsArguments {
    #[command(flatten)]
    common: Common,
    /// The topics; all if not given.
    topics: Vec<String>,
}

/// The first and the next offset of each partition.
pub async fn offsets(arguments: OffsetsArguments, console: &mut Console<'_>) -> Outcome {
    let mut admin = arguments.common.admin().await?;
    let partitions = super::partitions(&mut admin, &arguments.topics).await?;
    let at = |place: i64| partitions.iter().map(|partition| (partition.clone(), place)).collect::<BTreeMap<_, _>>();
    let starts = admin.list_offsets(&at(EARLIEST)).await.map_err(cannot("list offsets"))?;
    let ends = admin.list_offsets(&at(LATEST)).await.map_err(cannot("list offsets"))?;
    let columns = ["topic", "partition", "log_start_offset", "log_end_offset", "records", "error"];
    let mut report = Report::new(&columns).with_alarm(|name, value| name == "error" && !value.is_null());
    for partition in partitions {
        let (start, end) = (&starts[&partition], &ends[&partition]);
        let error = start.as_ref().err().or(end.as_ref().err()).map(|error| error.code.name());
        let (start, end) = (start.as_ref().ok(), end.as_ref().ok());
        let records = start.zip(end).map(|(start, end)| end - start);
        report.push(vec![
            json!(partition.0),
            json!(partition.1),
            json!(start),
            json!(end),
            json!(records),
            json!(error),
        ]);
    }
    arguments.common.show(&report, console)
}

#[derive(Debug, Args)]
pub struct ProducersArguments {
    #[command(flatten)]
    common: Common,
    topic: String,
    /// One partition only.
    #[arg(short, long)]
    partition: Option<i32>,
}

/// The producers that leaders remember, to tell repeated batches from new ones.
pub async fn producers(arguments: ProducersArguments, console: &mut Console<'_>) -> Outcome {
    let mut admin = arguments.common.admin().await?;
    let mut partitions = super::partitions(&mut admin, std::slice::from_ref(&arguments.topic)).await?;
    partitions.retain(|(_, index)| arguments.partition.is_none_or(|wanted| wanted == *index));
    let producers = admin.describe_producers(&partitions).await.map_err(cannot("describe producers"))?;
    let columns =
        ["topic", "partition", "producer_id", "producer_epoch", "last_sequence", "last_timestamp", "transaction_start"];
    let mut report = Report::new(&columns);
    for ((topic, partition), producers) in super::all(producers)? {
        for producer in producers {
            let start = producer.current_txn_start_offset;
            report.push(vec![
                json!(topic),
                json!(partition),
                json!(producer.producer_id),
                json!(producer.producer_epoch),
                json!(producer.last_sequence),
                json!(producer.last_timestamp),
                json!((start >= 0).then_some(start)),
            ]);
        }
    }
    arguments.common.show(&report, console)
}

#[derive(Debug, Args)]
pub struct LogDirsArguments {
    #[command(flatten)]
    common: Common,
    /// Only this broker. May be repeated.
    #[arg(long)]
    broker: Vec<i32>,
    /// Only this topic. May be repeated.
    #[arg(short, long)]
    topic: Vec<String>,
}

/// The size of each replica, and where it lies.
pub async fn log_dirs(arguments: LogDirsArguments, console: &mut Console<'_>) -> Outcome {
    let mut admin = arguments.common.admin().await?;
    let cluster = admin.describe_cluster(false).await.map_err(cannot("list brokers"))?;
    let columns = ["broker", "log_dir", "topic", "partition", "bytes", "offset_lag", "error"];
    let mut report = Report::new(&columns).with_alarm(|name, value| name == "error" && !value.is_null());
    let asked = cluster.brokers.iter().map(|broker| broker.broker_id);
    for broker in asked.filter(|id| arguments.broker.is_empty() || arguments.broker.contains(id)) {
        for directory in admin.describe_log_dirs(broker).await.map_err(cannot(format!("ask broker {broker}")))? {
            let path = directory.log_dir.as_str();
            if let Err(error) = ApiError::check(directory.error_code, None) {
                let error = json!(error.code.name());
                report.push(vec![
                    json!(broker),
                    json!(path),
                    json!(null),
                    json!(null),
                    json!(null),
                    json!(null),
                    error,
                ]);
            }
            let is_wanted =
                |name: &str| arguments.topic.is_empty() || arguments.topic.iter().any(|topic| topic == name);
            for topic in directory.topics.iter().filter(|topic| is_wanted(&topic.name)) {
                for partition in &topic.partitions {
                    report.push(vec![
                        json!(broker),
                        json!(path),
                        json!(topic.name.as_str()),
                        json!(partition.partition_index),
                        json!(partition.partition_size),
                        json!(partition.offset_lag),
                        json!(null),
                    ]);
                }
            }
        }
    }
    arguments.common.show(&report, console)
}

#[derive(Debug, Args)]
pub struct ElectArguments {
    #[command(flatten)]
    common: Common,
    election: Election,
    /// Topics, or partitions as topic:partition; all that need an election if not given.
    partitions: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// Any live replica, where none is eligible. May lose records.
    Unclean,
}

/// Holds elections.
pub async fn elect(arguments: ElectArguments, console: &mut Console<'_>) -> Outcome {
    let mut admin = arguments.common.admin().await?;
    let mut wanted: Vec<Partition> = vec![];
    for name in &arguments.partitions {
        match name.rsplit_once(':').and_then(|(topic, index)| Some((topic, index.parse().ok()?))) {
            Some((topic, index)) => wanted.push((topic.to_owned(), index)),
            None => wanted.extend(super::partitions(&mut admin, std::slice::from_ref(name)).await?),
        }
    }
    let election = match arguments.election {
        Election::Preferred => ElectionType::Preferred,
        Election::Unclean => ElectionType::Unclean,
    };
    let scope = (!wanted.is_empty()).then_some(&wanted[..]);
    let outcomes = admin.elect_leaders(election, scope).await.map_err(cannot("elect leaders"))?;
    let mut report = Report::new(&["topic", "partition", "outcome"])
        .with_alarm(|name, value| name == "outcome" && *value != json!("elected") && *value != json!("not needed"));
    let mut failed = 0;
    for ((topic, partition), outcome) in &outcomes {
        let word = match outcome {
            Ok(()) => "elected".to_owned(),
            Err(error) if error.code == ErrorCode::ElectionNotNeeded => "not needed".to_owned(),
            Err(error) => {
                failed += 1;
                error.to_string()
            }
        };
        report.push(vec![json!(topic), json!(partition), json!(word)]);
    }
    arguments.common.show(&report, console)?;
    anyhow::ensure!(failed == 0, "{failed} of {} elections failed", outcomes.len());
    Ok(())
}

#[derive(Debug, Subcommand)]
pub enum ReassignCommand {
    /// List the moves under way.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Move a partition to other brokers.
    Move {
        #[command(flatten)]
        common: Common,
        topic: String,
        partition: i32,
        /// The brokers it is to be on; the first is the preferred leader.
        #[arg(short, long, required = true, value_delimiter = ',')]
        replicas: Vec<i32>,
    },
    /// Cancel the move of a partition.
    Cancel {
        #[command(flatten)]
        common: Common,
        topic: String,
        partition: i32,
    },
}

pub async fn reassign(command: ReassignCommand, console: &mut Console<'_>) -> Outcome {
    let (common, partition, replicas) = match command {
        ReassignCommand::List { common } => return list_moves(&common, console).await,
        ReassignCommand::Move { common, topic, partition, replicas } => (common, (topic, partition), Some(replicas)),
        ReassignCommand::Cancel { common, topic, partition } => (common, (topic, partition), None),
    };
    let name = format!("{}-{}", partition.0, partition.1);
    let what = if replicas.is_some() { format!("move {name}") } else { format!("cancel the move of {name}") };
    let moves = BTreeMap::from([(partition, replicas)]);
    let outcomes = common.admin().await?.alter_reassignments(&moves, true).await.map_err(cannot(&what))?;
    for outcome in outcomes.into_values() {
        outcome.map_err(|error| cannot(&what)(error.into()))?;
    }
    Ok(console.complain(if moves.values().all(Option::is_none) {
        "cancelled"
    } else {
        "begun; see `vltava reassign list`"
    })?)
}

async fn list_moves(common: &Common, console: &mut Console<'_>) -> Outcome {
    let topics = common.admin().await?.list_reassignments(None).await.map_err(cannot("list moves"))?;
    let mut report = Report::new(&["topic", "partition", "replicas", "adding", "removing"]);
    for topic in topics {
        for partition in topic.partitions {
            let ids = |ids: &[i32]| -> Value { json!(ids) };
            report.push(vec![
                json!(topic.name.as_str()),
                json!(partition.partition_index),
                ids(&partition.replicas),
                ids(&partition.adding_replicas),
                ids(&partition.removing_replicas),
            ]);
        }
    }
    common.show(&report, console)
}
