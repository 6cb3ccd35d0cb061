//! Where a node's properties come from: the file, then the environment, then the command line.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use vltava_broker::config::{BrokerConfig, ReadConfig};
use vltava_cli::properties;
use vltava_host::fs;

use crate::ServeArguments;
use crate::environment;

/// Reads everything; later sources win.
pub fn read(arguments: &ServeArguments) -> anyhow::Result<ReadConfig> {
    let environment = environment::properties(variables());
    let mut properties = BTreeMap::new();
    if let Some(file) = file(arguments.file.clone(), !environment.is_empty()) {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        properties = properties::parse(&text).with_context(|| format!("cannot read {}", file.display()))?;
    }
    properties.extend(environment);
    for pair in &arguments.overrides {
        let (name, value) = split_override(pair)?;
        properties.insert(name, value);
    }
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    BrokerConfig::from_properties(&properties, &host_name)
        .map_err(|error| anyhow::anyhow!("the settings cannot be used:\n{error}"))
}

/// The file that was named; else, as in the official Kafka image, one that was mounted; else, if nobody set anything, the
/// image's own. The image says where these are.
fn file(named: Option<PathBuf>, is_anything_set: bool) -> Option<PathBuf> {
    let mounted = || std::env::var_os("VLTAVA_MOUNTED_SETTINGS").map(PathBuf::from).filter(|file| file.exists());
    let default = || std::env::var_os("VLTAVA_DEFAULT_SETTINGS").map(PathBuf::from).filter(|_| !is_anything_set);
    named.or_else(mounted).or_else(default)
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
