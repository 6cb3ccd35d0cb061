//! A group's offsets: shown beside the ends of the log, or deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use vltava_client::admin::{LATEST, Partition};
use vltava_client::{Admin, AdminError, ApiError};
use vltava_types::ErrorCode;

use super::text::Group;
use super::{GroupError, error, reset};
use crate::console::Console;
use crate::kafka::exceptions;
use crate::kafka::options::Options;

/// One partition that a group has offsets for or consumes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub topic: String,
    pub partition: i32,
    pub leader_epoch: Option<i32>,
    pub offset: Option<i64>,
    pub log_end_offset: Option<i64>,
    pub consumer_id: Option<String>,
    pub host: Option<String>,
    pub client_id: Option<String>,
}

/// Partitions of members first, those with most partitions before the others; then partitions that nobody consumes.
pub async fn collect(name: &str, group: &Group, admin: &mut Admin) -> Result<Vec<Row>, AdminError> {
    let committed = admin.committed_offsets(name).await?;
    let assigned = group.members.iter().flat_map(|member| &member.partitions);
    let all: BTreeMap<Partition, i64> =
        committed.keys().chain(assigned).map(|partition| (partition.clone(), LATEST)).collect();
    let ends = admin.list_offsets(&all).await?;
    let row = |partition: &Partition| {
        let committed = committed.get(partition);
        Row {
            topic: partition.0.clone(),
            partition: partition.1,
            leader_epoch: committed.map(|committed| committed.leader_epoch).filter(|epoch| *epoch >= 0),
            offset: committed.map(|committed| committed.offset),
            log_end_offset: ends.get(partition).and_then(|end| end.as_ref().ok()).copied(),
            ..Row::default()
        }
    };
    let mut rows = vec![];
    let mut consumed = BTreeSet::new();
    let mut members: Vec<_> = group.members.iter().filter(|member| !member.partitions.is_empty()).collect();
    members.sort_by_key(|member| std::cmp::Reverse(member.partitions.len()));
    for member in members {
        let partitions: BTreeSet<&Partition> = member.partitions.iter().collect();
        for partition in partitions {
            consumed.insert(partition.clone());
            rows.push(Row {
                consumer_id: Some(member.id.clone()),
                host: Some(member.host.clone()),
                client_id: Some(member.client_id.clone()),
                ..row(partition)
            });
        }
    }
    rows.extend(committed.keys().filter(|partition| !consumed.contains(*partition)).map(row));
    Ok(rows)
}

/// Nothing if there are no rows.
pub fn table(group: &str, rows: &[Row], is_verbose: bool) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let number = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let width = |cell: &dyn Fn(&Row) -> usize| rows.iter().map(cell).fold(15, usize::max);
    let group_width = group.len().max(15);
    let topic_width = width(&|row| row.topic.len());
    let id_width = width(&|row| or_dash(&row.consumer_id).len());
    let host_width = width(&|row| or_dash(&row.host).len());
    let mut text = String::new();
    let mut print = |group: &str, cells: [&str; 9]| {
        let [topic, partition, epoch, offset, end, lag, id, host, client] = cells;
        let _ = write!(text, "\n{group:<group_width$} {topic:<topic_width$} {partition:<10} ");
        if is_verbose {
            let _ = write!(text, "{epoch:<15} ");
        }
        let _ = write!(text, "{offset:<15} {end:<15} {lag:<15} {id:<id_width$} {host:<host_width$} {client}");
    };
    print(
        "GROUP",
        [
            "TOPIC",
            "PARTITION",
            "LEADER-EPOCH",
            "CURRENT-OFFSET",
            "LOG-END-OFFSET",
            "LAG",
            "CONSUMER-ID",
            "HOST",
            "CLIENT-ID",
        ],
    );
    for row in rows {
        let lag = row.offset.zip(row.log_end_offset).map(|(offset, end)| end - offset);
        print(
            group,
            [
                &row.topic,
                &row.partition.to_string(),
                &number(row.leader_epoch.map(i64::from)),
                &number(row.offset),
                &number(row.log_end_offset),
                &number(lag),
                &or_dash(&row.consumer_id),
                &or_dash(&row.host),
                &or_dash(&row.client_id),
            ],
        );
    }
    text.push('\n');
    text
}

