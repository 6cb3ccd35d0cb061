//! Where a node's properties come from: the file, then the environment, then the command line.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use vltava_broker::config::{BrokerConfig, ReadConfig};
use vltava_cli::properties;
use vltava_host::fs;

use crate::ServeArguments;
use crate::environment;

/// Reads everything; later sources win.
pub fn read(arguments: &ServeArguments) -> anyhow::Result<ReadConfig> {
    let mut properties = BTreeMap::new();
    if let Some(file) = &arguments.file {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        properties = properties::parse(&text).with_context(|| format!("cannot read {}", file.display()))?;
    }
    properties.extend(environment::properties(variables()));
    for pair in &arguments.overrides {
        let (name, value) = split_override(pair)?;
        properties.insert(name, value);
    }
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    BrokerConfig::from_properties(&properties, &host_name)
        .map_err(|error| anyhow::anyhow!("the settings cannot be used:\n{error}"))
}

/// `name=value`.
pub fn split_override(pair: &str) -> anyhow::Result<(String, String)> {
    match pair.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => bail!("--override {pair:?} must be written name=value"),
    }
}

/// The environment, without variables that are not Unicode.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
