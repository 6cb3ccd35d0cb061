//! Logs that are damaged or gone, and directories that fail.

use std::path::PathBuf;
use std::time::Duration;

use vltava_host::fs;
use vltava_storage::StorageError;
use vltava_types::{BrokerId, ErrorCode, Offset, PartitionIndex, TopicPartition};

use super::cluster::{Cluster, append, batch, partition_of, produce, read_all, until};
use super::{MIN_ISR_2, from_offset};
use crate::partition::{Acks, Partition};

const FIRST_SEGMENT: &str = "00000000000000000000.log";

fn directory_of(partition: &Partition) -> PathBuf {
    partition.disk().log_dir.path().join(partition.name().to_string())
}

fn flip_bit(path: &PathBuf, position: usize) {
    let mut bytes = fs::read(path).expect("the file");
    bytes[position] ^= 1;
    fs::write(path, bytes).expect("the file");
}

fn fail(partition: &Partition) {
    let source = std::io::Error::other("the cable was pulled");
    partition.disk().on_error(&StorageError::Io { path: "disk".into(), source });
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_26_of_the_last_copy_all_is_served_that_can_be_read() {
    let cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    let leader = cluster.leader(id).await;
    for value in ["a", "b", "c"] {
        produce(&leader, &[value]).await.expect("it leads");
    }
    let path = directory_of(&leader).join(FIRST_SEGMENT);
    let batch_size = fs::read(&path).expect("the segment").len() / 3;
    flip_bit(&path, batch_size + 66);
    let records_from = |offset| {
        let read = leader.read(&crate::partition::ReadRequest { max_bytes: 1 << 20, ..from_offset(offset) });
        read.map(|read| read.records.len() / batch_size)
    };
    assert_eq!(records_from(0), Ok(1), "what lies before the damage is sound");
    assert_eq!(records_from(1), Err(ErrorCode::CorruptMessage));
    assert_eq!(records_from(2), Ok(1));
    assert_eq!(produce(&leader, &["d"]).await, Ok(Offset(3)));
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(cluster.broker(1).manager.offline_partitions(), []);
    assert_eq!(records_from(2), Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_26_the_last_copy_is_given_up_once_there_is_another() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    cluster.until_equal(id, &["a"]).await;
    cluster.kill_and_fence(2).await;
    cluster.until_isr(id, &[1]).await;
    until("the leader knows that it has the last copy", || leader.maximal_isr() == [BrokerId(1)]).await;
    flip_bit(&directory_of(&leader).join(FIRST_SEGMENT), 66);
    assert_eq!(leader.read(&from_offset(0)).map(drop), Err(ErrorCode::CorruptMessage));
    assert_eq!(produce(&leader, &["b"]).await, Ok(Offset(1)));
    // 2 has the damaged record from before, and gets the others.
    cluster.start_broker(2).await;
    until("1 steps back", || {
        cluster.report_offline(1);
        cluster.image_of(id).leader == Some(BrokerId(2))
    })
    .await;
    until("1 has begun anew", || cluster.broker(1).manager.offline_partitions().is_empty()).await;
    cluster.report_offline(1);
    cluster.until_isr(id, &[1, 2]).await;
    cluster.until_equal(id, &["a", "b"]).await;
}

/// Truncating a segment looks like an I/O error, which would take the whole directory offline.
#[tokio::test(flavor = "multi_thread")]
async fn trap_26_a_shortened_file_is_damage_and_no_failure_of_the_disk() {
    let cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("it leads");
    fs::write(directory_of(&leader).join(FIRST_SEGMENT), b"").expect("the segment");
    assert_eq!(leader.read(&from_offset(0)).map(drop), Err(ErrorCode::CorruptMessage));
    assert!(cluster.broker(1).manager.offline_log_dirs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_26_the_scrub_finds_what_nobody_reads() {
    let properties = ["vltava.scrub.interval.ms=50", "log.roll.ms=1"];
    let cluster = Cluster::start(3, &properties).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    let values: Vec<String> = (0..6).map(|i| format!("value {i}")).collect();
    for value in &values {
        produce(&leader, &[value]).await.expect("all are in sync");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    cluster.until_equal(id, &values).await;
    for broker in [2, 1] {
        let damaged = cluster.replica(broker, id).await;
        flip_bit(&directory_of(&damaged).join(FIRST_SEGMENT), 68);
        until("the scrub finds it", || cluster.broker(broker).manager.offline_partitions() == [id]).await;
        cluster.report_offline(broker);
        until("it begins anew", || cluster.broker(broker).manager.offline_partitions().is_empty()).await;
        cluster.report_offline(broker);
        cluster.until_isr(id, &[1, 2, 3]).await;
        cluster.until_equal(id, &values).await;
        assert_ne!(cluster.image_of(id).leader, Some(BrokerId(broker)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_log_never_stands_for_the_last_copy() {
    let mut cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("it leads");
    let directory = directory_of(&leader);
    drop(leader);
    for _ in 0..2 {
        assert!(cluster.shut_down(1).await);
        let _ = fs::remove_dir_all(&directory);
        cluster.start_broker(1).await;
        let other =
            partition_of(cluster.create_topic(&format!("u{}", cluster.broker(1).manager.broker_epoch()), &[&[1]], &[]));
        produce(&cluster.leader(other).await, &["new"]).await.expect("others go on");
        assert_eq!(cluster.broker(1).manager.offline_partitions(), [id]);
        assert!(fs::metadata(&directory).is_err(), "an empty log would have its offsets used again");
    }
    // Once the topic is deleted, its name is free.
    cluster.delete_topic(id.topic_id);
    let again = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    produce(&cluster.leader(again).await, &["b"]).await.expect("it leads");
    assert_eq!(read_all(&*cluster.leader(again).await), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_unreadable_log_is_fetched_again() {
    let mut cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    produce(&cluster.leader(id).await, &["a", "b"]).await.expect("all are in sync");
    cluster.until_equal(id, &["a", "b"]).await;
    let directory = directory_of(&*cluster.replica(2, id).await);
    for is_lost in [true, false] {
        assert!(cluster.shut_down(2).await);
        if is_lost {
            fs::remove_dir_all(&directory).expect("removed");
        } else {
            fs::write(directory.join("partition.metadata"), b"rubbish").expect("written");
        }
        cluster.start_broker(2).await;
        until("it begins anew", || cluster.broker(2).manager.partition(id).is_some()).await;
        cluster.until_isr(id, &[1, 2, 3]).await;
        cluster.until_equal(id, &["a", "b"]).await;
    }
    let names = fs::read_dir(directory.parent().expect("a log directory")).expect("readable");
    let names: Vec<String> =
        names.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
    assert_eq!(names.iter().filter(|name| name.ends_with("-stray")).count(), 1, "{names:?}");
}

fn partition(id: TopicPartition, index: i32) -> TopicPartition {
    TopicPartition { partition: PartitionIndex(index), ..id }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_directory_leaves_the_others_serving_until_the_metadata_fails() {
    let mut cluster = Cluster::start(1, &["log.dirs=a,b"]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1], &[1], &[1], &[1]], &[]));
    let manager = std::sync::Arc::clone(&cluster.broker(1).manager);
    for index in 0..4 {
        let leader = cluster.leader(partition(id, index)).await;
        produce(&leader, &["a"]).await.expect("it leads");
    }
    let counts: Vec<usize> = manager.log_dirs().iter().map(|log_dir| log_dir.partitions.len()).collect();
    assert_eq!(counts, [2, 2], "each directory gets as many");
    let in_b = |index: &i32| {
        let hosted = manager.partition(partition(id, *index)).expect("it is hosted");
        hosted.disk().log_dir.path().ends_with("b")
    };
    let (b, a): (Vec<i32>, Vec<i32>) = (0..4).partition(in_b);
    fail(&manager.partition(partition(id, b[0])).expect("it is hosted"));
    until("b is offline", || manager.offline_log_dirs().len() == 1).await;
    for index in &b {
        let hosted = manager.partition(partition(id, *index)).expect("it is hosted");
        let refused = append(&hosted, Acks::Leader, &batch(&["b"])).expect_err("its directory failed");
        assert_eq!(refused.code(), ErrorCode::KafkaStorageError);
    }
    produce(&cluster.leader(partition(id, a[0])).await, &["b"]).await.expect("the other directory works");
    let online: Vec<bool> = manager.log_dirs().iter().map(|log_dir| log_dir.online).collect();
    assert_eq!(online, [true, false]);
    assert_eq!(manager.offline_partitions(), [partition(id, b[0]), partition(id, b[1])]);
    let failed = tokio::time::timeout(Duration::from_millis(100), manager.failed()).await;
    assert!(failed.is_err(), "the broker goes on: {failed:?}");
    drop(manager);

    // With b out of reach, what was in it is not begun anew somewhere else: it may come back.
    let in_b = directory_of(&*cluster.replica(1, partition(id, b[0])).await);
    let path_of_b = in_b.parent().expect("a log directory").to_owned();
    cluster.kill(1).await;
    let kept = path_of_b.with_file_name("kept");
    fs::rename(&path_of_b, &kept).expect("renamed");
    fs::write(&path_of_b, b"not a directory").expect("written");
    cluster.start_broker(1).await;
    let manager = std::sync::Arc::clone(&cluster.broker(1).manager);
    assert_eq!(cluster.leader(partition(id, a[0])).await.log_end_offset(), Offset(2));
    until("the rest is offline", || manager.offline_partitions().len() == 2).await;
    assert_eq!(manager.log_dirs().iter().map(|log_dir| log_dir.online).collect::<Vec<_>>(), [true, false]);
    drop(manager);
    cluster.kill(1).await;
    fs::remove_file(&path_of_b).expect("removed");
    fs::rename(&kept, &path_of_b).expect("renamed");
    cluster.start_broker(1).await;
    let leader = cluster.leader(partition(id, b[0])).await;
    assert_eq!(read_all(&leader), ["a"]);

    let in_a = cluster.leader(partition(id, a[0])).await;
    fail(&in_a);
    let failed = cluster.broker(1).manager.failed();
    let reason = tokio::time::timeout(Duration::from_secs(5), failed).await.expect("the metadata is in a");
    assert!(reason.contains("the metadata is in it"), "{reason}");
}

/// Where the logs of t-0 lie on a broker: the names of the log directories.
fn places_of(cluster: &Cluster, broker: i32) -> Vec<String> {
    let manager = &cluster.broker(broker).manager;
    let holds = |path: &&PathBuf| fs::metadata(path.join("t-0")).is_ok();
    let paths: Vec<PathBuf> = manager.log_dirs().into_iter().map(|log_dir| log_dir.path).collect();
    paths.iter().filter(holds).map(|path| path.file_name().expect("a name").to_string_lossy().into_owned()).collect()
}

async fn until_only_in(cluster: &Cluster, broker: i32, place: &str) {
    until("the replica has moved", || places_of(cluster, broker) == [place]).await;
    until("the move is over", || cluster.broker(broker).manager.relocations.lock().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_move_between_directories_while_they_serve() {
    let mut cluster = Cluster::start(2, &["log.dirs=a,b"]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    let mut values: Vec<String> = (0..20).map(|i| format!("value {i}")).collect();
    for value in &values {
        produce(&leader, &[value]).await.expect("both are in sync");
    }
    let path_of = |cluster: &Cluster, broker: i32, place: &str| {
        let log_dirs = cluster.broker(broker).manager.log_dirs();
        log_dirs.into_iter().map(|log_dir| log_dir.path).find(|path| path.ends_with(place)).expect("it is configured")
    };
    let alter = |cluster: &Cluster, broker: i32, place: &str| {
        let path = path_of(cluster, broker, place);
        cluster.broker(broker).manager.alter_log_dir(id, &path)
    };
    assert_eq!(
        cluster.broker(1).manager.alter_log_dir(id, &PathBuf::from("/elsewhere")),
        Err(ErrorCode::LogDirNotFound)
    );
    assert_eq!(places_of(&cluster, 1), ["a"]);
    for (round, place) in ["b", "a", "b"].into_iter().enumerate() {
        assert_eq!(alter(&cluster, 1, place), Ok(()));
        assert_eq!(alter(&cluster, 2, place), Ok(()));
        // Records go on arriving on their way.
        for i in 0..20 {
            let value = format!("round {round}, {i}");
            produce(&leader, &[&value]).await.expect("both are in sync");
            values.push(value);
        }
        until_only_in(&cluster, 1, place).await;
        until_only_in(&cluster, 2, place).await;
        assert_eq!(cluster.broker(1).manager.offline_partitions(), []);
    }
    let expected: Vec<&str> = values.iter().map(String::as_str).collect();
    cluster.until_equal(id, &expected).await;
    assert_eq!(cluster.image_of(id).isr, [BrokerId(1), BrokerId(2)]);
    drop(leader);

    // A crash in the middle of a move: the copy is begun again.
    let a = path_of(&cluster, 2, "a");
    cluster.kill_and_fence(2).await;
    fs::create_dir_all(a.join(format!("t-0.{:032x}-future", 7))).expect("created");
    // A crash after it, too: the old directory is still there.
    cluster.start_broker(2).await;
    until_only_in(&cluster, 2, "a").await;
    cluster.until_isr(id, &[1, 2]).await;
    cluster.until_equal(id, &expected).await;
    let b = path_of(&cluster, 2, "b");
    let id_of_b = cluster.broker(2).manager.log_dirs()[1].directory_id;
    cluster.kill_and_fence(2).await;
    fs::create_dir_all(b.join("t-0")).expect("created");
    for entry in fs::read_dir(a.join("t-0")).expect("readable") {
        let path = entry.expect("an entry").path();
        let contents = fs::read(&path).expect("readable");
        fs::write(b.join("t-0").join(path.file_name().expect("a name")), contents).expect("written");
    }
    fs::write(a.join("t-0/vltava-replaces"), id_of_b.to_string()).expect("written");
    cluster.start_broker(2).await;
    cluster.until_isr(id, &[1, 2]).await;
    until_only_in(&cluster, 2, "a").await;
    assert!(fs::metadata(a.join("t-0/vltava-replaces")).is_err());
    produce(&cluster.leader(id).await, &["last"]).await.expect("both are in sync");
    cluster.until_equal(id, &[expected, vec!["last"]].concat()).await;
}
