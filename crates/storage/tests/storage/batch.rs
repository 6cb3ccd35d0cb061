//! Batches to store, and how a log looks.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::batch::{BatchBuilder, batches};
use vltava_storage::{
    Log, LogConfig, LogOptions, LogReader, OffsetCheckpoint, PartitionName, ReadLimits, RecoveryPoints,
};
use vltava_types::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicId};

/// Settings that make small logs roll and be indexed.
pub fn config() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 150, ..LogConfig::default() }
}

pub fn create(directory: &Path, config: LogConfig) -> Log {
    Log::create(directory, TopicId::from_random([1; 16]), Arc::new(config), LogOptions::default()).expect("created")
}

/// The log of `orders-0` in a log directory, and its place in the directory's checkpoints.
pub fn create_checkpointed(log_dir: &Path, config: LogConfig) -> (Log, RecoveryPoints) {
    let checkpoint = |name: &str| Arc::new(OffsetCheckpoint::open(log_dir.join(name)).expect("empty"));
    let points = RecoveryPoints {
        checkpoint: checkpoint("recovery-point-offset-checkpoint"),
        high_watermarks: checkpoint("replication-offset-checkpoint"),
        log_start_offsets: checkpoint("log-start-offset-checkpoint"),
        cleaner_checkpoint: checkpoint("cleaner-offset-checkpoint"),
        partition: PartitionName::new("orders", PartitionIndex(0)),
    };
    let options = LogOptions { recovery_points: Some(points.clone()), ..LogOptions::default() };
    let path = log_dir.join("orders-0");
    let log = Log::create(&path, TopicId::from_random([1; 16]), Arc::new(config), options).expect("created");
    (log, points)
}

/// `count` records from `base_offset` on, whose timestamps are 1000 plus their offsets.
pub fn batch(base_offset: i64, count: i64, epoch: i32) -> Bytes {
    fill(BatchBuilder::new().base_offset(Offset(base_offset)).leader_epoch(LeaderEpoch(epoch)), base_offset, count)
}

/// The same, of an idempotent producer.
pub fn idempotent(base_offset: i64, count: i64, producer_id: i64, sequence: i32) -> Bytes {
    let builder = BatchBuilder::new().base_offset(Offset(base_offset)).leader_epoch(LeaderEpoch(0)).producer(
        ProducerId(producer_id),
        ProducerEpoch(0),
        Sequence(sequence),
    );
    fill(builder, base_offset, count)
}

fn fill(mut builder: BatchBuilder, base_offset: i64, count: i64) -> Bytes {
    for offset in base_offset..base_offset + count {
        builder.append(TimestampMs(1000 + offset), None, Some(format!("value {offset}").as_bytes()), &[]);
    }
    builder.build()
}

/// Appends one batch of `count` records at the log end.
pub fn append(log: &mut Log, count: i64, epoch: i32) {
    let batch = batch(log.log_end_offset().value(), count, epoch);
    log.append_as_leader(&batch).expect("appended");
}

pub fn everything() -> ReadLimits {
    ReadLimits { max_bytes: usize::MAX >> 1, end_offset: Offset(i64::MAX), at_least_one_batch: true }
}

/// All bytes from `offset` to the end.
pub fn read_all(reader: &LogReader, mut offset: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let read = reader.read(offset, everything()).expect("readable");
        let Some(last) = batches(&read).last() else { return bytes };
        offset = last.expect("reads return whole batches").header.next_offset();
        bytes.extend_from_slice(&read);
    }
}

/// "first..=last@epoch" for each batch.
pub fn show_batches(bytes: &[u8]) -> String {
    let words: Vec<_> = batches(bytes)
        .map(|batch| {
            let header = batch.expect("whole batches").header;
            format!("{}..={}@{}", header.base_offset, header.last_offset(), header.partition_leader_epoch)
        })
        .collect();
    words.join(" ")
}

pub fn show(log: &Log) -> String {
    show_batches(&read_all(&log.reader(), log.log_start_offset()))
}

pub fn show_segments(log: &Log) -> String {
    let words: Vec<_> =
        log.segments().iter().map(|segment| format!("{}:{}", segment.base_offset, segment.size_bytes)).collect();
    words.join(" ")
}

pub fn show_epochs(log: &Log) -> String {
    let words: Vec<_> =
        log.epochs().entries().iter().map(|entry| format!("{}@{}", entry.epoch, entry.start_offset)).collect();
    words.join(" ")
}

/// The names of a directory's files, sorted.
pub fn list(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = vltava_host::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

pub fn copy_directory(from: &Path, to: &Path) {
    vltava_host::fs::create_dir_all(to).expect("created");
    for name in list(from) {
        let contents = vltava_host::fs::read(from.join(&name)).expect("readable");
        vltava_host::fs::write(to.join(&name), contents).expect("written");
    }
}
