use std::sync::Arc;

use vltava_host::fs;
use vltava_storage::{Copied, FutureLog, Log, LogDir, MetaProperties, PartitionName};
use vltava_types::{BrokerId, DirectoryId, LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, Uuid};

use crate::batch::{append, config, idempotent, list, read_all, show_epochs};

fn name() -> PartitionName {
    PartitionName::new("orders", PartitionIndex(0))
}

fn log_dir(path: &std::path::Path, id: u8) -> Arc<LogDir> {
    let log_dir = LogDir::open(path).expect("opens");
    log_dir
        .write_meta_properties(&MetaProperties {
            node_id: BrokerId(1),
            cluster_id: "c".to_owned(),
            directory_id: DirectoryId(Uuid([id; 16])),
        })
        .expect("written");
    Arc::new(log_dir)
}

fn copy_all(future: &mut FutureLog, source: &Log) {
    while future.copy(&source.reader(), source.truncation_count(), 500).expect("copied") != Copied::Everything {}
}

#[tokio::test]
async fn a_copy_takes_the_place_of_a_log_that_was_in_use_meanwhile() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (a, b) = (log_dir(&directory.path().join("a"), 1), log_dir(&directory.path().join("b"), 2));
    let mut source = a.create(&name(), TopicId::from_random([1; 16]), Arc::new(config())).expect("created");
    for _ in 0..30 {
        append(&mut source, 3, 0);
    }
    source.append_as_leader(&idempotent(90, 3, 7, 0)).expect("appended");
    source.flush().expect("flushed");
    source.advance_log_start_offset(Offset(40)).expect("in range");
    let mut future = b.create_future(&name(), &source).expect("created");
    future.copy(&source.reader(), source.truncation_count(), 500).expect("copied");

    // Truncated below what was copied, and gone on differently.
    copy_all(&mut future, &source);
    source.truncate_to(Offset(60)).expect("truncated");
    source.append_as_leader(&idempotent(60, 3, 8, 0)).expect("appended");
    append(&mut source, 5, 3);
    source.begin_leader_epoch(LeaderEpoch(9));
    let stale_flush = source.begin_flush().expect("there is something to flush");
    copy_all(&mut future, &source);
    let id = a.directory_id();
    let mut moved = b.take_over(future, &name(), &source, id, Offset(66)).expect("moved");
    assert_eq!(read_all(&moved.reader(), Offset(40)), read_all(&source.reader(), Offset(40)));
    assert_eq!(moved.producers(), source.producers());
    assert_eq!(show_epochs(&moved), show_epochs(&source));
    assert_eq!((moved.log_start_offset(), moved.recovery_point()), (Offset(40), Offset(68)));
    append(&mut moved, 4, 9);
    assert_eq!(moved.end_flush(&stale_flush), Offset(68), "it was another log's");
    moved.flush().expect("flushed");
    let expected = read_all(&moved.reader(), Offset(40));
    drop((source, moved));

    // A crash before the old directory is deleted: the new one says whose place it has taken.
    let (found_in_a, _) = a.load(1, false, |_| Arc::new(config())).await.expect("loaded");
    let (found_in_b, _) = b.load(1, false, |_| Arc::new(config())).await.expect("loaded");
    let (old, new) = (&found_in_a[0], &found_in_b[0]);
    assert!(vltava_storage::is_newer(&new.rival(), &old.rival()));
    assert!(!vltava_storage::is_newer(&old.rival(), &new.rival()));
    assert_eq!(new.high_watermark, Offset(66));
    assert_eq!(read_all(&new.log.reader(), Offset(40)), expected);
    b.forget_replaced(&name()).expect("forgotten");
    assert!(found_in_b[0].rival().replaces.is_none());
}

#[tokio::test]
async fn an_unfinished_copy_is_removed_at_the_next_start_and_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (a, b) = (log_dir(&directory.path().join("a"), 1), log_dir(&directory.path().join("b"), 2));
    let mut source = a.create(&name(), TopicId::from_random([1; 16]), Arc::new(config())).expect("created");
    append(&mut source, 3, 1);
    let mut given_up = b.create_future(&name(), &source).expect("created");
    copy_all(&mut given_up, &source);
    b.remove_future(given_up).expect("removed");
    let is_future = |name: &String| name.ends_with("-future");
    assert!(!list(b.path()).iter().any(is_future));
    drop(b.create_future(&name(), &source).expect("created"));
    assert!(list(b.path()).iter().any(is_future));
    let (found, failures) = b.load(1, false, |_| Arc::new(config())).await.expect("loaded");
    assert_eq!((found.len(), failures.len()), (0, 0));
    assert_eq!(b.take_interrupted_moves(), [name()]);
    assert_eq!(b.take_interrupted_moves(), []);
    assert!(!list(b.path()).iter().any(is_future));
    a.delete(source, TimestampMs(0)).expect("deleted");
    assert!(fs::metadata(a.path().join("orders-0")).is_err());
}

#[test]
fn a_flush_whose_log_was_deleted_or_moved_meanwhile_is_no_failure_of_the_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let a = log_dir(&directory.path().join("a"), 1);
    let mut log = a.create(&name(), TopicId::from_random([1; 16]), Arc::new(config())).expect("created");
    for _ in 0..30 {
        append(&mut log, 3, 1);
    }
    let flush = log.begin_flush().expect("there are new segments");
    a.delete(log, TimestampMs(0)).expect("deleted");
    flush.run().expect("nobody waits for it");
}
