//! Applying images: which replicas are hosted here, and who leads them.
//!
//! The work is in proportion to what changed. Images share what they have in common, so that comparing addresses
//! finds the differences.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use vltava_host::{clock, task};
use vltava_metadata::{ClusterImage, ConfigResource, PartitionImage, TopicImage};
use vltava_replication::{BrokerStatus, PartitionAssignment};
use vltava_storage::{LogDir, PartitionName, StorageError};
use vltava_types::{BrokerId, DirectoryId, Offset, PartitionIndex, TopicId, TopicPartition, mutation};

use super::absent::{Absence, Absent, Remedy, remedy};
use super::{NotOpened, ReplicaManager};
use crate::partition::{Damage, Partition, on_damage};
use crate::partition_config::PartitionConfig;

/// How often creating a log is tried again that there was no room for.
const ROOM_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How many logs are created at the same time.
const CREATE_THREADS: usize = 4;

/// Applies images as they come, until the manager is gone.
pub(super) async fn run(manager: Weak<ReplicaManager>) {
    let Some(mut images) = manager.upgrade().map(|manager| manager.controller.images()) else { return };
    let mut applied: Arc<ClusterImage> = Arc::default();
    let mut knows_registration = false;
    loop {
        let image = images.borrow_and_update().clone();
        let Some(manager) = manager.upgrade() else { return };
        knows_registration = knows_registration || manager.is_registered_in(&image);
        if knows_registration && applied.offset < image.offset {
            manager.apply(&applied, &image).await;
            manager.applied.send_replace(Arc::clone(&image));
            if applied.brokers.is_empty() {
                manager.resume_relocations();
            }
            applied = image;
        }
        manager.create_deferred(&applied).await;
        let pause = if manager.deferred().is_empty() { Duration::MAX } else { ROOM_RETRY_PAUSE };
        drop(manager);
        if let Ok(Err(_)) = tokio::time::timeout(pause, images.changed()).await {
            return;
        }
    }
}

/// A replica that the image wants here and that is not here yet.
struct Missing {
    id: TopicPartition,
    name: PartitionName,
    config: Arc<PartitionConfig>,
    is_counted_on: bool,
    /// It was placed here before this run of the broker, or may have been.
    is_old: bool,
}

impl ReplicaManager {
    fn is_registered_in(&self, image: &ClusterImage) -> bool {
        image.broker(self.config.node_id).is_some_and(|broker| broker.broker_epoch == self.broker_epoch())
    }

    async fn apply(self: &Arc<Self>, before: &ClusterImage, image: &Arc<ClusterImage>) {
        let changed = changed_partitions(before, image);
        self.delete_unwanted(&changed, image).await;
        let is_first = before.brokers.is_empty();
        self.create_missing(&changed, image, is_first).await;
        self.set_roles(&changed, image);
        self.apply_brokers(before, image, &changed);
        self.apply_configs(before, image);
    }

    /// Tries again what there was no room for.
    async fn create_deferred(self: &Arc<Self>, image: &Arc<ClusterImage>) {
        let deferred = self.deferred();
        if !deferred.is_empty() {
            self.create_missing(&deferred, image, false).await;
            self.set_roles(&deferred, image);
        }
    }

    fn deferred(&self) -> BTreeSet<TopicPartition> {
        let not_opened = self.not_opened.lock();
        not_opened.iter().filter(|(_, why)| **why == NotOpened::NoRoom).map(|(id, _)| *id).collect()
    }

    fn set_roles(&self, partitions: &BTreeSet<TopicPartition>, image: &ClusterImage) {
        for &id in partitions {
            if let (Some(partition), Some(wanted)) = (self.partition(id), image.partition(id.topic_id, id.partition)) {
                self.set_role(&partition, wanted, image);
            }
        }
    }

    /// A corrupt log is begun anew once the controller counts on it no more: until then it may still be elected, and an
    /// empty leader would have the others truncate the good copies. If there is nobody else to elect, it is the last copy.
    pub(super) fn repair(&self, image: &ClusterImage, partition: &Arc<Partition>) {
        let id = partition.id();
        let Some(wanted) = image.partition(id.topic_id, id.partition) else { return };
        if self.is_counted_on(wanted) {
            let complete = wanted.isr.iter().chain(&wanted.eligible_leader_replicas).copied();
            if on_damage(self.config.node_id, complete.filter(|replica| image.is_live(*replica))) == Damage::Refuse {
                partition.refuse_damage();
            }
            return;
        }
        if let (Some(leader), true) = (wanted.leader, partition.begin_anew_if_corrupt()) {
            self.fetchers.follow(leader, partition);
        }
    }

