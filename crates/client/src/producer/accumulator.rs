//! All partitions' queues, and what each broker is to be sent next.

use std::collections::BTreeMap;

use super::queue::{Attempt, Completed, Identity, Millis, PartitionQueue, RecordFields, ToSend};
use super::step::Outcome;
use super::{ProduceError, Rules};
use crate::ClusterView;

/// A partition by name.
pub(crate) type TopicPartition = (String, i32);

#[derive(Debug)]
pub struct Accumulator<T> {
    rules: Rules,
    identity: Option<Identity>,
    /// An empty queue keeps its place, for its numbers' sake.
    queues: BTreeMap<TopicPartition, PartitionQueue<T>>,
    /// How many requests each broker has not answered.
    in_flight: BTreeMap<i32, usize>,
    /// The last partition that found a place in a request: the next request begins after it.
    last_served: Option<TopicPartition>,
}

/// One request: at most one batch of each partition.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub broker: i32,
    pub batches: Vec<(TopicPartition, ToSend)>,
}

/// What the sender has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Work {
    pub requests: Vec<Request>,
    /// Partitions have something to send and no known leader.
    pub needs_metadata: bool,
    pub needs_identity: bool,
    /// When to look again, if nothing happens before.
    pub next_event: Option<Millis>,
}

impl<T> Accumulator<T> {
    pub fn new(rules: Rules) -> Self {
        Self { rules, identity: None, queues: BTreeMap::new(), in_flight: BTreeMap::new(), last_served: None }
    }

    /// Returns whether the sender has something new to look at.
    pub fn append(&mut self, to: TopicPartition, record: &RecordFields<'_>, waiting: T, now: Millis) -> bool {
        self.queues.entry(to).or_default().append(&self.rules, record, waiting, now)
    }

    /// Gives up what waits too long, and takes what is to be sent now. In a `hurry` batches do not linger.
    pub fn work(&mut self, view: &ClusterView, hurry: bool, now: Millis) -> (Work, Vec<Completed<T>>) {
        let mut completed = Vec::new();
        for queue in self.queues.values_mut() {
            completed.extend(queue.expire(&self.rules, now));
        }
        let mut work = Work::default();
        let mut by_broker: BTreeMap<i32, Vec<TopicPartition>> = BTreeMap::new();
        for (key, _) in self.queues.iter().filter(|(_, queue)| !queue.is_empty()) {
            match view.leader(&key.0, key.1) {
                Some(leader) => by_broker.entry(leader).or_default().push(key.clone()),
                None => work.needs_metadata = true,
            }
        }
        for (broker, mut keys) in by_broker {
            if let Some(last) = &self.last_served {
                let after = keys.partition_point(|key| key <= last);
                keys.rotate_left(after);
            }
            while self.in_flight.get(&broker).is_none_or(|count| *count < self.rules.requests_in_flight) {
                let batches = self.fill(broker, &keys, hurry, now);
                if batches.is_empty() {
                    break;
                }
                *self.in_flight.entry(broker).or_default() += 1;
                work.requests.push(Request { broker, batches });
            }
        }
        work.needs_identity =
            self.rules.is_idempotent && self.queues.values().any(|queue| queue.needs_identity(self.identity));
        work.next_event = self.queues.values().filter_map(|queue| queue.next_event(&self.rules, now)).min();
        (work, completed)
    }

    fn fill(
        &mut self,
        broker: i32,
        keys: &[TopicPartition],
        hurry: bool,
        now: Millis,
    ) -> Vec<(TopicPartition, ToSend)> {
        let mut batches = Vec::new();
        let mut size = 0;
        for key in keys {
            if size >= self.rules.max_request_size {
                break;
            }
            let queue = self.queues.get_mut(key).expect("listed from there");
            if let Some(to_send) = queue.send(&self.rules, broker, self.identity, hurry, now) {
                size += to_send.bytes.len();
                self.last_served = Some(key.clone());
                batches.push((key.clone(), to_send));
            }
        }
        batches
    }

    /// A request to this broker has ended, however it ended.
    pub fn request_ended(&mut self, broker: i32) {
        let count = self.in_flight.get_mut(&broker).expect("it was counted when it was sent");
        *count = count.checked_sub(1).expect("it was counted when it was sent");
    }

    pub fn on_outcome(
        &mut self,
        partition: &TopicPartition,
        attempt: Attempt,
        outcome: Outcome,
        now: Millis,
    ) -> Option<Completed<T>> {
        self.queues.get_mut(partition)?.on_outcome(&self.rules, attempt, outcome, now)
    }

    /// The leaders may have changed from `before`.
    pub fn on_metadata(&mut self, before: &ClusterView, now: &ClusterView) {
        for ((topic, partition), queue) in &mut self.queues {
            let told = now.partition(topic, *partition);
            if before.partition(topic, *partition) != told
                && let Some(leader) = told.and_then(|told| told.leader)
            {
                queue.on_new_leader(&self.rules, leader);
            }
        }
    }

    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Nothing of what is here now lingers any longer.
    pub fn make_urgent(&mut self) {
        self.queues.values_mut().for_each(PartitionQueue::make_urgent);
    }

    pub fn abort(&mut self, error: &ProduceError) -> Vec<Completed<T>> {
        self.queues.values_mut().flat_map(|queue| queue.abort(error)).collect()
    }
}