/// `--delete-offsets`.
pub async fn delete(
    group: &str,
    options: &Options,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<(), GroupError> {
    let mut statuses: BTreeMap<(String, Option<i32>), Option<String>> = BTreeMap::new();
    let mut partitions = vec![];
    for argument in options.values("topic") {
        if argument.contains(':') {
            partitions.extend(reset::partitions(argument).map_err(|message| options.usage(&message))?);
            continue;
        }
        for topic in admin.topics(Some(&[argument.to_owned()])).await? {
            match ApiError::check(topic.error_code, None) {
                Ok(()) => {
                    let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
                    partitions.extend(indexes.map(|index| (argument.to_owned(), index)));
                }
                Err(error) => _ = statuses.insert((argument.to_owned(), None), Some(exceptions::full(&error))),
            }
        }
    }
    let mut first_error = None;
    match admin.delete_offsets(group, &partitions).await {
        Ok(outcomes) => {
            for ((topic, partition), outcome) in outcomes {
                let failure = outcome.err();
                first_error = first_error.or(failure.as_ref().map(|error| error.code));
                statuses.insert((topic, Some(partition)), failure.map(|error| exceptions::full(&error)));
            }
        }
        Err(AdminError::Api(failure)) => {
            first_error = Some(failure.code);
            for (topic, partition) in partitions {
                statuses.insert((topic, Some(partition)), Some(exceptions::full(&failure)));
            }
        }
        Err(failure) => return Err(failure.into()),
    }
    match first_error {
        None => console.line(format_args!("Request succeeded for deleting offsets from group {group}."))?,
        Some(
            code @ (ErrorCode::InvalidGroupId
            | ErrorCode::GroupIdNotFound
            | ErrorCode::GroupAuthorizationFailed
            | ErrorCode::NonEmptyGroup),
        ) => error(&exceptions::message(&ApiError { code, message: None }), console)?,
        Some(
            ErrorCode::GroupSubscribedToTopic
            | ErrorCode::TopicAuthorizationFailed
            | ErrorCode::UnknownTopicOrPartition,
        ) => error("Encountered some partition-level error, see the follow-up details.", console)?,
        Some(code) => error(&format!("Encountered some unknown error: {code}"), console)?,
    }
    Ok(console.text(deleted(&statuses))?)
}

fn deleted(statuses: &BTreeMap<(String, Option<i32>), Option<String>>) -> String {
    let width = statuses.keys().map(|(topic, _)| topic.len()).fold(15, usize::max);
    let mut text = format!("\n{:<width$} {:<10} {:<15}", "TOPIC", "PARTITION", "STATUS");
    for ((topic, partition), failure) in statuses {
        let partition = partition.map_or_else(|| "-".to_owned(), |partition| partition.to_string());
        let status = failure.as_ref().map_or_else(|| "Successful".to_owned(), |error| format!("Error: {error}"));
        let _ = write!(text, "\n{topic:<width$} {partition:<10} {status:<15}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{Row, table};

    #[test]
    fn rows_line_up_as_in_kafka() {
        let consumed = Row {
            topic: "t".to_owned(),
            partition: 0,
            leader_epoch: Some(3),
            offset: Some(5),
            log_end_offset: Some(12),
            consumer_id: Some("consumer-g-1-0a1b2c3d".to_owned()),
            host: Some("/127.0.0.1".to_owned()),
            client_id: Some("consumer-g-1".to_owned()),
        };
        let idle = Row { topic: "t".to_owned(), partition: 1, log_end_offset: Some(4), ..Row::default() };
        let shown = |is_verbose| table("g", &[consumed_again(&consumed), consumed_again(&idle)], is_verbose);
        expect![[r#"

            GROUP           TOPIC           PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID           HOST            CLIENT-ID
            g               t               0          5               12              7               consumer-g-1-0a1b2c3d /127.0.0.1      consumer-g-1
            g               t               1          -               4               -               -                     -               -
        "#]]
        .assert_eq(&shown(false));
        expect![[r#"

            GROUP           TOPIC           PARTITION  LEADER-EPOCH    CURRENT-OFFSET  LOG-END-OFFSET  LAG             CONSUMER-ID           HOST            CLIENT-ID
            g               t               0          3               5               12              7               consumer-g-1-0a1b2c3d /127.0.0.1      consumer-g-1
            g               t               1          -               -               4               -               -                     -               -
        "#]]
        .assert_eq(&shown(true));
        assert_eq!(table("g", &[], false), "");
    }

    fn consumed_again(row: &Row) -> Row {
        Row {
            topic: row.topic.clone(),
            consumer_id: row.consumer_id.clone(),
            host: row.host.clone(),
            client_id: row.client_id.clone(),
            ..*row
        }
    }
}
