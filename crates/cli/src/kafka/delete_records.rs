//! kafka-delete-records: deletes the records below offsets that a file names.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vltava_client::admin::{ByPartition, Partition};

use super::options::{OptionSpec, Options, value};
use super::{Failure, exceptions, json, last_words, names};
use crate::connect::Connection;
use crate::console::Console;

const OPTIONS: &[OptionSpec] = &[
    value(
        "bootstrap-server",
        "server(s) to use for bootstrapping",
        "REQUIRED: The brokers to begin with, host:port, by commas.",
    ),
    value(
        "offset-json-file",
        "Offset json file path",
        "REQUIRED: {\"partitions\": [{\"topic\": \"foo\", \"partition\": 1, \"offset\": 1}], \"version\": 1}; offset -1 is \
         the high watermark.",
    ),
    value("command-config", "command config property file path", "A properties file with settings of the client."),
];

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let options = Options::parse(OPTIONS, arguments)?;
    let purpose = "This tool helps to delete records of the given partitions down to the specified offset.";
    if let Some(code) = options.help_or_version(console, purpose)? {
        return Ok(code);
    }
    options.require(&["bootstrap-server", "offset-json-file"])?;
    let bootstrap = options.value("bootstrap-server")?.unwrap_or_default();
    let connection = Connection::new(bootstrap, options.value("command-config")?)?;
    let text = json::read_file(options.value("offset-json-file")?.unwrap_or_default())?;
    let wanted = parse(&text).map_err(Failure::Message)?;
    let mut admin = super::reach(&connection, console).await?;
    console.line("Executing records delete operation")?;
    let outcomes = admin.delete_records(&wanted).await.map_err(|error| Failure::Message(last_words(&error)))?;
    console.line("Records delete operation completed:")?;
    console.text(lines(&outcomes))?;
    Ok(0)
}

fn lines(outcomes: &ByPartition<i64>) -> String {
    let mut text = String::new();
    for ((topic, index), outcome) in outcomes {
        let _ = match outcome {
            Ok(low_watermark) => writeln!(text, "partition: {topic}-{index}\tlow_watermark: {low_watermark}"),
            Err(error) => writeln!(text, "partition: {topic}-{index}\terror: {}", exceptions::full(error)),
        };
    }
    text
}

fn parse(text: &str) -> Result<BTreeMap<Partition, i64>, String> {
    let document = json::parse(text).ok_or("The input string is not a valid JSON")?;
    match document.get("version").map(|version| version.as_i64().ok_or(version)) {
        None | Some(Ok(1)) => {}
        Some(Ok(version)) => return Err(format!("Not supported version field value {version}")),
        Some(Err(version)) => return Err(format!("Expected `Integer` value, received {version}")),
    }
    let mut offsets = BTreeMap::new();
    let mut all = vec![];
    for entry in json::list(&document, "partitions").ok_or("Missing partitions field")? {
        let partition = json::partition(entry)?;
        let offset = json::field(entry, "offset")?;
        let offset = offset.as_i64().ok_or_else(|| format!("Expected `Long` value, received {offset}"))?;
        all.push(partition.clone());
        offsets.insert(partition, offset);
    }
    let repeated = names::repeated(&all);
    if !repeated.is_empty() {
        let repeated = repeated.iter().map(|(topic, index)| format!("{topic}-{index}")).collect::<Vec<_>>().join(",");
        return Err(format!("Offset json file contains duplicate topic partitions: {repeated}"));
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};
    use vltava_client::ApiError;
    use vltava_types::ErrorCode;

    use super::{lines, parse};

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&format!("{:?}", parse(text)));
    }

    #[test]
    fn files_list_offsets() {
        check(
            r#"{"partitions": [{"topic": "t", "partition": 1, "offset": -1}], "version": 1}"#,
            expect![[r#"Ok({("t", 1): -1})"#]],
        );
        check("{", expect![[r#"Err("The input string is not a valid JSON")"#]]);
        check("{}", expect![[r#"Err("Missing partitions field")"#]]);
        check(r#"{"version": 2}"#, expect![[r#"Err("Not supported version field value 2")"#]]);
        check(
            r#"{"partitions": [{"topic": "t", "partition": 1}]}"#,
            expect![[r#"Err("No such field exists: `offset`")"#]],
        );
        check(
            r#"{"partitions": [{"topic": "t", "partition": 1, "offset": 1}, {"topic": "t", "partition": 1, "offset": 2}]}"#,
            expect![[r#"Err("Offset json file contains duplicate topic partitions: t-1")"#]],
        );
    }

    #[test]
    fn each_partition_has_its_outcome() {
        let refused = ApiError { code: ErrorCode::OffsetOutOfRange, message: None };
        let outcomes = BTreeMap::from([(("t".to_owned(), 0), Ok(5)), (("t".to_owned(), 1), Err(refused))]);
        expect![[r#"
            partition: t-0	low_watermark: 5
            partition: t-1	error: org.apache.kafka.common.errors.OffsetOutOfRangeException: The requested offset is not within the range of offsets maintained by the server.
        "#]]
        .assert_eq(&lines(&outcomes));
    }
}
