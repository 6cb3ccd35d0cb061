use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use expect_test::expect;
use vltava_host::fs;
use vltava_storage::{
    LoadedLog, Log, LogDir, LogManager, METADATA_TOPIC_DIRECTORY, MetaProperties, OffsetCheckpoint, PartitionName,
    StorageError,
};
use vltava_types::{BrokerEpoch, BrokerId, DirectoryId, Offset, PartitionIndex, TimestampMs, TopicId};

use crate::batch::{append, config, list};

fn partition(topic: &str, index: i32) -> PartitionName {
    PartitionName::new(topic, PartitionIndex(index))
}

fn topic_id(seed: u8) -> TopicId {
    TopicId::from_random([seed; 16])
}

fn open(path: &Path) -> Arc<LogDir> {
    Arc::new(LogDir::open(path).expect("opened"))
}

async fn load(log_dir: &Arc<LogDir>, clean_shutdown: bool) -> Vec<LoadedLog> {
    let (loaded, failures) =
        log_dir.load(3, clean_shutdown, |_| Arc::new(config())).await.expect("the directory is readable");
    assert!(failures.is_empty(), "{failures:?}");
    loaded
}

#[tokio::test]
async fn logs_and_checkpoints_come_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_dir = open(directory.path());
    assert_eq!(log_dir.take_clean_shutdown_marker().expect("readable"), None);
    let mut recovery_points = BTreeMap::new();
    let mut high_watermarks = BTreeMap::new();
    let mut log_start_offsets = BTreeMap::new();
    for index in 0..7 {
        let name = partition("orders", index);
        let mut log = log_dir.create(&name, topic_id(1), Arc::new(config())).expect("created");
        for _ in 0..20 {
            append(&mut log, 2, 1);
        }
        log.advance_log_start_offset(Offset(3)).expect("in range");
        log.close().expect("closed");
        recovery_points.insert(name.clone(), log.recovery_checkpoint().expect("open files"));
        high_watermarks.insert(name.clone(), log.checkpoint_at(Offset(30 + i64::from(index) * 2)));
        log_start_offsets.insert(name, log.checkpoint_at(log.log_start_offset()));
    }
    log_dir.checkpoint_recovery_points(recovery_points).expect("written");
    log_dir.checkpoint_high_watermarks(high_watermarks).expect("written");
    log_dir.checkpoint_log_start_offsets(log_start_offsets).expect("written");
    log_dir.write_clean_shutdown_marker(BrokerEpoch(77)).expect("written");
    drop(log_dir);
    expect!["0\n2\norders 0 40\norders 1 40\n"].assert_eq(
        &fs::read_to_string(directory.path().join("recovery-point-offset-checkpoint"))
            .expect("readable")
            .replace("0\n7\n", "0\n2\n")
            .lines()
            .take(4)
            .map(|line| format!("{line}\n"))
            .collect::<String>(),
    );

    let log_dir = open(directory.path());
    assert_eq!(log_dir.take_clean_shutdown_marker().expect("readable"), Some(BrokerEpoch(77)));
    assert_eq!(log_dir.take_clean_shutdown_marker().expect("gone"), None);
    let story: Vec<_> = load(&log_dir, true)
        .await
        .iter()
        .map(|loaded| {
            let log = &loaded.log;
            let offsets = (log.log_start_offset(), loaded.high_watermark, log.log_end_offset());
            assert_eq!(log.topic_id(), topic_id(1));
            assert_eq!(loaded.recovery.bytes_scanned, 0);
            format!("{} {}..{}..{}\n", loaded.partition, offsets.0, offsets.1, offsets.2)
        })
        .collect();
    expect![[r#"
        orders-0 3..30..40
        orders-1 3..32..40
        orders-2 3..34..40
        orders-3 3..36..40
        orders-4 3..38..40
        orders-5 3..40..40
        orders-6 3..40..40
    "#]]
    .assert_eq(&story.concat());
}

#[tokio::test]
async fn trap_31_a_recreated_partition_inherits_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_dir = open(directory.path());
    let name = partition("orders", 0);
    let mut log = log_dir.create(&name, topic_id(1), Arc::new(config())).expect("created");
    append(&mut log, 50, 1);
    log.flush().expect("flushed");
    log_dir.checkpoint_high_watermarks([(&name, log.checkpoint_at(Offset(50)))]).expect("written");
    let again = log_dir.create(&name, topic_id(2), Arc::new(config()));
    assert!(matches!(again, Err(StorageError::Exists { .. })));
    log_dir.checkpoint_high_watermarks([(&name, log.checkpoint_at(Offset(50)))]).expect("written");
    let reader = log.reader();
    log_dir.delete(log, TimestampMs(100)).expect("deleted");
    let mut log = log_dir.create(&name, topic_id(2), Arc::new(config())).expect("created");
    append(&mut log, 90, 1);
    drop(log);
    assert_eq!(crate::batch::read_all(&reader, Offset(0)).len(), reader_size(&reader));

    let deleted = || list(directory.path()).into_iter().filter(|name| name.ends_with("-delete")).count();
    log_dir.remove_deleted(TimestampMs(159), 60).expect("too early");
    assert_eq!(deleted(), 1);
    log_dir.remove_deleted(TimestampMs(160), 60).expect("removed");
    assert_eq!(deleted(), 0);
    drop(log_dir);
    let log_dir = open(directory.path());
    let loaded = load(&log_dir, false).await;
    assert_eq!(loaded.len(), 1);
    assert_eq!((loaded[0].high_watermark, loaded[0].log.topic_id()), (Offset(0), topic_id(2)));
}

