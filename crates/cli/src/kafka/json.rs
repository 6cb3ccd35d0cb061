//! The JSON files that tools read, which all list partitions.

use serde_json::Value;
use vltava_client::admin::Partition;
use vltava_host::fs;

use super::Failure;

/// Reads a file of at most so many bytes; Kafka's largest real ones are some megabytes.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The text of a file.
pub fn read_file(file: &str) -> Result<String, Failure> {
    let unreadable = |error: std::io::Error| Failure::Message(format!("cannot read {file}: {error}"));
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if size > MAX_BYTES {
        return Err(Failure::Message(format!("cannot read {file}: it is larger than {MAX_BYTES} bytes")));
    }
    fs::read_to_string(file).map_err(unreadable)
}

/// The text as JSON, if it is.
pub fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// The elements of a list field.
pub fn list<'a>(object: &'a Value, name: &str) -> Option<&'a Vec<Value>> {
    object.get(name)?.as_array()
}

/// `{"topic": ..., "partition": ...}`.
pub fn partition(object: &Value) -> Result<Partition, String> {
    Ok((text(object, "topic")?, index(object, "partition")?))
}

/// A field that must be text.
pub fn text(object: &Value, name: &str) -> Result<String, String> {
    let found = field(object, name)?;
    found.as_str().map(str::to_owned).ok_or_else(|| format!("Expected `String` value, received {found}"))
}

/// A field that must be a 32-bit number.
pub fn index(object: &Value, name: &str) -> Result<i32, String> {
    let found = field(object, name)?;
    let number = found.as_i64().and_then(|number| i32::try_from(number).ok());
    number.ok_or_else(|| format!("Expected `Integer` value, received {found}"))
}

/// A field that must be there.
pub fn field<'a>(object: &'a Value, name: &str) -> Result<&'a Value, String> {
    object.get(name).ok_or_else(|| format!("No such field exists: `{name}`"))
}
