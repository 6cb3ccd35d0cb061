//! Which brokers get a partition.
//!
//! Leaders are spread evenly over the brokers, replicas of a partition over the racks, and replicas in all evenly
//! within these bounds. Brokers that are fenced or stopping are taken only when there are no others. Where several
//! brokers would do, the order of a shuffle decides, so that topics do not all start at the same broker; the shuffle is
//! drawn from a seed that comes with the request, which makes placement a function of its input.

use std::collections::BTreeMap;

use vltava_types::{BrokerId, ErrorCode, TopicId};

use super::ControllerError;
use super::draft::error;
use crate::image::ClusterImage;

/// Chooses replicas for `count` partitions, in order of preference.
pub(super) fn place(
    image: &ClusterImage,
    seed: TopicId,
    count: usize,
    replication_factor: i16,
) -> Result<Vec<Vec<BrokerId>>, ControllerError> {
    let mut brokers = candidates(image);
    let refuse = |reason: String| {
        let message = format!("Unable to replicate the partition {replication_factor} time(s): {reason}");
        Err(error(ErrorCode::InvalidReplicationFactor, message))
    };
    let replicas = usize::try_from(replication_factor).unwrap_or(0);
    if replicas > brokers.len() {
        let registered = brokers.len();
        return refuse(format!(
            "The target replication factor of {replication_factor} cannot be reached because only {registered} \
             broker(s) are registered."
        ));
    }
    if !brokers.iter().any(|broker| broker.is_active) {
        return refuse("All brokers are currently fenced.".to_owned());
    }
    let mut random = Random::new(seed);
    let mut placed = vec![];
    for partition in 0..count {
        let round = brokers.len();
        if partition % round == 0 {
            // Each round another order, so that the brokers' second replicas, which lead after a failure, spread too.
            random.shuffle(&mut brokers);
        }
        placed.push(place_one(&mut brokers, partition % round, replicas));
    }
    Ok(placed)
}

/// Chooses active brokers to join `current` until there are `count` replicas: first in racks that have none, then those
/// with the smallest load. Fewer if there are no more.
pub(super) fn place_more(
    image: &ClusterImage,
    current: &[BrokerId],
    count: usize,
    load: &BTreeMap<BrokerId, usize>,
) -> Vec<BrokerId> {
    let rack = |broker_id: BrokerId| image.broker(broker_id).and_then(|broker| broker.rack.as_deref());
    let mut replicas = current.to_vec();
    while replicas.len() < count {
        let candidates = image.live_brokers().map(|broker| broker.broker_id);
        let best = candidates.filter(|id| image.is_active(*id) && !replicas.contains(id)).min_by_key(|&id| {
            let rack_use = replicas.iter().filter(|replica| rack(**replica) == rack(id)).count();
            (rack_use, load.get(&id).copied().unwrap_or(0), id)
        });
        let Some(best) = best else { break };
        replicas.push(best);
    }
    replicas.split_off(current.len())
}

/// Checks replicas that a client has chosen.
pub(super) fn check_manual_assignment(
    image: &ClusterImage,
    replicas: &[BrokerId],
    expected_count: Option<usize>,
) -> Result<(), ControllerError> {
    let refuse = |message: String| Err(error(ErrorCode::InvalidReplicaAssignment, message));
    if replicas.is_empty() {
        return refuse("The manual partition assignment includes an empty replica list.".to_owned());
    }
    for (index, replica) in replicas.iter().enumerate() {
        if replicas[..index].contains(replica) {
            return refuse(format!("The manual partition assignment includes the broker {replica} more than once."));
        }
        if image.broker(*replica).is_none_or(|broker| !broker.is_broker) {
            return refuse(format!(
                "The manual partition assignment includes broker {replica}, but no such broker is registered."
            ));
        }
    }
    match expected_count {
        Some(expected) if expected != replicas.len() => refuse(format!(
            "The manual partition assignment includes a partition with {} replica(s), but this is not consistent with \
             previous partitions, which have {expected} replica(s).",
            replicas.len()
        )),
        _ => Ok(()),
    }
}

struct Candidate {
    broker_id: BrokerId,
    rack: Option<String>,
    is_active: bool,
    leaders: usize,
    replicas: usize,
}

fn candidates(image: &ClusterImage) -> Vec<Candidate> {
    let brokers = image.brokers.values().filter(|broker| broker.is_broker);
    brokers
        .map(|broker| Candidate {
            broker_id: broker.broker_id,
            rack: broker.rack.clone(),
            is_active: image.is_active(broker.broker_id),
            leaders: 0,
            replicas: 0,
        })
        .collect()
}

/// Chooses the replicas of one partition one after another, the leader first. Ties go by position from `start` on.
fn place_one(brokers: &mut [Candidate], start: usize, count: usize) -> Vec<BrokerId> {
    let round = brokers.len();
    let mut chosen: Vec<usize> = vec![];
    let mut rack_use: BTreeMap<Option<String>, usize> = BTreeMap::new();
    while chosen.len() < count {
        let is_leader = chosen.is_empty();
        let best = (0..round)
            .map(|step| (start + step) % round)
            .filter(|index| !chosen.contains(index))
            .min_by_key(|&index| {
                let broker = &brokers[index];
                let rack_use = rack_use.get(&broker.rack).copied().unwrap_or(0);
                let leaders = if is_leader { broker.leaders } else { 0 };
                (!broker.is_active, rack_use, leaders, broker.replicas)
            })
            .expect("there are at least as many brokers as replicas");
        *rack_use.entry(brokers[best].rack.clone()).or_default() += 1;
        brokers[best].leaders += usize::from(is_leader);
        brokers[best].replicas += 1;
        chosen.push(best);
    }
    chosen.into_iter().map(|index| brokers[index].broker_id).collect()
}

/// SplitMix64: small, and good enough to break ties with.
struct Random {
    state: u64,
}

impl Random {
    fn new(seed: TopicId) -> Self {
        let bits = u128::from_be_bytes(seed.0.0);
        Self { state: (bits >> 64) as u64 ^ bits as u64 }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn shuffle<T>(&mut self, values: &mut [T]) {
        for end in (2..=values.len()).rev() {
            let chosen = usize::try_from(self.next() % end as u64).expect("smaller than a usize");
            values.swap(chosen, end - 1);
        }
    }
}
