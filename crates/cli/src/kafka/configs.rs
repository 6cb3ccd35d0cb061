//! kafka-configs: describes and alters the configs of topics, brokers, groups and client metrics.
//!
//! Quotas and SCRAM credentials (of users, clients and addresses) are not built yet and refused.

mod changes;
mod entity;

use std::fmt::Write as _;

use vltava_client::admin::{ConfigChange, ConfigResourceType};
use vltava_client::{Admin, AdminError, ApiError};
use vltava_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult};

use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, last_words};
use crate::connect::Connection;
use crate::console::Console;
use changes::changes;
use entity::{Entity, check};

const OPTIONS: &[OptionSpec] = &[
    value("bootstrap-server", "server to connect to", "The brokers to begin with, host:port, by commas."),
    value("bootstrap-controller", "controller to connect to", "Not supported: ask the brokers."),
    value("command-config", "command config property file", "A properties file with settings of the client."),
    flag("alter", "Alter configs."),
    flag("describe", "List configs."),
    flag("all", "With --describe: those that are not set dynamically too."),
    value(
        "entity-type",
        "type",
        "topics, brokers, broker-loggers, client-metrics or groups. (Not yet: users, clients, ips.)",
    ),
    value("entity-name", "name", "A topic, a broker's id, a group or a subscription."),
    flag("entity-default", "The default of all brokers."),
    value("add-config", "k1=v1,k2=[v1,v2]", "Configs to set. Brackets hold values with commas together."),
    value("add-config-file", "file", "A properties file with configs to set."),
    value("delete-config", "k1,k2", "Configs to set back to their defaults."),
    value("topic", "topic", "The topic."),
    value("client", "client id", "Not built yet."),
    flag("client-defaults", "Not built yet."),
    value("user", "user principal", "Not built yet."),
    flag("user-defaults", "Not built yet."),
    value("broker", "broker id", "The broker."),
    flag("broker-defaults", "The default of all brokers."),
    value("broker-logger", "broker id", "The broker whose loggers are meant."),
    flag("ip-defaults", "Not built yet."),
    value("ip", "ip", "Not built yet."),
    value("group", "group", "The group."),
    value("client-metrics", "name", "The subscription."),
];

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to manipulate and describe entity config for a topic, client, user, broker, ip, \
                   client-metrics or group";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    let entity = check(&options)?;
    let changes = changes(&options)?;
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let connection = Connection::new(bootstrap, options.value("command-config")?)?;
    let mut admin = super::reach(&connection, console).await?;
    let outcome = match options.has("alter") {
        true => alter(&entity, changes, &mut admin, console).await,
        false => describe(&entity, options.has("all"), &mut admin, console).await,
    };
    match outcome {
        Ok(()) => Ok(0),
        Err(ConfigError::Output(error)) => Err(error.into()),
        Err(ConfigError::Request(error)) => Err(Failure::Message(format!(
            "Error while executing config command with args '{}'\n{}",
            arguments.join(" "),
            last_words(&error)
        ))),
    }
}

#[derive(Debug, thiserror::Error)]
enum ConfigError {
    #[error(transparent)]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Request(#[from] AdminError),
}

async fn alter(
    entity: &Entity,
    changes: Vec<ConfigChange>,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), ConfigError> {
    let name = entity.name.as_deref().unwrap_or_default();
    let kind = entity.resource_type();
    admin.alter_configs(asked(kind, name), kind, name, &changes).await?;
    console.line(match name {
        "" => format!("Completed updating default config for {} in the cluster.", entity.kind),
        name => format!("Completed updating config for {} {name}.", entity.singular()),
    })?;
    Ok(())
}

/// The broker that must be asked: only a broker itself knows its own configs.
fn asked(kind: ConfigResourceType, name: &str) -> Option<i32> {
    match kind {
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => name.parse().ok(),
        _ => None,
    }
}

