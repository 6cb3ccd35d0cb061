//! Holds a log against its model.

use std::collections::BTreeMap;

use vltava_protocol::batch::batches;
use vltava_replication::{ProducerBatch, ProducerStates};
use vltava_storage::{Log, LogReader, ReadLimits};
use vltava_types::{Offset, TimestampMs};

use crate::model::{Allowed, Batch, Model};

fn everything() -> ReadLimits {
    ReadLimits { max_bytes: usize::MAX >> 1, end_offset: Offset(i64::MAX), at_least_one_batch: true }
}

/// All bytes from `offset` to the end. Every CRC is checked on the way.
fn read_all(reader: &LogReader, mut offset: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let read = reader.read(offset, everything()).expect("readable");
        let Some(last) = batches(&read).last() else { return bytes };
        offset = last.expect("reads return whole batches").header.next_offset();
        bytes.extend_from_slice(&read);
    }
}

/// A log that was recovered is one of those allowed. Returns what it turned out to be.
pub fn check_recovered(log: &Log, allowed: &Allowed) -> Model {
    let (start, end) = (log.log_start_offset().value(), log.log_end_offset().value());
    let mut model = allowed.model.clone();
    if allowed.may_be_empty && start == end {
        // What producers did before may be remembered.
        let batches = std::mem::take(&mut model.batches);
        model.start_over(start);
        model.batches = batches.into_iter().filter(|batch| batch.end() <= start).collect();
    } else {
        assert!(end >= allowed.min_end, "durable below {}, but the log is {start}..{end}", allowed.min_end);
        assert!(end <= model.end.max(allowed.starts.1), "nothing was appended up to {end}");
        assert!(start >= allowed.starts.0, "the start {start} is below {:?}", allowed.starts);
        assert!(start <= allowed.starts.1, "the start {start} is beyond {:?}", allowed.starts);
        model.batches.retain(|batch| batch.base() < end);
        assert!(model.batches.last().is_none_or(|batch| batch.end() <= end), "half a batch is there");
        (model.start, model.end) = (start, end);
        model.durable_start = model.durable_start.min(start);
    }
    model.durable_end = end;
    model.note_sequences();
    assert_eq!(log.recovery_point().value(), end, "everything that was kept is on disk");
    check(log, &model);
    model
}

/// The log holds what the model does, byte for byte, however it is looked up.
pub fn check(log: &Log, model: &Model) {
    assert_eq!((log.log_start_offset().value(), log.log_end_offset().value()), (model.start, model.end));
    assert!((log.log_start_offset()..=log.log_end_offset()).contains(&log.recovery_point()));
    let reader = log.reader();
    let held: Vec<&Batch> = model.between(model.start, model.end).collect();
    let expected: Vec<u8> = held.iter().flat_map(|batch| batch.bytes.iter().copied()).collect();
    let read = read_all(&reader, log.log_start_offset());
    assert!(read == expected, "the log holds {}, expected {}", show(&read), show(&expected));
    check_lookups(&reader, &held, model);
    check_epochs(log, &held, model);
    check_producers(log.producers(), &held, model);
}

/// Whatever the indexes say, a lookup finds what a walk through all batches does.
fn check_lookups(reader: &LogReader, held: &[&Batch], model: &Model) {
    for batch in held {
        for offset in [batch.base().max(model.start), batch.end() - 1] {
            let read = reader.read(Offset(offset), ReadLimits { max_bytes: 1, ..everything() }).expect("readable");
            assert!(read == batch.bytes, "offset {offset} leads to {}", show(&read));
        }
    }
    let step = (held.len() / 4).max(1);
    for target in held.iter().step_by(step).map(|batch| batch.timestamps[0]) {
        let records = held.iter().flat_map(|batch| (batch.base()..).zip(batch.timestamps.iter().copied()));
        let expected = records.filter(|(offset, _)| *offset >= model.start).find(|(_, at)| *at >= target);
        let found = reader.offset_for_timestamp(TimestampMs(target), Offset(model.end)).expect("readable");
        let found = found.map(|found| (found.offset.value(), found.timestamp.value()));
        assert_eq!(found, expected, "the first record since {target}");
    }
    let largest = held.iter().flat_map(|batch| (batch.base()..).zip(batch.timestamps.iter().copied()));
    let largest = largest.filter(|(offset, _)| *offset >= model.start).map(|(_, timestamp)| timestamp).max();
    let found = reader.max_timestamp().expect("readable").map(|found| found.timestamp.value());
    // A record below the start may have the largest timestamp of its segment.
    let all_is_readable = model.batches.first().is_none_or(|first| first.base() >= model.start);
    assert!(found == largest || !all_is_readable, "the largest timestamp is {largest:?}, not {found:?}");
}

fn check_epochs(log: &Log, held: &[&Batch], model: &Model) {
    for batch in held {
        let offset = batch.header.base_offset.max(log.log_start_offset());
        assert_eq!(log.epochs().epoch_of(offset), Some(batch.header.partition_leader_epoch), "at {offset}");
    }
    for entry in log.epochs().entries() {
        assert!(entry.start_offset <= log.log_end_offset(), "{entry:?} begins beyond the end");
        assert!(entry.epoch.value() <= model.epoch, "{entry:?} was never begun");
    }
}

/// A producer of which there is a batch is known as of its last one; others may be known from what is gone.
fn check_producers(producers: &ProducerStates, held: &[&Batch], model: &Model) {
    let entries = |producers: &ProducerStates| -> BTreeMap<i64, (i32, i64)> {
        let entries =
            producers.snapshot().map(|e| (e.producer_id.value(), (e.last_sequence.value(), e.last_offset.value())));
        entries.collect()
    };
    let replayed = |batches: &mut dyn Iterator<Item = &Batch>| {
        let mut states = ProducerStates::default();
        batches.filter(|batch| batch.header.has_producer_id()).for_each(|batch| states.apply(&producer_batch(batch)));
        entries(&states)
    };
    let known = entries(producers);
    for (id, last) in replayed(&mut held.iter().copied()) {
        assert_eq!(known.get(&id), Some(&last), "producer {id}");
    }
    let ever = replayed(&mut model.batches.iter());
    for (id, last) in known {
        assert_eq!(ever.get(&id), Some(&last), "producer {id} is known from nowhere");
    }
}

fn producer_batch(batch: &Batch) -> ProducerBatch {
    let header = &batch.header;
    ProducerBatch {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        last_sequence: header.last_sequence(),
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        timestamp: header.max_timestamp,
        is_transactional: false,
    }
}

/// "first..end" for each batch.
fn show(bytes: &[u8]) -> String {
    let words: Vec<_> = batches(bytes)
        .map(|batch| batch.map_or("?".to_owned(), |b| format!("{}..{}", b.header.base_offset, b.header.next_offset())))
        .collect();
    words.join(" ")
}
