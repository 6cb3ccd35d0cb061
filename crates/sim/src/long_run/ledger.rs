//! What clients did and were told, as it happens. What must hold at once is checked at once; what can only be said in
//! the end is left to [`super::verdict`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::batch::RecordHeader;

/// A partition of a topic that lives as long as the run.
pub type Key = (String, i32);

/// Values are numbered in the order in which producers began to write them.
pub type Number = u64;

/// A broken promise. Kinds are called as in Jepsen's Kafka tests where those know them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Duration,
    pub kind: &'static str,
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.3?} {}: {}", self.at, self.kind, self.detail)
    }
}

/// One value on its way into a partition.
#[derive(Clone, Debug)]
pub struct Write {
    pub producer: usize,
    pub key: Key,
    /// The record's key.
    pub record_key: String,
    pub acks: i16,
    pub is_idempotent: bool,
    pub began: Duration,
    pub outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Pending,
    /// The offset where it was told.
    Acknowledged {
        offset: Option<i64>,
        at: Duration,
    },
    /// It may be there or not.
    Unknown,
}

/// One reader's way through one partition.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// In the order of reading.
    pub offsets: Vec<i64>,
    /// The next one to come, as the reader tells.
    pub position: i64,
}

/// How operations of one kind went.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operations {
    pub succeeded: u64,
    pub failed: u64,
    /// Begun after everything was healed.
    pub succeeded_after_healing: u64,
}

/// What clients are to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Topics are being created.
    #[default]
    Forming,
    Working,
    /// No new values: readers come to the end.
    Draining,
    /// Everything is read once more.
    Auditing,
    Over,
}

/// What is left in the end of a partition, read from its first offset to its last.
#[derive(Clone, Debug, Default)]
pub struct Remains {
    pub log_start_offset: i64,
    pub end_offset: i64,
    pub records: BTreeMap<i64, Number>,
}

/// The whole history.
#[derive(Default)]
pub struct Ledger {
    pub stage: Stage,
    pub healed_at: Option<Duration>,
    pub writes: Vec<Write>,
    /// What anybody was told is at an offset: by an acknowledgement of all in-sync replicas, or by reading.
    pub told: BTreeMap<Key, BTreeMap<i64, Number>>,
    /// Where the values of idempotent producers are.
    places: BTreeMap<Number, i64>,
    pub readings: BTreeMap<(usize, Key), Readings>,
    /// Offsets that members of a group read, each at least once.
    pub group_readings: BTreeMap<(usize, Key), BTreeMap<i64, u32>>,
    pub committed: BTreeMap<(usize, Key), i64>,
    /// Which member, in which of its lives, was told that it owns a partition, by group and generation.
    owners: BTreeMap<(usize, i32), BTreeMap<Key, (usize, u64)>>,
    pub latest: BTreeMap<Key, i64>,
    /// The log starts that DeleteRecords was answered with.
    pub earliest: BTreeMap<Key, i64>,
    /// The highest offset that DeleteRecords was asked to delete up to.
    pub deleted_to: BTreeMap<Key, i64>,
    pub partitions: BTreeMap<String, i32>,
    pub operations: BTreeMap<&'static str, Operations>,
    pub remains: BTreeMap<Key, Remains>,
    pub violations: Vec<Violation>,
    /// Events that a reader of the history wants to see: faults, operations, refusals.
    pub notes: Vec<(Duration, String)>,
    /// Hashes everything that clients were told.
    pub digest: Digest,
}

/// More violations tell nothing more.
const MAX_VIOLATIONS: usize = 50;

