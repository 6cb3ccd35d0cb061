//! The configs that a command line asks to change.

use std::collections::BTreeMap;

use vltava_client::admin::ConfigChange;

use crate::connect::read_settings;
use crate::kafka::Failure;
use crate::kafka::options::Options;

/// What `--add-config`, `--add-config-file` and `--delete-config` ask for: deletions first.
pub fn changes(options: &Options) -> Result<Vec<ConfigChange>, Failure> {
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

#[cfg(test)]
mod tests {
    use super::parse_added;

    #[test]
    fn brackets_hold_a_value_together() {
        let shown = |text| parse_added(text).map(|added| format!("{added:?}"));
        assert_eq!(shown("a=1,b=[x,y=z], c = "), Ok(r#"{"a": "1", "b": "x,y=z", "c": ""}"#.to_owned()));
        assert!(shown("a").is_err());
        assert!(shown("a=1=2").is_err());
    }
}
