//! Brokers come and go: registration, fencing and unfencing, unregistration.

use vltava_types::{BrokerEpoch, BrokerId, ErrorCode, MetadataOffset, TopicPartition};

use super::draft::{Draft, error};
use super::{Controller, ControllerError, Decision, RegisterBroker};
use crate::image::{BrokerImage, ClusterImage};
use crate::record::{BrokerRegistration, MetadataRecord};

impl Controller {
    /// Registers a node. A new incarnation gets a larger broker epoch than anyone before it and starts fenced; the same
    /// incarnation keeps its epoch and state.
    pub(super) fn register_broker(
        &mut self,
        image: &ClusterImage,
        request: &RegisterBroker,
        now_ms: i64,
    ) -> Decision<Result<BrokerEpoch, ControllerError>> {
        if let Err(refused) = self.check_registration(image, request, now_ms) {
            return Decision { records: vec![], response: Err(refused) };
        }
        let existing = image.broker(request.broker_id);
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        if let Some(existing) = existing.filter(|existing| existing.incarnation_id == request.incarnation_id) {
            let broker_epoch = existing.broker_epoch;
            let again = BrokerRegistration {
                fenced: existing.fenced,
                in_controlled_shutdown: existing.in_controlled_shutdown,
                ..registration(request, broker_epoch)
            };
            if **existing != again {
                draft.push(MetadataRecord::RegisterBroker(again));
            }
            return draft.decide(Ok(broker_epoch));
        }

        // A broker that is still unfenced here has outlived its session.
        set_fenced(&mut draft, request.broker_id);
        let broker_epoch = BrokerEpoch(image.last_broker_epoch.0.max(image.offset.0) + 1);
        draft.push(MetadataRecord::RegisterBroker(registration(request, broker_epoch)));
        match existing {
            Some(existing) if has_lost_all_directories(existing, request) => {
                give_up_copies(&mut draft, existing.broker_id)
            }
            Some(existing)
                if request.previous_broker_epoch == existing.broker_epoch
                    && brings_all_directories(existing, request) => {}
            _ => distrust_copies(&mut draft, request.broker_id),
        }
        let decision = draft.decide(Ok(broker_epoch));
        // The records become the next entry at the earliest.
        let registered_at = MetadataOffset(image.offset.0 + 1);
        self.sessions.begin(request.broker_id, broker_epoch, registered_at, now_ms);
        decision
    }

    fn check_registration(
        &mut self,
        image: &ClusterImage,
        request: &RegisterBroker,
        now_ms: i64,
    ) -> Result<(), ControllerError> {
        if !request.cluster_id.is_empty() && !image.cluster_id.is_empty() && request.cluster_id != image.cluster_id {
            let message =
                format!("Expected cluster ID {}, but got cluster ID {}", image.cluster_id, request.cluster_id);
            return Err(error(ErrorCode::InconsistentClusterId, message));
        }
        if request.broker_id < BrokerId(0) {
            return Err(error(ErrorCode::InvalidRegistration, "The broker id must not be negative."));
        }
        let Some(existing) = image.broker(request.broker_id) else { return Ok(()) };
        // The controller's own node holds the lock of its data directory: its earlier incarnation is gone.
        let is_local = self.config.local_node == Some((request.broker_id, request.incarnation_id));
        if existing.incarnation_id == request.incarnation_id || existing.fenced || is_local {
            return Ok(());
        }
        // Trap 29: while the old incarnation may be alive, it could act under the new one's registration.
        if self.is_expired(image, existing, now_ms) {
            return Ok(());
        }
        Err(error(ErrorCode::DuplicateBrokerRegistration, "Another broker is registered with that broker id."))
    }

    /// Whether nothing was heard from an unfenced broker for the session timeout.
    pub(super) fn is_expired(&mut self, image: &ClusterImage, broker: &BrokerImage, now_ms: i64) -> bool {
        let session = self.sessions.get_or_begin(broker.broker_id, broker.broker_epoch, image.offset, now_ms);
        now_ms.saturating_sub(session.last_heard_ms) >= self.config.session_timeout_ms
    }

