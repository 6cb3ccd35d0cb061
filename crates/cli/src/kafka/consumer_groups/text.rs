//! What is printed about groups themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vltava_client::admin::{BrokerAddress, Partition};
use vltava_protocol::messages::describe_groups_response::DescribedGroup;
use vltava_protocol::messages::list_groups_response::ListedGroup;
use vltava_protocol::messages::{DecodeLimits, decode_consumer_protocol_assignment};

use super::super::join;

/// A group as its coordinator describes it.
pub struct Group {
    pub coordinator: BrokerAddress,
    pub state: String,
    pub assignor: String,
    pub members: Vec<Member>,
}

pub struct Member {
    pub id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    /// With the slash that Java prints before an address.
    pub host: String,
    pub partitions: Vec<Partition>,
}

impl Group {
    pub fn of((coordinator, group): (BrokerAddress, DescribedGroup)) -> Self {
        let members = group.members.into_iter().map(|member| Member {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            partitions: assigned(member.member_assignment),
        });
        Self {
            coordinator,
            state: group.group_state.to_string(),
            assignor: group.protocol_data.to_string(),
            members: members.collect(),
        }
    }
}

/// An assignment that cannot be read is that of something else than a consumer; Kafka shows none too.
fn assigned(assignment: bytes::Bytes) -> Vec<Partition> {
    let Ok((_, assignment)) = decode_consumer_protocol_assignment(assignment, DecodeLimits::default()) else {
        return vec![];
    };
    let topics = assignment.assigned_partitions.into_iter();
    topics
        .flat_map(|topic| {
            let name = topic.topic.to_string();
            topic.partitions.into_iter().map(move |partition| (name.clone(), partition))
        })
        .collect()
}

pub fn list(groups: &[ListedGroup], with_type: bool, with_state: bool) -> String {
    let longest = groups.iter().map(|group| group.group_id.len().max(15)).max().unwrap_or(15);
    let width = longest + 10;
    let mut text = String::new();
    let mut row = |group: &str, kind: &str, state: &str| {
        let _ = write!(text, "{group:<width$}");
        if with_type {
            let _ = write!(text, " {kind:<20}");
        }
        if with_state {
            let _ = write!(text, " {state:<20}");
        }
        text.push('\n');
    };
    row("GROUP", "TYPE", "STATE");
    for group in groups {
        // Java's name of the type begins with a capital.
        let kind = group.group_type.as_str();
        let kind = kind
            .chars()
            .next()
            .map_or_else(String::new, |first| format!("{}{}", first.to_ascii_uppercase(), &kind[first.len_utf8()..]));
        row(&group.group_id, &kind, &group.group_state);
    }
    text
}

pub fn members(name: &str, group: &Group, is_verbose: bool) -> String {
    let width = |least: usize, text: &dyn Fn(&Member) -> String| {
        group.members.iter().map(|member| text(member).len()).fold(least, usize::max)
    };
    let group_width = if group.members.is_empty() { 15 } else { name.len().max(15) };
    let id_width = width(15, &|member| member.id.clone());
    let instance_width = width(17, &|member| member.instance_id.clone().unwrap_or_default());
    let host_width = width(15, &|member| member.host.clone());
    let client_width = width(15, &|member| member.client_id.clone());
    let assignment_width = width(20, &assignment);
    let with_instance = group.members.iter().any(|member| member.instance_id.as_ref().is_some_and(|id| !id.is_empty()));
    let mut text = String::new();
    let mut row = |group: &str, id: &str, instance: &str, host: &str, client: &str, count: &str, more: [&str; 4]| {
        let _ = write!(text, "{group:<group_width$} {id:<id_width$} ");
        if with_instance {
            let _ = write!(text, "{instance:<instance_width$} ");
        }
        let _ = write!(text, "{host:<host_width$} {client:<client_width$} {count:<15} ");
        if is_verbose {
            let [epoch, assignment, target_epoch, target] = more;
            let _ = write!(text, "{epoch:<15} {assignment:<assignment_width$} {target_epoch:<15} {target:<20}");
        }
        text.push('\n');
    };
    let titles = ["CURRENT-EPOCH", "CURRENT-ASSIGNMENT", "TARGET-EPOCH", "TARGET-ASSIGNMENT"];
    row("GROUP", "CONSUMER-ID", "GROUP-INSTANCE-ID", "HOST", "CLIENT-ID", "#PARTITIONS", titles);
    for member in &group.members {
        row(
            name,
            &member.id,
            member.instance_id.as_deref().unwrap_or_default(),
            &member.host,
            &member.client_id,
            &member.partitions.len().to_string(),
            ["-", &assignment(member), "-", "-"],
        );
    }
    format!("\n{text}")
}

