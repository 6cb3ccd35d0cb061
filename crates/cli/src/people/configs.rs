//! `vltava configs`.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use vltava_client::admin::{ConfigChange, ConfigResourceType};
use vltava_client::{Admin, AdminError, ApiError};
use vltava_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;

use super::report::Report;
use super::{Common, Outcome, cannot, pair};
use crate::console::Console;
use crate::kafka::source_name;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the configs that were set on something, or all that are in force.
    Describe {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        entity: Entity,
        /// Defaults too.
        #[arg(long)]
        all: bool,
    },
    /// Set configs.
    Set {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        entity: Entity,
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
        configs: Vec<(String, String)>,
    },
    /// Set configs back to their defaults.
    Unset {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        entity: Entity,
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct Entity {
    kind: Kind,
    /// The topic, the broker's id, or "default" for all brokers, the group, or the subscription.
    entity: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Topic,
    Broker,
    Group,
    ClientMetrics,
}

impl Entity {
    const fn resource_type(&self) -> ConfigResourceType {
        match self.kind {
            Kind::Topic => ConfigResourceType::Topic,
            Kind::Broker => ConfigResourceType::Broker,
            Kind::Group => ConfigResourceType::Group,
            Kind::ClientMetrics => ConfigResourceType::ClientMetrics,
        }
    }

    fn name(&self) -> &str {
        if self.kind == Kind::Broker && self.entity == "default" { "" } else { &self.entity }
    }

    /// Only a broker itself knows all its configs.
    fn broker(&self) -> Option<i32> {
        if self.kind == Kind::Broker { self.entity.parse().ok() } else { None }
    }

    async fn alter(&self, changes: &[ConfigChange], admin: &mut Admin) -> Result<(), AdminError> {
        admin.alter_configs(self.broker(), self.resource_type(), self.name(), changes).await
    }
}

pub async fn run(command: Command, console: &mut Console<'_>) -> Outcome {
    match command {
        Command::Describe { common, entity, all } => {
            let resource = (entity.resource_type(), entity.name().to_owned());
            let what = || cannot(format!("describe {}", entity.entity));
            let results = common.admin().await?.describe_configs(entity.broker(), &[resource]).await.map_err(what())?;
            let mut entries = vec![];
            for result in results {
                ApiError::check(result.error_code, result.error_message.as_ref())
                    .map_err(|error| what()(error.into()))?;
                entries.extend(result.configs);
            }
            common.show(&report(&mut entries, all), console)
        }
        Command::Set { common, entity, configs } => {
            let set = |(name, value)| ConfigChange { name, value: Some(value) };
            let changes: Vec<ConfigChange> = configs.into_iter().map(set).collect();
            let outcome = entity.alter(&changes, &mut common.admin().await?).await;
            outcome.map_err(cannot(format!("set configs of {}", entity.entity)))?;
            Ok(console.complain(format_args!("set {} of {}", list(&changes), entity.entity))?)
        }
        Command::Unset { common, entity, names } => {
            let unset = |name| ConfigChange { name, value: None };
            let changes: Vec<ConfigChange> = names.into_iter().map(unset).collect();
            let outcome = entity.alter(&changes, &mut common.admin().await?).await;
            outcome.map_err(cannot(format!("unset configs of {}", entity.entity)))?;
            Ok(console.complain(format_args!("unset {} of {}", list(&changes), entity.entity))?)
        }
    }
}

fn list(changes: &[ConfigChange]) -> String {
    changes.iter().map(|change| change.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// `ConfigSource`s of defaults and of properties files.
const NOT_SET_HERE: [i8; 2] = [4, 5];

fn report(entries: &mut [DescribeConfigsResourceResult], all: bool) -> Report {
    entries.sort_by_key(|entry| entry.name.clone());
    let mut report = Report::new(&["config", "value", "source", "read_only"]);
    for entry in entries.iter().filter(|entry| all || !NOT_SET_HERE.contains(&entry.config_source)) {
        let value = if entry.is_sensitive { None } else { entry.value.as_ref().map(ToString::to_string) };
        report.push(vec![
            json!(entry.name.as_str()),
            json!(value),
            json!(source_name(entry.config_source)),
            json!(entry.read_only),
        ]);
    }
    report
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_protocol::make;

    use super::super::report::Format;
    use super::{DescribeConfigsResourceResult, report};

    #[test]
    fn defaults_are_shown_on_demand_and_secrets_never() {
        let entry = |name: &str, source, is_sensitive| {
            make!(DescribeConfigsResourceResult {
                name: name.into(),
                value: Some("v".into()),
                config_source: source,
                is_sensitive,
            })
        };
        let mut entries = [entry("b", 1, false), entry("a", 5, false), entry("c", 2, true)];
        expect![[r#"
            CONFIG  VALUE  SOURCE                 READ ONLY
            b       v      DYNAMIC_TOPIC_CONFIG   no
            c       -      DYNAMIC_BROKER_CONFIG  no
        "#]]
        .assert_eq(&report(&mut entries, false).show(Format::Table, false));
        assert_eq!(report(&mut entries, true).show(Format::Table, false).lines().count(), 4);
    }
}
