//! The records of one partition on their way to its leader: filled into batches, numbered, sent, sent again, done.
//!
//! Owns no socket and no clock. `T` stands for whatever waits for a record's outcome.
//!
//! Invariant: numbered batches are kept in the order of their numbers, and one is sent only if each before it was sent.
//! Invariant: an idempotent batch keeps its number until a broker has refused it because its predecessor is missing, and
//! for ever once an attempt was not answered: that one may come late, after its predecessor, and be taken.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use vltava_protocol::batch::{self, BatchBuilder, stamp};
use vltava_types::{ErrorCode, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use super::step::{BatchFacts, Outcome, Step, Written, next_step};
use super::{ProduceError, Rules};
use crate::MAX_UNCOMPRESSED_BYTES;

/// Milliseconds on the producer's monotonic clock.
pub type Millis = u64;

/// As whom a partition's batches are numbered. The epoch is the partition's own: brokers keep it per partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: ProducerId,
    pub epoch: ProducerEpoch,
}

/// Names one sending of one batch, so that an answer that comes too late is not taken for another one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// A batch to put on the wire now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToSend {
    pub attempt: Attempt,
    pub bytes: Bytes,
}

/// Records whose outcome is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Completed<T> {
    pub waiting: Vec<T>,
    pub result: Result<Written, ProduceError>,
}

/// What a record consists of.
#[derive(Clone, Copy, Debug)]
pub struct RecordFields<'a> {
    pub timestamp: TimestampMs,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [batch::RecordHeader],
}

impl RecordFields<'_> {
    /// The record's size in a batch, at most.
    #[must_use]
    pub fn size_bound(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|h| 10 + h.key.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
        BatchBuilder::record_size_bound(self.key, self.value, &[]) + headers
    }
}

#[derive(Debug)]
pub struct PartitionQueue<T> {
    identity: Option<Identity>,
    next_sequence: i32,
    /// Numbered, and sent at least once or about to be.
    numbered: VecDeque<Numbered<T>>,
    /// Full batches without a number.
    full: VecDeque<Unnumbered<T>>,
    /// Takes further records.
    open: Option<Unnumbered<T>>,
    /// Set by [`Step::Renumber`]; carried out once nothing is on the wire.
    must_renumber: bool,
    retry_at: Millis,
    next_attempt: u64,
}

#[derive(Debug)]
struct Unnumbered<T> {
    builder: BatchBuilder,
    waiting: Vec<T>,
    created: Millis,
    /// Somebody waits for it: it does not linger.
    is_urgent: bool,
}

#[derive(Debug)]
struct Numbered<T> {
    bytes: Bytes,
    base_sequence: i32,
    waiting: Vec<T>,
    created: Millis,
    attempts: u32,
    on_wire: Option<OnWire>,
    /// An attempt was not answered. It stays true: nobody knows how long bytes can be under way.
    may_come_late: bool,
    last_refusal: Option<ErrorCode>,
}

#[derive(Clone, Copy, Debug)]
struct OnWire {
    attempt: Attempt,
    broker: i32,
}

impl<T> Default for PartitionQueue<T> {
    fn default() -> Self {
        Self {
            identity: None,
            next_sequence: 0,
            numbered: VecDeque::new(),
            full: VecDeque::new(),
            open: None,
            must_renumber: false,
            retry_at: 0,
            next_attempt: 0,
        }
    }
}

impl<T> PartitionQueue<T> {
    /// Adds a record to the open batch, or to a new one. Returns whether the sender has something new to look at.
    pub fn append(&mut self, rules: &Rules, record: &RecordFields<'_>, waiting: T, now: Millis) -> bool {
        let size = record.size_bound();
        let fits = |open: &Unnumbered<T>| open.builder.uncompressed_size() + size <= rules.batch_size;
        let mut news = false;
        if let Some(open) = self.open.take_if(|open| !fits(open)) {
            self.full.push_back(open);
            news = true;
        }
        let open = self.open.get_or_insert_with(|| {
            news = true;
            let builder = BatchBuilder::new().compression(rules.compression).compression_level(rules.compression_level);
            Unnumbered { builder, waiting: Vec::new(), created: now, is_urgent: false }
        });
        open.builder.append_record(record.timestamp, record.key, record.value, record.headers);
        open.waiting.push(waiting);
        news
    }