async fn describe(
    entity: &Entity,
    is_all: bool,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), ConfigError> {
    let kind = entity.resource_type();
    let names = match &entity.name {
        Some(name) if is_all || name.is_empty() => vec![name.clone()],
        named => {
            let known = known_names(kind, admin).await?;
            match named {
                None => known,
                Some(name) if known.contains(name) => vec![name.clone()],
                Some(name) => {
                    let singular = entity.singular();
                    let line = format!("The {singular} '{name}' doesn't exist and doesn't have dynamic config.");
                    return Ok(console.line(line)?);
                }
            }
        }
    };
    for name in names {
        let results = admin.describe_configs(asked(kind, &name), &[(kind, name.clone())]).await;
        let results = unless_it_is_gone(results, admin, kind, &name).await?;
        let title = match name.as_str() {
            "" => format!("Default configs for {} in the cluster are:", entity.kind),
            name => {
                format!("{} configs for {} {name} are:", if is_all { "All" } else { "Dynamic" }, entity.singular())
            }
        };
        console.line(title)?;
        let mut entries = vec![];
        for result in results {
            ApiError::check(result.error_code, result.error_message.as_ref()).map_err(AdminError::Api)?;
            entries.extend(result.configs);
        }
        let source = (!is_all).then(|| Entity::dynamic_source(kind, &name));
        console.text(lines(&entries, source))?;
    }
    Ok(())
}

type Described = Vec<DescribeConfigsResult>;

/// A broker that does not run cannot be asked for its own configs, but any other knows what was set for it.
async fn unless_it_is_gone(
    results: Result<Described, AdminError>,
    admin: &mut Admin,
    kind: ConfigResourceType,
    name: &str,
) -> Result<Described, AdminError> {
    match results {
        Err(AdminError::Client(vltava_client::ClientError::NoBroker)) => {
            admin.describe_configs(None, &[(kind, name.to_owned())]).await
        }
        results => results,
    }
}

/// All entities of a kind that there are.
async fn known_names(kind: ConfigResourceType, admin: &mut Admin) -> Result<Vec<String>, AdminError> {
    match kind {
        ConfigResourceType::Topic => {
            let topics = admin.topics(None).await?;
            Ok(topics.into_iter().filter_map(|topic| Some(topic.name?.to_string())).collect())
        }
        ConfigResourceType::Broker | ConfigResourceType::BrokerLogger => {
            let brokers = admin.describe_cluster(false).await?.brokers;
            let mut names: Vec<String> = brokers.iter().map(|broker| broker.broker_id.to_string()).collect();
            names.push(String::new());
            Ok(names)
        }
        ConfigResourceType::ClientMetrics => admin.list_config_resources(kind).await,
        ConfigResourceType::Group => {
            let mut names = admin.list_config_resources(kind).await?;
            names.extend(admin.list_groups(&[], &[]).await?.iter().map(|group| group.group_id.to_string()));
            names.sort();
            names.dedup();
            Ok(names)
        }
    }
}

/// One line for each config, or for those from one source.
fn lines(entries: &[DescribeConfigsResourceResult], source: Option<i8>) -> String {
    let mut entries: Vec<_> =
        entries.iter().filter(|entry| source.is_none_or(|source| entry.config_source == source)).collect();
    entries.sort_by_key(|entry| entry.name.clone());
    let shown = |value: &Option<_>| value.as_ref().map_or_else(|| "null".to_owned(), ToString::to_string);
    let mut text = String::new();
    for entry in entries {
        let synonyms = entry
            .synonyms
            .iter()
            .map(|synonym| format!("{}:{}={}", source_name(synonym.source), synonym.name, shown(&synonym.value)));
        let synonyms = synonyms.collect::<Vec<_>>().join(", ");
        let (name, value, is_sensitive) = (&entry.name, shown(&entry.value), entry.is_sensitive);
        let _ = writeln!(text, "  {name}={value} sensitive={is_sensitive} synonyms={{{synonyms}}}");
    }
    text
}

/// Kafka's name of a `ConfigSource`.
pub(crate) const fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_protocol::make;
    use vltava_protocol::messages::describe_configs_response::DescribeConfigsSynonym;

    use super::{DescribeConfigsResourceResult, lines};

    #[test]
    fn configs_are_shown_with_where_they_come_from() {
        let synonym =
            |source, value: &str| make!(DescribeConfigsSynonym { name: "n".into(), value: Some(value.into()), source });
        let entries = [
            make!(DescribeConfigsResourceResult { name: "z".into(), value: None, config_source: 5 }),
            make!(DescribeConfigsResourceResult {
                name: "n".into(),
                value: Some("1".into()),
                config_source: 1,
                synonyms: vec![synonym(1, "1"), synonym(5, "2")],
            }),
        ];
        expect![[r#"
            :
              n=1 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:n=1, DEFAULT_CONFIG:n=2}
              z=null sensitive=false synonyms={}
        "#]]
        .assert_eq(&format!(":\n{}", lines(&entries, None)));
        assert_eq!(lines(&entries, Some(1)).lines().count(), 1);
    }
}
