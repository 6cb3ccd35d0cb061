//! kafka-configs: describes and alters the configs of topics, brokers, groups and client metrics.
//!
//! Quotas and SCRAM credentials (of users, clients and addresses) are not built yet and refused.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vltava_client::admin::{ConfigChange, ConfigResourceType};
use vltava_client::{Admin, AdminError, ApiError};
use vltava_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;

use super::options::{OptionSpec, Options, flag, value};
use super::{Failure, last_words};
use crate::connect::{Connection, read_settings};
use crate::console::Console;

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

/// Options that name an entity, and its type.
const ENTITY_OPTIONS: &[(&str, &str)] = &[
    ("topic", "topics"),
    ("client", "clients"),
    ("user", "users"),
    ("broker", "brokers"),
    ("broker-logger", "broker-loggers"),
    ("ip", "ips"),
    ("client-metrics", "client-metrics"),
    ("group", "groups"),
];
const DEFAULT_OPTIONS: &[(&str, &str)] = &[
    ("client-defaults", "clients"),
    ("user-defaults", "users"),
    ("broker-defaults", "brokers"),
    ("ip-defaults", "ips"),
];
const TYPES: &[&str] = &["broker-loggers", "topics", "clients", "users", "brokers", "ips", "client-metrics", "groups"];

/// What the command is about. An empty name is the default of all.
struct Entity {
    kind: &'static str,
    name: Option<String>,
}

impl Entity {
    fn resource_type(&self) -> ConfigResourceType {
        match self.kind {
            "topics" => ConfigResourceType::Topic,
            "brokers" => ConfigResourceType::Broker,
            "broker-loggers" => ConfigResourceType::BrokerLogger,
            "client-metrics" => ConfigResourceType::ClientMetrics,
            _ => ConfigResourceType::Group,
        }
    }

    /// Kafka drops the last letter, whatever it is.
    fn singular(&self) -> &'static str {
        &self.kind[..self.kind.len() - 1]
    }

    /// `ConfigSource` of a value that was set on this kind of entity itself.
    const fn dynamic_source(kind: ConfigResourceType, name: &str) -> i8 {
        match kind {
            ConfigResourceType::Topic => 1,
            ConfigResourceType::Broker if name.is_empty() => 3,
            ConfigResourceType::Broker => 2,
            ConfigResourceType::BrokerLogger => 6,
            ConfigResourceType::ClientMetrics => 7,
            ConfigResourceType::Group => 8,
        }
    }
}

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

type Described = Vec<vltava_protocol::messages::describe_configs_response::DescribeConfigsResult>;

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

/// What `--add-config`, `--add-config-file` and `--delete-config` ask for: deletions first.
fn changes(options: &Options) -> Result<Vec<ConfigChange>, Failure> {
    let mut added = match options.value("add-config-file")? {
        Some(file) => read_settings(file)?,
        None => BTreeMap::new(),
    };
    if let Some(text) = options.value("add-config")? {
        added.extend(parse_added(text).map_err(Failure::Message)?);
    }
    let is_odd =
        |name: &&String| !name.chars().all(|character| character.is_ascii_alphanumeric() || "$._-".contains(character));
    if let Some(name) = added.keys().find(is_odd) {
        return Err(Failure::Message(format!("Invalid character found for config key: {name}")));
    }
    let deleted = options.values("delete-config").flat_map(|names| names.split(','));
    let deleted = deleted.map(|name| ConfigChange { name: name.trim().to_owned(), value: None });
    let added = added.into_iter().map(|(name, value)| ConfigChange { name, value: Some(value) });
    Ok(deleted.chain(added).collect())
}

/// `k1=v1,k2=[a,b]`: commas and equals signs within brackets belong to the value.
fn parse_added(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut added = BTreeMap::new();
    for pair in outside_brackets(text, ',') {
        let parts = outside_brackets(pair, '=');
        let [name, value] = parts[..] else {
            return Err("Invalid entity config: all configs to be added must be in the format \"key=val\" or  \
                        \"key=[val1,val2]\" to group values which contain commas."
                .to_owned());
        };
        added.insert(name.trim().to_owned(), value.replace(['[', ']'], "").trim().to_owned());
    }
    Ok(added)
}

fn outside_brackets(text: &str, separator: char) -> Vec<&str> {
    let mut is_inside = false;
    let is_separator = |character: char| {
        match character {
            '[' => is_inside = true,
            ']' => is_inside = false,
            _ => {}
        }
        character == separator && !is_inside
    };
    text.split(is_separator).collect()
}

