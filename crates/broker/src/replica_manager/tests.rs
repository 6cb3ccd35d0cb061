//! Replication over real logs and real streams, with the traps that need them.

mod cluster;
mod compaction;
mod disks;
mod flushing;

use std::sync::Arc;
use std::time::Duration;

use vltava_peer::replica::Acknowledge;
use vltava_protocol::batch::BatchBuilder;
use vltava_types::{
    BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs,
};

use vltava_replication::{FetchPosition, FollowerSubscription};

use crate::coordinator::log::CoordinatorLog;
use crate::dirty_set::DirtySet;
use crate::partition::{Acks, AppendError, Isolation, ReadRequest};
use cluster::{Cluster, append, batch, checkpointed_log_starts, partition_of, produce, read_all, until};

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
    // The new epoch is known from its first moment on, so that what the dead leader wrote can be told from it.
    let epoch = leader.leader_epoch().expect("it leads");
    let end = leader.end_offset_for_epoch(epoch, None).map(|end| end.map(|end| (end.epoch, end.end_offset)));
    assert_eq!(end, Ok(Some((epoch, Offset(2)))));
    assert_eq!(produce(&leader, &["c"]).await, Ok(Offset(2)));
    cluster.start_broker(1).await;
    cluster.until_equal(id, &["a", "b", "c"]).await;
    cluster.until_isr(id, &[1, 2, 3]).await;
}

/// What a follower says that holds everything up to `fetch_offset`, all of it under the leader's epoch.
fn subscription(
    follower: i32,
    broker_epoch: i64,
    leader_epoch: LeaderEpoch,
    fetch_offset: i64,
) -> FollowerSubscription {
    FollowerSubscription {
        follower: BrokerId(follower),
        broker_epoch: BrokerEpoch(broker_epoch),
        leader_epoch,
        fetch_offset: Offset(fetch_offset),
        last_fetched_epoch: if fetch_offset == 0 { LeaderEpoch::NONE } else { leader_epoch },
        durable_offset: Offset(fetch_offset),
        log_start_offset: Offset(0),
    }
}

/// What a follower says once it holds everything up to `end`, in its subscription `id`.
fn stored_to(end: i64, id: u32) -> Acknowledge {
    Acknowledge { id, log_end_offset: Offset(end), durable_offset: Offset(end), log_start_offset: Offset(0) }
}

