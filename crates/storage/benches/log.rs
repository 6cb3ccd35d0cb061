//! What a log costs, beside what the machine itself can do (`machine`): `cargo bench -p vltava-storage`.
//!
//! Files are in the system's temporary directory, or below `TMPDIR`. docs/performance.md holds what was seen.

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use tempfile::TempDir;
use vltava_protocol::batch::{BatchBuilder, batches, stamp};
use vltava_storage::{
    CleanerOptions, CleaningStep, Log, LogConfig, LogOptions, OffsetMapLimits, ReadLimits, WarmRead, cleanable_range,
};
use vltava_types::{LeaderEpoch, Offset, TimestampMs, TopicId};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The records of a log that is read, opened or compacted.
const LOG_BYTES: usize = 256 * MIB;

const BATCH_SIZES: [usize; 4] = [KIB, 16 * KIB, 256 * KIB, MIB];

fn main() {
    divan::main();
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn create(directory: &Path, config: LogConfig) -> Log {
    Log::create(&directory.join("orders-0"), TopicId::from_random([1; 16]), Arc::new(config), LogOptions::default())
        .expect("created")
}

/// A batch of records of 1 KiB, whose keys count from `first_key` and begin again at `keys`.
fn batch(bytes: usize, first_key: usize, keys: usize) -> BytesMut {
    let mut builder = BatchBuilder::new().leader_epoch(LeaderEpoch(0));
    for i in 0..bytes / KIB {
        let key = format!("key {}", (first_key + i) % keys);
        // Nothing that a file system could make smaller.
        let value: Vec<u8> = (0..KIB - 40).map(|at| (at * (first_key + i) * 31 + at / 7) as u8).collect();
        builder.append(TimestampMs(1_700_000_000_000 + i as i64), Some(key.as_bytes()), Some(&value), &[]);
    }
    BytesMut::from(&builder.build()[..])
}

fn append(log: &mut Log, batch: &mut BytesMut) {
    stamp::set_base_offset(batch, log.log_end_offset());
    log.append_as_leader(batch).expect("appended");
}

/// A log of `LOG_BYTES` in batches of 16 KiB with `keys` different keys, closed in order.
fn filled(directory: &Path, config: LogConfig, keys: usize) -> Log {
    let mut log = create(directory, config);
    for i in 0..LOG_BYTES / (16 * KIB) {
        append(&mut log, &mut batch(16 * KIB, i * 16, keys));
    }
    log.close().expect("closed");
    log
}

fn at_most(max_bytes: usize) -> ReadLimits {
    ReadLimits { max_bytes, end_offset: Offset(i64::MAX), at_least_one_batch: true }
}

/// Numbers spread over `0..below`.
fn scattered(below: u64) -> impl FnMut() -> u64 {
    let mut state = 1_u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 16) % below
    }
}

mod machine {
    use super::*;

    #[divan::bench]
    fn memory_copy(bencher: Bencher) {
        let (from, mut to) = (vec![1_u8; 64 * MIB], vec![0_u8; 64 * MIB]);
        bencher.counter(BytesCount::new(64 * MIB)).bench_local(|| black_box(&mut to).copy_from_slice(black_box(&from)));
    }

    #[divan::bench]
    fn crc32c(bencher: Bencher) {
        let bytes = vec![1_u8; 64 * MIB];
        bencher.counter(BytesCount::new(64 * MIB)).bench_local(|| ::crc32c::crc32c(black_box(&bytes)));
    }

    /// To the page cache.
    #[divan::bench(args = BATCH_SIZES, sample_count = 50)]
    fn sequential_write(bencher: Bencher, size: usize) {
        let mut file = tempfile::tempfile().expect("a file");
        let bytes = vec![1_u8; size];
        let count = 16 * MIB / size;
        bencher.counter(BytesCount::new(size * count)).bench_local(|| {
            (0..count).for_each(|_| file.write_all(&bytes).expect("written"));
        });
    }

    #[divan::bench(args = BATCH_SIZES, sample_count = 30, sample_size = 1)]
    fn write_and_flush(bencher: Bencher, size: usize) {
        let mut file = tempfile::tempfile().expect("a file");
        let bytes = vec![1_u8; size];
        bencher.counter(BytesCount::new(size)).bench_local(|| {
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("on disk");
        });
    }
}

mod append {
    use super::*;

    /// To the page cache, as a leader: the base offset is stamped, and every CRC checked.
    #[divan::bench(args = BATCH_SIZES, sample_count = 50)]
    fn to_page_cache(bencher: Bencher, size: usize) {
        let directory = directory();
        let mut log = create(directory.path(), LogConfig::default());
        let mut batch = batch(size, 0, 1000);
        let count = 16 * MIB / size;
        bencher.counter(BytesCount::new(batch.len() * count)).bench_local(|| {
            (0..count).for_each(|_| super::append(&mut log, &mut batch));
        });
    }

    #[divan::bench(args = BATCH_SIZES, sample_count = 30, sample_size = 1)]
    fn and_flush(bencher: Bencher, size: usize) {
        let directory = directory();
        let mut log = create(directory.path(), LogConfig::default());
        let mut batch = batch(size, 0, 1000);
        bencher.counter(BytesCount::new(batch.len())).bench_local(|| {
            super::append(&mut log, &mut batch);
            log.flush().expect("flushed");
        });
    }
}

mod read {
    use super::*;