    fn is_counted_on(&self, partition: &PartitionImage) -> bool {
        let me = self.config.node_id;
        partition.isr.contains(&me) || partition.eligible_leader_replicas.contains(&me) || partition.leader == Some(me)
    }

    fn is_unusable(&self, id: &TopicPartition) -> bool {
        self.not_opened.lock().get(id) == Some(&NotOpened::Unusable)
    }

    fn is_replica(&self, partition: &PartitionImage) -> bool {
        partition.replicas.contains(&self.config.node_id)
    }

    async fn delete_unwanted(self: &Arc<Self>, changed: &BTreeSet<TopicPartition>, image: &ClusterImage) {
        let is_wanted = |id: &TopicPartition| {
            image.partition(id.topic_id, id.partition).is_some_and(|partition| self.is_replica(partition))
        };
        let unwanted: Vec<Arc<Partition>> = {
            let mut partitions = self.partitions.write();
            changed.iter().filter(|id| !is_wanted(id)).filter_map(|id| partitions.remove(id)).collect()
        };
        self.not_opened.lock().retain(|id, _| is_wanted(id));
        if unwanted.is_empty() {
            return;
        }
        for partition in &unwanted {
            self.fetchers.unfollow(partition.id());
        }
        task::blocking(move || {
            for partition in unwanted {
                delete(&partition);
            }
        })
        .await;
    }

    async fn create_missing(
        self: &Arc<Self>,
        changed: &BTreeSet<TopicPartition>,
        image: &Arc<ClusterImage>,
        is_first: bool,
    ) {
        let missing: Vec<Missing> = changed
            .iter()
            .filter(|id| self.partition(**id).is_none() && !self.is_unusable(id))
            .filter_map(|&id| {
                let topic = image.topic(id.topic_id)?;
                let wanted = image.partition(id.topic_id, id.partition)?;
                self.is_replica(wanted).then(|| Missing {
                    id,
                    name: PartitionName::new(topic.name.clone(), id.partition),
                    config: self.partition_config(image, id.topic_id),
                    is_counted_on: self.is_counted_on(wanted),
                    is_old: is_first || self.not_opened.lock().get(&id) == Some(&NotOpened::Absent),
                })
            })
            .collect();
        if missing.is_empty() {
            return;
        }
        let manager = Arc::clone(self);
        let log_counts = Mutex::new(self.log_counts());
        // Creating a log mostly waits for the disk, which can do several at a time.
        let open = move |missing: Missing| {
            let id = missing.id;
            match manager.open_or_create(missing, &log_counts) {
                Ok(partition) => {
                    manager.not_opened.lock().remove(&id);
                    manager.partitions.write().insert(id, partition);
                }
                Err(why) => {
                    manager.not_opened.lock().insert(id, why);
                }
            }
        };
        task::blocking_each(CREATE_THREADS, missing, open).await;
    }

