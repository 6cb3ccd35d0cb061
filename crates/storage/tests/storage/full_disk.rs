//! A file system that is really full: a small tmpfs. Mounting it takes root, and without it these tests fail rather
//! than pass without having seen anything.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;
use vltava_host::fs;
use vltava_storage::{Log, LogConfig, LogDir, LogOptions, PartitionName, StorageError};
use vltava_types::{Offset, PartitionIndex, TimestampMs, TopicId};

use crate::batch::{config, create, idempotent, read_all};

/// A mounted tmpfs, unmounted when dropped.
struct SmallDisk {
    mounted_at: TempDir,
}

impl SmallDisk {
    fn mount(options: &str) -> Self {
        let mounted_at = tempfile::tempdir().expect("a temporary directory");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(mounted_at.path()).output();
        let output = mount.expect("the command mount");
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "NOT TESTED: a full disk needs a tmpfs, and mounting takes root: {complaint}");
        Self { mounted_at }
    }

    fn path(&self) -> &Path {
        self.mounted_at.path()
    }

    /// Takes all room but for `bytes`.
    fn fill_but(&self, bytes: u64) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("created");
        let available = fs::space(self.path()).expect("a file system").available_bytes;
        let filling = vec![7; usize::try_from(available.saturating_sub(bytes)).expect("a small disk")];
        file.write_all(&filling).expect("there is room");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Idempotent batches of 5 records, so that producer snapshots have something to say.
fn next_batch(log: &Log) -> bytes::Bytes {
    let offset = log.log_end_offset().value();
    idempotent(offset, 5, offset % 7, 0)
}

#[test]
fn an_append_without_room_leaves_the_log_as_it_was_wherever_the_room_ran_out() {
    let disk = SmallDisk::mount("size=256k");
    let mut refused = Vec::new();
    // Pages: data, either index, a new segment's files and the snapshot all run out of them at some point.
    for pages in 0..14 {
        let directory = disk.path().join(format!("orders-{pages}"));
        let mut log = create(&directory, LogConfig { segment_bytes: 9000, ..config() });
        let mut stored = Vec::new();
        for _ in 0..20 {
            let batch = next_batch(&log);
            log.append_as_leader(&batch).expect("there is room");
            stored.extend_from_slice(&batch);
        }
        let filler = disk.fill_but(pages * 4096);
        let mut refusals = 0;
        for _ in 0..400 {
            let (end, producers) = (log.log_end_offset(), log.producers().clone());
            let batch = next_batch(&log);
            match log.append_as_leader(&batch) {
                Ok(_) => stored.extend_from_slice(&batch),
                Err(StorageError::Full { path }) => {
                    refusals += 1;
                    refused.push(path.extension().map(|suffix| suffix.to_string_lossy().into_owned()));
                    assert_eq!(log.log_end_offset(), end);
                    assert_eq!(log.producers(), &producers);
                    if refusals == 5 {
                        break;
                    }
                }
                Err(other) => panic!("{other}"),
            }
            assert_eq!(read_all(&log.reader(), Offset(0)), stored, "{pages} pages");
        }
        assert_eq!(refusals, 5, "the disk was never full");
        fs::remove_file(&filler).expect("removed");
        for _ in 0..100 {
            let batch = next_batch(&log);
            log.append_as_leader(&batch).expect("there is room again");
            stored.extend_from_slice(&batch);
        }
        log.flush().expect("flushed");
        assert_eq!(read_all(&log.reader(), Offset(0)), stored);
        let producers = log.producers().clone();
        drop(log);
        let (log, report) = Log::open(&directory, Arc::new(config()), LogOptions::default()).expect("opens");
        assert_eq!(report.bytes_cut, 0, "nothing half written is left behind");
        assert_eq!(read_all(&log.reader(), Offset(0)), stored);
        assert_eq!(log.producers(), &producers);
        drop(log);
        fs::remove_dir_all(&directory).expect("removed");
    }
    // The test reaches what it is about: more than one kind of file has run out of room.
    refused.sort();
    refused.dedup();
    assert!(refused.len() >= 2, "{refused:?}");
}

#[test]
fn a_segment_that_no_file_can_be_created_for_is_begun_later() {
    let disk = SmallDisk::mount("size=512k,nr_inodes=14");
    let mut log = create(&disk.path().join("orders-0"), config());
    let mut stored = Vec::new();
    let fillers: Vec<_> = (0..20)
        .map(|i| disk.path().join(format!("filler-{i}")))
        .take_while(|path| fs::write(path, b"").is_ok())
        .collect();
    let append_until_refused = |log: &mut Log, stored: &mut Vec<u8>| {
        for _ in 0..100 {
            let batch = next_batch(log);
            match log.append_as_leader(&batch) {
                Ok(_) => stored.extend_from_slice(&batch),
                Err(error) => return error,
            }
        }
        panic!("there were files for everything")
    };
    // One file more at a time: the snapshot, then each of the new segment's files, is the one that is refused.
    for filler in fillers.iter().take(4) {
        assert!(append_until_refused(&mut log, &mut stored).is_full());
        assert_eq!(log.segments().len(), 1);
        assert_eq!(read_all(&log.reader(), Offset(0)), stored);
        fs::remove_file(filler).expect("removed");
    }
    let batch = next_batch(&log);
    assert!(log.append_as_leader(&batch).expect("there are files again").rolled);
    stored.extend_from_slice(&batch);
    assert_eq!(read_all(&log.reader(), Offset(0)), stored);
}

#[test]
fn truncation_retention_and_deletion_go_on_without_room() {
    let disk = SmallDisk::mount("size=512k");
    let log_dir = LogDir::open(disk.path()).expect("opens");
    let name = |index| PartitionName::new("orders", PartitionIndex(index));
    let topic_id = TopicId::from_random([1; 16]);
    let mut log = log_dir.create(&name(0), topic_id, Arc::new(config())).expect("created");
    while log.segments().len() < 4 {
        let batch = next_batch(&log);
        log.append_as_leader(&batch).expect("there is room");
    }
    disk.fill_but(0);
    let refused = log_dir.create(&name(1), topic_id, Arc::new(config())).expect_err("there is no room");
    assert!(refused.is_full(), "{refused}");
    assert!(fs::metadata(disk.path().join("orders-1")).is_err(), "nothing of it is left");

    let end = log.log_end_offset();
    // Either it happened or nothing did.
    match log.truncate_to(end.plus(-5)) {
        Ok(new_end) => assert_eq!(new_end, end.plus(-5)),
        Err(error) => {
            assert!(error.is_full(), "{error}");
            assert_eq!(log.log_end_offset(), end);
        }
    }
    let high_watermark = log.log_end_offset();
    let deleted = log.delete_old_segments(TimestampMs(i64::MAX), high_watermark).expect("deletes what it can");
    assert!(deleted.segments >= 3, "{deleted:?}");
    log.remove_deleted_files(TimestampMs(i64::MAX)).expect("removed");
    log_dir.delete(log, TimestampMs(0)).expect("deleted");
    log_dir.remove_deleted(TimestampMs(i64::MAX), 0).expect("removed");
    fs::remove_file(disk.path().join("filler")).expect("removed");
    log_dir.create(&name(1), topic_id, Arc::new(config())).expect("there is room again");
}
