//! What a command line is about, and what goes with what.

use vltava_client::admin::ConfigResourceType;

use crate::kafka::options::Options;
use crate::kafka::{Failure, names};

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
pub struct Entity {
    pub kind: &'static str,
    pub name: Option<String>,
}

impl Entity {
    pub fn resource_type(&self) -> ConfigResourceType {
        match self.kind {
            "topics" => ConfigResourceType::Topic,
            "brokers" => ConfigResourceType::Broker,
            "broker-loggers" => ConfigResourceType::BrokerLogger,
            "client-metrics" => ConfigResourceType::ClientMetrics,
            _ => ConfigResourceType::Group,
        }
    }

    /// Kafka drops the last letter, whatever it is.
    pub fn singular(&self) -> &'static str {
        &self.kind[..self.kind.len() - 1]
    }

    /// `ConfigSource` of a value that was set on this kind of entity itself.
    pub const fn dynamic_source(kind: ConfigResourceType, name: &str) -> i8 {
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

/// What goes with what; gives what the command is about.
pub fn check(options: &Options) -> Result<Entity, Failure> {
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
    let repeated = names::repeated(&kinds);
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

    use super::super::OPTIONS;
    use super::{Options, check};

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
