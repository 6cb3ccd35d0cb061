//! Holds a log against its model.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vltava_protocol::batch::batches;
use vltava_replication::{ProducerBatch, ProducerStates};
use vltava_storage::{LoadedLog, Log, LogReader, ReadLimits, StorageError};
use vltava_types::{Offset, TimestampMs};

use crate::model::{Allowed, Batch, Cleaning, Model};

pub fn everything() -> ReadLimits {
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
        let checkpointed_high_watermark = model.checkpointed_high_watermark;
        model.start_over(start);
        // Nobody has given up anything here.
        model.checkpointed_high_watermark = checkpointed_high_watermark;
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
    let sees_cleaned = model.between(start, end).any(|batch| batch.may_be_cleaned);
    if allowed.cleaned_by.is_some() || sees_cleaned {
        let cleaning = allowed.cleaned_by.unwrap_or(Cleaning { end: i64::MAX, now: i64::MAX });
        take_in_cleaned(log, &mut model, cleaning);
    }
    model.note_sequences();
    assert_eq!(log.recovery_point().value(), end, "everything that was kept is on disk");
    check(log, &model);
    model
}

/// What compaction has left is lawful, and is what the log holds from now on.
pub fn take_in_cleaned(log: &Log, model: &mut Model, cleaning: Cleaning) {
    let (start, end) = (model.start, model.end);
    let read = read_all(&log.reader(), log.log_start_offset());
    let mut found: BTreeMap<i64, Batch> = batches(&read)
        .map(|batch| Batch::of(Bytes::copy_from_slice(batch.expect("whole batches").bytes)))
        .map(|batch| (batch.base(), batch))
        .collect();
    let held: Vec<&Batch> = model.between(start, end).collect();
    for batch in found.values() {
        let before = held.iter().find(|before| before.base() == batch.base()).expect("no batch is begotten");
        check_cleaned_batch(before, batch, cleaning);
    }
    // Below the start, the records that others were given up for may be gone since.
    if !held.iter().any(|batch| batch.may_be_cleaned) {
        let after: Vec<&Batch> = found.values().collect();
        check_what_is_gone(&held, &after, cleaning);
    }
    let ends: Vec<i64> = held.iter().map(|batch| batch.end()).collect();
    assert_eq!(found.values().next_back().map(Batch::end), ends.last().copied(), "the last batch stays");
    model.was_compacted = true;
    model.batches.retain_mut(|batch| {
        if batch.end() <= start {
            batch.may_be_cleaned = true;
            return true;
        }
        match found.remove(&batch.base()) {
            Some(cleaned) => *batch = cleaned,
            None => return batch.base() >= end,
        }
        true
    });
}

/// Offsets, timestamps and bytes of records that stay are what they were, and so is the place of the batch.
fn check_cleaned_batch(before: &Batch, after: &Batch, cleaning: Cleaning) {
    let place = |batch: &Batch| {
        let header = &batch.header;
        let producer = (header.producer_id, header.producer_epoch, header.base_sequence);
        (header.base_offset, header.last_offset(), header.partition_leader_epoch, producer)
    };
    assert_eq!(place(before), place(after));
    assert!(before.base() < cleaning.end || before.bytes == after.bytes, "{} was not to be touched", before.base());
    for record in &after.records {
        assert!(before.records.contains(record), "{record:?} was never written");
    }
}

/// Of each key the last record stays, unless it is a tombstone whose time has passed.
fn check_what_is_gone(before: &[&Batch], after: &[&Batch], cleaning: Cleaning) {
    let kept: BTreeSet<i64> =
        after.iter().flat_map(|batch| &batch.records).map(|record| record.offset.value()).collect();
    for batch in before {
        let is_past_horizon = batch.header.delete_horizon().is_some_and(|horizon| horizon.value() <= cleaning.now);
        for record in batch.records.iter().filter(|record| !kept.contains(&record.offset.value())) {
            let offset = record.offset.value();
            assert!(offset < cleaning.end, "offset {offset} was not to be touched");
            let mut later = before.iter().flat_map(|batch| &batch.records).filter(|later| later.key == record.key);
            let is_superseded = later.any(|later| later.offset > record.offset && later.offset.value() < cleaning.end);
            let is_old_tombstone = record.value.is_none() && is_past_horizon;
            assert!(is_superseded || is_old_tombstone, "the last record of its key is gone: {record:?}");
        }
    }
    assert_eq!(values(before), values(after), "keys have other values");
}

