use vltava_host::fs;
use vltava_storage::{Log, StorageError};
use vltava_types::Offset;

use crate::batch::{append, config, create, read_all, show_segments};

fn flip_bit(path: &std::path::Path, position: usize) {
    let mut bytes = fs::read(path).expect("the file");
    bytes[position] ^= 0x10;
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