impl Ledger {
    pub fn violate(&mut self, at: Duration, kind: &'static str, detail: String) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { at, kind, detail });
        }
    }

    pub fn note(&mut self, at: Duration, what: String) {
        self.digest.add(&what);
        self.notes.push((at, what));
    }

    pub fn operation(&mut self, kind: &'static str, began: Duration, succeeded: bool) {
        let healed_at = self.healed_at;
        let operations = self.operations.entry(kind).or_default();
        if !succeeded {
            operations.failed += 1;
            return;
        }
        operations.succeeded += 1;
        if healed_at.is_some_and(|healed_at| healed_at <= began) {
            operations.succeeded_after_healing += 1;
        }
    }

    /// A producer is about to write the next value.
    pub fn begin_write(&mut self, write: Write) -> Number {
        self.writes.push(write);
        self.writes.len() as u64 - 1
    }

    pub fn end_write(&mut self, number: Number, outcome: Outcome, now: Duration) {
        self.digest.add(&format!("{number} {outcome:?}"));
        let write = &mut self.writes[number as usize];
        write.outcome = outcome;
        let (acks, began) = (write.acks, write.began);
        let Outcome::Acknowledged { offset, .. } = outcome else { return };
        self.operation("Produce", began, true);
        if let Some(offset) = offset
            && acks == -1
        {
            let key = self.writes[number as usize].key.clone();
            self.tell(&key, offset, number, now, "acknowledged");
        }
    }

    /// Somebody was told that a value is at an offset.
    fn tell(&mut self, key: &Key, offset: i64, number: Number, now: Duration, how: &str) {
        let (topic, partition) = key;
        let known = *self.told.entry(key.clone()).or_default().entry(offset).or_insert(number);
        if known != number {
            let detail = format!("{topic}-{partition} offset {offset} held {known}, and is {how} to hold {number}");
            self.violate(now, "inconsistent-offsets", detail);
        }
        if self.writes[number as usize].is_idempotent {
            let place = *self.places.entry(number).or_insert(offset);
            if place != offset {
                let detail = format!("{topic}-{partition} holds {number} at {place} and at {offset}");
                self.violate(now, "duplicate", detail);
            }
        }
    }

    /// Somebody read a record. Returns its number if it is one of ours.
    pub fn read(&mut self, who: &str, key: &Key, record: &Seen, now: Duration) -> Option<Number> {
        let (topic, partition) = key;
        let offset = record.offset;
        let number = parse(record.value.as_ref()).filter(|number| (*number as usize) < self.writes.len());
        let Some(number) = number else {
            let value = record.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
            let detail = format!("{who} read {value:?} at {topic}-{partition} offset {offset}, which nobody wrote");
            self.violate(now, "unknown-record", detail);
            return None;
        };
        let write = &self.writes[number as usize];
        let as_written = write.key == *key
            && record.value == Some(value_of(number))
            && record.key.as_deref() == Some(write.record_key.as_bytes())
            && record.headers == headers_of(number);
        if !as_written {
            let detail = format!("{who} read {number} at {topic}-{partition} offset {offset}, not as it was written");
            self.violate(now, "changed-record", detail);
        }
        self.digest.add(&format!("{who} {partition} {offset} {number}"));
        self.tell(key, offset, number, now, "read");
        Some(number)
    }

    /// A reader without a group read a record: its offsets increase (external poll order).
    pub fn read_in_order(&mut self, reader: usize, key: &Key, record: &Seen, now: Duration) {
        if self.read(&format!("reader {reader}"), key, record, now).is_none() {
            return;
        }
        let readings = self.readings.entry((reader, key.clone())).or_default();
        let last = readings.offsets.last().copied();
        readings.offsets.push(record.offset);
        if last.is_some_and(|last| record.offset <= last) {
            let detail = format!("reader {reader} of {}-{} read {} after {last:?}", key.0, key.1, record.offset);
            self.violate(now, "nonmonotonic-poll", detail);
        }
    }

    pub fn read_in_group(&mut self, group: usize, key: &Key, record: &Seen, now: Duration) {
        if self.read(&format!("group {group}"), key, record, now).is_some() {
            *self.group_readings.entry((group, key.clone())).or_default().entry(record.offset).or_default() += 1;
        }
    }

    /// A group's commit was accepted. What it had committed before it began is `floor`.
    pub fn commit(&mut self, group: usize, key: &Key, offset: i64, floor: Option<i64>, now: Duration) {
        self.digest.add(&format!("commit {group} {} {offset}", key.1));
        if let Some(floor) = floor.filter(|floor| offset < *floor) {
            let detail = format!("group {group} committed {offset} of {}-{} after {floor}", key.0, key.1);
            self.violate(now, "commit-went-back", detail);
        }
        let committed = self.committed.entry((group, key.clone())).or_default();
        *committed = (*committed).max(offset);
    }

    /// A member of a group was told what it owns: in a generation, nobody else does.
    pub fn own(
        &mut self,
        group: usize,
        generation: i32,
        member: (usize, u64),
        owned: impl Iterator<Item = Key>,
        now: Duration,
    ) {
        for key in owned {
            let owners = self.owners.entry((group, generation)).or_default();
            let owner = *owners.entry(key.clone()).or_insert(member);
            if owner != member {
                let detail = format!(
                    "{}-{} belongs to {owner:?} and {member:?} in generation {generation} of group {group}",
                    key.0, key.1
                );
                self.violate(now, "two-owners", detail);
            }
        }
    }

    /// The newest generation in which a member was told what it owns.
    #[must_use]
    pub fn newest_generation(&self, group: usize) -> Option<i32> {
        self.owners.range((group, i32::MIN)..=(group, i32::MAX)).next_back().map(|((_, generation), _)| *generation)
    }

    /// A commit of a member of `generation` was accepted, and `newest` was under way before it began.
    pub fn committed_in(&mut self, group: usize, generation: Option<i32>, newest: Option<i32>, now: Duration) {
        if generation.is_some() && generation < newest {
            let detail = format!("group {group} took a commit of generation {generation:?} in generation {newest:?}");
            self.violate(now, "zombie-commit", detail);
        }
    }

    /// A coordinator told what a group has committed, in answer to a question after `floor` had been accepted.
    pub fn fetched_commit(&mut self, group: usize, key: &Key, offset: Option<i64>, floor: i64, now: Duration) {
        if offset.is_none_or(|offset| offset < floor) {
            let detail = format!("group {group} has committed {floor} of {}-{}, and is told {offset:?}", key.0, key.1);
            self.violate(now, "lost-commit", detail);
        }
    }

    /// The least that a client may be told as the latest offset, if it asks now.
    #[must_use]
    pub fn latest_floor(&self, key: &Key) -> i64 {
        let told = self.told.get(key).and_then(|told| told.last_key_value()).map_or(0, |(offset, _)| offset + 1);
        self.latest.get(key).copied().unwrap_or(0).max(told)
    }

    pub fn listed_latest(&mut self, key: &Key, offset: i64, floor: i64, now: Duration) {
        if offset < floor {
            let detail = format!("{}-{} ended at {floor}, and is told to end at {offset}", key.0, key.1);
            self.violate(now, "watermark-went-back", detail);
        }
        let latest = self.latest.entry(key.clone()).or_default();
        *latest = (*latest).max(offset);
    }

    /// `floor` is what DeleteRecords had been answered with. Retention, and a deletion without an answer, may be undone by
    /// a new leader that had not heard of it.
    pub fn listed_earliest(&mut self, key: &Key, offset: i64, floor: i64, now: Duration) {
        if offset < floor {
            let detail = format!("{}-{} began at {floor}, and is told to begin at {offset}", key.0, key.1);
            self.violate(now, "log-start-went-back", detail);
        }
    }

    /// Whether a write of this producer that began after healing was acknowledged.
    #[must_use]
    pub fn has_produced_after_healing(&self, producer: usize) -> bool {
        let Some(healed_at) = self.healed_at else { return false };
        self.writes
            .iter()
            .rev()
            .take_while(|write| write.began >= healed_at)
            .any(|write| write.producer == producer && matches!(write.outcome, Outcome::Acknowledged { .. }))
    }
}

/// A record as a client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// The bytes of a value follow from its number; most are short.
#[must_use]
pub fn value_of(number: Number) -> Bytes {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let padding = match mixed >> 60 {
        0 => 3_000 + (mixed >> 20) % 3_000,
        1..4 => 200,
        _ => mixed % 20,
    };
    Bytes::from(format!("{number}:{}", "x".repeat(padding as usize)))
}

#[must_use]
pub fn headers_of(number: Number) -> Vec<RecordHeader> {
    let header = || RecordHeader { key: Bytes::from_static(b"number"), value: Some(Bytes::from(number.to_string())) };
    if number.is_multiple_of(7) { vec![header()] } else { vec![] }
}

fn parse(value: Option<&Bytes>) -> Option<Number> {
    let text = std::str::from_utf8(value?).ok()?;
    text.split_once(':')?.0.parse().ok()
}

/// FNV-1a, which is the same everywhere and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u64);

impl Default for Digest {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    pub fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
