//! What `--describe` prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use vltava_protocol::messages::WireId as _;
use vltava_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use vltava_protocol::messages::describe_topic_partitions_response::{
    DescribeTopicPartitionsResponsePartition as Partition, DescribeTopicPartitionsResponseTopic as Topic,
};
use vltava_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment as Reassignment;
use vltava_types::Uuid;

use crate::kafka::join;
use crate::kafka::options::Options;

/// What is known beside the topics themselves.
pub struct Known {
    pub configs: BTreeMap<String, Configs>,
    pub live_brokers: Vec<i32>,
    pub moves: BTreeMap<(String, i32), Reassignment>,
}

/// The configs of one topic.
#[derive(Default)]
pub struct Configs {
    /// `name=value` of each that is not a default.
    set: Vec<String>,
    min_insync_replicas: usize,
}

/// `ConfigSource.DEFAULT_CONFIG`.
const DEFAULT_SOURCE: i8 = 5;

impl Configs {
    pub fn of(entries: &[DescribeConfigsResourceResult]) -> Self {
        let shown = |value: &Option<_>| value.as_ref().map_or_else(|| "null".to_owned(), ToString::to_string);
        let set = entries.iter().filter(|entry| entry.config_source != DEFAULT_SOURCE);
        let min_isr = entries.iter().find(|entry| entry.name.as_str() == "min.insync.replicas");
        Self {
            set: set.map(|entry| format!("{}={}", entry.name, shown(&entry.value))).collect(),
            min_insync_replicas: min_isr.and_then(|entry| entry.value.as_ref()?.as_str().parse().ok()).unwrap_or(1),
        }
    }
}

/// Which lines are wanted.
#[derive(Default)]
pub struct Report {
    under_replicated: bool,
    unavailable: bool,
    under_min_isr: bool,
    at_min_isr: bool,
    with_overrides: bool,
}

impl Report {
    pub fn of(options: &Options) -> Self {
        Self {
            under_replicated: options.has("under-replicated-partitions"),
            unavailable: options.has("unavailable-partitions"),
            under_min_isr: options.has("under-min-isr-partitions"),
            at_min_isr: options.has("at-min-isr-partitions"),
            with_overrides: options.has("topics-with-overrides"),
        }
    }

    const fn is_of_partitions(&self) -> bool {
        self.under_replicated || self.unavailable || self.under_min_isr || self.at_min_isr
    }
}

pub fn description(topics: &[Topic], known: &Known, report: &Report) -> String {
    let mut text = String::new();
    let no_configs = Configs::default();
    for topic in topics {
        let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let configs = known.configs.get(&name).unwrap_or(&no_configs);
        let moving = |partition: &Partition| known.moves.get(&(name.clone(), partition.partition_index));
        let mut partitions: Vec<&Partition> = topic.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        if !report.is_of_partitions()
            && (!report.with_overrides || !configs.set.is_empty())
            && let Some(first) = partitions.first()
        {
            let _ = write!(text, "Topic: {name}");
            if topic.topic_id != Uuid::ZERO.to_wire() {
                let _ = write!(text, "\tTopicId: {}", Uuid::from_wire(topic.topic_id));
            }
            let _ = writeln!(
                text,
                "\tPartitionCount: {}\tReplicationFactor: {}\tConfigs: {}",
                partitions.len(),
                replication_factor(first, moving(first)),
                configs.set.join(",")
            );
        }
        if report.with_overrides {
            continue;
        }
        for partition in partitions {
            let moving = moving(partition);
            if is_wanted(partition, moving, configs, known, report) {
                describe_partition(&mut text, &name, partition, moving);
            }
        }
    }
    text
}

fn is_wanted(
    partition: &Partition,
    moving: Option<&Reassignment>,
    configs: &Configs,
    known: &Known,
    report: &Report,
) -> bool {
    if !report.is_of_partitions() {
        return true;
    }
    let in_sync = partition.isr_nodes.len();
    let has_leader = partition.leader_id >= 0;
    (report.under_replicated && replication_factor(partition, moving) > in_sync)
        || (report.unavailable && !known.live_brokers.contains(&partition.leader_id))
        || (report.under_min_isr && (!has_leader || in_sync < configs.min_insync_replicas))
        || (report.at_min_isr && in_sync == configs.min_insync_replicas)
}

/// Replicas that are only being added do not count.
fn replication_factor(partition: &Partition, moving: Option<&Reassignment>) -> usize {
    match moving {
        Some(moving) => moving.replicas.len() - moving.adding_replicas.len().min(moving.replicas.len()),
        None => partition.replica_nodes.len(),
    }
}

