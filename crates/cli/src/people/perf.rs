//! `vltava perf`: how fast the cluster takes and gives records.

use clap::{Args, Subcommand};

use super::{Common, Outcome};
use crate::console::Console;
use crate::kafka::{consumer_perf_test, producer_perf_test};

#[derive(Debug, Subcommand)]
pub enum Perf {
    /// Write records and measure.
    Produce(PerfProduce),
    /// Read records and measure.
    Consume(PerfConsume),
}

#[derive(Debug, Args)]
pub struct PerfProduce {
    topic: String,
    /// How many records.
    #[arg(short = 'n', long, default_value_t = 100_000)]
    records: u64,
    /// Bytes of each value.
    #[arg(long, default_value_t = 1_000)]
    size: u64,
    /// Records a second; as fast as possible if not given.
    #[arg(long)]
    rate: Option<u64>,
    /// Set one setting of the producer by Kafka's name, such as acks=1. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
pub struct PerfConsume {
    topic: String,
    /// How many records.
    #[arg(short = 'n', long, default_value_t = 100_000)]
    records: u64,
    /// Set one setting of the consumer by Kafka's name. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    #[command(flatten)]
    common: Common,
}

pub async fn run(command: Perf, console: &mut Console<'_>) -> Outcome {
    let (mut words, common, settings) = match &command {
        Perf::Produce(arguments) => {
            let words = vec![
                format!("--topic={}", arguments.topic),
                format!("--num-records={}", arguments.records),
                format!("--record-size={}", arguments.size),
                format!("--throughput={}", arguments.rate.map_or("-1".to_owned(), |rate| rate.to_string())),
            ];
            (words, &arguments.common, &arguments.settings)
        }
        Perf::Consume(arguments) => {
            let words = vec![format!("--topic={}", arguments.topic), format!("--num-records={}", arguments.records)];
            (words, &arguments.common, &arguments.settings)
        }
    };
    // Says in plain words if there is no cluster.
    drop(common.admin().await?);
    words.push(format!("--bootstrap-server={}", common.bootstrap_server));
    words.extend(common.command_config.iter().map(|file| format!("--command-config={file}")));
    for setting in settings {
        words.extend(["--command-property".to_owned(), setting.clone()]);
    }
    match command {
        Perf::Produce(_) => producer_perf_test::run(&words, console).await?,
        Perf::Consume(_) => consumer_perf_test::run(&words, console).await?,
    };
    Ok(())
}
