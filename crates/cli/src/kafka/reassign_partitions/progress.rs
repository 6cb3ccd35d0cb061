//! What is said about moves under way and moves that are done.

use std::collections::BTreeMap;

use vltava_client::admin::Partition;

use super::current::{Moves, Placement};
use super::document::{Replica, Target};
use crate::kafka::join;

pub fn listed(moves: &Moves) -> String {
    if moves.is_empty() {
        return "No partition reassignments found.".to_owned();
    }
    let mut lines = vec!["Current partition reassignments:".to_owned()];
    for ((topic, index), moving) in moves {
        let mut line = format!("{topic}-{index}: replicas: {}.", join(&moving.replicas));
        for (what, brokers) in [("adding", &moving.adding_replicas), ("removing", &moving.removing_replicas)] {
            if !brokers.is_empty() {
                line.push_str(&format!(" {what}: {}.", join(brokers)));
            }
        }
        lines.push(line);
    }
    lines.join("\n")
}

pub fn states(targets: &[Target], under_way: &Moves, current: &BTreeMap<Partition, Vec<i32>>) -> String {
    let mut lines = vec!["Status of partition reassignment:".to_owned()];
    let mut targets: Vec<&Target> = targets.iter().collect();
    targets.sort_by(|one, other| one.partition.cmp(&other.partition));
    for target in targets {
        let name = target.name();
        let replicas = current.get(&target.partition).cloned().unwrap_or_default();
        lines.push(if under_way.contains_key(&target.partition) {
            format!("Reassignment of partition {name} is still in progress.")
        } else if replicas == target.replicas {
            format!("Reassignment of partition {name} is completed.")
        } else {
            format!(
                "There is no active reassignment of partition {name}, but replica set is {} rather than {}.",
                join(&replicas),
                join(&target.replicas)
            )
        });
    }
    lines.join("\n")
}

pub fn directory_states(placed: &BTreeMap<Replica, String>, found: &BTreeMap<Replica, Placement>) -> String {
    let lines = placed.iter().map(|(replica, directory)| {
        let Replica { broker, topic, partition } = replica;
        let Placement { current, future } = found.get(replica).cloned().unwrap_or_default();
        match (current, future) {
            (None, _) => format!(
                "Partition {topic}-{partition} is not found in any live log dir on broker {broker}. There is likely an \
                 offline log directory on the broker."
            ),
            (Some(_), Some(future)) if future == *directory => {
                format!("Reassignment of replica {replica} is still in progress.")
            }
            (Some(_), Some(future)) => format!(
                "Partition {topic}-{partition} on broker {broker} is being moved to log dir {future} instead of \
                 {directory}."
            ),
            (Some(current), None) if current == *directory => {
                format!("Reassignment of replica {replica} completed successfully.")
            }
            (Some(current), None) => format!(
                "Partition {topic}-{partition} on broker {broker} is not being moved from log dir {current} to \
                 {directory}."
            ),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::expect;
    use vltava_protocol::make;
    use vltava_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;

    use super::{Moves, Placement, Replica, Target, directory_states, listed, states};

    fn moving() -> Moves {
        let moving = make!(OngoingPartitionReassignment {
            partition_index: 1,
            replicas: vec![1, 2, 3],
            adding_replicas: vec![3],
            removing_replicas: vec![1],
        });
        BTreeMap::from([(("t".to_owned(), 1), moving)])
    }

    #[test]
    fn moves_are_listed() {
        assert_eq!(listed(&BTreeMap::new()), "No partition reassignments found.");
        expect![[r#"
            Current partition reassignments:
            t-1: replicas: 1,2,3. adding: 3. removing: 1."#]]
        .assert_eq(&listed(&moving()));
    }

    #[test]
    fn a_move_is_done_when_replicas_are_as_wanted() {
        let target = |index, replicas: &[i32]| Target {
            partition: ("t".to_owned(), index),
            replicas: replicas.to_vec(),
            directories: vec![],
        };
        let targets = [target(2, &[1]), target(1, &[2, 3]), target(0, &[1, 2])];
        let current = BTreeMap::from([(("t".to_owned(), 0), vec![1, 2]), (("t".to_owned(), 2), vec![3, 2])]);
        expect![[r#"
            Status of partition reassignment:
            Reassignment of partition t-0 is completed.
            Reassignment of partition t-1 is still in progress.
            There is no active reassignment of partition t-2, but replica set is 3,2 rather than 1."#]]
        .assert_eq(&states(&targets, &moving(), &current));
    }

    #[test]
    fn a_replica_is_where_it_should_be_or_not() {
        let replica = |broker| Replica { broker, topic: "t".to_owned(), partition: 0 };
        let placed: BTreeMap<_, _> = (1..=5).map(|broker| (replica(broker), "/d".to_owned())).collect();
        let at = |current: &str, future: Option<&str>| Placement {
            current: Some(current.to_owned()),
            future: future.map(str::to_owned),
        };
        let found = BTreeMap::from([
            (replica(1), at("/d", None)),
            (replica(2), at("/e", None)),
            (replica(4), at("/e", Some("/d"))),
            (replica(5), at("/e", Some("/f"))),
        ]);
        expect![[r#"
            Reassignment of replica t-0-1 completed successfully.
            Partition t-0 on broker 2 is not being moved from log dir /e to /d.
            Partition t-0 is not found in any live log dir on broker 3. There is likely an offline log directory on the broker.
            Reassignment of replica t-0-4 is still in progress.
            Partition t-0 on broker 5 is being moved to log dir /f instead of /d."#]]
        .assert_eq(&directory_states(&placed, &found));
    }
}
