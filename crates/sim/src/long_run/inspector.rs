//! Looks into the brokers while they run, and holds what they have against each other: the invariants of the replication
//! protocol, which no client can see.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Weak};
use std::time::Duration;

use vltava::node::NodeView;
use vltava_broker::Broker;
use vltava_broker::partition::{Glance, Inspection, Leads, Partition};
use vltava_metadata::ClusterImage;
use vltava_protocol::batch::{batches, records};
use vltava_storage::{ReadLimits, StorageError};
use vltava_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, TopicPartition};

use super::ledger::Violation;
use super::plan::{Plan, TopicKind};
use super::shape::shape;
use crate::cluster::Cluster;

/// Images are compared with what another broker had at the same offset, if that was so recently.
const MAX_IMAGES: usize = 400;

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
    /// The newest change of each partition that a leader was told of. The image that has it is not seen yet if the controller
    /// is about to stop, and nobody looks into it any more.
    told_leaders: BTreeMap<TopicPartition, PartitionEpoch>,
    /// Each current leader's high watermark while too few replicas were in sync to commit, and under which change.
    stalled: BTreeMap<TopicPartition, (PartitionEpoch, Offset)>,
    /// Each broker's replicas as they were when they were last looked at, in the order in which the broker lists them.
    glances: BTreeMap<i32, Vec<(TopicPartition, *const Partition, Glance)>>,
    /// The metadata offset at the last look.
    seen_metadata: i64,
    /// A hash of each committed batch by its first offset, or of each record where compaction takes batches apart.
    committed: BTreeMap<TopicPartition, BTreeMap<i64, u64>>,
    /// What a replica had on disk of all that was committed, when its broker's process ended.
    stored: BTreeMap<(i32, TopicPartition), Offset>,
    /// Replicas whose disk was tampered with, and that the controller has not taken out of the ISR yet.
    distrusted: BTreeSet<(i32, TopicPartition)>,
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

    /// The broker's process is about to end: what it knew and did not store will be gone.
    pub fn on_process_ends(&mut self, cluster: &Cluster, broker: i32) {
        let view = cluster.view(broker);
        for partition in view.as_ref().and_then(NodeView::broker).iter().flat_map(|broker| broker.replicas.partitions())
        {
            let id = partition.id();
            let committed_to = self.committed_to.get(&id).copied().unwrap_or_default();
            let is_whole = partition.is_online() && !self.distrusted.contains(&(broker, id));
            if is_whole {
                self.stored.insert((broker, id), partition.inspect().offsets.durable_offset.min(committed_to));
            }
        }
        self.applied.remove(&broker);
        self.replicas.retain(|(of, _), _| *of != broker);
    }

    /// Something was done to the broker's disk that no disk should do.
    pub fn distrust(&mut self, broker: i32) {
        self.stored.retain(|(of, _), _| *of != broker);
        let hosted = self.newest.partitions().filter(|(_, partition)| partition.replicas.contains(&BrokerId(broker)));
        self.distrusted.extend(hosted.map(|(id, _)| (broker, id)));
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
        let inspected = self.inspect(&running);
        for (id, partition, inspection) in &inspected {
            self.check_offsets(*id, partition, inspection, plan, &mut found);
            self.check_stored(*id, partition, inspection, plan, &mut found);
            if let Some(leads) = &inspection.leads {
                let told = self.told_leaders.entry(partition.id()).or_default();
                *told = (*told).max(leads.partition_epoch);
            }
        }
        for (id, partition, inspection) in &inspected {
            self.check_role(*id, partition, inspection, plan, &mut found);
            self.compare_log(*id, partition, inspection, plan, &mut found);
        }
        to_violations(found, now)
    }

    /// All replicas of the partitions of which any replica, or the metadata, has changed since the last look.
    fn inspect(&mut self, running: &[(i32, Arc<Broker>)]) -> Vec<(i32, Arc<Partition>, Inspection)> {
        let metadata = self.newest.offset.value();
        let has_image = std::mem::replace(&mut self.seen_metadata, metadata) != metadata;
        let hosted =
            || running.iter().flat_map(|(id, broker)| broker.replicas.partitions().into_iter().map(|p| (*id, p)));
        let mut changed = BTreeSet::new();
        for (id, broker) in running {
            let known = self.glances.entry(*id).or_default();
            let look = |partition: &Arc<Partition>| (partition.id(), Arc::as_ptr(partition), partition.glance());
            let partitions = broker.replicas.partitions();
            let are_the_same = known.len() == partitions.len()
                && known.iter().zip(&partitions).all(|(known, partition)| known.1 == Arc::as_ptr(partition));
            if !are_the_same {
                // Some have come or gone, which is rare: all are looked into.
                *known = partitions.iter().map(look).collect();
                changed.extend(known.iter().map(|(partition, ..)| *partition));
                continue;
            }
            for (known, partition) in known.iter_mut().zip(&partitions) {
                let now = look(partition);
                if *known != now {
                    changed.insert(now.0);
                    *known = now;
                }
            }
        }
        if changed.is_empty() && !has_image {
            return vec![];
        }
        hosted()
            .filter(|(_, partition)| has_image || changed.contains(&partition.id()))
            .map(|(broker, partition)| {
                let inspection = partition.inspect();
                (broker, partition, inspection)
            })
            .collect()
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
                // A replica that moves away and back begins anew.
                let had = earlier.map_or(&[][..], |earlier| &earlier.replicas);
                for gone in had.iter().filter(|replica| !partition.replicas.contains(replica)) {
                    self.stored.remove(&(gone.value(), id));
                }
                if let Some(wrong) = shape(image, id, partition, earlier, plan) {
                    found.push(("metadata-shape", format!("at {offset}: {wrong}: {partition:?}")));
                }
            }
        }
    }

    fn check_offsets(
        &mut self,
        broker: i32,
        partition: &Arc<Partition>,
        seen: &Inspection,
        plan: &Plan,
        found: &mut Found,
    ) {
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
        } else if plan.bad_disk == Some(broker) {
            // What cannot be read is dropped and fetched anew.
            replica.compared_to = replica.compared_to.min(offsets.high_watermark);
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

    /// What was on a disk and committed when a process ended is there when the next one begins.
    fn check_stored(
        &mut self,
        broker: i32,
        partition: &Arc<Partition>,
        seen: &Inspection,
        plan: &Plan,
        found: &mut Found,
    ) {
        let (id, name) = (partition.id(), partition.name());
        let Some(image) = self.newest.partition(id.topic_id, id.partition) else { return };
        if !image.isr.contains(&BrokerId(broker)) {
            self.distrusted.remove(&(broker, id));
        }
        let Some(stored) = self.stored.remove(&(broker, id)) else { return };
        if plan.bad_disk == Some(broker) || seen.log.is_none() {
            return;
        }
        if seen.offsets.log_end_offset < stored {
            let end = seen.offsets.log_end_offset;
            found.push(("lost-stored", format!("{name}: broker {broker} had {stored} on disk, and has {end}")));
        }
    }

    /// Leaders and in-sync replicas have everything that was committed, and no two brokers lead in one epoch.
    fn check_role(
        &mut self,
        broker: i32,
        partition: &Arc<Partition>,
        seen: &Inspection,
        plan: &Plan,
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
        if self.told_leaders.get(&id).is_some_and(|told| image.partition_epoch < *told) {
            return;
        }
        let committed_to = self.committed_to.get(&id).copied().unwrap_or_default();
        let is_current_leader = seen.leads.is_some() && image.leader_epoch == seen.leader_epoch;
        if let Some(leads) = seen.leads.as_ref().filter(|_| is_current_leader)
            && let Some(missing) = image.isr.iter().find(|member| !leads.maximal_isr.contains(member))
        {
            let detail = format!("{name}: {missing} is in sync for the controller, not for leader {broker}: {leads:?}");
            found.push(("isr-not-covered", detail));
        }
        if let Some(leads) = seen.leads.as_ref().filter(|_| is_current_leader) {
            self.check_stall(id, seen, leads, plan, found);
            if let Some(told) = leads.latest_offset.filter(|told| *told < committed_to) {
                let detail = format!("{name}: leader {broker} tells the end {told}, and {committed_to} was committed");
                found.push(("watermark-went-back", detail));
            }
        }
        let Some(image) = self.newest.partition(id.topic_id, id.partition) else { return };
        let is_trusted = !self.distrusted.contains(&(broker, id));
        let is_candidate = image.isr.contains(&BrokerId(broker)) && is_trusted || is_current_leader;
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
    fn check_stall(&mut self, id: TopicPartition, seen: &Inspection, leads: &Leads, plan: &Plan, found: &mut Found) {
        let Some(image) = self.newest.partition(id.topic_id, id.partition) else { return };
        let Some(topic) = plan.topic(&self.newest.topics[&id.topic_id].name) else { return };
        let required = (topic.min_insync_replicas as usize).min(image.replicas.len());
        if leads.isr.len() >= required {
            self.stalled.remove(&id);
            return;
        }
        let now = (leads.partition_epoch, seen.offsets.high_watermark);
        let before = self.stalled.insert(id, now);
        if before.is_some_and(|before| before.0 == now.0 && before.1 < now.1) {
            let detail = format!("{}-{} with isr {:?} commits up to {}", topic.name, id.partition, leads.isr, now.1);
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
                Err(StorageError::Corrupt { .. }) if plan.bad_disk == Some(broker) => break,
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
                let mut compare = |at: Offset, hash: u64| {
                    if *committed.entry(at.value()).or_insert(hash) != hash {
                        found.push(("log-mismatch", format!("{name} on broker {broker} has something else at {at}")));
                    }
                };
                if !has_gaps {
                    // Replicas hold the same bytes. Reading has held them against the CRC.
                    let length = view.header.next_offset().value() - view.header.base_offset.value();
                    compare(view.header.base_offset, u64::from(view.header.crc) << 32 | length.unsigned_abs());
                    continue;
                }
                let batch = bytes.slice(view.position..view.position + view.bytes.len());
                let Ok(batch) = records(&batch, READ_BYTES) else { continue };
                for record in batch.flatten() {
                    let mut hasher = DefaultHasher::new();
                    (&record.key, &record.value, record.timestamp).hash(&mut hasher);
                    compare(record.offset, hasher.finish());
                }
            }
        }
        replica.compared_to = offset;
    }
}

fn to_violations(found: Found, now: Duration) -> Vec<Violation> {
    found.into_iter().map(|(kind, detail)| Violation { at: now, kind, detail }).collect()
}
