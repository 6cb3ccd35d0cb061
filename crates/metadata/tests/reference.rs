//! `docs/configuration.md` is written from the tables of configs: `UPDATE_EXPECT=1 cargo test -p vltava-metadata --test
//! reference` writes it anew.

use std::fmt::Write as _;

use expect_test::expect_file;
use vltava_metadata::configs::{self, ConfigDef, ConfigType, DynamicScope, Valid};

#[test]
fn the_configuration_reference_is_what_the_code_knows() {
    expect_file!["../../../docs/configuration.md"].assert_eq(&reference());
}

fn reference() -> String {
    let mut page = String::from(
        "# Configuration reference\n\n\
         Written from the code by a test; do not edit. Names and meanings are Kafka's, names that start with `vltava.`\n\
         are our own. \"Changed\" tells where a setting may be changed while brokers run: `broker` on one, `cluster` on one or\n\
         on all (`kafka-configs --alter`), – only by a restart. Settings of Kafka's that are not listed here are accepted with\n\
         a warning and have no effect yet.\n",
    );
    section(&mut page, "Brokers", configs::broker_configs(), |config| match config.dynamic {
        DynamicScope::ReadOnly => "–",
        DynamicScope::PerBroker => "broker",
        DynamicScope::ClusterWide => "cluster",
    });
    section(&mut page, "Topics", configs::topic_configs(), |_| "topic");
    section(&mut page, "Groups", configs::group_configs(), |_| "group");
    page
}

fn section(page: &mut String, title: &str, table: &[ConfigDef], changed: impl Fn(&ConfigDef) -> &'static str) {
    let mut honoured = table.iter().filter(|config| config.is_honoured && !config.is_internal).peekable();
    if honoured.peek().is_none() {
        return;
    }
    let _ = write!(
        page,
        "\n## {title}\n\n| name | type | default | values | changed | meaning |\n|---|---|---|---|---|---|\n"
    );
    for config in honoured {
        let default = match config.default {
            None => "–".to_owned(),
            Some("") => "empty".to_owned(),
            Some(default) => format!("`{default}`"),
        };
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {} | {} | {} |",
            config.name,
            type_name(config.config_type),
            values(&config.valid),
            changed(config),
            meaning(config),
        );
    }
}

/// A broker config that is what topics begin with says so, unless it has more to say.
fn meaning(config: &ConfigDef) -> String {
    let is_default_of =
        |topic: &&ConfigDef| topic.synonyms.iter().any(|synonym| synonym.name == config.name) && *topic != config;
    match configs::topic_configs().iter().find(is_default_of) {
        Some(topic) if config.documentation.is_empty() => format!("What topics without `{}` have.", topic.name),
        _ => config.documentation.replace('|', "\\|"),
    }
}

const fn type_name(config_type: ConfigType) -> &'static str {
    match config_type {
        ConfigType::Boolean => "boolean",
        ConfigType::String => "string",
        ConfigType::Int => "int",
        ConfigType::Short => "short",
        ConfigType::Long => "long",
        ConfigType::Double => "double",
        ConfigType::List => "list",
        ConfigType::Class => "class",
        ConfigType::Password => "password",
    }
}

fn values(valid: &Valid) -> String {
    let one_of = |values: &[&str]| values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    match valid {
        Valid::Any => String::new(),
        Valid::AtLeast(least) => format!("at least {least}"),
        Valid::Between(least, most) => format!("{least} to {most}"),
        Valid::BetweenOr(least, most, other) => format!("{least} to {most}, or {other}"),
        Valid::Fraction(least, most) => format!("{least} to {most}"),
        Valid::OneOf(values) => one_of(values),
        Valid::ListOf(values) => format!("some of {}", one_of(values)),
        Valid::NotEmpty => "not empty".to_owned(),
        Valid::ThrottledReplicas => "`*`, or partition:broker pairs".to_owned(),
    }
}

#[test]
fn every_honoured_config_says_what_it_means() {
    let tables = [configs::broker_configs(), configs::topic_configs(), configs::group_configs()];
    let silent: Vec<&str> = tables
        .into_iter()
        .flatten()
        .filter(|config| config.is_honoured && !config.is_internal && meaning(config).is_empty())
        .map(|config| config.name)
        .collect();
    assert!(silent.is_empty(), "{silent:?} say nothing");
}
