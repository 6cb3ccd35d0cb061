//! Looks into the brokers while they run, and holds what they have against each other: the invariants of the replication
//! protocol, which no client can see.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Weak};
use std::time::Duration;

use vltava_broker::Broker;
use vltava_broker::partition::{Inspection, Partition};
use vltava_metadata::{ClusterImage, PartitionImage};
use vltava_protocol::batch::{batches, records};
use vltava_storage::{ReadLimits, StorageError};
use vltava_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, TopicPartition};

use super::ledger::Violation;
use super::plan::{Plan, TopicKind};
use crate::cluster::Cluster;

/// Images are compared with what another broker had at the same offset, if that was so recently.
const MAX_IMAGES: usize = 400;

/// After so long a leader that the controller reaches has heard of an image; one that is not reached has lost its session
/// before that is over.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

const READ_BYTES: usize = 256 * 1024;

type Found = Vec<(&'static str, String)>;

/// What was seen so far.
#[derive(Default)]
pub struct Inspector {
    /// By metadata offset, as whoever had it first.
    images: BTreeMap<i64, Arc<ClusterImage>>,
    newest: Arc<ClusterImage>,
    /// The metadata offset of each broker's image.
    applied: BTreeMap<i32, i64>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), i32>,
    replicas: BTreeMap<(i32, TopicPartition), Replica>,
    /// The highest high watermark that any replica had.
    committed_to: BTreeMap<TopicPartition, Offset>,
    /// Each current leader's high watermark while too few replicas were in sync to commit, and since which image.
    stalled: BTreeMap<TopicPartition, (PartitionEpoch, Offset)>,
    /// Since when it has been so.
    settled: BTreeMap<TopicPartition, Duration>,
    /// The hash of each committed record.
    committed: BTreeMap<TopicPartition, BTreeMap<i64, u64>>,
}

/// One replica in one life of its broker's process.
struct Replica {
    partition: Weak<Partition>,
    high_watermark: Offset,
    log_start_offset: Offset,
    /// Below it the log was held against the others'.
    compared_to: Offset,
}

impl Inspector {
    /// The newest image that any broker had.
    #[must_use]
    pub fn newest(&self) -> &Arc<ClusterImage> {
        &self.newest
    }

    /// The broker's process has ended: what it knew and did not store is gone.
    pub fn forget(&mut self, broker: i32) {
        self.applied.remove(&broker);
        self.replicas.retain(|(of, _), _| *of != broker);
    }

    /// Everything that does not hold at this moment.
    pub fn check(&mut self, cluster: &Cluster, plan: &Plan, now: Duration) -> Vec<Violation> {
        let mut found = Found::new();
        let running: Vec<(i32, Arc<Broker>)> = (1..=i32::from(plan.brokers))
            .filter_map(|id| {
                let view = cluster.view(id)?;
                self.check_image(id, &view.image(), plan, &mut found);
                Some((id, Arc::clone(view.broker()?)))
            })
            .collect();
        let mut inspected: Vec<(i32, Arc<Partition>, Inspection)> = vec![];
        for (id, broker) in &running {
            for partition in broker.replicas.partitions() {
                let inspection = partition.inspect();
                inspected.push((*id, partition, inspection));
            }
        }
        for (id, partition, inspection) in &inspected {
            self.check_offsets(*id, partition, inspection, &mut found);
        }
        for (id, partition, inspection) in &inspected {
            self.check_role(*id, partition, inspection, plan, now, &mut found);
            self.compare_log(*id, partition, inspection, plan, &mut found);
        }
        found.into_iter().map(|(kind, detail)| Violation { at: now, kind, detail }).collect()
    }

    fn check_image(&mut self, broker: i32, image: &Arc<ClusterImage>, plan: &Plan, found: &mut Found) {
        let offset = image.offset.value();
        let before = self.applied.insert(broker, offset);
        if before.is_some_and(|before| offset < before) {
            found.push(("metadata-went-back", format!("broker {broker} went from {before:?} to {offset}")));
        }
        if before == Some(offset) {
            return;
        }
        match self.images.get(&offset) {
            Some(known) if !Arc::ptr_eq(known, image) && known != image => {
                found.push(("metadata-divergence", format!("broker {broker} has another image of offset {offset}")));
            }
            Some(_) => {}
            None => {
                self.images.insert(offset, Arc::clone(image));
                if self.images.len() > MAX_IMAGES {
                    self.images.pop_first();
                }
            }
        }
        if offset > self.newest.offset.value() {
            let before = std::mem::replace(&mut self.newest, Arc::clone(image));
            for (id, partition) in image.partitions() {
                let earlier = before.partition(id.topic_id, id.partition).map(Arc::as_ref);
                if let Some(wrong) = shape(image, id, partition, earlier, plan) {
                    found.push(("metadata-shape", format!("at {offset}: {wrong}: {partition:?}")));
                }
            }
        }
    }