/// Of ten records each.
fn create_log_of_two_batches(directory: &Path) -> (Arc<LogDir>, PartitionName, Log) {
    let log_dir = open(directory);
    let name = partition("orders", 0);
    let mut log = log_dir.create(&name, topic_id(1), Arc::new(config())).expect("created");
    append(&mut log, 10, 1);
    append(&mut log, 10, 1);
    (log_dir, name, log)
}

/// Whoever believes a checkpoint that cannot be right may pass over records, or miss none where some are lost.
#[tokio::test]
async fn a_malformed_checkpoint_begins_anew_and_the_shutdown_was_not_clean() {
    let files = ["recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint"];
    for (file, contents) in files.into_iter().flat_map(|file| [(file, "0\n1\norders 0 -5\n"), (file, "0\n7\n")]) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (log_dir, name, mut log) = create_log_of_two_batches(directory.path());
        log.close().expect("closed");
        let point = log.recovery_checkpoint().expect("never checkpointed");
        log_dir.checkpoint_recovery_points([(name.clone(), point)].into()).expect("written");
        log_dir.checkpoint_high_watermarks([(&name, log.checkpoint_at(Offset(20)))]).expect("written");
        log_dir.checkpoint_log_start_offsets([(&name, log.checkpoint_at(Offset(0)))]).expect("written");
        log_dir.write_clean_shutdown_marker(BrokerEpoch(3)).expect("written");
        drop((log, log_dir));
        fs::write(directory.path().join(file), contents).expect("written");

        let log_dir = open(directory.path());
        assert_eq!(log_dir.take_clean_shutdown_marker().expect("readable"), None, "{file}");
        let log = load(&log_dir, false).await.remove(0).log;
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset(0), Offset(20)), "{file}");
        log_dir.checkpoint_high_watermarks([(&name, log.checkpoint_at(Offset(20)))]).expect("written");
        log_dir.checkpoint_log_start_offsets([(&name, log.checkpoint_at(Offset(0)))]).expect("written");
        let points = log.recovery_checkpoint().map(|point| (name.clone(), point)).into_iter().collect();
        log_dir.checkpoint_recovery_points(points).expect("written");
        assert!(OffsetCheckpoint::open(directory.path().join(file)).is_ok(), "{file} is written anew");
    }
}

#[tokio::test]
async fn a_truncation_voids_a_recovery_checkpoint_under_way() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (log_dir, name, mut log) = create_log_of_two_batches(directory.path());
    log.flush().expect("flushed");
    let on_disk = || {
        let path = directory.path().join("recovery-point-offset-checkpoint");
        OffsetCheckpoint::open(path).expect("readable").get(&name)
    };
    let checkpoint = |log: &Log| BTreeMap::from([(name.clone(), log.recovery_checkpoint().expect("open files"))]);
    let before = checkpoint(&log);
    log.truncate_to(Offset(10)).expect("truncated");
    log_dir.checkpoint_recovery_points(before).expect("written");
    assert_eq!(on_disk(), None);
    log_dir.checkpoint_recovery_points(checkpoint(&log)).expect("written");
    assert_eq!(on_disk(), Some(Offset(10)));
}

#[tokio::test]
async fn a_truncation_voids_a_log_start_on_its_way_to_the_checkpoint() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (log_dir, name, mut log) = create_log_of_two_batches(directory.path());
    log.advance_log_start_offset(Offset(15)).expect("in range");
    log_dir.checkpoint_log_start_offsets([(&name, log.checkpoint_at(Offset(15)))]).expect("written");
    let under_way = log.checkpoint_at(Offset(15));
    log.truncate_to(Offset(10)).expect("truncated");
    log_dir.checkpoint_log_start_offsets([(&name, under_way)]).expect("written");
    let path = directory.path().join("log-start-offset-checkpoint");
    assert_eq!(OffsetCheckpoint::open(path).expect("readable").get(&name), Some(Offset(10)));
}

