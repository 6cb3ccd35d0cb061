//! Heartbeats keep a broker's session, unfence it, carry out its controlled shutdown, and report failed directories.

use std::collections::BTreeSet;

use vltava_types::{BrokerId, MetadataOffset};

use super::brokers::{check_broker_epoch, leave_partitions, set_fenced, set_unfenced};
use super::draft::Draft;
use super::{Controller, ControllerError, Decision, Heartbeat, HeartbeatReply};
use crate::image::ClusterImage;
use crate::record::MetadataRecord;

impl Controller {
    pub(super) fn heartbeat(
        &mut self,
        image: &ClusterImage,
        request: &Heartbeat,
        now_ms: i64,
    ) -> Decision<Result<HeartbeatReply, ControllerError>> {
        let broker_id = request.broker_id;
        let broker = match check_broker_epoch(image, broker_id, request.broker_epoch) {
            Ok(broker) => broker,
            Err(refused) => return Decision { records: vec![], response: Err(refused) },
        };
        let session = self.sessions.get_or_begin(broker_id, broker.broker_epoch, image.offset, now_ms);
        session.last_heard_ms = now_ms;
        session.applied = session.applied.max(request.applied);
        session.offline = request.offline_partitions.iter().copied().collect();
        // Trap 15: one that does not know yet who leads in its place would go on as the leader that it was.
        session.fenced_at = broker.fenced.then(|| session.fenced_at.unwrap_or(image.offset));
        let is_caught_up = session.applied >= session.registered_at.max(session.fenced_at.unwrap_or_default());
        let has_failed = !broker.log_dirs.is_empty()
            && broker.log_dirs.iter().all(|directory| request.offline_log_dirs.contains(directory));

        if request.want_shutdown {
            return self.shut_down(image, request, is_caught_up);
        }
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        if request.want_fence || has_failed {
            set_fenced(&mut draft, broker_id);
        } else if broker.fenced && is_caught_up {
            set_unfenced(&mut draft, broker_id);
        }
        give_up_failed_logs(&mut draft, request);
        let is_fenced = !draft.image.is_unfenced(broker_id);
        draft.decide(Ok(HeartbeatReply { is_caught_up, is_fenced, should_shut_down: false }))
    }

    /// Controlled shutdown: first the leaderships move and the broker leaves its ISRs, then, when every other active
    /// broker knows of it, the broker is fenced and may exit.
    fn shut_down(
        &mut self,
        image: &ClusterImage,
        request: &Heartbeat,
        is_caught_up: bool,
    ) -> Decision<Result<HeartbeatReply, ControllerError>> {
        let (broker_id, broker_epoch) = (request.broker_id, request.broker_epoch);
        let mut draft = Draft::new(image, &self.config, &self.sessions);
        let broker = image.broker(broker_id).expect("its epoch was checked");
        if broker.fenced {
            return draft.decide(Ok(HeartbeatReply { is_caught_up, is_fenced: true, should_shut_down: true }));
        }
        let is_new = !broker.in_controlled_shutdown;
        if is_new {
            draft.push(MetadataRecord::BrokerRegistrationChange {
                broker_id,
                broker_epoch,
                fenced: false,
                in_controlled_shutdown: true,
            });
            leave_partitions(&mut draft, broker_id);
        }
        // A controller that has just taken over does not know where the change is, but knows that its image has it.
        let decided_at = MetadataOffset(if is_new { image.offset.0 + 1 } else { image.offset.0 });
        let known_left_at = self.sessions.get(broker_id, broker_epoch).and_then(|session| session.left_at);
        let left_at = known_left_at.filter(|_| !is_new).unwrap_or(decided_at);

        let leads_nothing = draft.image.partitions_led_by(broker_id).next().is_none();
        let should_shut_down = leads_nothing && self.others_have_applied(&draft.image, broker_id, left_at);
        if should_shut_down {
            set_fenced(&mut draft, broker_id);
        }
        let is_fenced = !draft.image.is_unfenced(broker_id);
        let decision = draft.decide(Ok(HeartbeatReply { is_caught_up, is_fenced, should_shut_down }));
        if let Some(session) = self.sessions.get_mut(broker_id, broker_epoch) {
            session.left_at = Some(left_at);
        }
        decision
    }

    fn others_have_applied(&self, image: &ClusterImage, broker_id: BrokerId, offset: MetadataOffset) -> bool {
        let others = image.live_brokers().filter(|other| other.broker_id != broker_id && !other.in_controlled_shutdown);
        others
            .map(|other| self.sessions.get(other.broker_id, other.broker_epoch))
            .all(|session| session.is_some_and(|session| session.applied >= offset))
    }
}

/// Replicas in failed directories lead nothing and leave their ISRs.
fn give_up_failed_logs(draft: &mut Draft<'_>, request: &Heartbeat) {
    let failed: BTreeSet<_> = request.offline_partitions.iter().copied().collect();
    for partition in failed {
        let Some(image) = draft.image.partition(partition.topic_id, partition.partition) else { continue };
        let is_trusted = image.isr.contains(&request.broker_id)
            || image.eligible_leader_replicas.contains(&request.broker_id)
            || image.leader == Some(request.broker_id);
        if is_trusted {
            let mut update = draft.update(partition);
            update.distrust(request.broker_id);
            draft.apply(update);
        }
    }
}
