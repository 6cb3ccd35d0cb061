//! Where `--generate` proposes to put partitions.

use std::collections::BTreeMap;

use vltava_client::admin::Partition;

/// Spreads the partitions of each topic evenly over the brokers, and the replicas of each partition over the racks.
///
/// Brokers stand in a circle in which neighbours are in different racks as far as possible; the replicas of a partition
/// are neighbours, and its leader is the one after the leader of the partition before. `seed` says where to begin.
pub fn propose(
    current: &BTreeMap<Partition, Vec<i32>>,
    brokers: &[(i32, Option<String>)],
    seed: u64,
) -> Result<BTreeMap<Partition, Vec<i32>>, String> {
    let without_rack = brokers.iter().filter(|(_, rack)| rack.is_none()).count();
    if without_rack != 0 && without_rack != brokers.len() {
        return Err("Not all brokers have rack information. Add --disable-rack-aware in command line to make replica \
                    assignment without rack information."
            .to_owned());
    }
    let circle = circle(brokers);
    // Each topic begins elsewhere, so that topics of one partition do not all go to the same broker.
    let mut first = 0;
    let mut topic_before = None;
    let mut proposed = BTreeMap::new();
    for (place, ((topic, index), replicas)) in current.iter().enumerate() {
        if replicas.len() > circle.len() {
            return Err(format!(
                "The target replication factor of {} cannot be reached because only {} broker(s) are registered or some \
                 brokers have all their log directories cordoned.",
                replicas.len(),
                circle.len()
            ));
        }
        if topic_before != Some(topic) {
            topic_before = Some(topic);
            let length = u64::try_from(circle.len()).expect("a length fits");
            let begin = (seed % length).wrapping_add(u64::try_from(place).expect("a count fits")) % length;
            first = usize::try_from(begin).expect("less than a length");
        }
        let wanted = (0..replicas.len()).map(|replica| circle[(first + replica) % circle.len()]);
        proposed.insert((topic.clone(), *index), wanted.collect());
        first = (first + 1) % circle.len();
    }
    Ok(proposed)
}

/// One broker of each rack in turn.
fn circle(brokers: &[(i32, Option<String>)]) -> Vec<i32> {
    let mut racks: BTreeMap<&Option<String>, Vec<i32>> = BTreeMap::new();
    for (id, rack) in brokers {
        racks.entry(rack).or_default().push(*id);
    }
    let longest = racks.values().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|turn| racks.values().filter_map(move |ids| ids.get(turn).copied())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::propose;

    fn current(partitions: i32, replicas: usize) -> BTreeMap<(String, i32), Vec<i32>> {
        (0..partitions).map(|index| (("t".to_owned(), index), vec![1; replicas])).collect()
    }

    fn brokers(racks: &[&str]) -> Vec<(i32, Option<String>)> {
        (1..).zip(racks).map(|(id, rack)| (id, (!rack.is_empty()).then(|| (*rack).to_owned()))).collect()
    }

    #[test]
    fn leaders_and_replicas_are_spread_evenly() {
        for seed in 0..10 {
            let proposed = propose(&current(6, 2), &brokers(&["", "", ""]), seed).expect("enough brokers");
            for broker in 1..=3 {
                assert_eq!(proposed.values().filter(|replicas| replicas[0] == broker).count(), 2);
                assert_eq!(proposed.values().filter(|replicas| replicas.contains(&broker)).count(), 4);
            }
        }
    }

    #[test]
    fn replicas_of_a_partition_are_in_different_racks() {
        let racks = ["a", "a", "b", "b", "c", "c"];
        for seed in 0..10 {
            for replicas in propose(&current(12, 3), &brokers(&racks), seed).expect("enough brokers").values() {
                let used: BTreeSet<_> =
                    replicas.iter().map(|id| racks[usize::try_from(*id - 1).expect("an index")]).collect();
                assert_eq!(used.len(), 3, "{replicas:?}");
            }
        }
    }

    #[test]
    fn impossible_wishes_are_refused() {
        assert!(propose(&current(1, 3), &brokers(&["", ""]), 0).is_err());
        assert!(propose(&current(1, 1), &brokers(&["a", ""]), 0).is_err());
        assert!(propose(&current(1, 1), &[], 0).is_err());
    }
}
