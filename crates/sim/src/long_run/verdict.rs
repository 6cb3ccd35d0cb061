//! What can be said of a run only when it is over: the clients' whole history, held against what is left in the end.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Key, Ledger, Number, Outcome, Remains, Violation, Write};
use super::plan::{Plan, RETENTION, TopicKind};

/// Every promise that the history shows broken, besides those that were seen at once.
#[must_use]
pub fn judge(plan: &Plan, ledger: &Ledger) -> Vec<Violation> {
    let mut verdict = Verdict { ledger, violations: vec![] };
    for (key, remains) in &ledger.remains {
        let Some(topic) = plan.topic(&key.0) else { continue };
        verdict.check_acknowledged(key, topic.kind, remains);
        verdict.check_told(key, topic.kind, remains);
        verdict.check_send_order(key);
        if topic.kind == TopicKind::Kept {
            verdict.check_readers(key, remains);
            verdict.check_groups(key, remains);
        }
    }
    verdict.violations
}

struct Verdict<'a> {
    ledger: &'a Ledger,
    violations: Vec<Violation>,
}

impl Verdict<'_> {
    fn violate(&mut self, kind: &'static str, detail: String) {
        self.violations.push(Violation { at: self.ledger.healed_at.unwrap_or_default(), kind, detail });
    }

    fn writes_to(&self, key: &Key) -> impl Iterator<Item = (Number, &Write)> {
        let all = self.ledger.writes.iter().enumerate().map(|(number, write)| (number as Number, write));
        all.filter(move |(_, write)| write.key == *key)
    }

    /// Lost writes: what all in-sync replicas acknowledged is where it was acknowledged.
    fn check_acknowledged(&mut self, key: &Key, kind: TopicKind, remains: &Remains) {
        let acknowledged: Vec<(Number, i64)> = self
            .writes_to(key)
            .filter_map(|(number, write)| match write.outcome {
                Outcome::Acknowledged { offset: Some(offset), .. } if write.acks == -1 => Some((number, offset)),
                _ => None,
            })
            .collect();
        for (number, offset) in acknowledged {
            if let Some(why) = self.is_missing(key, kind, remains, number, offset) {
                self.violate("lost-write", format!("{}-{}: {number} acknowledged at {offset}: {why}", key.0, key.1));
            }
        }
    }

    /// What anybody read is still there.
    fn check_told(&mut self, key: &Key, kind: TopicKind, remains: &Remains) {
        let told: Vec<(i64, Number)> = self.ledger.told.get(key).into_iter().flatten().map(|(o, n)| (*o, *n)).collect();
        for (offset, number) in told {
            if let Some(why) = self.is_missing(key, kind, remains, number, offset) {
                self.violate("lost-read", format!("{}-{}: {number} seen at {offset}: {why}", key.0, key.1));
            }
        }
    }

    /// Why a record is not there, if it should be.
    fn is_missing(&self, key: &Key, kind: TopicKind, remains: &Remains, number: Number, offset: i64) -> Option<String> {
        if remains.records.get(&offset) == Some(&number) {
            return None;
        }
        let found = remains.records.get(&offset);
        let (start, end) = (remains.log_start_offset, remains.end_offset);
        let write = &self.ledger.writes[number as usize];
        let may_be_gone = match kind {
            TopicKind::Kept => false,
            TopicKind::Trimmed => offset < start && start <= self.ledger.deleted_to.get(key).copied().unwrap_or(0),
            TopicKind::Retained => {
                let healed_at = self.ledger.healed_at.unwrap_or_default();
                offset < start && write.began + RETENTION <= healed_at + super::LIVENESS_LIMIT * 3
            }
            // A later record with the same key has taken its place.
            TopicKind::Compacted => remains
                .records
                .range(offset + 1..)
                .any(|(_, later)| self.ledger.writes[*later as usize].record_key == write.record_key),
        };
        if may_be_gone && found.is_none() {
            return None;
        }
        Some(format!("found {found:?} in a log from {start} to {end}"))
    }

    /// A value whose writing began after another one was acknowledged comes after it, as long as all in-sync replicas
    /// acknowledge.
    fn check_send_order(&mut self, key: &Key) {
        let mut events: Vec<(std::time::Duration, bool, i64, Number)> = vec![];
        for (number, write) in self.writes_to(key).filter(|(_, write)| write.acks == -1) {
            if let Outcome::Acknowledged { offset: Some(offset), at } = write.outcome {
                events.push((at, true, offset, number));
                events.push((write.began, false, offset, number));
            }
        }
        // Of what happens at the same time, beginnings come first: they prove nothing.
        events.sort();
        let mut acknowledged_to = -1;
        let mut wrong = vec![];
        for (_, is_end, offset, number) in events {
            if is_end {
                acknowledged_to = acknowledged_to.max(offset);
            } else if offset <= acknowledged_to {
                wrong.push(format!("{}-{}: {number} at {offset} was sent after {acknowledged_to}", key.0, key.1));
            }
        }
        wrong.into_iter().for_each(|detail| self.violate("nonmonotonic-send", detail));
    }

    /// Poll skip: between the first and the last record that a reader saw it saw all.
    fn check_readers(&mut self, key: &Key, remains: &Remains) {
        let readers: BTreeMap<usize, BTreeSet<i64>> = self
            .ledger
            .readings
            .iter()
            .filter(|((_, read), _)| read == key)
            .map(|((reader, _), readings)| (*reader, readings.offsets.iter().copied().collect()))
            .collect();
        for (reader, offsets) in readers {
            let position = self.ledger.readings[&(reader, key.clone())].position;
            let skipped = remains.records.range(..position).find(|(offset, _)| !offsets.contains(offset));
            if let Some((offset, number)) = skipped {
                let detail = format!("reader {reader} of {}-{} never saw {number} at {offset}", key.0, key.1);
                self.violate("poll-skip", detail);
            }
        }
    }

    /// What a group has committed was read by one of its members.
    fn check_groups(&mut self, key: &Key, remains: &Remains) {
        let committed: Vec<(usize, i64)> = self
            .ledger
            .committed
            .iter()
            .filter(|((_, read), _)| read == key)
            .map(|((group, _), offset)| (*group, *offset))
            .collect();
        let nothing = BTreeMap::new();
        for (group, offset) in committed {
            let read = self.ledger.group_readings.get(&(group, key.clone())).unwrap_or(&nothing);
            let skipped = remains.records.range(..offset).find(|(offset, _)| !read.contains_key(offset));
            if let Some((offset, number)) = skipped {
                let detail = format!("group {group} never saw {number} at {offset} of {}-{}", key.0, key.1);
                self.violate("group-skip", detail);
            }
        }
    }
}
