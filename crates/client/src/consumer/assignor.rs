//! Who reads what: the assignments that a group's leader makes, equal to those of Kafka's own clients.

use std::collections::BTreeMap;

/// A way to share out partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Topic by topic, to each member a run of neighbouring partitions.
    Range,
    /// All partitions of all topics in turn.
    RoundRobin,
}

/// A member as it introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub topics: Vec<String>,
}

/// The partitions of each topic.
pub type Assignment = BTreeMap<String, Vec<i32>>;

impl Assignor {
    /// By the name in the protocol, or by that of Kafka's class.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "range" | "org.apache.kafka.clients.consumer.RangeAssignor" => Some(Self::Range),
            "roundrobin" | "org.apache.kafka.clients.consumer.RoundRobinAssignor" => Some(Self::RoundRobin),
            _ => None,
        }
    }

    /// The name in the protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::RoundRobin => "roundrobin",
        }
    }

    /// Shares out the partitions of each topic that exists. Every member has an entry.
    #[must_use]
    pub fn assign(
        self,
        mut members: Vec<Subscriber>,
        partitions: &BTreeMap<String, i32>,
    ) -> BTreeMap<String, Assignment> {
        // Static members by their instance first, so that a restart with a new member id changes nothing.
        members.sort_by(|a, b| match (&a.instance_id, &b.instance_id) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => a.member_id.cmp(&b.member_id),
        });
        let mut assigned: BTreeMap<String, Assignment> =
            members.iter().map(|member| (member.member_id.clone(), Assignment::new())).collect();
        let mut give = |member: &Subscriber, topic: &str, partition: i32| {
            let of_member = assigned.get_mut(&member.member_id).expect("every member has an entry");
            of_member.entry(topic.to_owned()).or_default().push(partition);
        };
        let wants = |member: &Subscriber, topic: &str| member.topics.iter().any(|wanted| wanted == topic);
        match self {
            Self::Range => {
                for (topic, count) in partitions {
                    let interested: Vec<&Subscriber> = members.iter().filter(|member| wants(member, topic)).collect();
                    let members = interested.len() as i32;
                    let mut next = 0;
                    for (index, member) in interested.into_iter().enumerate() {
                        let share = count / members + i32::from((index as i32) < count % members);
                        (next..next + share).for_each(|partition| give(member, topic, partition));
                        next += share;
                    }
                }
            }
            Self::RoundRobin => {
                let mut turn = 0;
                for (topic, count) in partitions {
                    if !members.iter().any(|member| wants(member, topic)) {
                        continue;
                    }
                    for partition in 0..*count {
                        while !wants(&members[turn % members.len()], topic) {
                            turn += 1;
                        }
                        give(&members[turn % members.len()], topic, partition);
                        turn += 1;
                    }
                }
            }
        }
        assigned
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    /// `members` are `id=topic,topic`, or `id/instance=…`; `topics` are `name:count`.
    fn check(assignor: Assignor, members: &str, topics: &str, expected: &Expect) {
        let members = members.split(' ').map(|member| {
            let (name, wanted) = member.split_once('=').expect("id=topics");
            let (id, instance) = name.split_once('/').map_or((name, None), |(id, instance)| (id, Some(instance)));
            Subscriber {
                member_id: id.to_owned(),
                instance_id: instance.map(str::to_owned),
                topics: wanted.split(',').map(str::to_owned).collect(),
            }
        });
        let topics = topics.split(' ').map(|topic| {
            let (name, count) = topic.split_once(':').expect("name:count");
            (name.to_owned(), count.parse().expect("a number"))
        });
        let mut told = String::new();
        for (member, assignment) in assignor.assign(members.collect(), &topics.collect()) {
            told.push_str(&format!("{member} {assignment:?}\n"));
        }
        expected.assert_eq(&told);
    }

    #[test]
    fn range_gives_runs_and_the_first_members_more() {
        check(
            Assignor::Range,
            "a=t,u b=t,u",
            "t:3 u:3",
            &expect![[r#"
                a {"t": [0, 1], "u": [0, 1]}
                b {"t": [2], "u": [2]}
            "#]],
        );
    }

    #[test]
    fn round_robin_goes_on_from_topic_to_topic() {
        check(
            Assignor::RoundRobin,
            "a=t,u b=t,u",
            "t:3 u:3",
            &expect![[r#"
                a {"t": [0, 2], "u": [1]}
                b {"t": [1], "u": [0, 2]}
            "#]],
        );
    }

    #[test]
    fn round_robin_passes_over_members_that_do_not_want_the_topic() {
        check(
            Assignor::RoundRobin,
            "a=t b=t,u c=t,u,v",
            "t:1 u:2 v:3",
            &expect![[r#"
                a {"t": [0]}
                b {"u": [0]}
                c {"u": [1], "v": [0, 1, 2]}
            "#]],
        );
    }

    #[test]
    fn more_members_than_partitions_leaves_some_idle_and_static_members_come_first() {
        check(
            Assignor::Range,
            "a=t z/1=t b=t",
            "t:2",
            &expect![[r#"
                a {"t": [1]}
                b {}
                z {"t": [0]}
            "#]],
        );
    }
}