    /// The whole log in steps of a megabyte through memory, every CRC checked.
    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn through_memory(bencher: Bencher) {
        let directory = directory();
        let log = filled(directory.path(), LogConfig::default(), 1000);
        let reader = log.reader();
        bencher.counter(BytesCount::new(log.size_bytes())).bench_local(|| {
            let mut offset = log.log_start_offset();
            while offset < log.log_end_offset() {
                let bytes = reader.read(offset, at_most(MIB)).expect("readable");
                let last = batches(&bytes).last().expect("there is more").expect("reads return whole batches");
                offset = last.header.next_offset();
            }
        });
    }

    /// To find the megabyte that `sendfile` is then given.
    #[divan::bench]
    fn region_of_a_megabyte(bencher: Bencher) {
        let directory = directory();
        let log = filled(directory.path(), LogConfig::default(), 1000);
        let reader = log.reader();
        let mut next = scattered((LOG_BYTES / KIB - KIB) as u64);
        bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
            let found = reader.read_warm(Offset(next() as i64), at_most(MIB), 16 * KIB, MIB).expect("readable");
            assert!(matches!(black_box(found), WarmRead::Region(_)));
        });
    }

    #[divan::bench]
    fn one_batch_by_offset(bencher: Bencher) {
        let directory = directory();
        let log = filled(directory.path(), LogConfig::default(), 1000);
        let reader = log.reader();
        let mut next = scattered((LOG_BYTES / KIB) as u64);
        bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
            black_box(reader.read(Offset(next() as i64), at_most(1)).expect("readable"));
        });
    }

    #[divan::bench]
    fn offset_for_timestamp(bencher: Bencher) {
        let directory = directory();
        let log = filled(directory.path(), LogConfig::default(), 1000);
        let reader = log.reader();
        bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
            let found = reader.offset_for_timestamp(TimestampMs(1_700_000_000_007), log.log_end_offset());
            black_box(found.expect("readable"));
        });
    }
}

mod recovery {
    use super::*;

    fn open(directory: &Path, clean_shutdown: bool) -> Log {
        let options = LogOptions { clean_shutdown, ..LogOptions::default() };
        let (log, _) = Log::open(&directory.join("orders-0"), Arc::new(LogConfig::default()), options).expect("opened");
        log
    }

    /// Nothing of it was flushed as far as the checkpoint tells: every batch is checked and indexed anew.
    #[divan::bench(sample_count = 5, sample_size = 1)]
    fn of_unflushed_bytes(bencher: Bencher) {
        let directory = directory();
        let bytes = filled(directory.path(), LogConfig::default(), 1000).size_bytes();
        bencher.counter(BytesCount::new(bytes)).bench_local(|| open(directory.path(), false));
    }

    #[divan::bench(sample_count = 20)]
    fn after_a_clean_shutdown(bencher: Bencher) {
        let directory = directory();
        drop(filled(directory.path(), LogConfig::default(), 1000));
        bencher.counter(ItemsCount::new(1_u32)).bench_local(|| open(directory.path(), true));
    }
}

mod idle_partition {
    use super::*;

    const PARTITIONS: usize = 200;

    #[divan::bench(sample_count = 10, sample_size = 1)]
    fn create_one_of_many(bencher: Bencher) {
        bencher.counter(ItemsCount::new(PARTITIONS)).with_inputs(directory).bench_local_refs(|directory| {
            for partition in 0..PARTITIONS {
                create(&directory.path().join(partition.to_string()), LogConfig::default());
            }
        });
    }

    #[divan::bench(sample_count = 10, sample_size = 1)]
    fn open_one_of_many(bencher: Bencher) {
        let directory = directory();
        let paths: Vec<_> = (0..PARTITIONS).map(|partition| directory.path().join(partition.to_string())).collect();
        for path in &paths {
            let mut log = create(path, LogConfig::default());
            append(&mut log, &mut batch(KIB, 0, 1000));
            log.close().expect("closed");
        }
        let config = Arc::new(LogConfig::default());
        bencher.counter(ItemsCount::new(PARTITIONS)).bench_local(|| {
            for path in &paths {
                let options = LogOptions { clean_shutdown: true, ..LogOptions::default() };
                black_box(Log::open(&path.join("orders-0"), Arc::clone(&config), options).expect("opened"));
            }
        });
    }
}

mod compaction {
    use super::*;

    const NOW: TimestampMs = TimestampMs(1_800_000_000_000);

    fn config() -> LogConfig {
        LogConfig {
            segment_bytes: 64 * MIB as u32,
            is_compacted: true,
            delete_by_retention: false,
            ..LogConfig::default()
        }
    }

    /// Bytes read, of a log whose records have so many keys: nearly all goes, or nearly all stays.
    #[divan::bench(args = [1_000, LOG_BYTES / KIB], sample_count = 3, sample_size = 1)]
    fn of_keys(bencher: Bencher, keys: usize) {
        bencher
            .counter(BytesCount::new(LOG_BYTES))
            .with_inputs(|| {
                let directory = directory();
                let log = filled(directory.path(), config(), keys);
                (directory, log)
            })
            .bench_local_refs(|(_, log)| compact(log));
    }

    fn compact(log: &mut Log) {
        let end = log.log_end_offset();
        let facts = log.cleaning_facts(end, None).expect("readable");
        let options =
            CleanerOptions { map: OffsetMapLimits { bytes: 128 * MIB, load_factor: 0.9 }, io_buffer_bytes: 512 * KIB };
        let mut pass = log.begin_cleaning(cleanable_range(&facts, None, NOW), end, options, NOW);
        loop {
            match pass.step().expect("cleaned") {
                CleaningStep::Worked { .. } => {}
                CleaningStep::Replace(cleaned) => assert!(log.replace_segments(&cleaned, NOW).expect("replaced")),
                CleaningStep::Done(_) => return,
            }
        }
    }
}
