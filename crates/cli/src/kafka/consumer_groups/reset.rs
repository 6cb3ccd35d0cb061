//! `--reset-offsets`: which partitions, to which offsets, and what is said about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use vltava_client::admin::{EARLIEST, LATEST, Partition};
use vltava_client::{Admin, AdminError, ApiError};
use vltava_host::clock;
use vltava_types::ErrorCode;

use super::{GroupError, error};
use crate::console::Console;
use crate::kafka::options::Options;
use crate::kafka::time::{parse_datetime, parse_duration};
use crate::kafka::{exceptions, json};

/// New offsets by group.
pub type Plan = BTreeMap<String, BTreeMap<Partition, i64>>;

/// Plans for each group, and carries it out if asked to.
pub async fn run(
    options: &Options,
    groups: &[String],
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<Plan, GroupError> {
    let mut plan = Plan::new();
    for group in groups {
        let state = match admin.describe_group(group).await {
            Ok((_, described)) => described.group_state.to_string(),
            Err(AdminError::Api(ApiError { code: ErrorCode::GroupIdNotFound, .. })) => "Dead".to_owned(),
            Err(error) => return Err(error.into()),
        };
        let mut offsets = BTreeMap::new();
        if state == "Empty" || state == "Dead" {
            offsets = plan_group(options, group, admin, console).await?;
            if options.has("execute") && !offsets.is_empty() {
                admin.commit_offsets(group, &offsets).await.map_err(without_class)?;
            }
        } else {
            let message = format!(
                "Assignments can only be reset if the group '{group}' is inactive, but the current state is {state}."
            );
            error(&message, console)?;
        }
        plan.insert(group.clone(), offsets);
    }
    Ok(plan)
}

async fn plan_group(
    options: &Options,
    group: &str,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<BTreeMap<Partition, i64>, GroupError> {
    let scope = scope(options, group, admin).await?;
    check_scope(&scope, admin).await?;
    let all = |offset: i64| scope.iter().map(|partition| (partition.clone(), offset)).collect::<BTreeMap<_, _>>();
    if let Some(offset) = options.number("to-offset")? {
        return within_log(all(offset), admin, console).await;
    }
    if options.has("to-earliest") {
        return found(admin.list_offsets(&all(EARLIEST)).await?);
    }
    if options.has("to-latest") {
        return found(admin.list_offsets(&all(LATEST)).await?);
    }
    if let Some(shift) = options.number::<i64>("shift-by")? {
        let committed = admin.committed_offsets(group).await?;
        let mut shifted = BTreeMap::new();
        for partition in scope {
            let Some(current) = committed.get(&partition) else {
                let (topic, index) = partition;
                let message = format!(
                    "Cannot shift offset for partition {topic}-{index} since there is no current committed offset"
                );
                return Err(options.usage(&message).into());
            };
            shifted.insert(partition, current.offset.saturating_add(shift));
        }
        return within_log(shifted, admin, console).await;
    }
    if let Some(text) = options.value("to-datetime")? {
        let timestamp = parse_datetime(text)
            .ok_or_else(|| GroupError::Failed(format!("java.text.ParseException: Unparseable date: \"{text}\"")))?;
        return since(all(timestamp), admin, console).await;
    }
    if let Some(text) = options.value("by-duration")? {
        let duration =
            parse_duration(text).ok_or_else(|| GroupError::Failed("Text cannot be parsed to a Duration".to_owned()))?;
        let timestamp = clock::now().value() - duration;
        return since(all(timestamp), admin, console).await;
    }
    if let Some(file) = options.value("from-file")? {
        let text = json::read_file(file).map_err(|failure| GroupError::Failed(failure.to_string()))?;
        let single = options.values("group").count() == 1;
        let mut plans = parse_csv(&text, single.then_some(group)).map_err(GroupError::Failed)?;
        let Some(plan) = plans.remove(group) else {
            error(&format!("No reset plan for group {group} found."), console)?;
            return Ok(BTreeMap::new());
        };
        return within_log(plan, admin, console).await;
    }
    if options.has("to-current") {
        let committed = admin.committed_offsets(group).await?;
        let (known, unknown): (Vec<_>, Vec<_>) =
            scope.into_iter().partition(|partition| committed.contains_key(partition));
        let ends = admin.list_offsets(&unknown.into_iter().map(|partition| (partition, LATEST)).collect()).await?;
        let mut offsets = found(ends)?;
        offsets.extend(known.into_iter().map(|partition| {
            let offset = committed[&partition].offset;
            (partition, offset)
        }));
        return Ok(offsets);
    }
    let scenarios = super::SCENARIOS.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ");
    let message = format!("Option '[reset-offsets]' requires one of the following scenarios: [{scenarios}]");
    Err(options.usage(&message).into())
}

/// The partitions in question.
async fn scope(options: &Options, group: &str, admin: &mut Admin) -> Result<BTreeSet<Partition>, GroupError> {
    if options.has("all-topics") {
        return Ok(admin.committed_offsets(group).await?.into_keys().collect());
    }
    let mut scope = BTreeSet::new();
    for argument in options.values("topic") {
        if argument.contains(':') {
            scope.extend(partitions(argument).map_err(|message| options.usage(&message))?);
            continue;
        }
        for topic in admin.topics(Some(&[argument.to_owned()])).await? {
            ApiError::check(topic.error_code, None).map_err(|error| without_class(error.into()))?;
            let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
            scope.extend(indexes.map(|index| (argument.to_owned(), index)));
        }
    }
    if !options.has("topic") && !options.has("from-file") {
        let message = "One of the reset scopes should be defined: --all-topics, --topic.";
        return Err(options.usage(message).into());
    }
    Ok(scope)
}

/// Every partition must be there and have a leader.
async fn check_scope(scope: &BTreeSet<Partition>, admin: &mut Admin) -> Result<(), GroupError> {
    let names: BTreeSet<String> = scope.iter().map(|(topic, _)| topic.clone()).collect();
    let names: Vec<String> = names.into_iter().collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut leaders = BTreeMap::new();
    for topic in admin.topics(Some(&names)).await? {
        ApiError::check(topic.error_code, None).map_err(AdminError::Api)?;
        for partition in &topic.partitions {
            let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
            leaders.insert((name, partition.partition_index), partition.leader_id);
        }
    }
    let named = |is_wanted: &dyn Fn(&Partition) -> bool| {
        let wanted = scope.iter().filter(|partition| is_wanted(partition));
        wanted.map(|(topic, index)| format!("{topic}-{index}")).collect::<Vec<_>>().join(",")
    };
    let missing = named(&|partition| !leaders.contains_key(partition));
    if !missing.is_empty() {
        return Err(GroupError::Failed(format!("The partitions \"{missing}\" do not exist")));
    }
    let leaderless = named(&|partition| leaders.get(partition).is_some_and(|leader| *leader < 0));
    if !leaderless.is_empty() {
        return Err(GroupError::Failed(format!("The partitions \"{leaderless}\" have no leader")));
    }
    Ok(())
}

/// `topic:0,1,2`.
pub fn partitions(argument: &str) -> Result<Vec<Partition>, String> {
    let parts: Vec<&str> = argument.split(':').collect();
    let [topic, indexes] = parts[..] else {
        return Err(format!("Invalid topic arg '{argument}', expected topic name and partitions"));
    };
    let index = |text: &str| {
        let index = text.parse::<i32>();
        index.map_err(|_| format!("Invalid partition '{text}' specified in topic arg '{argument}''"))
    };
    indexes.split(',').map(|text| Ok((topic.to_owned(), index(text)?))).collect()
}

/// Some errors are told by their message alone.
fn without_class(error: AdminError) -> GroupError {
    match error {
        AdminError::Api(error) => GroupError::Failed(exceptions::message(&error)),
        other => other.into(),
    }
}

fn found(offsets: BTreeMap<Partition, Result<i64, ApiError>>) -> Result<BTreeMap<Partition, i64>, GroupError> {
    let found = offsets.into_iter().map(|(partition, offset)| Ok((partition, offset.map_err(AdminError::Api)?)));
    found.collect()
}

/// The first records since a time; the end of the log where there is none.
async fn since(
    wanted: BTreeMap<Partition, i64>,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<BTreeMap<Partition, i64>, GroupError> {
    let mut offsets = found(admin.list_offsets(&wanted).await?)?;
    let none: BTreeMap<Partition, i64> =
        offsets.iter().filter(|(_, offset)| **offset < 0).map(|(partition, _)| (partition.clone(), LATEST)).collect();
    for (topic, partition) in none.keys() {
        console.line(format_args!(
            "\nWarn: Partition {partition} from topic {topic} is empty. Falling back to latest known offset."
        ))?;
    }
    offsets.extend(found(admin.list_offsets(&none).await?)?);
    Ok(offsets)
}

/// Offsets outside of the log become its nearest end.
async fn within_log(
    wanted: BTreeMap<Partition, i64>,
    admin: &mut Admin,
    console: &mut Console<'_>,
) -> Result<BTreeMap<Partition, i64>, GroupError> {
    let at = |place: i64| wanted.keys().map(|partition| (partition.clone(), place)).collect::<BTreeMap<_, _>>();
    let starts = found(admin.list_offsets(&at(EARLIEST)).await?)?;
    let ends = found(admin.list_offsets(&at(LATEST)).await?)?;
    let mut offsets = BTreeMap::new();
    for (partition, offset) in wanted {
        let (start, end) = (starts.get(&partition).copied(), ends.get(&partition).copied());
        let (Some(start), Some(end)) = (start, end) else { return Err(AdminError::from(incomplete()).into()) };
        let set = offset.clamp(start, end.max(start));
        if set != offset {
            let (topic, index) = &partition;
            console.complain(format_args!(
                "offset {offset} lies outside of the log of {topic}-{index}, which is from {start} to {end}: set to {set}"
            ))?;
        }
        offsets.insert(partition, set);
    }
    Ok(offsets)
}

const fn incomplete() -> vltava_client::ClientError {
    vltava_client::ClientError::Incomplete
}

/// `topic,partition,offset` for `single`, or `group,topic,partition,offset`.
fn parse_csv(text: &str, single: Option<&str>) -> Result<Plan, String> {
    let mut plan = Plan::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let (group, topic, partition, offset) = match (fields.as_slice(), single) {
            ([topic, partition, offset], Some(group)) => (group, *topic, *partition, *offset),
            ([group, topic, partition, offset], _) => (*group, *topic, *partition, *offset),
            _ => return Err(format!("cannot read line \"{line}\"")),
        };
        let (Ok(partition), Ok(offset)) = (partition.parse(), offset.parse()) else {
            return Err(format!("cannot read line \"{line}\""));
        };
        plan.entry(group.to_owned()).or_default().insert((topic.to_owned(), partition), offset);
    }
    Ok(plan)
}

/// With the group unless it is the only one.
pub fn csv(plan: &Plan, is_single: bool) -> String {
    let mut text = String::new();
    for (group, offsets) in plan {
        for ((topic, partition), offset) in offsets {
            if !is_single {
                let _ = write!(text, "{group},");
            }
            let _ = writeln!(text, "{topic},{partition},{offset}");
        }
    }
    text
}

pub fn table(plan: &Plan) -> String {
    let group_width = plan.keys().map(String::len).fold(15, usize::max);
    let topics = plan.values().flat_map(BTreeMap::keys).map(|(topic, _)| topic.len());
    let topic_width = topics.fold(15, usize::max);
    let mut text = String::new();
    if !plan.is_empty() {
        let _ = write!(text, "\n{:<group_width$} {:<topic_width$} {:<10} NEW-OFFSET", "GROUP", "TOPIC", "PARTITION");
    }
    for (group, offsets) in plan {
        for ((topic, partition), offset) in offsets {
            let _ = write!(text, "\n{group:<group_width$} {topic:<topic_width$} {partition:<10} {offset}");
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{csv, parse_csv, partitions, table};

    #[test]
    fn plans_are_exported_as_they_are_read() {
        let text = "a,t,0,5\nb,t,1,7\n";
        let plan = parse_csv(text, None).expect("a plan");
        assert_eq!(csv(&plan, false), text);
        let single = parse_csv("\"t\",0,5\n\nt,1,6\n", Some("g")).expect("a plan");
        assert_eq!(csv(&single, true), "t,0,5\nt,1,6\n");
        assert_eq!(parse_csv("t,0,5", None), Err("cannot read line \"t,0,5\"".to_owned()));
        assert_eq!(parse_csv("t,x,5", Some("g")), Err("cannot read line \"t,x,5\"".to_owned()));
        expect![[r#"

            GROUP           TOPIC           PARTITION  NEW-OFFSET
            a               t               0          5
            b               t               1          7
        "#]]
        .assert_eq(&table(&plan));
        assert_eq!(table(&super::Plan::new()), "\n");
    }

    #[test]
    fn partitions_follow_a_topic() {
        assert_eq!(partitions("t:0,2"), Ok(vec![("t".to_owned(), 0), ("t".to_owned(), 2)]));
        let bad = "Invalid partition 'x' specified in topic arg 't:x''";
        assert_eq!(partitions("t:x"), Err(bad.to_owned()));
        assert_eq!(
            partitions("t:1:2"),
            Err("Invalid topic arg 't:1:2', expected topic name and partitions".to_owned())
        );
    }
}