fn from_offset(offset: i64) -> ReadRequest {
    ReadRequest {
        offset: Offset(offset),
        max_bytes: 1000,
        max_copied_bytes: usize::MAX,
        at_least_one_batch: true,
        isolation: Isolation::ReadUncommitted,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        allow_follower: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_02_a_leader_that_wrote_nothing_can_follow_the_next_one() {
    let cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    produce(&cluster.leader(id).await, &["a"]).await.expect("both are in sync");
    // 2 leads for a while, in which nobody produces.
    cluster.quorum.fence(BrokerId(1));
    assert_eq!(cluster.leader(id).await.leadership().leader, Some(BrokerId(2)));
    cluster.report_offline(1);
    cluster.until_isr(id, &[1, 2]).await;
    cluster.elect_preferred(id);
    let leader = cluster.leader(id).await;
    assert_eq!(leader.leadership().leader, Some(BrokerId(1)));
    assert_eq!(produce(&leader, &["b"]).await, Ok(Offset(1)));
    cluster.until_equal(id, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_03_nothing_of_another_epoch_passes_in_either_direction() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    produce(&cluster.leader(id).await, &["a"]).await.expect("both are in sync");
    cluster.kill_and_fence(1).await;
    let leader = cluster.leader(id).await;
    let current = leader.leader_epoch().expect("it leads");
    let dirty = Arc::<DirtySet>::default();
    let subscribed = FollowerSubscription { last_fetched_epoch: LeaderEpoch(0), ..subscription(1, 9, current, 1) };
    assert_eq!(leader.on_follower_subscribed(&subscribed, &dirty, 1), Ok(FetchPosition::Matches));
    let others = [(-1, ErrorCode::FencedLeaderEpoch), (1, ErrorCode::UnknownLeaderEpoch)];
    for (difference, code) in others {
        let asked = LeaderEpoch(current.value() + difference);
        let read = ReadRequest { current_leader_epoch: Some(asked), ..from_offset(0) };
        assert_eq!(leader.read(&read).map(|read| read.records), Err(code));
        assert_eq!(leader.earliest_offset(Some(asked)), Err(code));
        assert_eq!(leader.latest_offset(Isolation::ReadUncommitted, Some(asked)), Err(code));
        assert_eq!(leader.offset_for_timestamp(TimestampMs(0), Isolation::ReadUncommitted, Some(asked)), Err(code));
        assert_eq!(leader.max_timestamp(Some(asked)), Err(code));
        assert_eq!(leader.end_offset_for_epoch(current, Some(asked)), Err(code));
        let stray = FollowerSubscription { leader_epoch: asked, ..subscribed };
        assert_eq!(leader.on_follower_subscribed(&stray, &dirty, 2), Err(code));
        let stored = leader.on_follower_acknowledged(BrokerId(1), asked, &stored_to(1, 1), &dirty);
        assert_eq!(stored, Err(code));
        assert!(leader.read_for_follower(asked, Offset(0), 1000).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_04_who_has_parted_from_the_log_is_told_where_and_gets_no_records() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    produce(&cluster.leader(id).await, &["a", "b"]).await.expect("both are in sync");
    let old = cluster.leader(id).await.leader_epoch();
    cluster.kill_and_fence(1).await;
    let leader = cluster.leader(id).await;
    produce(&leader, &["c", "d"]).await.expect("one replica is enough");
    // Somebody read to 3 under the old epoch, which ended at 2.
    let read = leader.read(&ReadRequest { last_fetched_epoch: old, ..from_offset(3) }).expect("the log is readable");
    assert!(read.records.is_empty());
    assert_eq!(read.diverging.map(|end| (Some(end.epoch), end.end_offset)), Some((old, Offset(2))));
    let current = leader.leader_epoch().expect("it leads");
    let stray = FollowerSubscription { last_fetched_epoch: old.expect("it led"), ..subscription(1, 9, current, 3) };
    let dirty = Arc::<DirtySet>::default();
    let position = leader.on_follower_subscribed(&stray, &dirty, 1).expect("the epoch is right");
    assert!(matches!(position, FetchPosition::Diverging(end) if end.end_offset == Offset(2)), "{position:?}");
    // And nothing that it says counts.
    let acknowledged = leader.on_follower_acknowledged(BrokerId(1), current, &stored_to(4, 1), &dirty);
    assert_eq!(acknowledged, Err(ErrorCode::InvalidRequest));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_07_an_isr_change_without_an_answer_is_asked_again() {
    let mut cluster = Cluster::start(2, &["replica.lag.time.max.ms=300"]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    cluster.broker(1).link.cut();
    cluster.kill(2).await;
    let appended = append(&leader, Acks::All, &batch(&["b"])).expect("it leads");
    let mut wait = std::pin::pin!(leader.wait_for_acks(Acks::All, &appended));
    // The leader would do without 2, but the controller has not agreed.
    assert!(tokio::time::timeout(Duration::from_millis(800), &mut wait).await.is_err());
    cluster.broker(1).link.mend();
    assert_eq!(wait.await, Ok(()));
    assert_eq!(cluster.image_of(id).isr, [BrokerId(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_08_a_follower_whose_stream_broke_is_not_let_in() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    produce(&cluster.leader(id).await, &["a"]).await.expect("both are in sync");
    cluster.kill_and_fence(2).await;
    let leader = cluster.leader(id).await;
    until("the leader knows", || append(&leader, Acks::Leader, &batch(&["b"])).is_ok()).await;
    cluster.until_isr(id, &[1]).await;
    let epoch = leader.leader_epoch().expect("it leads");
    let image = cluster.quorum.image();
    let registered = image.broker(BrokerId(2)).expect("it is registered").broker_epoch.value();
    let dirty = Arc::<DirtySet>::default();
    // It has everything and is fenced; then its stream breaks; then it is unfenced.
    let end = leader.log_end_offset().value();
    let subscribed = leader.on_follower_subscribed(&subscription(2, registered, epoch, end), &dirty, 1);
    assert_eq!(subscribed, Ok(FetchPosition::Matches));
    leader.on_follower_left(BrokerId(2), &dirty, 1);
    cluster.unfence(2);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cluster.image_of(id).isr, [BrokerId(1)]);
    let subscribed = leader.on_follower_subscribed(&subscription(2, registered, epoch, end), &dirty, 2);
    assert_eq!(subscribed, Ok(FetchPosition::Matches));
    cluster.until_isr(id, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_10_only_the_word_of_the_last_subscription_counts() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    produce(&cluster.leader(id).await, &["a"]).await.expect("both are in sync");
    let registered = cluster.broker(2).manager.broker_epoch().value();
    cluster.kill(2).await;
    let leader = cluster.leader(id).await;
    let epoch = leader.leader_epoch().expect("it leads");
    let (before, after) = (Arc::<DirtySet>::default(), Arc::<DirtySet>::default());
    assert_eq!(
        leader.on_follower_subscribed(&subscription(2, registered, epoch, 1), &before, 1),
        Ok(FetchPosition::Matches)
    );
    let appended = append(&leader, Acks::All, &batch(&["b"])).expect("it leads");
    // The follower comes back with an empty disk, and what it said in its first life arrives late.
    let reborn = subscription(2, registered + 1, epoch, 0);
    assert_eq!(leader.on_follower_subscribed(&reborn, &after, 1), Ok(FetchPosition::Matches));
    let stored = stored_to(2, 1);
    assert_eq!(leader.on_follower_acknowledged(BrokerId(2), epoch, &stored, &before), Ok(()));
    let wait = leader.wait_for_acks(Acks::All, &appended);
    assert!(tokio::time::timeout(Duration::from_millis(300), wait).await.is_err(), "nobody else has it");
    assert_eq!(leader.on_follower_acknowledged(BrokerId(2), epoch, &stored, &after), Ok(()));
    assert_eq!(leader.wait_for_acks(Acks::All, &appended).await, Ok(()));
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

/// A follower has a record of which it does not know whether it is committed, and becomes the leader.
#[tokio::test(flavor = "multi_thread")]
async fn trap_05_a_new_leader_keeps_its_log_and_its_high_watermark() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    let epoch = leader.leader_epoch().expect("it leads");
    let follower = follower_with_one_more(&cluster, id, epoch).await;
    drop(leader);
    cluster.kill_and_fence(1).await;
    let leader = cluster.leader(id).await;
    assert!(Arc::ptr_eq(&leader, &follower));
    // Alone it can commit nothing, and must not say where the end is.
    assert_eq!((leader.high_watermark(), leader.log_end_offset()), (Offset(1), Offset(2)));
    assert_eq!(leader.latest_offset(Isolation::ReadUncommitted, None), Err(ErrorCode::OffsetNotAvailable));
    drop((leader, follower));
    cluster.start_broker(1).await;
    let leader = cluster.leader(id).await;
    until("the end is known", || {
        leader.latest_offset(Isolation::ReadUncommitted, None).map(|(offset, _)| offset) == Ok(Offset(2))
    })
    .await;
    cluster.until_equal(id, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_01_a_follower_cuts_nothing_by_its_own_high_watermark() {
    let cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    let epoch = leader.leader_epoch().expect("it leads");
    let follower = follower_with_one_more(&cluster, id, epoch).await;
    follower.follow(Some(BrokerId(1)), LeaderEpoch(epoch.value() + 1));
    follower.follow(None, LeaderEpoch(epoch.value() + 2));
    assert_eq!((follower.high_watermark(), follower.log_end_offset()), (Offset(1), Offset(2)));
}

/// The follower on broker 2, which follows nobody from now on, after a second record but not its commitment came.
async fn follower_with_one_more(
    cluster: &Cluster,
    id: vltava_types::TopicPartition,
    epoch: LeaderEpoch,
) -> Arc<crate::partition::Partition> {
    let follower = cluster.replica(2, id).await;
    until("the first is committed", || follower.high_watermark() == Offset(1)).await;
    cluster.broker(2).manager.fetchers.stop();
    let mut builder = BatchBuilder::new().base_offset(Offset(1)).leader_epoch(epoch);
    builder.append(TimestampMs(1), None, Some(b"b"), &[]);
    follower.on_leader_records(epoch, &builder.build(), Offset(1), Offset(0)).expect("it follows");
    follower
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

/// A reassignment that takes a replica away begins another epoch. A producer that is told NOT_LEADER_OR_FOLLOWER of one batch
/// and success of the next may take the first for stored, as librdkafka does, without ever learning of its offset.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_leading_in_another_epoch_acknowledges_what_it_appended_before() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    cluster.kill(2).await;
    let appended = append(&leader, Acks::All, &batch(&["b"])).expect("it leads");
    let mut wait = std::pin::pin!(leader.wait_for_acks(Acks::All, &appended));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut wait).await.is_err(), "2 does not have it");
    cluster.reassign(id, &[1]);
    assert_eq!(wait.await, Ok(()));
    assert!(leader.leader_epoch() > Some(appended.leader_epoch));
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
    cluster.broker(1).manager.set_fenced(true);
    assert!(matches!(append(&zombie, Acks::Leader, &batch(&["late"])), Err(AppendError::NotLeader)));
    assert_eq!(zombie.read(&from_offset(0)).map(drop), Err(ErrorCode::NotLeaderOrFollower));
    cluster.broker(1).manager.set_fenced(false);
    cluster.broker(1).link.mend();
    let outcome = zombie.wait_for_acks(Acks::All, &appended).await;
    assert_eq!(outcome, Err(ErrorCode::NotLeaderOrFollower));
    cluster.until_equal(id, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_15_the_last_of_three_tells_acks_all_that_replicas_lack_and_serves_nobody() {
    let mut cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let survivor = cluster.leader(id).await;
    produce(&survivor, &["a"]).await.expect("all are in sync");
    cluster.kill(2).await;
    cluster.kill(3).await;
    let waiting = append(&survivor, Acks::All, &batch(&["b"])).expect("it does not know yet");
    cluster.end_session(1);
    until("the others are known to be dead", || {
        matches!(append(&survivor, Acks::All, &batch(&["refused"])), Err(AppendError::NotEnoughReplicas(_)))
    })
    .await;
    let wait = survivor.wait_for_acks(Acks::All, &waiting);
    let outcome = tokio::time::timeout(Duration::from_secs(20), wait).await;
    assert_eq!(outcome, Ok(Err(ErrorCode::NotEnoughReplicasAfterAppend)));
    // Somebody else may have led between the end of the session and the others' death.
    assert!(matches!(append(&survivor, Acks::Leader, &batch(&["refused"])), Err(AppendError::NotLeader)));
    assert_eq!(survivor.read(&from_offset(0)).map(drop), Err(ErrorCode::NotLeaderOrFollower));

    cluster.start_broker(2).await;
    cluster.quorum.fence(BrokerId(3));
    cluster.resume_session(1);
    cluster.until_isr(id, &[1, 2]).await;
    assert_eq!(produce(&survivor, &["c"]).await, Ok(Offset(2)));
    cluster.until_equal(id, &["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_15_a_leader_that_is_only_cut_off_says_that_it_does_not_lead() {
    let mut cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    let refusal = |acks| append(&leader, acks, &batch(&["refused"])).map(|_| ()).map_err(|error| error.code());
    cluster.end_session(1);
    cluster.until_looked(1).await;
    assert_eq!(refusal(Acks::All), Err(ErrorCode::NotLeaderOrFollower));
    // One alone elects nobody, but with the one that lives there are two in sync.
    cluster.kill(2).await;
    cluster.until_looked(1).await;
    assert_eq!(refusal(Acks::All), Err(ErrorCode::NotLeaderOrFollower));
    // Now they are dead, but the controller had time to say that somebody else leads.
    cluster.kill(3).await;
    until("both are known to be dead", || refusal(Acks::All) == Err(ErrorCode::NotEnoughReplicas)).await;
    cluster.broker(1).manager.set_fenced(true);
    assert_eq!(refusal(Acks::All), Err(ErrorCode::NotLeaderOrFollower));
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_16_too_few_replicas_are_refused_before_the_append() {
    let mut cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    let appended = append(&leader, Acks::All, &batch(&["a"])).expect("both are in sync");
    assert_eq!(leader.wait_for_acks(Acks::All, &appended).await, Ok(()));
    cluster.kill_and_fence(2).await;
    until("the leader knows", || {
        matches!(append(&leader, Acks::All, &batch(&["b"])), Err(AppendError::NotEnoughReplicas(_)))
    })
    .await;
    assert_eq!(read_all(&leader), ["a"]);
    // Had it been asked only now, the answer would be another one.
    let outcome = leader.wait_for_acks(Acks::All, &appended).await;
    assert_eq!(outcome, Err(ErrorCode::NotEnoughReplicasAfterAppend));
    cluster.start_broker(2).await;
    cluster.until_isr(id, &[1, 2]).await;
    until("appends go on", || append(&leader, Acks::All, &batch(&["c"])).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_18_a_follower_never_says_that_what_it_lacks_does_not_exist() {
    let cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    produce(&leader, &["b"]).await.expect("both are in sync");
    assert_eq!(leader.delete_records_before(Some(Offset(1))), Ok(Offset(1)));
    let follower = cluster.replica(2, id).await;
    until("the follower knows", || follower.log_start_offset() == Offset(1) && follower.high_watermark() == Offset(2))
        .await;
    let read = |replica: &Arc<crate::partition::Partition>, offset, allow_follower| {
        let read = replica.read(&ReadRequest { allow_follower, ..from_offset(offset) });
        read.map(|read| !read.records.is_empty())
    };
    assert_eq!(read(&follower, 1, true), Ok(true));
    assert_eq!(read(&follower, 2, true), Ok(false));
    assert_eq!(read(&follower, 3, true), Err(ErrorCode::OffsetNotAvailable));
    assert_eq!(read(&leader, 3, true), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(read(&follower, 0, true), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(read(&follower, 1, false), Err(ErrorCode::NotLeaderOrFollower));
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
async fn trap_19_deleted_records_are_gone_once_every_live_replica_has_that_on_disk() {
    let cluster = Cluster::start(3, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &[MIN_ISR_2]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("all are in sync");
    produce(&leader, &["b"]).await.expect("all are in sync");
    cluster.until_equal(id, &["a", "b"]).await;
    cluster.broker(3).manager.fetchers.stop();
    assert_eq!(leader.delete_records_before(None), Ok(Offset(2)));
    until("two have it on disk", || {
        [1, 2].iter().all(|broker| checkpointed_log_starts(&cluster.broker(*broker).manager) == "0\n1\nt 0 2\n")
    })
    .await;
    // The third is alive, and would serve what was deleted if it were elected.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(leader.low_watermark(), Ok(Some(Offset(0))));
    cluster.quorum.fence(BrokerId(3));
    until("the dead are not waited for", || leader.low_watermark() == Ok(Some(Offset(2)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trap_19_deleted_records_stay_deleted_after_a_crash() {
    let mut cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("it leads");
    produce(&leader, &["b"]).await.expect("it leads");
    assert_eq!(leader.delete_records_before(Some(Offset(1))), Ok(Offset(1)));
    until("it is durable", || leader.low_watermark() == Ok(Some(Offset(1)))).await;
    drop(leader);
    cluster.kill(1).await;
    cluster.start_broker(1).await;
    let leader = cluster.leader(id).await;
    assert_eq!(leader.earliest_offset(None).map(|(offset, _)| offset), Ok(Offset(1)));
}

/// Nobody waits for what retention does, so that it is left to the next round.
#[tokio::test(flavor = "multi_thread")]
async fn trap_19_log_starts_are_checkpointed_from_time_to_time() {
    let cluster = Cluster::start(1, &["log.flush.start.offset.checkpoint.interval.ms=100"]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[("retention.ms", "1000")]));
    let leader = cluster.leader(id).await;
    produce(&leader, &["a"]).await.expect("it leads");
    let later = TimestampMs(vltava_host::clock::now().value() + 10_000);
    leader.clean_up(later, i64::MAX).expect("the disk works");
    assert_eq!(leader.log_start_offset(), Offset(1));
    until("it is in the file", || checkpointed_log_starts(&cluster.broker(1).manager) == "0\n1\nt 0 1\n").await;
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
    let append = |leader_epoch| CoordinatorLog::append(&leader, &batch(&["a"]), leader_epoch);
    assert_eq!(append(epoch), Ok(Offset(0)));
    assert_eq!(append(LeaderEpoch(epoch.value() + 1)), Err(ErrorCode::UnknownLeaderEpoch));
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
    assert_eq!(leader.read(&from_offset(0)).map(drop), Err(ErrorCode::KafkaStorageError));
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
async fn trap_26_a_corrupt_replica_keeps_what_it_has_as_long_as_it_counts() {
    let cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[]));
    produce(&cluster.leader(id).await, &["a"]).await.expect("both are in sync");
    cluster.until_equal(id, &["a"]).await;
    let follower = cluster.replica(2, id).await;
    let path = follower.disk().log_dir.path().join("t-0/00000000000000000000.log");
    let mut bytes = vltava_host::fs::read(&path).expect("the segment");
    bytes[66] ^= 1;
    vltava_host::fs::write(&path, bytes).expect("the segment");
    let read = ReadRequest { allow_follower: true, ..from_offset(0) };
    assert_eq!(follower.read(&read).map(drop), Err(ErrorCode::KafkaStorageError));
    // The controller may still elect it: an empty leader would have the other copy cut.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!((follower.log_end_offset(), cluster.broker(2).manager.offline_partitions()), (Offset(1), vec![id]));
    cluster.report_offline(2);
    cluster.until_isr(id, &[1]).await;
    until("it begins anew", || cluster.broker(2).manager.offline_partitions().is_empty()).await;
    cluster.report_offline(2);
    cluster.until_isr(id, &[1, 2]).await;
    cluster.until_equal(id, &["a"]).await;
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
async fn trap_12_a_disk_that_lost_records_is_not_trusted_for_its_marker() {
    let mut cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], &[]));
    produce(&cluster.leader(id).await, &["a"]).await.expect("it leads");
    produce(&cluster.leader(id).await, &["b"]).await.expect("it leads");
    let log_dir = cluster.broker(1).manager.disks[0].log_dir.path().to_owned();
    assert!(cluster.shut_down(1).await);
    let path = log_dir.join("t-0/00000000000000000000.log");
    let bytes = vltava_host::fs::read(&path).expect("the segment");
    vltava_host::fs::write(&path, &bytes[..bytes.len() - 1]).expect("the segment");
    assert_eq!(cluster.start_broker(1).await, BrokerEpoch::NONE);
    cluster.until_equal(id, &["a"]).await;
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