/// What a reader of all records takes for the value of each key.
fn values(batches: &[&Batch]) -> BTreeMap<Bytes, Bytes> {
    let mut values = BTreeMap::new();
    for record in batches.iter().flat_map(|batch| &batch.records) {
        let key = record.key.clone().unwrap_or_default();
        match &record.value {
            Some(value) => _ = values.insert(key, value.clone()),
            None => _ = values.remove(&key),
        }
    }
    values
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

/// After a start with a decayed batch: what was cut off was told, unless an earlier start has done it and lost power then, and
/// what was not is found when it is read.
pub fn check_decayed_recovery(
    loaded: &LoadedLog,
    allowed: &Allowed,
    decayed: (i64, i64),
    is_first_start: bool,
) -> Result<(), StorageError> {
    let (log, report) = (&loaded.log, &loaded.recovery);
    let (start, end) = (log.log_start_offset().value(), log.log_end_offset().value());
    if end < allowed.min_end {
        assert!(end <= decayed.0 || start == end, "sound batches up to {} were cut off at {end}", allowed.min_end);
        assert!(report.bytes_cut > 0 || !is_first_start, "cut off without a word: {report:?}");
        for name in ["recovery-point-offset-checkpoint", "replication-offset-checkpoint"] {
            let checkpoint = vltava_storage::OffsetCheckpoint::open(loaded.log_dir.path().join(name))?;
            let known = checkpoint.get(&loaded.partition).unwrap_or_default().value();
            assert!(known <= end || report.lost_below.is_some(), "below {known} nothing was to be missing: {report:?}");
        }
    }
    let model = Model { start, end, ..allowed.model.clone() };
    // What is in memory may hide it, until the scrub has it read from the platter.
    check_decayed(log, &model, decayed, false)?;
    scrub_decayed(log, end, decayed)
}

/// Every read gives what was written, or says that something is corrupt; where the batch is read from the platter, it does say
/// so.
pub fn check_decayed(
    log: &Log,
    model: &Model,
    decayed: (i64, i64),
    is_on_platter_only: bool,
) -> Result<(), StorageError> {
    let reader = log.reader();
    for batch in model.between(model.start, model.end) {
        for offset in [batch.base().max(model.start), batch.end() - 1] {
            match reader.read(Offset(offset), ReadLimits { max_bytes: 1, ..everything() }) {
                Ok(read) => {
                    let is_same = read == batch.bytes || batch.may_be_cleaned;
                    assert!(is_same, "offset {offset} leads to {}", show(&read));
                    assert!(batch.base() != decayed.0 || !is_on_platter_only, "damage is served");
                }
                Err(StorageError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// A scrub finds a decayed batch in a closed segment.
pub fn scrub_decayed(log: &Log, committed: i64, decayed: (i64, i64)) -> Result<(), StorageError> {
    let segments = log.segments();
    let is_readable = decayed.0 < log.log_end_offset().value() && segments[0].base_offset.value() <= decayed.0;
    let next = segments.iter().find(|segment| segment.base_offset.value() > decayed.0);
    let is_closed = next.is_some_and(|next| next.base_offset.value() <= committed.min(log.recovery_point().value()));
    let mut is_found = false;
    for mut scrub in log.scrub_closed_segments(Offset(committed)) {
        while !scrub.is_done() && !is_found {
            match scrub.advance(500) {
                Ok(_) => {}
                Err(StorageError::Corrupt { .. }) => is_found = true,
                Err(error) => return Err(error),
            }
        }
    }
    assert_eq!(is_found, is_closed && is_readable, "the scrub");
    Ok(())
}

/// Whatever the indexes say, a lookup finds what a walk through all batches does.
fn check_lookups(reader: &LogReader, held: &[&Batch], model: &Model) {
    for batch in held {
        for offset in [batch.base().max(model.start), batch.end() - 1] {
            let read = reader.read(Offset(offset), ReadLimits { max_bytes: 1, ..everything() }).expect("readable");
            assert!(read == batch.bytes, "offset {offset} leads to {}", show(&read));
        }
    }
    let records: Vec<(i64, i64)> = held
        .iter()
        .flat_map(|batch| &batch.records)
        .map(|record| (record.offset.value(), record.timestamp.value()))
        .filter(|(offset, _)| *offset >= model.start)
        .collect();
    let step = (records.len() / 4).max(1);
    for (_, target) in records.iter().copied().step_by(step) {
        let expected = records.iter().copied().find(|(_, timestamp)| *timestamp >= target);
        let found = reader.offset_for_timestamp(TimestampMs(target), Offset(model.end)).expect("readable");
        let found = found.map(|found| (found.offset.value(), found.timestamp.value()));
        assert_eq!(found, expected, "the first record since {target}");
    }
    let largest = records.iter().map(|(_, timestamp)| *timestamp).max();
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
    if model.was_compacted {
        // What a truncation brings back may have been compacted away, and be known from a snapshot.
        for (id, (_, last_offset)) in replayed(&mut held.iter().copied()) {
            assert!(known.get(&id).is_some_and(|(_, known)| *known >= last_offset), "producer {id}");
        }
        return;
    }
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
