//! Settings of a producer or consumer from a command line: a file, then single properties, then options of the tool.

use vltava_client::Settings;

use super::Failure;
use super::options::Options;
use crate::connect;
use crate::console::Console;

/// `name=value` pairs; a name alone has the empty value.
pub fn pairs<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<(String, String)>, Failure> {
    values
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => Ok((name.to_owned(), value.to_owned())),
            None if !pair.trim().is_empty() => Ok((pair.to_owned(), String::new())),
            _ => Err(Failure::Message(format!("Invalid command line properties: {pair}"))),
        })
        .collect()
}

/// Reads the first of the `files` options that is given, and lets the pairs of all `properties` options win over it.
pub fn read(options: &Options, files: &[&str], properties: &[&str]) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    for file in files {
        if let Some(file) = options.value(file)? {
            for (name, value) in connect::read_settings(file)? {
                settings.set(&name, value);
            }
        }
    }
    for option in properties {
        for (name, value) in pairs(options.values(option))? {
            settings.set(&name, value);
        }
    }
    Ok(settings)
}

/// The older of two spellings; both together are refused, and the older one alone earns a warning: on standard output, as
/// Kafka gives it.
pub fn deprecated(options: &Options, console: &mut Console<'_>, old: &str, new: &str) -> Result<(), Failure> {
    if !options.has(old) {
        return Ok(());
    }
    options.conflict(old, &[new])?;
    console.line(format_args!(
        "Option --{old} is deprecated and will be removed in a future version. Use --{new} instead."
    ))?;
    Ok(())
}

/// Says what was set in vain, as Kafka's clients do.
pub fn warn_of_unused(settings: &Settings, console: &mut Console<'_>) -> Result<(), Failure> {
    // Of no meaning here, but neither a mistake: classes of Java, and what the protocol does not carry.
    const QUIET: &[&str] = &[
        "key.serializer",
        "value.serializer",
        "key.deserializer",
        "value.deserializer",
        "send.buffer.bytes",
        "receive.buffer.bytes",
    ];
    let unused: Vec<&str> = settings.names().filter(|name| !QUIET.contains(name)).collect();
    if !unused.is_empty() {
        console.complain(format_args!(
            "WARN These configurations '[{}]' were supplied but are not used yet.",
            unused.join(", ")
        ))?;
    }
    Ok(())
}
