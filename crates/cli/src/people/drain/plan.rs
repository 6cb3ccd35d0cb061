//! Where the replicas of brokers that are to go should be.

use std::collections::{BTreeMap, BTreeSet};

use vltava_client::admin::Partition;

/// Where a partition is, its move under way included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosted {
    pub replicas: Vec<i32>,
    /// Those of them that go when its move is done.
    pub removing: Vec<i32>,
}

/// A broker that may take replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub id: i32,
    pub rack: Option<String>,
}

/// A partition's new place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub partition: Partition,
    pub from: Vec<i32>,
    pub to: Vec<i32>,
}

/// There is nowhere to go for some partitions. Nothing should be moved then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{topic}-{index} has {replicas} replicas, and there are only {targets} other live brokers to put them on ({more} \
     more partitions like it): add a broker, or lower the replication factor"
)]
pub struct NoPlace {
    topic: String,
    index: i32,
    replicas: usize,
    targets: usize,
    more: usize,
}

impl Hosted {
    /// Where it will be.
    fn destination(&self) -> Vec<i32> {
        self.replicas.iter().copied().filter(|id| !self.removing.contains(id)).collect()
    }

    /// Whether it is still on one of these brokers, and on its way from there.
    pub fn is_leaving(&self, brokers: &BTreeSet<i32>) -> bool {
        self.replicas.iter().any(|id| brokers.contains(id)) && !self.destination().iter().any(|id| brokers.contains(id))
    }
}

/// The moves after which none of `leaving` hosts anything. A replica that goes is replaced in its place, so that other
/// partitions' preferred leaders stay, by a broker in a rack that the partition is not in, if there is one, and of these by
/// the one with the fewest replicas.
pub fn plan(
    hosted: &BTreeMap<Partition, Hosted>,
    leaving: &BTreeSet<i32>,
    targets: &[Target],
) -> Result<Vec<Move>, NoPlace> {
    let mut load: BTreeMap<i32, usize> = targets.iter().map(|target| (target.id, 0)).collect();
    for id in hosted.values().flat_map(Hosted::destination) {
        if let Some(count) = load.get_mut(&id) {
            *count += 1;
        }
    }
    let rack_of = |id: i32| targets.iter().find(|target| target.id == id).and_then(|target| target.rack.as_deref());
    let mut moves = vec![];
    let mut refused: Option<NoPlace> = None;
    for (partition, hosted) in hosted {
        let from = hosted.destination();
        let mut to = from.clone();
        for place in 0..to.len() {
            if !leaving.contains(&to[place]) {
                continue;
            }
            let racks: BTreeSet<&str> = to.iter().filter_map(|id| rack_of(*id)).collect();
            let free = targets.iter().filter(|target| !to.contains(&target.id));
            let best = free.min_by_key(|target| {
                let shares_a_rack = target.rack.as_deref().is_some_and(|rack| racks.contains(rack));
                (shares_a_rack, load[&target.id], target.id)
            });
            let Some(best) = best else {
                match &mut refused {
                    Some(first) => first.more += 1,
                    None => {
                        refused = Some(NoPlace {
                            topic: partition.0.clone(),
                            index: partition.1,
                            replicas: from.len(),
                            targets: targets.len(),
                            more: 0,
                        });
                    }
                }
                break;
            };
            *load.get_mut(&best.id).expect("every target is counted") += 1;
            to[place] = best.id;
        }
        if to != from {
            moves.push(Move { partition: partition.clone(), from, to });
        }
    }
    refused.map_or(Ok(moves), Err)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use expect_test::{Expect, expect};

    use super::{Hosted, Target, plan};

    /// Partitions as `1,2,3` or, on the move, `1,2,3,4-3`; brokers as `1 2@rack`. Prints the moves.
    fn check(partitions: &[&str], leaving: &[i32], targets: &str, expected: Expect) {
        let ids = |text: &str| text.split(',').filter_map(|id| id.parse().ok()).collect::<Vec<i32>>();
        let hosted: BTreeMap<_, _> = (0..)
            .zip(partitions)
            .map(|(index, text)| {
                let (replicas, removing) = text.split_once('-').unwrap_or((text, ""));
                (("t".to_owned(), index), Hosted { replicas: ids(replicas), removing: ids(removing) })
            })
            .collect();
        let targets: Vec<Target> = targets
            .split_whitespace()
            .map(|text| {
                let (id, rack) = text.split_once('@').map_or((text, None), |(id, rack)| (id, Some(rack.to_owned())));
                Target { id: id.parse().expect("a broker"), rack }
            })
            .collect();
        let leaving: BTreeSet<i32> = leaving.iter().copied().collect();
        let told = match plan(&hosted, &leaving, &targets) {
            Ok(moves) => moves.iter().map(|m| format!("{}: {:?} -> {:?}\n", m.partition.1, m.from, m.to)).collect(),
            Err(error) => format!("{error}\n"),
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn replicas_go_to_the_brokers_that_have_the_fewest() {
        check(
            &["4,1", "1,4", "2,4", "4,1", "1,2"],
            &[4],
            "1 2 3",
            expect![[r#"
                0: [4, 1] -> [3, 1]
                1: [1, 4] -> [1, 3]
                2: [2, 4] -> [2, 3]
                3: [4, 1] -> [2, 1]
            "#]],
        );
    }

    #[test]
    fn several_brokers_go_at_once() {
        check(
            &["4,5,1", "5,4,3"],
            &[4, 5],
            "1 2 3",
            expect![[r#"
                0: [4, 5, 1] -> [2, 3, 1]
                1: [5, 4, 3] -> [1, 2, 3]
            "#]],
        );
    }

    #[test]
    fn another_rack_is_preferred_to_a_smaller_load() {
        check(
            &["1,4", "3,2", "3,2"],
            &[4],
            "1@a 2@a 3@b",
            expect![[r#"
                0: [1, 4] -> [1, 3]
            "#]],
        );
    }

    #[test]
    fn what_is_on_its_way_is_left_alone() {
        check(&["1,4,2-4", "1,2"], &[4], "1 2 3", expect![""]);
        // It was on its way to the broker that is to go.
        check(
            &["1,4,2-2"],
            &[4],
            "1 2 3",
            expect![[r#"
                0: [1, 4] -> [1, 2]
            "#]],
        );
        let moving = Hosted { replicas: vec![1, 4, 2], removing: vec![4] };
        assert!(moving.is_leaving(&BTreeSet::from([4])));
        assert!(!moving.is_leaving(&BTreeSet::from([1])));
    }

    #[test]
    fn a_replication_factor_is_never_broken() {
        check(
            &["1,2", "1,2,3", "2,3,1"],
            &[3],
            "1 2",
            expect![[r#"
                t-1 has 3 replicas, and there are only 2 other live brokers to put them on (1 more partitions like it): add a broker, or lower the replication factor
            "#]],
        );
    }
}