    /// Takes the log that was found at start-up, or creates one.
    fn open_or_create(
        &self,
        missing: Missing,
        log_counts: &Mutex<BTreeMap<DirectoryId, usize>>,
    ) -> Result<Arc<Partition>, NotOpened> {
        let Missing { id, name, config, is_counted_on, is_old } = missing;
        let found = self.found.lock().remove(&name);
        let mut begins_anew = false;
        let (log, high_watermark, log_dir) = match found {
            Some(found) if found.log.topic_id() == id.topic_id || mutation::is_off("trap-31") => {
                (found.log, found.high_watermark, found.log_dir)
            }
            stray => {
                if let Some(stray) = stray {
                    // Of an earlier topic of the same name (trap 31).
                    tracing::warn!(partition = %name, topic_id = %stray.log.topic_id(), "removing a deleted topic's log");
                    report(&stray.log_dir.delete(stray.log, clock::now()), &name);
                } else {
                    let absence = if is_old { self.absence(&name) } else { Absence::NeverHere };
                    match remedy(absence, is_counted_on) {
                        Remedy::Create => {}
                        Remedy::BeginAnew => begins_anew = true,
                        Remedy::Wait => {
                            tracing::error!(partition = %name, ?absence, is_counted_on, "the replica is offline: it has no log");
                            return Err(NotOpened::Absent);
                        }
                    }
                    self.set_damaged_aside(&name)?;
                }
                let log_dir = {
                    let mut log_counts = log_counts.lock();
                    let log_dir = self.logs.for_new_log(&log_counts).ok_or(NotOpened::Unusable)?;
                    *log_counts.entry(log_dir.directory_id()).or_default() += 1;
                    log_dir
                };
                let created = log_dir.create(&name, id.topic_id, Arc::clone(&config.log));
                if let Err(error) = &created
                    && let Some(disk) = self.disk(&log_dir)
                {
                    disk.on_error(error);
                }
                let is_full = created.as_ref().is_err_and(StorageError::is_full);
                if !is_full || self.not_opened.lock().get(&id) != Some(&NotOpened::NoRoom) {
                    report(&created, &name);
                }
                let log = created.map_err(|_| {
                    log_counts.lock().entry(log_dir.directory_id()).and_modify(|count| *count -= 1);
                    if is_full { NotOpened::NoRoom } else { NotOpened::Unusable }
                })?;
                (log, Offset(0), log_dir)
            }
        };
        let disk = Arc::clone(self.disk(&log_dir).ok_or(NotOpened::Unusable)?);
        let partition = Partition::new(id, name, log, high_watermark, config, disk, Arc::clone(&self.surroundings));
        if begins_anew {
            tracing::warn!(partition = %partition.name(), "begins anew: the log that was here is gone");
            partition.mark_begun_anew();
        }
        Ok(partition)
    }

    /// What start-up knows of a log that it has not found.
    fn absence(&self, name: &PartitionName) -> Absence {
        let has_offline_directories = self.disks.len() < self.config.log_dirs.len();
        if self.absent.lock().contains_key(name) {
            Absence::Gone
        } else if has_offline_directories {
            Absence::Elsewhere
        } else {
            Absence::NeverHere
        }
    }

    /// Makes room for a new log where one lies that cannot be opened.
    fn set_damaged_aside(&self, name: &PartitionName) -> Result<(), NotOpened> {
        let Some(Absent::Damaged(failure)) = self.absent.lock().remove(name) else { return Ok(()) };
        let log_dir =
            self.disks.iter().map(|disk| &disk.log_dir).find(|log_dir| failure.directory.starts_with(log_dir.path()));
        let outcome = log_dir.map(|log_dir| log_dir.set_aside(&failure.directory));
        match outcome {
            Some(Ok(path)) => {
                tracing::warn!(partition = %name, error = %failure.error, path = %path.display(), "set a damaged log aside");
                Ok(())
            }
            Some(Err(error)) => {
                tracing::error!(partition = %name, %error, "a damaged log cannot be set aside");
                Err(NotOpened::Unusable)
            }
            None => Err(NotOpened::Unusable),
        }
    }

    fn log_counts(&self) -> BTreeMap<DirectoryId, usize> {
        let mut counts = BTreeMap::new();
        let mut count = |log_dir: &LogDir| *counts.entry(log_dir.directory_id()).or_default() += 1;
        self.partitions.read().values().for_each(|partition| count(&partition.disk().log_dir));
        self.found.lock().values().for_each(|found| count(&found.log_dir));
        counts
    }

    fn set_role(&self, partition: &Arc<Partition>, wanted: &PartitionImage, image: &ClusterImage) {
        if wanted.leader == Some(self.config.node_id) {
            self.fetchers.unfollow(partition.id());
            let assignment = PartitionAssignment {
                leader_epoch: wanted.leader_epoch,
                partition_epoch: wanted.partition_epoch,
                replicas: wanted.replicas.clone(),
                isr: wanted.isr.clone(),
            };
            partition.lead(assignment, statuses(wanted, image));
            return;
        }
        partition.follow(wanted.leader, wanted.leader_epoch);
        match wanted.leader {
            Some(leader) => self.fetchers.follow(leader, partition),
            None => self.fetchers.unfollow(partition.id()),
        }
    }