    /// A probe proved the process dead (connection refused): fence at once. Ignored if the epoch is not current.
    pub fn on_broker_down(
        &mut self,
        image: &ClusterImage,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Vec<MetadataRecord> {
        if image.broker(broker_id).is_none_or(|broker| broker.broker_epoch != broker_epoch) {
            return vec![];
        }
        self.fence(image, broker_id)
    }

    /// Fences one broker and moves its leaderships away.
    pub(super) fn fence(&mut self, image: &ClusterImage, broker_id: BrokerId) -> Vec<MetadataRecord> {
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        set_fenced(&mut draft, broker_id);
        let records = draft.into_records();
        // One that was fenced before has nothing new to know.
        if let Some(broker) = image.broker(broker_id).filter(|_| !records.is_empty())
            && let Some(session) = self.sessions.get_mut(broker_id, broker.broker_epoch)
        {
            session.fenced_at = Some(MetadataOffset(image.offset.0 + 1));
        }
        records
    }

    /// Removes a registration for good. As in Kafka a live broker is not spared: it is fenced first, and its heartbeats
    /// are refused from then on.
    pub(super) fn unregister_broker(
        &mut self,
        image: &ClusterImage,
        broker_id: BrokerId,
    ) -> Decision<Result<(), ControllerError>> {
        let Some(broker) = image.broker(broker_id) else {
            let message = format!("Broker ID {broker_id} is not currently registered");
            return Decision { records: vec![], response: Err(error(ErrorCode::BrokerIdNotRegistered, message)) };
        };
        let broker_epoch = broker.broker_epoch;
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        set_fenced(&mut draft, broker_id);
        draft.push(MetadataRecord::UnregisterBroker { broker_id, broker_epoch });
        let decision = draft.decide(Ok(()));
        self.sessions.end(broker_id);
        decision
    }
}

/// Requires that the registration of this epoch is current.
pub(super) fn check_broker_epoch(
    image: &ClusterImage,
    broker_id: BrokerId,
    broker_epoch: BrokerEpoch,
) -> Result<&BrokerImage, ControllerError> {
    let Some(broker) = image.broker(broker_id) else {
        let message = format!("No broker is registered with id {broker_id}");
        return Err(error(ErrorCode::BrokerIdNotRegistered, message));
    };
    if broker.broker_epoch != broker_epoch {
        let current = broker.broker_epoch;
        let message = format!("Expected broker epoch {current}, but got broker epoch {broker_epoch}");
        return Err(error(ErrorCode::StaleBrokerEpoch, message));
    }
    Ok(broker)
}

/// Fences a broker, if it is registered and not fenced yet, and takes it out of ISRs and leaderships.
pub(super) fn set_fenced(draft: &mut Draft<'_>, broker_id: BrokerId) {
    let Some(broker) = draft.image.broker(broker_id).filter(|broker| !broker.fenced) else { return };
    let (broker_epoch, in_controlled_shutdown) = (broker.broker_epoch, broker.in_controlled_shutdown);
    draft.push(MetadataRecord::BrokerRegistrationChange {
        broker_id,
        broker_epoch,
        fenced: true,
        in_controlled_shutdown,
    });
    leave_partitions(draft, broker_id);
}

/// Unfences a broker, and elects leaders where it was waited for.
pub(super) fn set_unfenced(draft: &mut Draft<'_>, broker_id: BrokerId) {
    let Some(broker) = draft.image.broker(broker_id).filter(|broker| broker.fenced) else { return };
    let (broker_epoch, in_controlled_shutdown) = (broker.broker_epoch, broker.in_controlled_shutdown);
    draft.push(MetadataRecord::BrokerRegistrationChange {
        broker_id,
        broker_epoch,
        fenced: false,
        in_controlled_shutdown,
    });
    for partition in hosted(draft, broker_id, |partition| partition.leader.is_none()) {
        let update = draft.update(partition);
        draft.apply(update);
    }
}

/// Takes a broker that is no longer active out of every ISR and leadership.
pub(super) fn leave_partitions(draft: &mut Draft<'_>, broker_id: BrokerId) {
    let leaves =
        |partition: &crate::PartitionImage| partition.isr.contains(&broker_id) || partition.leader == Some(broker_id);
    for partition in hosted(draft, broker_id, leaves) {
        let update = draft.update(partition);
        draft.apply(update);
    }
}

/// Trap 12: a broker that did not shut down cleanly may have lost what was acknowledged from its page cache.
fn distrust_copies(draft: &mut Draft<'_>, broker_id: BrokerId) {
    for partition in trusted_copies(draft, broker_id) {
        let mut update = draft.update(partition);
        update.distrust(broker_id);
        draft.apply(update);
    }
}

/// The broker came back with other disks: whatever it had is gone.
fn give_up_copies(draft: &mut Draft<'_>, broker_id: BrokerId) {
    for partition in trusted_copies(draft, broker_id) {
        let mut update = draft.update(partition);
        update.lose(broker_id);
        draft.apply(update);
    }
}

fn trusted_copies(draft: &Draft<'_>, broker_id: BrokerId) -> Vec<TopicPartition> {
    hosted(draft, broker_id, |partition| {
        partition.isr.contains(&broker_id)
            || partition.eligible_leader_replicas.contains(&broker_id)
            || partition.last_known_leader == Some(broker_id)
    })
}

fn hosted(
    draft: &Draft<'_>,
    broker_id: BrokerId,
    condition: impl Fn(&crate::PartitionImage) -> bool,
) -> Vec<TopicPartition> {
    let hosted = draft.image.partitions_hosted_by(broker_id);
    hosted.filter(|(_, image)| condition(image)).map(|(partition, _)| partition).collect()
}

fn has_lost_all_directories(existing: &BrokerRegistration, request: &RegisterBroker) -> bool {
    !existing.log_dirs.is_empty() && !existing.log_dirs.iter().any(|directory| request.log_dirs.contains(directory))
}

/// What lay in a directory that is gone is gone, however cleanly the broker was shut down.
fn brings_all_directories(existing: &BrokerRegistration, request: &RegisterBroker) -> bool {
    existing.log_dirs.iter().all(|directory| request.log_dirs.contains(directory))
}

fn registration(request: &RegisterBroker, broker_epoch: BrokerEpoch) -> BrokerRegistration {
    BrokerRegistration {
        broker_id: request.broker_id,
        broker_epoch,
        incarnation_id: request.incarnation_id,
        listeners: request.listeners.clone(),
        peer: request.peer.clone(),
        rack: request.rack.clone(),
        log_dirs: request.log_dirs.clone(),
        is_broker: request.is_broker,
        fenced: true,
        in_controlled_shutdown: false,
    }
}