/// `topic:0,1;other:2`.
fn assignment(member: &Member) -> String {
    if member.partitions.is_empty() {
        return "-".to_owned();
    }
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in &member.partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let texts = topics.into_iter().map(|(topic, mut partitions)| {
        partitions.sort_unstable();
        format!("{topic}:{}", join(&partitions))
    });
    texts.collect::<Vec<_>>().join(";")
}

pub fn state(name: &str, group: &Group, is_verbose: bool) -> String {
    let BrokerAddress { id, host, port } = &group.coordinator;
    let coordinator = format!("{host}:{port}  ({id})");
    let (group_width, coordinator_width) = (name.len().max(15), coordinator.len().max(25));
    let assignor = if group.assignor.is_empty() { "-" } else { &group.assignor };
    let mut text = String::new();
    let mut row = |group: &str, coordinator: &str, assignor: &str, state: &str, epochs: [&str; 2], members: &str| {
        let _ = write!(text, "\n{group:<group_width$} {coordinator:<coordinator_width$} {assignor:<20} {state:<20} ");
        if is_verbose {
            let _ = write!(text, "{:<15} {:<25} ", epochs[0], epochs[1]);
        }
        text.push_str(members);
    };
    let epochs = ["GROUP-EPOCH", "TARGET-ASSIGNMENT-EPOCH"];
    row("GROUP", "COORDINATOR (ID)", "ASSIGNMENT-STRATEGY", "STATE", epochs, "#MEMBERS");
    row(name, &coordinator, assignor, &group.state, ["-", "-"], &group.members.len().to_string());
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_client::admin::BrokerAddress;
    use vltava_protocol::make;

    use super::{Group, ListedGroup, Member, list, members, state};

    fn group() -> Group {
        let member = |id: &str, instance: Option<&str>, partitions: &[(&str, i32)]| Member {
            id: id.to_owned(),
            instance_id: instance.map(str::to_owned),
            client_id: "c".to_owned(),
            host: "/127.0.0.1".to_owned(),
            partitions: partitions.iter().map(|(topic, index)| ((*topic).to_owned(), *index)).collect(),
        };
        Group {
            coordinator: BrokerAddress { id: 2, host: "h".to_owned(), port: 9092 },
            state: "Stable".to_owned(),
            assignor: "range".to_owned(),
            members: vec![member("m-1", None, &[("u", 2), ("t", 1), ("t", 0)]), member("m-2", None, &[])],
        }
    }

    /// Lines end in blanks, as Kafka's do.
    fn shown(text: &str) -> String {
        text.replace('\n', "|\n")
    }

    #[test]
    fn members_show_what_they_consume() {
        expect![[r#"
            |
            GROUP           CONSUMER-ID     HOST            CLIENT-ID       #PARTITIONS     |
            g               m-1             /127.0.0.1      c               3               |
            g               m-2             /127.0.0.1      c               0               |
        "#]]
        .assert_eq(&shown(&members("g", &group(), false)));
        expect![[r#"
            |
            GROUP           CONSUMER-ID     HOST            CLIENT-ID       #PARTITIONS     CURRENT-EPOCH   CURRENT-ASSIGNMENT   TARGET-EPOCH    TARGET-ASSIGNMENT   |
            g               m-1             /127.0.0.1      c               3               -               t:0,1;u:2            -               -                   |
            g               m-2             /127.0.0.1      c               0               -               -                    -               -                   |
        "#]]
        .assert_eq(&shown(&members("g", &group(), true)));
    }

    #[test]
    fn static_members_have_a_column_of_their_own() {
        let mut group = group();
        group.members[1].instance_id = Some("static".to_owned());
        expect![[r#"
            |
            GROUP           CONSUMER-ID     GROUP-INSTANCE-ID HOST            CLIENT-ID       #PARTITIONS     |
            g               m-1                               /127.0.0.1      c               3               |
            g               m-2             static            /127.0.0.1      c               0               |
        "#]]
        .assert_eq(&shown(&members("g", &group, false)));
    }

    #[test]
    fn states_name_the_coordinator() {
        expect![[r#"
            |
            GROUP           COORDINATOR (ID)          ASSIGNMENT-STRATEGY  STATE                #MEMBERS|
            g               h:9092  (2)               range                Stable               2|
        "#]]
        .assert_eq(&shown(&state("g", &group(), false)));
    }

    #[test]
    fn lists_show_what_was_asked_for() {
        let listed = make!(ListedGroup {
            group_id: "a-rather-long-name".into(),
            group_state: "Empty".into(),
            group_type: "classic".into(),
        });
        expect![[r#"
            GROUP                        TYPE                 STATE               |
            a-rather-long-name           Classic              Empty               |
        "#]]
        .assert_eq(&shown(&list(&[listed], true, true)));
    }
}
