//! When the controller last heard of each broker. Volatile: a new controller starts over and gives everyone time.

use std::collections::{BTreeMap, BTreeSet};

use vltava_types::{BrokerEpoch, BrokerId, MetadataOffset, TopicPartition};

/// What is known of one registration since this controller took over. Times are monotonic milliseconds.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) last_heard_ms: i64,
    /// How far the broker has applied the metadata log.
    pub(super) applied: MetadataOffset,
    /// The broker knows its own registration once it has applied this.
    pub(super) registered_at: MetadataOffset,
    /// The broker knows that it was fenced, and leads nothing, once it has applied this. `None` while it is not fenced.
    pub(super) fenced_at: Option<MetadataOffset>,
    /// Once the other brokers have applied this, they know that a stopping broker leads nothing any more (trap 30).
    pub(super) left_at: Option<MetadataOffset>,
    /// Partitions whose log here has failed.
    pub(super) offline: BTreeSet<TopicPartition>,
}

#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: BTreeMap<BrokerId, Session>,
}

impl Sessions {
    pub(super) fn clear(&mut self) {
        self.sessions.clear();
    }

    /// Begins a session, in place of any earlier one of the broker.
    pub(super) fn begin(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        registered_at: MetadataOffset,
        now_ms: i64,
    ) -> &mut Session {
        let session = Session {
            broker_epoch,
            last_heard_ms: now_ms,
            applied: MetadataOffset::default(),
            registered_at,
            fenced_at: None,
            left_at: None,
            offline: BTreeSet::new(),
        };
        self.sessions.entry(broker_id).insert_entry(session).into_mut()
    }

    pub(super) fn end(&mut self, broker_id: BrokerId) {
        self.sessions.remove(&broker_id);
    }

    /// The session of this very registration.
    pub(super) fn get(&self, broker_id: BrokerId, broker_epoch: BrokerEpoch) -> Option<&Session> {
        self.sessions.get(&broker_id).filter(|session| session.broker_epoch == broker_epoch)
    }

    pub(super) fn get_mut(&mut self, broker_id: BrokerId, broker_epoch: BrokerEpoch) -> Option<&mut Session> {
        self.sessions.get_mut(&broker_id).filter(|session| session.broker_epoch == broker_epoch)
    }

    /// The session of this very registration; begun now if this controller did not know it yet.
    pub(super) fn get_or_begin(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        registered_at: MetadataOffset,
        now_ms: i64,
    ) -> &mut Session {
        if self.get(broker_id, broker_epoch).is_none() {
            return self.begin(broker_id, broker_epoch, registered_at, now_ms);
        }
        self.sessions.get_mut(&broker_id).expect("the session was just found")
    }

    /// Gives every session more time, after the controller itself was away.
    pub(super) fn extend(&mut self, by_ms: i64) {
        for session in self.sessions.values_mut() {
            session.last_heard_ms = session.last_heard_ms.saturating_add(by_ms);
        }
    }

    /// Takes time from a session: its broker was silent before the session began.
    pub(super) fn shorten(&mut self, broker_id: BrokerId, by_ms: i64) {
        if let Some(session) = self.sessions.get_mut(&broker_id) {
            session.last_heard_ms = session.last_heard_ms.saturating_sub(by_ms);
        }
    }

    pub(super) fn is_offline(&self, broker_id: BrokerId, partition: TopicPartition) -> bool {
        self.sessions.get(&broker_id).is_some_and(|session| session.offline.contains(&partition))
    }
}