#[tokio::test]
async fn trap_31_what_is_under_way_for_a_deleted_log_leaves_the_next_of_its_name_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_dir = open(directory.path());
    let name = partition("orders", 0);
    let mut log = log_dir.create(&name, topic_id(1), Arc::new(config())).expect("created");
    append(&mut log, 50, 7);
    let flush = log.begin_flush().expect("there are records");
    let high_watermark = log.checkpoint_at(Offset(50));
    let recovery_point = BTreeMap::from([(name.clone(), log.recovery_checkpoint().expect("never checkpointed"))]);
    log_dir.delete(log, TimestampMs(0)).expect("deleted");
    let next = log_dir.create(&name, topic_id(2), Arc::new(config())).expect("created");
    flush.run().expect("nothing to do");
    log_dir.checkpoint_high_watermarks([(&name, high_watermark)]).expect("written");
    log_dir.checkpoint_recovery_points(recovery_point).expect("written");
    let epochs = fs::read_to_string(next.directory().join("leader-epoch-checkpoint")).expect("readable");
    assert_eq!(epochs, "0\n0\n");
    for file in ["replication-offset-checkpoint", "recovery-point-offset-checkpoint"] {
        let checkpoint = OffsetCheckpoint::open(directory.path().join(file)).expect("readable");
        assert_eq!(checkpoint.get(&name), None, "{file}");
    }
}

fn reader_size(reader: &vltava_storage::LogReader) -> usize {
    reader.read(Offset(0), crate::batch::everything()).expect("readable").len()
}

#[tokio::test]
async fn directories_that_are_no_partitions_are_left_alone_and_deletions_are_finished() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_dir = open(directory.path());
    log_dir.create(&partition("a-b", 12), topic_id(1), Arc::new(config())).expect("created");
    for name in
        ["lost+found", "unfinished-3", METADATA_TOPIC_DIRECTORY, "orders-1.0123456789abcdef0123456789abcdef-delete"]
    {
        fs::create_dir_all(directory.path().join(name)).expect("created");
    }
    fs::write(directory.path().join("unfinished-3/00000000000000000000.log"), b"").expect("written");
    let loaded = load(&log_dir, false).await;
    let names: Vec<_> = loaded.iter().map(|loaded| loaded.partition.to_string()).collect();
    assert_eq!(names, ["a-b-12"]);
    assert_eq!(list(directory.path()), [".lock", METADATA_TOPIC_DIRECTORY, "a-b-12", "lost+found"]);
}

#[test]
fn two_processes_never_share_a_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_dir = open(directory.path());
    assert!(matches!(LogDir::open(directory.path()), Err(StorageError::Locked { .. })));
    drop(log_dir);
    open(directory.path());
}

#[test]
fn identity_is_kept_in_meta_properties() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_dir = open(directory.path());
    assert_eq!((log_dir.meta_properties(), log_dir.directory_id()), (None, DirectoryId::ZERO));
    let properties = MetaProperties {
        node_id: BrokerId(2),
        cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
        directory_id: DirectoryId::from_random([3; 16]),
    };
    log_dir.write_meta_properties(&properties).expect("written");
    drop(log_dir);
    assert_eq!(open(directory.path()).meta_properties(), Some(properties));
    fs::write(directory.path().join("meta.properties"), "version=9\n").expect("written");
    assert!(matches!(LogDir::open(directory.path()), Err(StorageError::Foreign { .. })));
}

#[test]
fn a_directory_that_fails_is_taken_out_and_the_others_go_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("file"), b"").expect("written");
    let paths = ["a", "file", "b"].map(|name| directory.path().join(name));
    let (manager, failed) = LogManager::open(&paths);
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, paths[1]);
    let first = &manager.online()[0];
    for (seed, log_dir) in manager.online().iter().enumerate() {
        let properties = MetaProperties {
            node_id: BrokerId(2),
            cluster_id: "c".to_owned(),
            directory_id: DirectoryId::from_random([seed as u8 + 1; 16]),
        };
        log_dir.write_meta_properties(&properties).expect("written");
    }
    let counts = BTreeMap::from([(first.directory_id(), 3)]);
    let chosen = manager.for_new_log(&counts).expect("one is left");
    assert_eq!(chosen.path(), paths[2]);
    assert!(manager.take_offline(&chosen));
    assert!(!manager.take_offline(&chosen));
    let chosen = manager.for_new_log(&counts).expect("one is left");
    assert_eq!(chosen.path(), paths[0]);
}
