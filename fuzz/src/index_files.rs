//! Any index files beside a sound segment: reads by offset serve exactly the segment's batches or say that something is
//! corrupt, lookups by time stay within the log, and recovery without trust makes the indexes right.
//!
//! Input: a byte of modes, then the offset index with its length, then the time index.

use std::fs;
use std::sync::OnceLock;

use bytes::Bytes;
use vltava_storage::{Log, LogOptions, StorageError};
use vltava_types::{Offset, TopicId};

use crate::input::Input;
use crate::stored_log::{batch, check_lookups, check_reads, check_reopening, config, directory};

const BATCHES: i64 = 12;
const FIRST: &str = "00000000000000000000";

/// A whole segment, and the batches in it with their offsets.
type Segment = (Vec<u8>, Vec<(Offset, Bytes)>);

fn segment() -> &'static Segment {
    static SEGMENT: OnceLock<Segment> = OnceLock::new();
    SEGMENT.get_or_init(|| {
        let batches: Vec<_> = (0..BATCHES).map(|index| (Offset(3 * index), batch(Offset(3 * index), 3))).collect();
        (batches.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect(), batches)
    })
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.byte();
    let (bytes, expected) = segment();
    let home = directory();
    let log_directory = home.path().join("topic-0");
    drop(Log::create(&log_directory, TopicId::default(), config(), LogOptions::default()).expect("created"));
    fs::write(log_directory.join(format!("{FIRST}.log")), bytes).expect("written");
    fs::write(log_directory.join(format!("{FIRST}.index")), input.chunk()).expect("written");
    fs::write(log_directory.join(format!("{FIRST}.timeindex")), input.rest()).expect("written");
    // Whether the indexes are trusted as a whole, up to the recovery point, or not at all.
    let recovery_point = Offset(i64::from(mode >> 1) % (3 * BATCHES + 1));
    let options = LogOptions { clean_shutdown: mode & 1 != 0, recovery_point, ..LogOptions::default() };
    let (log, _) = Log::open(&log_directory, config(), options).expect("a sound segment can be opened");
    assert_eq!(log.log_end_offset(), Offset(3 * BATCHES), "no index makes a segment end early");
    check_lookups(&log);
    match check_reads(&log) {
        Ok(found) => {
            assert_eq!(found, *expected, "reads give what is there");
            check_reopening(log, &log_directory, expected);
        }
        Err(StorageError::Corrupt { .. }) if mode & 1 != 0 => {}
        Err(error) => panic!("reading fails with {error}"),
    }
}
