//! `server.properties` and the dynamic configs of topics: every text is settings or an error that says why not.

use std::collections::BTreeMap;

use vltava_broker::config::BrokerConfig;
use vltava_cli::properties;
use vltava_metadata::configs::{broker_config, group_config, topic_config};

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(given) = properties::parse(text) else { return };
    let _ = BrokerConfig::from_properties(&given, "localhost");
    for (name, value) in &given {
        for define in [broker_config, topic_config, group_config] {
            if let Some(definition) = define(name) {
                let _ = definition.parse(value);
            }
        }
    }
    // What is printed is read as it was.
    let printed: String = given.iter().map(|(name, value)| format!("{}={}\n", escape(name), escape(value))).collect();
    let again: BTreeMap<String, String> = properties::parse(&printed).expect("escaped text can be read");
    assert_eq!(again, given, "properties keep their meaning");
}

/// Every character by its number.
fn escape(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}
