//! Limits on what moves may take, which are configs of topics and brokers.

use std::collections::{BTreeMap, BTreeSet};

use vltava_client::admin::{ConfigChange, ConfigResourceType, Partition};
use vltava_client::{Admin, AdminError};

use super::Moves;
use super::document::Target;

const LEADER_RATE: &str = "leader.replication.throttled.rate";
const FOLLOWER_RATE: &str = "follower.replication.throttled.rate";
const DIRECTORY_RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";
const LEADER_REPLICAS: &str = "leader.replication.throttled.replicas";
const FOLLOWER_REPLICAS: &str = "follower.replication.throttled.replicas";

/// Limits the brokers and partitions that take part in moves, those under way and those to come.
pub async fn set(
    rate: i64,
    under_way: &Moves,
    targets: &[Target],
    current: &BTreeMap<Partition, Vec<i32>>,
    admin: &mut Admin,
) -> Result<(), AdminError> {
    let ends = ends(under_way, targets, current);
    for (topic, (leaders, followers)) in throttled(&ends) {
        let changes = [set_to(LEADER_REPLICAS, &leaders), set_to(FOLLOWER_REPLICAS, &followers)];
        admin.alter_configs(None, ConfigResourceType::Topic, topic, &changes).await?;
    }
    let brokers: BTreeSet<i32> =
        ends.values().flat_map(|(sources, destinations)| sources.union(destinations).copied()).collect();
    let rate = rate.to_string();
    alter_brokers(brokers, &[set_to(LEADER_RATE, &rate), set_to(FOLLOWER_RATE, &rate)], admin).await
}

pub async fn set_for_directories(rate: i64, brokers: BTreeSet<i32>, admin: &mut Admin) -> Result<(), AdminError> {
    alter_brokers(brokers, &[set_to(DIRECTORY_RATE, &rate.to_string())], admin).await
}

pub async fn clear_brokers(brokers: BTreeSet<i32>, admin: &mut Admin) -> Result<(), AdminError> {
    alter_brokers(brokers, &[unset(LEADER_RATE), unset(FOLLOWER_RATE), unset(DIRECTORY_RATE)], admin).await
}

pub async fn clear_topics(topics: BTreeSet<String>, admin: &mut Admin) -> Result<(), AdminError> {
    for topic in topics {
        let changes = [unset(LEADER_REPLICAS), unset(FOLLOWER_REPLICAS)];
        admin.alter_configs(None, ConfigResourceType::Topic, &topic, &changes).await?;
    }
    Ok(())
}

async fn alter_brokers(brokers: BTreeSet<i32>, changes: &[ConfigChange], admin: &mut Admin) -> Result<(), AdminError> {
    for broker in brokers {
        // Any broker may be asked: dynamic configs are the controller's.
        admin.alter_configs(None, ConfigResourceType::Broker, &broker.to_string(), changes).await?;
    }
    Ok(())
}

fn set_to(name: &str, value: &str) -> ConfigChange {
    ConfigChange { name: name.to_owned(), value: Some(value.to_owned()) }
}

fn unset(name: &str) -> ConfigChange {
    ConfigChange { name: name.to_owned(), value: None }
}

/// The brokers that a partition's records come from, and those that they go to.
type Ends = BTreeMap<Partition, (BTreeSet<i32>, BTreeSet<i32>)>;

fn ends(under_way: &Moves, targets: &[Target], current: &BTreeMap<Partition, Vec<i32>>) -> Ends {
    let mut ends = Ends::new();
    for (partition, moving) in under_way {
        let destinations: BTreeSet<i32> = moving.adding_replicas.iter().copied().collect();
        let sources = moving.replicas.iter().copied().filter(|broker| !destinations.contains(broker)).collect();
        ends.insert(partition.clone(), (sources, destinations));
    }
    for target in targets {
        let sources = match (ends.get(&target.partition), current.get(&target.partition)) {
            (Some((sources, _)), _) => sources.clone(),
            (None, current) => current.into_iter().flatten().copied().collect(),
        };
        let destinations = target.replicas.iter().copied().filter(|broker| !sources.contains(broker)).collect();
        ends.insert(target.partition.clone(), (sources, destinations));
    }
    ends
}

/// By topic, `partition:broker` of the sources and of the destinations.
fn throttled(ends: &Ends) -> BTreeMap<&str, (String, String)> {
    let mut topics: BTreeMap<&str, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for ((topic, index), (sources, destinations)) in ends {
        let (leaders, followers) = topics.entry(topic).or_default();
        leaders.extend(sources.iter().map(|broker| format!("{index}:{broker}")));
        followers.extend(destinations.iter().map(|broker| format!("{index}:{broker}")));
    }
    let joined = |replicas: BTreeSet<String>| replicas.into_iter().collect::<Vec<_>>().join(",");
    topics.into_iter().map(|(topic, (leaders, followers))| (topic, (joined(leaders), joined(followers)))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vltava_protocol::make;
    use vltava_protocol::messages::list_partition_reassignments_response::OngoingPartitionReassignment;

    use super::{Target, ends, throttled};

    #[test]
    fn sources_are_limited_as_leaders_and_destinations_as_followers() {
        let partition = |index| ("t".to_owned(), index);
        let target = |index, replicas: &[i32]| Target {
            partition: partition(index),
            replicas: replicas.to_vec(),
            directories: vec![],
        };
        let moving = make!(OngoingPartitionReassignment {
            partition_index: 1,
            replicas: vec![1, 2, 3],
            adding_replicas: vec![3],
            removing_replicas: vec![1],
        });
        let under_way = BTreeMap::from([(partition(1), moving)]);
        let current = BTreeMap::from([(partition(0), vec![1, 2]), (partition(1), vec![1, 2, 3])]);
        let ends = ends(&under_way, &[target(0, &[2, 3]), target(1, &[2, 4])], &current);
        let expected = ("0:1,0:2,1:1,1:2".to_owned(), "0:3,1:4".to_owned());
        assert_eq!(throttled(&ends), BTreeMap::from([("t", expected)]));
    }
}