fn describe_partition(text: &mut String, topic: &str, partition: &Partition, moving: Option<&Reassignment>) {
    let leader = if partition.leader_id >= 0 { partition.leader_id.to_string() } else { "none".to_owned() };
    let _ = write!(
        text,
        "\tTopic: {topic}\tPartition: {}\tLeader: {leader}\tReplicas: {}\tIsr: {}",
        partition.partition_index,
        join(&partition.replica_nodes),
        join(&partition.isr_nodes)
    );
    if let Some(moving) = moving {
        let (adding, removing) = (join(&moving.adding_replicas), join(&moving.removing_replicas));
        let _ = write!(text, "\tAdding Replicas: {adding}\tRemoving Replicas: {removing}");
    }
    let eligible = |brokers: &Option<Vec<i32>>| brokers.as_ref().map_or_else(|| "N/A".to_owned(), |ids| join(ids));
    let elr = eligible(&partition.eligible_leader_replicas);
    let _ = writeln!(text, "\tElr: {elr}\tLastKnownElr: {}", eligible(&partition.last_known_elr));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};
    use vltava_protocol::make;
    use vltava_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;

    use super::{Configs, Known, Partition, Report, Topic, description};

    /// `leader replicas isr`.
    fn partition(index: i32, leader: i32, replicas: &[i32], isr: &[i32]) -> Partition {
        make!(Partition {
            partition_index: index,
            leader_id: leader,
            replica_nodes: replicas.to_vec(),
            isr_nodes: isr.to_vec(),
            eligible_leader_replicas: Some(vec![]),
            last_known_elr: Some(vec![]),
        })
    }

    fn check(report: &Report, expected: Expect) {
        let partitions =
            vec![partition(1, -1, &[2, 3], &[]), partition(0, 1, &[1, 2, 3], &[1, 2]), partition(2, 2, &[1, 2], &[2])];
        let topics = [
            make!(Topic { name: Some("t".into()), partitions }),
            make!(Topic { name: Some("u".into()), partitions: vec![partition(0, 3, &[3], &[3])] }),
        ];
        let moving = make!(OngoingPartitionReassignment {
            partition_index: 0,
            replicas: vec![1, 2, 3],
            adding_replicas: vec![3],
            removing_replicas: vec![1],
        });
        let set = vec!["min.insync.replicas=2".to_owned(), "retention.ms=1".to_owned()];
        let known = Known {
            configs: BTreeMap::from([
                ("t".to_owned(), Configs { set, min_insync_replicas: 2 }),
                ("u".to_owned(), Configs { set: vec![], min_insync_replicas: 1 }),
            ]),
            live_brokers: vec![1, 2],
            moves: BTreeMap::from([(("t".to_owned(), 0), moving)]),
        };
        expected.assert_eq(&description(&topics, &known, report).replace('\t', "|"));
    }

    #[test]
    fn topics_are_described_as_kafka_does() {
        check(
            &Report::default(),
            expect![[r#"
                Topic: t|PartitionCount: 3|ReplicationFactor: 2|Configs: min.insync.replicas=2,retention.ms=1
                |Topic: t|Partition: 0|Leader: 1|Replicas: 1,2,3|Isr: 1,2|Adding Replicas: 3|Removing Replicas: 1|Elr: |LastKnownElr: 
                |Topic: t|Partition: 1|Leader: none|Replicas: 2,3|Isr: |Elr: |LastKnownElr: 
                |Topic: t|Partition: 2|Leader: 2|Replicas: 1,2|Isr: 2|Elr: |LastKnownElr: 
                Topic: u|PartitionCount: 1|ReplicationFactor: 1|Configs: 
                |Topic: u|Partition: 0|Leader: 3|Replicas: 3|Isr: 3|Elr: |LastKnownElr: 
            "#]],
        );
    }

    #[test]
    fn reports_show_only_what_is_wrong() {
        // A replica that is only being added is not missed.
        check(
            &Report { under_replicated: true, ..Report::default() },
            expect![[r#"
                |Topic: t|Partition: 1|Leader: none|Replicas: 2,3|Isr: |Elr: |LastKnownElr: 
                |Topic: t|Partition: 2|Leader: 2|Replicas: 1,2|Isr: 2|Elr: |LastKnownElr: 
            "#]],
        );
        check(
            &Report { unavailable: true, ..Report::default() },
            expect![[r#"
                |Topic: t|Partition: 1|Leader: none|Replicas: 2,3|Isr: |Elr: |LastKnownElr: 
                |Topic: u|Partition: 0|Leader: 3|Replicas: 3|Isr: 3|Elr: |LastKnownElr: 
            "#]],
        );
        check(
            &Report { at_min_isr: true, ..Report::default() },
            expect![[r#"
                |Topic: t|Partition: 0|Leader: 1|Replicas: 1,2,3|Isr: 1,2|Adding Replicas: 3|Removing Replicas: 1|Elr: |LastKnownElr: 
                |Topic: u|Partition: 0|Leader: 3|Replicas: 3|Isr: 3|Elr: |LastKnownElr: 
            "#]],
        );
        check(
            &Report { with_overrides: true, ..Report::default() },
            expect![[r#"
                Topic: t|PartitionCount: 3|ReplicationFactor: 2|Configs: min.insync.replicas=2,retention.ms=1
            "#]],
        );
    }
}