    fn check_offsets(&mut self, broker: i32, partition: &Arc<Partition>, seen: &Inspection, found: &mut Found) {
        let offsets = seen.offsets;
        let is_sound = offsets.log_start_offset <= offsets.high_watermark
            && offsets.high_watermark <= offsets.log_end_offset
            && offsets.durable_offset <= offsets.log_end_offset;
        let told = || format!("{} on broker {broker}: {offsets:?}", partition.name());
        if !is_sound {
            found.push(("offsets-out-of-order", told()));
        }
        let id = partition.id();
        let fresh = Replica {
            partition: Arc::downgrade(partition),
            high_watermark: offsets.high_watermark,
            log_start_offset: offsets.log_start_offset,
            compared_to: Offset(0),
        };
        let replica = self.replicas.entry((broker, id)).or_insert(fresh);
        if replica.partition.as_ptr() != Arc::as_ptr(partition) {
            replica.partition = Arc::downgrade(partition);
            replica.compared_to = Offset(0);
        } else if offsets.high_watermark < replica.high_watermark {
            found.push(("high-watermark-went-back", format!("{} from {}", told(), replica.high_watermark)));
        } else if offsets.log_start_offset < replica.log_start_offset {
            found.push(("log-start-went-back", format!("{} from {}", told(), replica.log_start_offset)));
        }
        replica.high_watermark = offsets.high_watermark;
        replica.log_start_offset = offsets.log_start_offset;
        let committed_to = self.committed_to.entry(id).or_default();
        *committed_to = (*committed_to).max(offsets.high_watermark);
    }

    /// Leaders and in-sync replicas have everything that was committed, and no two brokers lead in one epoch.
    fn check_role(
        &mut self,
        broker: i32,
        partition: &Arc<Partition>,
        seen: &Inspection,
        plan: &Plan,
        now: Duration,
        found: &mut Found,
    ) {
        let (id, name) = (partition.id(), partition.name());
        if seen.leads.is_some() {
            let leader = *self.leaders.entry((id, seen.leader_epoch)).or_insert(broker);
            if leader != broker {
                let detail = format!("{name} is led by {leader} and {broker} in epoch {}", seen.leader_epoch);
                found.push(("two-leaders", detail));
            }
        }
        let Some(image) = self.newest.partition(id.topic_id, id.partition) else { return };
        let committed_to = self.committed_to.get(&id).copied().unwrap_or_default();
        let is_current_leader = seen.leads.is_some() && image.leader_epoch == seen.leader_epoch;
        if let Some(leads) = seen.leads.as_ref().filter(|_| is_current_leader)
            && let Some(missing) = image.isr.iter().find(|member| !leads.maximal_isr.contains(member))
        {
            let detail = format!("{name}: {missing} is in sync for the controller, not for leader {broker}: {leads:?}");
            found.push(("isr-not-covered", detail));
        }
        if is_current_leader {
            self.check_stall(id, seen, plan, now, found);
        }
        let Some(image) = self.newest.partition(id.topic_id, id.partition) else { return };
        let is_candidate = image.isr.contains(&BrokerId(broker)) || is_current_leader;
        if !is_candidate || seen.log.is_none() {
            return;
        }
        let flushes = plan.topic(&self.newest.topics[&id.topic_id].name).is_none_or(|topic| topic.flushes());
        let (what, has) = match flushes {
            true => ("on disk", seen.offsets.durable_offset),
            false => ("in its log", seen.offsets.log_end_offset),
        };
        if has < committed_to {
            let detail =
                format!("{name}: broker {broker} is in sync and has {has} {what}, {committed_to} is committed");
            found.push(("incomplete-candidate", detail));
        }
    }

    /// With fewer in-sync replicas than `min.insync.replicas` nothing is committed (KIP-966).
    fn check_stall(&mut self, id: TopicPartition, seen: &Inspection, plan: &Plan, at: Duration, found: &mut Found) {
        let Some(image) = self.newest.partition(id.topic_id, id.partition) else { return };
        let Some(topic) = plan.topic(&self.newest.topics[&id.topic_id].name) else { return };
        let required = (topic.min_insync_replicas as usize).min(image.replicas.len());
        if image.isr.len() >= required {
            self.stalled.remove(&id);
            return;
        }
        let now = (image.partition_epoch, seen.offsets.high_watermark);
        // What the leader did before it heard of the image is in the first look; it hears of it within an interval.
        let before = self.stalled.insert(id, now);
        if before.is_none_or(|before| before.0 != now.0) {
            self.settled.insert(id, at);
        }
        let is_settled = self.settled.get(&id).is_some_and(|since| *since + SETTLED_AFTER <= at);
        if is_settled && before.is_some_and(|before| before.1 < now.1) {
            let detail = format!("{}-{} with isr {:?} commits up to {}", topic.name, id.partition, image.isr, now.1);
            found.push(("committed-below-min-isr", detail));
        }
    }

