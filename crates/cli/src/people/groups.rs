//! `vltava groups`.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};
use vltava_client::admin::{EARLIEST, LATEST, Partition};
use vltava_protocol::messages::list_groups_response::ListedGroup;

use super::report::Report;
use super::{Common, Outcome, cannot};
use crate::console::Console;
use crate::kafka::group_offsets::{self, Group, Row};
use crate::kafka::time::parse_datetime;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List groups.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show what a group consumes, and how far it is behind.
    Describe {
        #[command(flatten)]
        common: Common,
        group: String,
    },
    /// Show the members of a group.
    Members {
        #[command(flatten)]
        common: Common,
        group: String,
    },
    /// Set the offsets of a group without members.
    Reset {
        #[command(flatten)]
        common: Common,
        group: String,
        /// The topics; those that the group has offsets for if not given.
        #[arg(short, long = "topic")]
        topics: Vec<String>,
        /// earliest, latest, an offset, or the time of a record as YYYY-MM-DDThh:mm:ss.sss.
        #[arg(long, value_name = "PLACE", value_parser = place)]
        to: Place,
        /// Do it, instead of showing what would be done.
        #[arg(long)]
        execute: bool,
    },
    /// Delete groups without members, with all their offsets.
    Delete {
        #[command(flatten)]
        common: Common,
        #[arg(required = true)]
        groups: Vec<String>,
    },
}

/// Where to set an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Offset(i64),
    /// As ListOffsets takes it.
    Time(i64),
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "earliest" => Ok(Place::Time(EARLIEST)),
        "latest" => Ok(Place::Time(LATEST)),
        _ => match (text.parse(), parse_datetime(text)) {
            (Ok(offset), _) if offset >= 0 => Ok(Place::Offset(offset)),
            (_, Some(time)) => Ok(Place::Time(time)),
            _ => Err("write earliest, latest, an offset, or YYYY-MM-DDThh:mm:ss.sss".to_owned()),
        },
    }
}

pub async fn run(command: Command, console: &mut Console<'_>) -> Outcome {
    match command {
        Command::List { common } => {
            let groups = common.admin().await?.list_groups(&[], &[]).await.map_err(cannot("list groups"))?;
            common.show(&list(&groups), console)
        }
        Command::Describe { common, group } => {
            let mut admin = common.admin().await?;
            let what = || cannot(format!("describe {group}"));
            let described = Group::of(admin.describe_group(&group).await.map_err(what())?);
            let rows = group_offsets::collect(&group, &described, &mut admin).await.map_err(what())?;
            common.show(&offsets(&rows), console)
        }
        Command::Members { common, group } => {
            let described = common.admin().await?.describe_group(&group).await;
            let described = Group::of(described.map_err(cannot(format!("describe {group}")))?);
            common.show(&members(&described), console)
        }
        Command::Reset { common, group, topics, to, execute } => {
            reset(&common, &group, &topics, to, execute, console).await
        }
        Command::Delete { common, groups } => {
            let mut admin = common.admin().await?;
            for group in groups {
                admin.delete_group(&group).await.map_err(cannot(format!("delete {group}")))?;
                console.complain(format_args!("deleted {group}"))?;
            }
            Ok(())
        }
    }
}

async fn reset(
    common: &Common,
    group: &str,
    topics: &[String],
    to: Place,
    execute: bool,
    console: &mut Console<'_>,
) -> Outcome {
    let mut admin = common.admin().await?;
    let what = || cannot(format!("reset the offsets of {group}"));
    let committed = admin.committed_offsets(group).await.map_err(what())?;
    let partitions: Vec<Partition> = match topics {
        [] => committed.keys().cloned().collect(),
        topics => super::partitions(&mut admin, topics).await?,
    };
    anyhow::ensure!(!partitions.is_empty(), "{group} has no offsets; name topics with --topic");
    let at = |place: i64| partitions.iter().map(|partition| (partition.clone(), place)).collect::<BTreeMap<_, _>>();
    let starts = super::all(admin.list_offsets(&at(EARLIEST)).await.map_err(what())?)?;
    let ends = super::all(admin.list_offsets(&at(LATEST)).await.map_err(what())?)?;
    let wanted = match to {
        Place::Offset(offset) => at(offset),
        Place::Time(time) => super::all(admin.list_offsets(&at(time)).await.map_err(what())?)?,
    };
    let mut new = BTreeMap::new();
    for (partition, offset) in wanted {
        let (start, end) = (starts[&partition], ends[&partition]);
        // Nothing as late as that: the end.
        let offset = if offset < 0 { end } else { offset.clamp(start, end.max(start)) };
        new.insert(partition, offset);
    }
    if execute {
        admin.commit_offsets(group, &new).await.map_err(what())?;
    }
    let mut report = Report::new(&["topic", "partition", "old_offset", "new_offset"]);
    for ((topic, partition), offset) in &new {
        let old = committed.get(&(topic.clone(), *partition)).map(|committed| committed.offset);
        report.push(vec![json!(topic), json!(partition), json!(old), json!(offset)]);
    }
    common.show(&report, console)?;
    if !execute {
        console.complain("nothing is changed without --execute")?;
    }
    Ok(())
}

fn list(groups: &[ListedGroup]) -> Report {
    let mut report = Report::new(&["group", "state", "type", "protocol"]);
    for group in groups {
        let text = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
        let (state, kind, protocol) = (&group.group_state, &group.group_type, &group.protocol_type);
        report.push(vec![text(&group.group_id), text(state), text(kind), text(protocol)]);
    }
    report
}

fn offsets(rows: &[Row]) -> Report {
    let columns = ["topic", "partition", "offset", "log_end_offset", "lag", "consumer", "host"];
    let mut report = Report::new(&columns);
    for row in rows {
        let lag = row.offset.zip(row.log_end_offset).map(|(offset, end)| end - offset);
        report.push(vec![
            json!(row.topic),
            json!(row.partition),
            json!(row.offset),
            json!(row.log_end_offset),
            json!(lag),
            json!(row.consumer_id),
            json!(row.host),
        ]);
    }
    report
}

fn members(group: &Group) -> Report {
    let mut report = Report::new(&["consumer", "instance", "client", "host", "partitions"]);
    for member in &group.members {
        let partitions: Vec<String> =
            member.partitions.iter().map(|(topic, partition)| format!("{topic}-{partition}")).collect();
        report.push(vec![
            json!(member.id),
            json!(member.instance_id),
            json!(member.client_id),
            json!(member.host),
            json!(partitions),
        ]);
    }
    report
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::report::Format;
    use super::{Place, Row, offsets, place};

    #[test]
    fn places_are_names_offsets_or_times() {
        assert_eq!(place("earliest"), Ok(Place::Time(-2)));
        assert_eq!(place("17"), Ok(Place::Offset(17)));
        assert_eq!(place("1970-01-01T00:00:01.000"), Ok(Place::Time(1000)));
        assert!(place("-1").is_err());
        assert!(place("soon").is_err());
    }

    #[test]
    fn lag_is_shown_where_it_is_known() {
        let row = |partition, offset| Row {
            topic: "t".to_owned(),
            partition,
            offset,
            log_end_offset: Some(12),
            ..Row::default()
        };
        expect![[r#"
            TOPIC  PARTITION  OFFSET  LOG END OFFSET  LAG  CONSUMER  HOST
            t              0       5              12    7         -     -
            t              1       -              12    -         -     -
        "#]]
        .assert_eq(&offsets(&[row(0, Some(5)), row(1, None)]).show(Format::Table, false));
    }
}