/// What goes with what; gives what the command is about.
fn check(options: &Options) -> Result<Entity, Failure> {
    let refuse = |message: String| Err(Failure::Message(message));
    if options.has("alter") == options.has("describe") {
        return Err(options.usage("Command must include exactly one action: --describe, --alter"));
    }
    options.conflict("describe", &["add-config", "delete-config"])?;
    let by_option = |known: &[(&'static str, &'static str)]| {
        known.iter().copied().filter(|(name, _)| options.has(name)).collect::<Vec<_>>()
    };
    let (named, defaults) = (by_option(ENTITY_OPTIONS), by_option(DEFAULT_OPTIONS));
    let mut kinds: Vec<String> = options.values("entity-type").map(str::to_owned).collect();
    kinds.extend(named.iter().chain(&defaults).map(|(_, kind)| (*kind).to_owned()));
    let repeated = super::names::repeated(&kinds);
    if !repeated.is_empty() {
        return refuse(format!("Duplicate entity type(s) specified: {}", repeated.join(",")));
    }
    if options.has("bootstrap-controller") {
        return refuse(
            "--bootstrap-controller is not supported: controllers do not answer clients here, but any \
                       broker passes on what concerns the controller; use --bootstrap-server"
                .to_owned(),
        );
    }
    if !options.has("bootstrap-server") {
        return refuse("Either --bootstrap-server or --bootstrap-controller must be specified.".to_owned());
    }
    if let Some(kind) = kinds.iter().find(|kind| !TYPES.contains(&kind.as_str())) {
        return refuse(format!(
            "Invalid entity type {kind}, the entity type must be one of {} with a --bootstrap-server or \
             --bootstrap-controller argument",
            TYPES.join(", ")
        ));
    }
    let Some(kind) = kinds.first().and_then(|kind| TYPES.iter().copied().find(|known| known == kind)) else {
        return refuse("At least one entity type must be specified".to_owned());
    };
    let is_of_quotas = |kind: &str| ["users", "clients"].contains(&kind);
    if kinds.len() > 1 && !kinds.iter().all(|kind| is_of_quotas(kind)) {
        return refuse("Only 'users' and 'clients' entity types may be specified together".to_owned());
    }
    let has_old_spelling = ["entity-name", "entity-type", "entity-default"].iter().any(|name| options.has(name));
    if has_old_spelling && !(named.is_empty() && defaults.is_empty()) {
        let message = "--entity-{type,name,default} should not be used in conjunction with specific entity flags";
        return refuse(message.to_owned());
    }
    if is_of_quotas(kind) || kind == "ips" {
        return refuse(format!("configs of {kind} (quotas and SCRAM credentials) are not built yet"));
    }
    let name = match (options.value("entity-name")?, named.first(), defaults.first()) {
        (Some(name), ..) => Some(name.to_owned()),
        (None, Some((option, _)), _) => options.value(option)?.map(str::to_owned),
        (None, None, default) => (default.is_some() || options.has("entity-default")).then(String::new),
    };
    let is_named = name.as_ref().is_some_and(|name| !name.is_empty());
    if let Some(id) = name.as_ref().filter(|id| !id.is_empty())
        && kind.starts_with("broker")
        && id.parse::<i32>().is_err()
    {
        return refuse(format!("The entity name for {kind} must be a valid integer broker id, but it is: {id}"));
    }
    if options.has("describe") {
        if kind != "brokers" && options.has("entity-default") {
            return refuse(format!("--entity-default must not be specified with --describe of {kind}"));
        }
        if kind == "broker-loggers" && !is_named {
            return refuse(format!("An entity name must be specified with --describe of {kind}"));
        }
    } else {
        if name.is_none() && kind == "brokers" {
            let message =
                "An entity-name or default entity must be specified with --alter of users, clients, brokers or ips";
            return refuse(message.to_owned());
        }
        if !is_named && kind != "brokers" {
            return refuse(format!("An entity name must be specified with --alter of {kind}"));
        }
        if options.has("add-config") && options.has("add-config-file") {
            return refuse("Only one of --add-config or --add-config-file must be specified".to_owned());
        }
        if !["add-config", "add-config-file", "delete-config"].iter().any(|name| options.has(name)) {
            let message =
                "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter";
            return refuse(message.to_owned());
        }
    }
    Ok(Entity { kind, name })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use vltava_protocol::make;
    use vltava_protocol::messages::describe_configs_response::DescribeConfigsSynonym;

    use super::{DescribeConfigsResourceResult, OPTIONS, Options, check, lines, parse_added};

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

    #[test]
    fn brackets_hold_a_value_together() {
        let shown = |text| parse_added(text).map(|added| format!("{added:?}"));
        assert_eq!(shown("a=1,b=[x,y=z], c = "), Ok(r#"{"a": "1", "b": "x,y=z", "c": ""}"#.to_owned()));
        assert!(shown("a").is_err());
        assert!(shown("a=1=2").is_err());
    }

    fn refused(line: &str, expected: Expect) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let options = Options::parse(OPTIONS, &words).expect("known options");
        let text = match check(&options) {
            Ok(entity) => format!("{} {:?}", entity.kind, entity.name),
            Err(failure) => failure.to_string().lines().next().unwrap_or_default().to_owned(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn command_lines_must_make_sense() {
        refused("--bootstrap-server a:1 --describe --topic t", expect![[r#"topics Some("t")"#]]);
        refused("--bootstrap-server a:1 --describe --entity-type brokers", expect!["brokers None"]);
        refused("--bootstrap-server a:1 --describe --broker-defaults", expect![[r#"brokers Some("")"#]]);
        refused(
            "--bootstrap-server a:1 --describe --entity-type brokers --entity-default",
            expect![[r#"brokers Some("")"#]],
        );
        refused(
            "--describe --topic t",
            expect!["Either --bootstrap-server or --bootstrap-controller must be specified."],
        );
        refused("--bootstrap-server a:1 --describe", expect!["At least one entity type must be specified"]);
        refused(
            "--bootstrap-server a:1 --describe --broker x",
            expect!["The entity name for brokers must be a valid integer broker id, but it is: x"],
        );
        refused(
            "--bootstrap-server a:1 --alter --topic t",
            expect![
                "At least one of --add-config, --add-config-file, or --delete-config must be specified with --alter"
            ],
        );
        refused(
            "--bootstrap-server a:1 --alter --user u --add-config producer_byte_rate=1",
            expect!["configs of users (quotas and SCRAM credentials) are not built yet"],
        );
    }
}
