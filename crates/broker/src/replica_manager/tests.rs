//! Replication over real logs and real streams, with the traps that need them.

mod cluster;

use std::sync::Arc;
use std::time::Duration;

use vltava_protocol::batch::{BatchBuilder, Origin};
use vltava_types::{
    BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs,
};

use crate::partition::{Acks, AppendError, AppendOptions, Isolation};
use cluster::{Cluster, append, batch, partition_of, produce, read_all, until};

const MIN_ISR_2: (&str, &str) = ("min.insync.replicas", "2");

#[tokio::test(flavor = "multi_thread")]
async fn trap_17_all_replicas_learn_that_the_last_record_is_committed() {
    for durability in ["flush", "page-cache"] {
        let cluster = Cluster::start(3, &[]).await;
        let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[("vltava.durability", durability)]));
        let leader = cluster.leader(id).await;
        assert_eq!(produce(&leader, &["a", "b"]).await, Ok(Offset(0)));
        assert_eq!(produce(&leader, &["c"]).await, Ok(Offset(2)));
        cluster.until_equal(id, &["a", "b", "c"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_replica_commits_by_itself() {
    for durability in ["flush", "page-cache"] {
        let cluster = Cluster::start(1, &[]).await;
        let id = partition_of(cluster.create_topic("t", &[&[1]], &[("vltava.durability", durability)]));
        let leader = cluster.leader(id).await;
        assert_eq!(produce(&leader, &["a"]).await, Ok(Offset(0)));
        cluster.until_equal(id, &["a"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_partitions_share_a_stream() {
    let cluster = Cluster::start(2, &[]).await;
    let replicas: Vec<&[i32]> = (0..50).map(|i| if i % 2 == 0 { &[1, 2][..] } else { &[2, 1][..] }).collect();
    let topic_id = cluster.create_topic("t", &replicas, &[]);
    for index in 0..50 {
        let id = vltava_types::TopicPartition { topic_id, partition: vltava_types::PartitionIndex(index) };
        let leader = cluster.leader(id).await;
        assert_eq!(produce(&leader, &["a"]).await, Ok(Offset(0)));
        assert_eq!(produce(&leader, &["b"]).await, Ok(Offset(1)));
        cluster.until_equal(id, &["a", "b"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_gets_more_than_the_credit_at_once() {
    let mut cluster = Cluster::start(2, &["replica.fetch.response.max.bytes=300000"]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    cluster.kill_and_fence(2).await;
    let value = "x".repeat(100_000);
    let values = vec![value.as_str(); 40];
    until("the isr shrinks", || cluster.image_of(id).isr == [BrokerId(1)]).await;
    for value in &values {
        produce(&leader, &[value]).await.expect("one replica is enough");
    }
    cluster.start_broker(2).await;
    cluster.until_equal(id, &values).await;
    cluster.until_isr(id, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_01_nothing_committed_is_lost_and_the_tail_of_the_dead_leader_goes() {
    let mut cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a", "b"]).await.expect("all are in sync");
    // Nobody else gets this one: the streams to the followers are gone before it is appended.
    cluster.broker(2).manager.fetchers.stop();
    cluster.broker(3).manager.fetchers.stop();
    tokio::time::sleep(Duration::from_millis(50)).await;
    append(&leader, Acks::Leader, &batch(&["lost"])).expect("this broker leads");
    drop(leader);
    cluster.kill_and_fence(1).await;

    let leader = cluster.leader(id).await;
    assert_eq!(cluster.image_of(id).leader, Some(BrokerId(2)));
    assert_eq!(produce(&leader, &["c"]).await, Ok(Offset(2)));
    cluster.start_broker(1).await;
    cluster.until_equal(id, &["a", "b", "c"]).await;
    cluster.until_isr(id, &[1, 2, 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_05_the_latest_offset_never_goes_back_over_an_election() {
    let mut cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a", "b"]).await.expect("all are in sync");
    drop(leader);
    cluster.kill_and_fence(1).await;
    let leader = cluster.leader(id).await;
    let mut answers = vec![];
    until("the latest offset is known", || {
        answers.push(leader.latest_offset(Isolation::ReadUncommitted, None));
        answers.last().is_some_and(Result::is_ok)
    })
    .await;
    let (latest, epoch) = answers.pop().flatten_ok();
    assert_eq!((latest, Some(epoch)), (Offset(2), leader.leader_epoch()));
    assert!(answers.iter().all(|answer| *answer == Err(ErrorCode::OffsetNotAvailable)), "{answers:?}");
}

trait FlattenOk<T> {
    fn flatten_ok(self) -> T;
}

impl<T> FlattenOk<T> for Option<Result<T, ErrorCode>> {
    fn flatten_ok(self) -> T {
        self.expect("somebody answered").expect("the answer is an offset")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_06_followers_that_vanish_leave_the_isr_and_come_back() {
    let mut cluster = Cluster::start(3, &["replica.lag.time.max.ms=300"]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("all are in sync");
    cluster.kill(3).await;
    // The controller still takes it for alive: the leader has to notice.
    produce(&leader, &["b"]).await.expect("two are enough, once the third is known to be late");
    cluster.until_isr(id, &[1, 2]).await;
    cluster.start_broker(3).await;
    cluster.until_isr(id, &[1, 2, 3]).await;
    cluster.until_equal(id, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_15_a_leader_that_is_cut_off_commits_nothing_and_yields() {
    let cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let zombie = cluster.leader(id).await;
    produce(&zombie, &["a"]).await.expect("all are in sync");
    cluster.broker(1).link.cut();
    cluster.quorum.fence(BrokerId(1));
    let leader = cluster.leader(id).await;
    // Only now do all others know better.
    until("3 follows", || {
        let replica = cluster.broker(3).manager.partition(id);
        replica.is_some_and(|replica| replica.leadership().leader == Some(BrokerId(2)))
    })
    .await;
    let appended = append(&zombie, Acks::All, &batch(&["zombie"])).expect("it does not know better");
    produce(&leader, &["b"]).await.expect("two are in sync");
    let wait = zombie.wait_for_acks(Acks::All, &appended);
    assert!(tokio::time::timeout(Duration::from_millis(300), wait).await.is_err(), "nobody may acknowledge this");

    // It stops by itself once its session has lapsed, and learns the truth later.
    cluster.broker(1).manager.set_serving(false);
    assert!(matches!(append(&zombie, Acks::Leader, &batch(&["late"])), Err(AppendError::NotLeader)));
    cluster.broker(1).manager.set_serving(true);
    cluster.broker(1).link.mend();
    let outcome = zombie.wait_for_acks(Acks::All, &appended).await;
    assert_eq!(outcome, Err(ErrorCode::NotLeaderOrFollower));
    cluster.until_equal(id, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_16_too_few_replicas_are_refused_before_the_append() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    cluster.kill_and_fence(2).await;
    until("the leader knows", || {
        matches!(append(&leader, Acks::All, &batch(&["b"])), Err(AppendError::NotEnoughReplicas(_)))
    })
    .await;
    assert_eq!(read_all(&leader), ["a"]);
    cluster.start_broker(2).await;
    cluster.until_isr(id, &[1, 2]).await;
    until("appends go on", || append(&leader, Acks::All, &batch(&["c"])).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_19_deleted_records_stay_deleted_after_an_election() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    for value in ["a", "b", "c"] {
        produce(&leader, &[value]).await.expect("both are in sync");
    }
    assert_eq!(leader.delete_records_before(Some(Offset(2))), Ok(Offset(2)));
    assert_eq!(leader.delete_records_before(Some(Offset(4))), Err(ErrorCode::OffsetOutOfRange));
    let follower = cluster.replica(2, id).await;
    until("the follower knows", || follower.log_start_offset() == Offset(2)).await;
    drop((leader, follower));
    cluster.kill_and_fence(1).await;
    let leader = cluster.leader(id).await;
    assert_eq!(leader.earliest_offset(None).map(|(offset, _)| offset), Ok(Offset(2)));
    assert_eq!(leader.delete_records_before(Some(Offset(1))), Ok(Offset(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_20_a_batch_sent_again_to_the_next_leader_is_still_a_duplicate() {
    let mut cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let sent = |sequence: i32| {
        let mut builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), Sequence(sequence));
        builder.append(TimestampMs(vltava_host::clock::now().value()), None, Some(b"v"), &[]);
        builder.build()
    };
    let leader = cluster.leader(id).await;
    for sequence in 0..3 {
        let appended = append(&leader, Acks::All, &sent(sequence)).expect("in sequence");
        leader.wait_for_acks(Acks::All, &appended).await.expect("all are in sync");
    }
    drop(leader);
    cluster.kill_and_fence(1).await;
    let leader = cluster.leader(id).await;
    let again = append(&leader, Acks::All, &sent(1)).expect("it was sent before");
    assert!(again.duplicate);
    assert_eq!(again.base_offset, Offset(1));
    assert_eq!(leader.wait_for_acks(Acks::All, &again).await, Ok(()));
    let gap = append(&leader, Acks::All, &sent(5)).expect_err("3 and 4 are missing");
    assert_eq!(gap.code(), ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(append(&leader, Acks::All, &sent(3)).expect("next").base_offset, Offset(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_24_a_coordinator_of_an_earlier_epoch_cannot_append() {
    let cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    let leader = cluster.leader(id).await;
    let epoch = leader.leader_epoch().expect("it leads");
    let append = |leader_epoch| {
        let options = AppendOptions { origin: Origin::Coordinator, acks: Acks::All, leader_epoch: Some(leader_epoch) };
        leader.append_as_leader(&batch(&["a"]), &options)
    };
    assert!(append(epoch).is_ok());
    let refused = append(LeaderEpoch(epoch.value() + 1)).expect_err("another epoch");
    assert_eq!(refused.code(), ErrorCode::UnknownLeaderEpoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_26_damaged_records_are_not_taken_from_a_leader() {
    let cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    let follower = cluster.replica(2, id).await;
    let epoch = leader.leader_epoch().expect("it leads");
    let sound = {
        let mut builder = BatchBuilder::new().base_offset(Offset(1)).leader_epoch(epoch);
        builder.append(TimestampMs(1), None, Some(b"b"), &[]);
        builder.build()
    };
    let mut damaged = sound.to_vec();
    *damaged.last_mut().expect("it is not empty") ^= 1;
    let refused = follower.on_leader_records(epoch, &damaged.into(), Offset(1), Offset(0));
    assert!(matches!(refused, Err(crate::partition::LeaderNewsError::Damaged(_))), "{refused:?}");
    let torn = sound.slice(..sound.len() - 1);
    assert!(follower.on_leader_records(epoch, &torn, Offset(1), Offset(0)).is_err());
    let stale = LeaderEpoch(epoch.value() - 1);
    assert!(follower.on_leader_records(stale, &sound, Offset(1), Offset(0)).is_err());
    assert_eq!(follower.log_end_offset(), Offset(1));
}

/// Everything below what was flushed is damaged on the leader's disk, as by a failing drive.
#[tokio::test(flavor = "multi_thread")]
async fn trap_26_a_corrupt_replica_is_replaced_and_never_served() {
    let mut cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a", "b"]).await.expect("all are in sync");
    produce(&leader, &["c"]).await.expect("all are in sync");
    let path = leader.disk().log_dir.path().join("t-0/00000000000000000000.log");
    let mut bytes = vltava_host::fs::read(&path).expect("the segment");
    bytes[70] ^= 1;
    vltava_host::fs::write(&path, bytes).expect("the segment");
    let request = crate::partition::ReadRequest {
        offset: Offset(0),
        max_bytes: 1000,
        at_least_one_batch: true,
        isolation: Isolation::ReadUncommitted,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        allow_follower: false,
    };
    assert_eq!(leader.read(&request), Err(ErrorCode::KafkaStorageError));
    assert_eq!(cluster.broker(1).manager.offline_partitions(), [id]);

    cluster.report_offline(1);
    let next = cluster.leader(id).await;
    assert_ne!(cluster.image_of(id).leader, Some(BrokerId(1)));
    until("it begins anew", || cluster.broker(1).manager.offline_partitions().is_empty()).await;
    cluster.report_offline(1);
    produce(&next, &["d"]).await.expect("two are in sync");
    cluster.until_isr(id, &[1, 2, 3]).await;
    cluster.until_equal(id, &["a", "b", "c", "d"]).await;
    drop((leader, next));
    cluster.kill_and_fence(2).await;
    produce(&cluster.leader(id).await, &["e"]).await.expect("two are in sync");
    cluster.until_equal(id, &["a", "b", "c", "d", "e"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_27_a_failed_disk_is_given_up() {
    let cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    let appended = append(&leader, Acks::Leader, &batch(&["a"])).expect("it leads");
    let error = std::io::Error::other("flush failed");
    leader.disk().on_error(&vltava_storage::StorageError::Io { path: "disk".into(), source: error });
    let refused = append(&leader, Acks::Leader, &batch(&["b"])).expect_err("the disk has failed");
    assert_eq!(refused.code(), ErrorCode::KafkaStorageError);
    assert_eq!(leader.wait_for_acks(Acks::All, &appended).await, Err(ErrorCode::KafkaStorageError));
    assert_eq!(leader.latest_offset(Isolation::ReadUncommitted, None), Err(ErrorCode::KafkaStorageError));
    let manager = Arc::clone(&cluster.broker(1).manager);
    until("heartbeats tell", || manager.offline_log_dirs().len() == 1).await;
    tokio::time::timeout(Duration::from_secs(5), manager.failed()).await.expect("it was the only one");
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_31_a_recreated_topic_has_nothing_of_the_deleted_one() {
    let mut cluster = Cluster::start(3, &[]).await;
    let old = cluster.create_topic("t", &[&[1, 2, 3]], &[]);
    produce(&cluster.leader(partition_of(old)).await, &["old", "older"]).await.expect("all are in sync");
    // 3 is away while the topic is deleted and created again.
    cluster.kill_and_fence(3).await;
    cluster.delete_topic(old);
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    produce(&cluster.leader(id).await, &["new"]).await.expect("both are in sync");
    cluster.until_equal(id, &["new"]).await;
    cluster.start_broker(3).await;
    let other = partition_of(cluster.create_topic("u", &[&[3, 1]], &[]));
    produce(&cluster.leader(other).await, &["u"]).await.expect("both are in sync");
    assert!(cluster.broker(3).manager.partition(partition_of(old)).is_none());

    // And again with the directory of the first incarnation in the way.
    cluster.delete_topic(id.topic_id);
    let third = partition_of(cluster.create_topic("t", &[&[3, 2, 1]], &[]));
    produce(&cluster.leader(third).await, &["third"]).await.expect("all are in sync");
    cluster.until_equal(third, &["third"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_12_only_a_clean_shutdown_leaves_the_epoch_behind() {
    let mut cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    produce(&cluster.leader(id).await, &["a", "b"]).await.expect("it leads");
    let epoch = cluster.broker(1).manager.broker_epoch();
    assert!(cluster.shut_down(1).await);
    assert_eq!(cluster.start_broker(1).await, epoch);
    let leader = cluster.leader(id).await;
    cluster.until_equal(id, &["a", "b"]).await;
    produce(&leader, &["c"]).await.expect("it leads");
    drop(leader);
    cluster.kill(1).await;
    assert_eq!(cluster.start_broker(1).await, BrokerEpoch::NONE);
    let leader = cluster.leader(id).await;
    produce(&leader, &["d"]).await.expect("it leads");
    cluster.until_equal(id, &["a", "b", "c", "d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_moves_back_and_forth_without_loss() {
    let cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let mut values = vec![];
    for round in 0..6 {
        let leader = cluster.leader(id).await;
        for i in 0..5 {
            let value = format!("{round}-{i}");
            produce(&leader, &[&value]).await.expect("two are in sync");
            values.push(value);
        }
        // Fencing a live broker moves its leadership; it comes back as a follower.
        if round % 2 == 0 {
            let link = &cluster.broker(1).link;
            cluster.quorum.fence(BrokerId(1));
            let _ = link;
        } else {
            cluster.elect_preferred(id);
        }
    }
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    cluster.until_equal(id, &values).await;
}
