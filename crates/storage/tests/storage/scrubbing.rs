use std::path::Path;

use bytes::Bytes;
use vltava_host::fs;
use vltava_protocol::batch::{BatchHeader, batches};
use vltava_storage::{Log, ReadLimits, StorageError};
use vltava_types::Offset;

use crate::batch::{append, batch, config, create, read_all, show_segments};

fn flip_bit(path: &Path, position: usize) {
    flip(path, position, 4);
}

fn flip(path: &Path, position: usize, bit: usize) {
    let mut bytes = fs::read(path).expect("the file");
    bytes[position] ^= 1 << bit;
    fs::write(path, bytes).expect("the file");
}

/// The bytes that a scrub of everything closed has read, or where it found damage.
fn scrub(log: &Log, committed: i64) -> Result<u64, String> {
    let mut bytes = 0;
    for mut segment in log.scrub_closed_segments(Offset(committed)) {
        while !segment.is_done() {
            match segment.advance(100) {
                Ok(read) => bytes += read,
                Err(StorageError::Corrupt { path, .. }) => {
                    return Err(path.file_name().expect("a file").to_string_lossy().into_owned());
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    Ok(bytes)
}

#[test]
fn every_flipped_bit_of_a_closed_segment_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(directory.path().join("orders-0").as_path(), config());
    for _ in 0..30 {
        append(&mut log, 3, 1);
    }
    let segments = log.segments();
    assert!(segments.len() > 2, "{}", show_segments(&log));
    assert_eq!(scrub(&log, 90), Ok(0), "what is not flushed is not asked of the disk");
    log.flush().expect("flushed");
    let closed: u64 = segments[..segments.len() - 1].iter().map(|segment| segment.size_bytes).sum();
    assert_eq!(scrub(&log, 90), Ok(closed));
    let second = segments[1].base_offset.value();
    assert_eq!(scrub(&log, second), Ok(segments[0].size_bytes), "what is not committed may be truncated yet");

    let name = format!("{:020}.log", segments[1].base_offset.value());
    let path = directory.path().join("orders-0").join(&name);
    // All batches are of one size as long as offsets have two digits.
    let bytes = fs::read(&path).expect("the segment");
    let batch_size = 12 + i32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")).unsigned_abs() as usize;
    assert_eq!(bytes.len() % batch_size, 0);
    for position in 0..bytes.len() {
        flip_bit(&path, position);
        let found = scrub(&log, 90);
        // Nothing covers the leader epoch, as the leader sets it without touching the CRC.
        if !(12..16).contains(&(position % batch_size)) {
            assert_eq!(found, Err(name.clone()), "position {position}");
        }
        flip_bit(&path, position);
    }
    assert_eq!(scrub(&log, 90), Ok(closed));
}

#[test]
fn a_segment_that_was_deleted_meanwhile_is_not_the_logs_any_more() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(directory.path().join("orders-0").as_path(), config());
    for _ in 0..30 {
        append(&mut log, 3, 1);
    }
    log.flush().expect("flushed");
    let mut segments = log.scrub_closed_segments(Offset(90));
    assert!(segments.iter().all(|segment| log.holds(segment)));
    log.truncate_fully_and_start_at(Offset(200)).expect("truncated");
    assert!(!segments.iter().any(|segment| log.holds(segment)));
    segments[0].advance(100).expect("its file is still open");
}

/// The segment stays, and what is appended to it is not what the scrub has set out to read.
#[test]
fn a_segment_that_was_cut_meanwhile_is_not_what_its_scrub_began_with() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut log = create(directory.path().join("orders-0").as_path(), config());
    for _ in 0..30 {
        append(&mut log, 3, 1);
    }
    log.flush().expect("flushed");
    let scrubs = log.scrub_closed_segments(Offset(90));
    log.truncate_to(Offset(4)).expect("truncated");
    append(&mut log, 3, 1);
    assert!(!log.holds(&scrubs[0]));
    log.flush().expect("flushed");
    assert_eq!(scrub(&log, 90), Ok(0), "it is the active one again");
}

#[test]
fn a_damaged_index_costs_time_and_no_record() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for _ in 0..30 {
        append(&mut log, 3, 1);
    }
    log.flush().expect("flushed");
    let expected = read_all(&log.reader(), Offset(0));
    let index = path.join("00000000000000000000.index");
    let size = fs::read(&index).expect("the index").len();
    assert!(size > 0, "the test needs an entry");
    for position in 0..size {
        flip_bit(&index, position);
        assert_eq!(read_all(&log.reader(), Offset(0)), expected);
        for offset in 0..20 {
            assert!(expected.ends_with(&read_all(&log.reader(), Offset(offset))), "position {position}, {offset}");
        }
        flip_bit(&index, position);
    }
}

/// Every bit of where a batch begins, which no CRC covers: nobody is served a batch under other offsets than its own.
#[test]
fn a_flipped_bit_of_a_base_offset_is_found_by_whoever_reads() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    let mut sound = Vec::new();
    // Gaps are what compaction leaves.
    for gap in [0, 0, 0, 3, 0, 40, 40, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 17, 0] {
        let batch = batch(log.log_end_offset().value() + gap, 3, 1);
        log.append_as_follower(&batch).expect("appended");
        sound.push(batch);
    }
    assert!(log.segments().len() > 2, "{}", show_segments(&log));
    let bounds = |batch: &Bytes| {
        let header = BatchHeader::parse(batch).expect("a header");
        header.base_offset.value()..header.next_offset().value()
    };
    for segment in log.segments() {
        let file = path.join(format!("{:020}.log", segment.base_offset.value()));
        let places: Vec<usize> = batches(&fs::read(&file).expect("the file")).flatten().map(|b| b.position).collect();
        for place in places {
            let at = sound.iter().position(|batch| fs::read(&file).expect("the file")[place..].starts_with(batch));
            let at = at.expect("one of these");
            for bit in 0..64 {
                let flipped = (bounds(&sound[at]).start as u64 ^ (1 << (63 - bit))) as i64;
                let lowest = at.checked_sub(1).map_or(0, |before| bounds(&sound[before]).end);
                let highest = sound.get(at + 1).map_or(log.log_end_offset().value(), |next| bounds(next).start);
                if (lowest..=highest - 3).contains(&flipped) {
                    // In a gap, and neighbours do not tell.
                    continue;
                }
                let byte = place + bit / 8;
                flip(&file, byte, 7 - bit % 8);
                for from in [0, lowest, bounds(&sound[at]).start, highest.min(log.log_end_offset().value() - 1)] {
                    for max_bytes in [1, 100_000] {
                        check_reads(&log, from, max_bytes, &sound, at);
                    }
                }
                flip(&file, byte, 7 - bit % 8);
            }
        }
    }
}

/// Reads on until the end or damage: what comes is what was written, and never the batch that is damaged.
fn check_reads(log: &Log, from: i64, max_bytes: usize, sound: &[Bytes], damaged: usize) {
    let limits = ReadLimits { max_bytes, end_offset: Offset(i64::MAX), at_least_one_batch: true };
    let mut from = Offset(from);
    loop {
        let read = match log.reader().read(from, limits) {
            Ok(read) => read,
            Err(StorageError::Corrupt { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        for batch in batches(&read).flatten() {
            let written = sound.iter().position(|sound| **sound == *batch.bytes);
            assert!(written.is_some_and(|written| written != damaged), "from {from}, {max_bytes} bytes: {batch:?}");
            from = batch.header.next_offset();
        }
        if read.is_empty() {
            return;
        }
    }
}