    /// Below the high watermark every replica has the same records.
    fn compare_log(
        &mut self,
        broker: i32,
        partition: &Arc<Partition>,
        seen: &Inspection,
        plan: &Plan,
        found: &mut Found,
    ) {
        let (id, name) = (partition.id(), partition.name());
        let (Some(log), Some(replica)) = (&seen.log, self.replicas.get_mut(&(broker, id))) else { return };
        let end_offset = seen.offsets.high_watermark;
        let mut offset = replica.compared_to.max(log.log_start_offset());
        let has_gaps = match self.newest.topics.get(&id.topic_id) {
            Some(topic) => plan.topic(&topic.name).is_none_or(|topic| topic.kind == TopicKind::Compacted),
            None => return,
        };
        let committed = self.committed.entry(id).or_default();
        while offset < end_offset {
            let limits = ReadLimits { max_bytes: READ_BYTES, end_offset, at_least_one_batch: true };
            let bytes = match log.read(offset, limits) {
                Ok(bytes) => bytes,
                Err(StorageError::Truncated) => break,
                Err(error) => {
                    found.push(("unreadable-log", format!("{name} on broker {broker} at {offset}: {error}")));
                    break;
                }
            };
            if bytes.is_empty() {
                break;
            }
            for view in batches(&bytes) {
                let Ok(view) = view else { break };
                if !has_gaps && view.header.base_offset > offset {
                    let at = view.header.base_offset;
                    found.push(("hole-in-log", format!("{name} on broker {broker} has nothing from {offset} to {at}")));
                }
                offset = offset.max(view.header.next_offset());
                let batch = bytes.slice(view.position..view.position + view.bytes.len());
                let Ok(batch) = records(&batch, READ_BYTES) else { continue };
                for record in batch.flatten() {
                    let mut hasher = DefaultHasher::new();
                    (&record.key, &record.value, record.timestamp).hash(&mut hasher);
                    let hash = hasher.finish();
                    let known = *committed.entry(record.offset.value()).or_insert(hash);
                    if known != hash {
                        let detail = format!("{name} on broker {broker} has another record at {}", record.offset);
                        found.push(("log-mismatch", detail));
                    }
                }
            }
        }
        replica.compared_to = offset;
    }
}

/// What is wrong with a partition's metadata by itself, or after what it was before.
fn shape(
    image: &ClusterImage,
    id: TopicPartition,
    partition: &PartitionImage,
    before: Option<&PartitionImage>,
    plan: &Plan,
) -> Option<String> {
    let PartitionImage { replicas, isr, eligible_leader_replicas: elr, leader, .. } = partition;
    let name = image.topic_name(id.topic_id)?;
    let wrong = |what: &str| Some(format!("{name}-{}: {what}", id.partition));
    if !isr.iter().chain(elr).all(|member| replicas.contains(member)) {
        return wrong("a candidate is no replica");
    }
    if isr.iter().any(|member| elr.contains(member)) {
        return wrong("in sync and not in sync at once");
    }
    if leader.is_some_and(|leader| !isr.contains(&leader)) {
        return wrong("the leader is not in sync");
    }
    if let Some(fenced) = isr.iter().find(|member| !image.is_unfenced(**member)) {
        return wrong(&format!("{fenced} is in sync and fenced"));
    }
    // Of topics that the plan does not name it is not known.
    let required = plan.topic(name).map(|topic| (topic.min_insync_replicas as usize).min(replicas.len()));
    if required.is_some_and(|required| isr.len() >= required) && !elr.is_empty() {
        return wrong("enough in-sync replicas, and eligible ones besides");
    }
    let (leader_epoch, partition_epoch): (LeaderEpoch, PartitionEpoch) = match before {
        Some(before) => (before.leader_epoch, before.partition_epoch),
        None => return None,
    };
    if partition.leader_epoch < leader_epoch || partition.partition_epoch < partition_epoch {
        return wrong("an epoch went back");
    }
    if before.is_some_and(|before| before.leader != *leader) && partition.leader_epoch == leader_epoch {
        return wrong("another leader in the same epoch");
    }
    None
}