    /// The next batch for this broker, the partition's leader; call until `None`. `identity` is the producer's, for a
    /// partition that has none yet. In a `hurry` batches do not linger.
    pub fn send(
        &mut self,
        rules: &Rules,
        broker: i32,
        identity: Option<Identity>,
        hurry: bool,
        now: Millis,
    ) -> Option<ToSend> {
        if self.must_renumber && !self.renumber(identity) {
            return None;
        }
        if now < self.retry_at || self.numbered.iter().any(|b| b.on_wire.is_some_and(|wire| wire.broker != broker)) {
            return None;
        }
        let index = match self.numbered.iter().position(|batch| batch.on_wire.is_none()) {
            Some(index) => index,
            None if self.numbered.len() < rules.batches_in_flight => {
                if rules.is_idempotent && self.identity.is_none() {
                    self.identity = Some(identity?);
                    self.next_sequence = 0;
                }
                self.number_next(rules, hurry, now)?;
                self.numbered.len() - 1
            }
            None => return None,
        };
        let attempt = Attempt(self.next_attempt);
        self.next_attempt += 1;
        let batch = &mut self.numbered[index];
        batch.attempts += 1;
        batch.on_wire = Some(OnWire { attempt, broker });
        Some(ToSend { attempt, bytes: batch.bytes.clone() })
    }

    /// Takes in how an attempt ended; what was given up meanwhile is nobody's any more.
    pub fn on_outcome(
        &mut self,
        rules: &Rules,
        attempt: Attempt,
        outcome: Outcome,
        now: Millis,
    ) -> Option<Completed<T>> {
        let index = self.numbered.iter().position(|b| b.on_wire.is_some_and(|wire| wire.attempt == attempt))?;
        let batch = &mut self.numbered[index];
        batch.on_wire = None;
        batch.may_come_late |= outcome == Outcome::Unanswered;
        let facts = BatchFacts {
            may_come_late: batch.may_come_late,
            is_idempotent: rules.is_idempotent,
            is_first: index == 0,
            has_one_record: batch.waiting.len() == 1,
            has_retries_left: batch.attempts <= rules.retries,
        };
        if let Outcome::Refused(code) = outcome {
            batch.last_refusal = Some(code);
        }
        let result = match next_step(outcome, facts) {
            Step::Done(written) => Ok(written),
            Step::Retry => {
                let doublings = batch.attempts.saturating_sub(1).min(16);
                let backoff = (rules.retry_backoff_ms << doublings).min(rules.retry_backoff_max_ms);
                self.retry_at = self.retry_at.max(now + backoff);
                return None;
            }
            Step::Renumber => {
                self.must_renumber = true;
                return None;
            }
            Step::Split => {
                self.split(rules, index);
                return None;
            }
            Step::Unknown => Err(ProduceError::NoAnswer),
            Step::Fail => Err(match outcome {
                Outcome::Refused(code) => ProduceError::Refused(code),
                Outcome::Written(_) | Outcome::Unanswered => ProduceError::NoAnswer,
            }),
        };
        let batch = self.numbered.remove(index).expect("found above");
        Some(Completed { waiting: batch.waiting, result })
    }

    /// Gives up what waits longer than `delivery.timeout.ms`. Of a batch that was sent it stays unknown whether it
    /// was written; its successors go on under their numbers, and the broker tells if there is a gap.
    pub fn expire(&mut self, rules: &Rules, now: Millis) -> Vec<Completed<T>> {
        let is_late = |created: Millis| created + rules.delivery_timeout_ms <= now;
        let mut expired = Vec::new();
        while self.numbered.front().is_some_and(|batch| is_late(batch.created)) {
            let batch = self.numbered.pop_front().expect("seen above");
            let last_refusal = batch.last_refusal;
            expired.push((batch.waiting, last_refusal));
        }
        while self.full.front().is_some_and(|batch| is_late(batch.created)) {
            expired.push((self.full.pop_front().expect("seen above").waiting, None));
        }
        expired.extend(self.open.take_if(|open| is_late(open.created)).map(|open| (open.waiting, None)));
        let error = |last_refusal| ProduceError::TimedOut { after_ms: rules.delivery_timeout_ms, last_refusal };
        expired.into_iter().map(|(waiting, refusal)| Completed { waiting, result: Err(error(refusal)) }).collect()
    }

    /// The partition has another leader. What is on the wire to the former one is sent to the new one at once: an
    /// idempotent batch that was written after all is not written twice. Others wait for their answers.
    pub fn on_new_leader(&mut self, rules: &Rules, leader: i32) {
        self.retry_at = 0;
        if rules.is_idempotent {
            for batch in &mut self.numbered {
                batch.may_come_late |= batch.on_wire.take_if(|wire| wire.broker != leader).is_some();
            }
        }
    }

    /// Fails everything at once.
    pub fn abort(&mut self, error: &ProduceError) -> Vec<Completed<T>> {
        let numbered = self.numbered.drain(..).map(|batch| batch.waiting);
        let rest = self.full.drain(..).chain(self.open.take()).map(|batch| batch.waiting);
        numbered.chain(rest).map(|waiting| Completed { waiting, result: Err(error.clone()) }).collect()
    }