    /// Fencing and shutdown of brokers bear on who may join an ISR.
    fn apply_brokers(&self, before: &ClusterImage, image: &ClusterImage, done: &BTreeSet<TopicPartition>) {
        let changed = changed_keys(&before.brokers, &image.brokers);
        if changed.is_empty() {
            return;
        }
        for partition in self.partitions() {
            let id = partition.id();
            let Some(wanted) = image.partition(id.topic_id, id.partition) else { continue };
            let is_led_here = wanted.leader == Some(self.config.node_id);
            let concerns = wanted.replicas.iter().any(|replica| changed.contains(replica));
            if is_led_here && concerns && !done.contains(&id) {
                partition.on_brokers(statuses(wanted, image));
            }
        }
    }

    fn apply_configs(&self, before: &ClusterImage, image: &ClusterImage) {
        let changed = changed_keys(&before.configs, &image.configs);
        let changes_all = changed
            .iter()
            .any(|resource| matches!(resource, ConfigResource::Broker(_) | ConfigResource::ClusterDefault));
        if changed.is_empty() {
            return;
        }
        let mut resolved: BTreeMap<TopicId, Arc<PartitionConfig>> = BTreeMap::new();
        for partition in self.partitions() {
            let topic_id = partition.id().topic_id;
            if changes_all || changed.contains(&ConfigResource::Topic(topic_id)) {
                let config = resolved.entry(topic_id).or_insert_with(|| self.partition_config(image, topic_id));
                partition.on_config(Arc::clone(config));
            }
        }
    }
}

fn statuses(partition: &PartitionImage, image: &ClusterImage) -> BTreeMap<BrokerId, BrokerStatus> {
    let status = |id: &BrokerId| {
        let broker = image.broker(*id)?;
        let status = BrokerStatus {
            broker_epoch: broker.broker_epoch,
            fenced: broker.fenced,
            in_controlled_shutdown: broker.in_controlled_shutdown,
        };
        Some((*id, status))
    };
    partition.replicas.iter().filter_map(status).collect()
}

fn delete(partition: &Partition) {
    let Some(log) = partition.take_log() else { return };
    let disk = partition.disk();
    let deleted = disk.log_dir.delete(log, clock::now());
    if let Err(error) = &deleted {
        disk.on_error(error);
    }
    report(&deleted, partition.name());
    tracing::info!(partition = %partition.name(), "deleted the replica");
}

fn report<T>(outcome: &Result<T, StorageError>, partition: &PartitionName) {
    if let Err(error) = outcome {
        tracing::error!(%partition, %error, "cannot create or delete a log");
    }
}

/// All partitions that were added, removed or changed.
fn changed_partitions(before: &ClusterImage, image: &ClusterImage) -> BTreeSet<TopicPartition> {
    let mut changed = BTreeSet::new();
    for topic_id in changed_keys(&before.topics, &image.topics) {
        let (old, new) = (before.topic(topic_id), image.topic(topic_id));
        let count = |topic: Option<&Arc<TopicImage>>| topic.map_or(0, |topic| topic.partitions.len());
        for index in 0..count(old).max(count(new)) {
            let partition = |topic: Option<&Arc<TopicImage>>| topic?.partitions.get(index).cloned();
            let is_same = match (partition(old), partition(new)) {
                (Some(old), Some(new)) => Arc::ptr_eq(&old, &new),
                _ => false,
            };
            if !is_same {
                let partition = PartitionIndex(i32::try_from(index).expect("partitions are counted in 31 bits"));
                changed.insert(TopicPartition { topic_id, partition });
            }
        }
    }
    changed
}

/// The keys whose values are not the same value: added, removed or replaced.
fn changed_keys<K: Ord + Clone, V>(before: &Arc<BTreeMap<K, Arc<V>>>, after: &Arc<BTreeMap<K, Arc<V>>>) -> BTreeSet<K> {
    if Arc::ptr_eq(before, after) {
        return BTreeSet::new();
    }
    let is_changed = |key: &K, value: &Arc<V>| before.get(key).is_none_or(|old| !Arc::ptr_eq(old, value));
    let added = after.iter().filter(|(key, value)| is_changed(key, value)).map(|(key, _)| key);
    let removed = before.keys().filter(|key| !after.contains_key(key));
    added.chain(removed).cloned().collect()
}
