//! The JSON that says where partitions are or are to be.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};
use vltava_client::admin::Partition;

use crate::kafka::{json as read, names};

/// Stands for whichever log directory the broker chooses.
const ANY: &str = "any";

/// Where a partition is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub partition: Partition,
    pub replicas: Vec<i32>,
    /// The log directory that a broker is to use, where one is named.
    pub directories: Vec<(i32, String)>,
}

impl Target {
    pub fn name(&self) -> String {
        format!("{}-{}", self.partition.0, self.partition.1)
    }
}

/// A partition on one broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    pub broker: i32,
    pub topic: String,
    pub partition: i32,
}

impl fmt::Display for Replica {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}-{}", self.topic, self.partition, self.broker)
    }
}

/// Version 1 of both files, which is what a file without version is.
fn versioned(text: &str) -> Result<Value, String> {
    let document = read::parse(text).ok_or("The input string is not a valid JSON")?;
    match document.get("version").map(|version| version.as_i64().ok_or(version)) {
        None | Some(Ok(1)) => Ok(document),
        Some(Ok(version)) => Err(format!("Not supported version field value {version}")),
        Some(Err(version)) => Err(format!("Expected `Integer` value, received {version}")),
    }
}

/// `{"version":1,"topics":[{"topic":"t"}]}`.
pub fn topics(text: &str) -> Result<Vec<String>, String> {
    let document = versioned(text)?;
    read::list(&document, "topics").into_iter().flatten().map(|entry| read::text(entry, "topic")).collect()
}

/// `{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2],"log_dirs":["any","any"]}]}`.
pub fn parse(text: &str) -> Result<Vec<Target>, String> {
    let document = versioned(text)?;
    read::list(&document, "partitions").into_iter().flatten().map(target).collect()
}

fn target(entry: &Value) -> Result<Target, String> {
    let partition = read::partition(entry)?;
    let field = read::field(entry, "replicas")?;
    let id = |value: &Value| value.as_i64().and_then(|id| i32::try_from(id).ok());
    let replicas = field.as_array().and_then(|ids| ids.iter().map(id).collect::<Option<Vec<_>>>());
    let replicas = replicas.ok_or_else(|| format!("Expected a list of broker ids, received {field}"))?;
    let mut directories = vec![];
    if let Some(field) = entry.get("log_dirs") {
        let named = field.as_array().and_then(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let named = named.ok_or_else(|| format!("Expected a list of log directories, received {field}"))?;
        if named.len() != replicas.len() {
            let (topic, index) = &partition;
            let ids = replicas.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let named = named.join(", ");
            return Err(format!(
                "Size of replicas list [{ids}] is different from size of log dirs list [{named}] for partition \
                 {topic}-{index}"
            ));
        }
        let chosen = replicas.iter().zip(named).filter(|(_, directory)| *directory != ANY);
        directories = chosen.map(|(broker, directory)| (*broker, directory.to_owned())).collect();
    }
    Ok(Target { partition, replicas, directories })
}

/// What makes no sense as a whole.
pub fn check(targets: &[Target]) -> Result<(), String> {
    if targets.is_empty() {
        return Err("Partition reassignment list cannot be empty".to_owned());
    }
    if targets.iter().any(|target| target.replicas.is_empty()) {
        return Err("Partition replica list cannot be empty".to_owned());
    }
    let repeated = names::repeated(&targets.iter().map(Target::name).collect::<Vec<_>>());
    if !repeated.is_empty() {
        return Err(format!("Partition reassignment contains duplicate topic partitions: {}", repeated.join(",")));
    }
    let doubled = targets.iter().filter_map(|target| {
        let repeated = names::repeated(&target.replicas);
        let ids = crate::kafka::join(&repeated);
        (!repeated.is_empty()).then(|| format!("{} contains multiple entries for {ids}", target.name()))
    });
    let doubled: Vec<String> = doubled.collect();
    match doubled.is_empty() {
        true => Ok(()),
        false => Err(format!("Partition replica lists may not contain duplicate entries: {}", doubled.join(". "))),
    }
}

pub fn format(replicas: &BTreeMap<Partition, Vec<i32>>, directories: &BTreeMap<Replica, String>) -> String {
    let partition = |((topic, partition), replicas): (&Partition, &Vec<i32>)| {
        let directory = |broker: &i32| {
            let replica = Replica { broker: *broker, topic: topic.clone(), partition: *partition };
            directories.get(&replica).map_or(ANY, String::as_str)
        };
        let directories: Vec<&str> = replicas.iter().map(directory).collect();
        let (topic, replicas, directories) = (json!(topic), json!(replicas), json!(directories));
        format!("{{\"topic\":{topic},\"partition\":{partition},\"replicas\":{replicas},\"log_dirs\":{directories}}}")
    };
    let partitions = replicas.iter().map(partition).collect::<Vec<_>>().join(",");
    format!("{{\"version\":1,\"partitions\":[{partitions}]}}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::{Replica, check, format, parse, topics};

    #[test]
    fn what_is_printed_can_be_read_back() {
        let replicas = BTreeMap::from([(("t".to_owned(), 0), vec![1, 2])]);
        let replica = Replica { broker: 2, topic: "t".to_owned(), partition: 0 };
        let text = format(&replicas, &BTreeMap::from([(replica, "/d".to_owned())]));
        expect![[
            r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1,2],"log_dirs":["any","/d"]}]}"#
        ]]
        .assert_eq(&text);
        let targets = parse(&text).expect("our own text");
        assert_eq!(targets[0].replicas, [1, 2]);
        assert_eq!(targets[0].directories, [(2, "/d".to_owned())]);
    }

    fn refused(text: &str, expected: Expect) {
        let outcome = parse(text).and_then(|targets| check(&targets));
        expected.assert_eq(&outcome.expect_err("it makes no sense"));
    }

    #[test]
    fn files_must_make_sense() {
        refused("{", expect!["The input string is not a valid JSON"]);
        refused(r#"{"version": 2}"#, expect!["Not supported version field value 2"]);
        refused("{}", expect!["Partition reassignment list cannot be empty"]);
        let one = |fields: &str| format!(r#"{{"partitions": [{{"topic": "t", "partition": 0, {fields}}}]}}"#);
        refused(&one(r#""replicas": []"#), expect!["Partition replica list cannot be empty"]);
        refused(
            &one(r#""replicas": [1, 1]"#),
            expect!["Partition replica lists may not contain duplicate entries: t-0 contains multiple entries for 1"],
        );
        refused(
            &one(r#""replicas": [1, 2], "log_dirs": ["any"]"#),
            expect!["Size of replicas list [1, 2] is different from size of log dirs list [any] for partition t-0"],
        );
        assert_eq!(topics(r#"{"topics": [{"topic": "t"}]}"#), Ok(vec!["t".to_owned()]));
        assert!(topics(r#"{"topics": [{}]}"#).is_err());
    }
}