    /// Nothing of what is here now lingers any longer.
    pub fn make_urgent(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_urgent = true;
        }
    }

    /// When time alone changes what this queue has to do, after `now`.
    #[must_use]
    pub fn next_event(&self, rules: &Rules, now: Millis) -> Option<Millis> {
        let expiry = |created: Millis| created + rules.delivery_timeout_ms;
        let open = self.open.as_ref();
        let events = [
            self.numbered.iter().any(|batch| batch.on_wire.is_none()).then_some(self.retry_at),
            open.map(|open| open.created + rules.linger_ms),
            self.numbered.front().map(|batch| expiry(batch.created)),
            self.full.front().map(|batch| expiry(batch.created)),
            open.map(|open| expiry(open.created)),
        ];
        events.into_iter().flatten().filter(|at| now < *at).min()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbered.is_empty() && self.full.is_empty() && self.open.is_none()
    }

    /// Whether it waits for the producer to have another identity than this.
    #[must_use]
    pub fn needs_identity(&self, producer: Option<Identity>) -> bool {
        match (self.identity, producer) {
            (None, None) => !self.is_empty(),
            (None, Some(_)) => false,
            (Some(own), producer) => {
                let is_used_up = self.must_renumber && own.epoch.0 == i16::MAX;
                is_used_up && producer.is_none_or(|producer| producer.id == own.id)
            }
        }
    }

    fn number_next(&mut self, rules: &Rules, hurry: bool, now: Millis) -> Option<()> {
        let is_ready = |open: &mut Unnumbered<T>| {
            hurry
                || open.is_urgent
                || open.created + rules.linger_ms <= now
                || open.builder.uncompressed_size() >= rules.batch_size
        };
        let next = match self.full.pop_front() {
            Some(full) => full,
            None => self.open.take_if(is_ready)?,
        };
        let base_sequence = self.next_sequence;
        self.next_sequence = advance(base_sequence, next.waiting.len());
        let builder = match self.identity {
            Some(identity) => next.builder.producer(identity.id, identity.epoch, Sequence(base_sequence)),
            None => next.builder,
        };
        self.numbered.push_back(Numbered {
            bytes: builder.build(),
            base_sequence,
            waiting: next.waiting,
            created: next.created,
            attempts: 0,
            on_wire: None,
            may_come_late: false,
            last_refusal: None,
        });
        Some(())
    }

    /// Numbers all batches from 0 in the next epoch, or as the given identity after the last epoch. Returns false while
    /// that has to wait.
    fn renumber(&mut self, fresh: Option<Identity>) -> bool {
        if self.numbered.iter().any(|batch| batch.on_wire.is_some()) {
            return false;
        }
        let next = match self.identity {
            Some(Identity { id, epoch }) if epoch.0 < i16::MAX => {
                Some(Identity { id, epoch: ProducerEpoch(epoch.0 + 1) })
            }
            used_up => fresh.filter(|fresh| used_up.is_none_or(|used_up| used_up.id != fresh.id)),
        };
        let Some(identity) = next else { return false };
        self.identity = next;
        self.must_renumber = false;
        self.next_sequence = 0;
        for batch in &mut self.numbered {
            batch.base_sequence = self.next_sequence;
            self.next_sequence = advance(self.next_sequence, batch.waiting.len());
            let mut bytes = BytesMut::from(&batch.bytes[..]);
            stamp::set_producer(&mut bytes, identity.id, identity.epoch, Sequence(batch.base_sequence));
            batch.bytes = bytes.freeze();
        }
        true
    }

    /// Replaces a batch by its halves, under the numbers that its records have.
    fn split(&mut self, rules: &Rules, index: usize) {
        let batch = &mut self.numbered[index];
        let records = batch::records(&batch.bytes, MAX_UNCOMPRESSED_BYTES)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .expect("a batch that was written here can be read here");
        let middle = records.len() / 2;
        let (first, second) = records.split_at(middle);
        let mut tokens = std::mem::take(&mut batch.waiting);
        let second_tokens = tokens.split_off(middle);
        let (created, base_sequence, attempts) = (batch.created, batch.base_sequence, batch.attempts);
        let may_come_late = batch.may_come_late;
        let half = |records: &[batch::Record], waiting: Vec<T>, base_sequence: i32| {
            let mut builder =
                BatchBuilder::new().compression(rules.compression).compression_level(rules.compression_level);
            if let Some(identity) = self.identity {
                builder = builder.producer(identity.id, identity.epoch, Sequence(base_sequence));
            }
            for record in records {
                builder.append_record(
                    record.timestamp,
                    record.key.as_deref(),
                    record.value.as_deref(),
                    &record.headers,
                );
            }
            let bytes = builder.build();
            Numbered {
                bytes,
                base_sequence,
                waiting,
                created,
                attempts,
                on_wire: None,
                may_come_late,
                last_refusal: None,
            }
        };
        let second = half(second, second_tokens, advance(base_sequence, middle));
        self.numbered[index] = half(first, tokens, base_sequence);
        self.numbered.insert(index + 1, second);
    }
}

/// The number after `count` more records: from the largest number it goes on with 0.
fn advance(sequence: i32, count: usize) -> i32 {
    let sum = i64::from(sequence) + count as i64;
    (sum % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
