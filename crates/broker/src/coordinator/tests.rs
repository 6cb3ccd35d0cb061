//! Stories of one shard over a log whose high watermark and leadership the test moves.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use expect_test::expect;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Duration;
use vltava_coordinator::group::{Caller, GroupConfig, GroupCoordinator, GroupEvent, GroupResponse};
use vltava_coordinator::{Outcome, Token};
use vltava_protocol::batch::{BatchHeader, stamp};
use vltava_protocol::make;
use vltava_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use vltava_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use vltava_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use vltava_protocol::messages::{HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, StrBytes, SyncGroupRequest};
use vltava_types::{ErrorCode, LeaderEpoch, Offset, Uuid};

use super::log::CoordinatorLog;
use super::shard::{Shard, ShardOptions};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// A log in memory, as one broker sees it.
#[derive(Default)]
struct MemoryLog {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    batches: Vec<Bytes>,
    log_end_offset: i64,
    high_watermark: i64,
    /// Whether the high watermark follows the log end by itself.
    is_replicated_at_once: bool,
    leader_epoch: Option<LeaderEpoch>,
    append_error: Option<ErrorCode>,
    /// The session with the controller has run out: another broker may lead.
    is_cut_off: bool,
    waiters: Vec<Arc<Notify>>,
}

impl MemoryLog {
    fn led() -> Arc<Self> {
        let log = Arc::new(Self::default());
        log.change(|state| {
            state.leader_epoch = Some(EPOCH);
            state.is_replicated_at_once = true;
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        if state.is_replicated_at_once {
            state.high_watermark = state.log_end_offset;
        }
        state.waiters.iter().for_each(|waiter| waiter.notify_one());
    }
}

impl CoordinatorLog for MemoryLog {
    type Subscription = ();

    fn name(&self) -> String {
        "__consumer_offsets-0".to_owned()
    }

    fn leader_epoch(&self) -> Option<LeaderEpoch> {
        self.state.lock().leader_epoch
    }

    fn is_serving(&self) -> bool {
        !self.state.lock().is_cut_off
    }

    fn log_start_offset(&self) -> Offset {
        Offset(0)
    }

    fn log_end_offset(&self) -> Offset {
        Offset(self.state.lock().log_end_offset)
    }

    fn high_watermark(&self) -> Offset {
        Offset(self.state.lock().high_watermark)
    }

    /// One batch at a time, beginning with the one that holds `offset`.
    fn read(&self, offset: Offset, _max_bytes: usize) -> Result<Bytes, ErrorCode> {
        let state = self.state.lock();
        let holds = |batch: &&Bytes| BatchHeader::parse(batch).expect("our own batch").last_offset() >= offset;
        Ok(state.batches.iter().find(holds).cloned().unwrap_or_default())
    }

    fn append(self: &Arc<Self>, batch: &Bytes, leader_epoch: LeaderEpoch) -> Result<Offset, ErrorCode> {
        let mut last_offset = Offset(-1);
        if let Some(error) = self.state.lock().append_error {
            return Err(error);
        }
        if self.leader_epoch() != Some(leader_epoch) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        self.change(|state| {
            let mut batch = BytesMut::from(&batch[..]);
            stamp::set_base_offset(&mut batch, Offset(state.log_end_offset));
            last_offset = BatchHeader::parse(&batch).expect("our own batch").last_offset();
            state.log_end_offset = last_offset.value() + 1;
            state.batches.push(batch.freeze());
        });
        Ok(last_offset)
    }

    fn subscribe(self: &Arc<Self>, waiter: &Arc<Notify>) {
        self.state.lock().waiters.push(Arc::clone(waiter));
    }
}

fn start(log: &Arc<MemoryLog>) -> Shard<GroupCoordinator> {
    let options = ShardOptions { commit_timeout: Duration::from_secs(5), load_buffer_bytes: 1024 };
    Shard::start(GroupCoordinator::new(GroupConfig::default()), Arc::clone(log), EPOCH, options)
}

async fn loaded(log: &Arc<MemoryLog>) -> Shard<GroupCoordinator> {
    let shard = start(log);
    while fetch(&shard).await == "COORDINATOR_LOAD_IN_PROGRESS" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    shard
}

async fn ask(
    shard: &Shard<GroupCoordinator>,
    event: impl FnOnce(Token) -> GroupEvent + Send + 'static,
) -> Outcome<GroupResponse> {
    shard.asker().ask(event).await
}

async fn commit(shard: &Shard<GroupCoordinator>, offset: i64) -> String {
    let asker = shard.asker();
    let outcome = asker.ask(move |token| commit_event(token, offset)).await;
    told(outcome)
}

fn commit_event(token: Token, offset: i64) -> GroupEvent {
    let partition = make!(OffsetCommitRequestPartition { committed_offset: offset });
    let topic = make!(OffsetCommitRequestTopic { name: "t".into(), partitions: vec![partition] });
    let request = make!(OffsetCommitRequest { group_id: "g".into(), topics: vec![topic] });
    GroupEvent::OffsetCommit { token, caller: Caller::default(), request }
}

async fn fetch(shard: &Shard<GroupCoordinator>) -> String {
    let request = make!(OffsetFetchRequestGroup { group_id: "g".into(), topics: None });
    told(ask(shard, move |token| GroupEvent::OffsetFetch { token, request }).await)
}

fn told(outcome: Outcome<GroupResponse>) -> String {
    match outcome {
        Err(error) => error.to_string(),
        Ok(GroupResponse::OffsetCommit(response)) => name(response.topics[0].partitions[0].error_code),
        Ok(GroupResponse::OffsetFetch(response)) => {
            let offsets = response.topics.iter().flat_map(|topic| &topic.partitions);
            format!("{:?}", offsets.map(|partition| partition.committed_offset).collect::<Vec<_>>())
        }
        Ok(GroupResponse::Heartbeat(response)) => name(response.error_code),
        Ok(GroupResponse::SyncGroup(response)) => name(response.error_code),
        Ok(GroupResponse::JoinGroup(response)) => {
            format!("{} generation {}", name(response.error_code), response.generation_id)
        }
        Ok(other) => format!("{other:?}"),
    }
}

fn name(code: i16) -> String {
    ErrorCode::from_code(code).expect("Kafka's error").to_string()
}

/// Joins alone, and returns the member id.
async fn join(shard: &Shard<GroupCoordinator>) -> StrBytes {
    let protocol = make!(JoinGroupRequestProtocol { name: "range".into() });
    let request = make!(JoinGroupRequest {
        group_id: "members".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
    });
    let outcome = ask(shard, move |token| GroupEvent::JoinGroup {
        token,
        caller: Caller { version: 3, client_id: "c".to_owned(), client_host: "/127.0.0.1".to_owned() },
        request,
        new_member: Uuid([1; 16]),
    });
    match outcome.await {
        Ok(GroupResponse::JoinGroup(response)) => response.member_id,
        other => panic!("not joined: {other:?}"),
    }
}

async fn sync(shard: &Shard<GroupCoordinator>, member_id: StrBytes) -> String {
    let request = make!(SyncGroupRequest { group_id: "members".into(), generation_id: 1, member_id: member_id });
    told(ask(shard, move |token| GroupEvent::SyncGroup { token, request }).await)
}

async fn heartbeat(shard: &Shard<GroupCoordinator>, member_id: StrBytes) -> String {
    let request = make!(HeartbeatRequest { group_id: "members".into(), generation_id: 1, member_id: member_id });
    told(shard.asker().ask_even_if_replaced(move |token| GroupEvent::Heartbeat { token, request }).await)
}

#[tokio::test(start_paused = true)]
async fn trap_24_a_commit_is_answered_when_the_high_watermark_has_passed_it() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    log.change(|state| state.is_replicated_at_once = false);
    let mut committing = std::pin::pin!(commit(&shard, 5));
    let mut fetching = std::pin::pin!(fetch(&shard));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut committing).await.is_err(), "not yet");
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut fetching).await.is_err(), "not readable either");
    log.change(|state| state.high_watermark = state.log_end_offset);
    assert_eq!(committing.await, "NONE");
    assert_eq!(fetching.await, "[5]");
}

#[tokio::test(start_paused = true)]
async fn trap_24_a_coordinator_loads_everything_before_it_serves() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    for offset in 1..=20 {
        assert_eq!(commit(&shard, offset).await, "NONE");
    }
    drop(shard);
    // The next leader's high watermark lies behind what was committed, as it may (trap 5).
    log.change(|state| {
        state.is_replicated_at_once = false;
        state.high_watermark = 7;
    });
    let shard = start(&log);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(fetch(&shard).await, "COORDINATOR_LOAD_IN_PROGRESS");
    log.change(|state| state.high_watermark = 20);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(fetch(&shard).await, "[20]");
}

#[tokio::test(start_paused = true)]
async fn trap_24_a_coordinator_that_lost_leadership_answers_nobody() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    let member_id = join(&shard).await;
    log.change(|state| state.is_replicated_at_once = false);
    let (committed, synced, ()) = tokio::join!(commit(&shard, 5), sync(&shard, member_id.clone()), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        log.change(|state| {
            state.leader_epoch = None;
            // Another leader's high watermark passes our offset; what is there is not ours.
            state.high_watermark = 100;
        });
    });
    assert_eq!((committed.as_str(), synced.as_str()), ("NOT_COORDINATOR", "NOT_COORDINATOR"));
    assert_eq!(heartbeat(&shard, member_id).await, "NOT_COORDINATOR");
}

#[tokio::test(start_paused = true)]
async fn trap_15_a_coordinator_that_may_have_been_replaced_tells_no_committed_offsets() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    let member_id = join(&shard).await;
    let mut answers = vec![sync(&shard, member_id.clone()).await, commit(&shard, 5).await];
    log.change(|state| state.is_cut_off = true);
    // The new coordinator may have 6 by now.
    answers.push(fetch(&shard).await);
    answers.push(sync(&shard, member_id.clone()).await);
    // If nobody has taken over, the member must still be one afterwards.
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        answers.push(heartbeat(&shard, member_id.clone()).await);
    }
    log.change(|state| state.is_cut_off = false);
    answers.push(fetch(&shard).await);
    answers.push(sync(&shard, member_id).await);
    expect![[r#"
        [
            "NONE",
            "NONE",
            "NOT_COORDINATOR",
            "NOT_COORDINATOR",
            "NONE",
            "NONE",
            "NONE",
            "[5]",
            "NONE",
        ]
    "#]]
    .assert_debug_eq(&answers);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_dropped_ends_while_it_loads() {
    let log = Arc::new(MemoryLog::default());
    let shard = start(&log);
    let asker = shard.asker();
    drop(shard);
    tokio::time::sleep(Duration::from_secs(2)).await;
    log.change(|state| state.leader_epoch = Some(EPOCH));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let outcome = asker.ask(|token| commit_event(token, 1)).await;
    assert_eq!(told(outcome), "COORDINATOR_LOAD_IN_PROGRESS");
    assert_eq!(log.log_end_offset(), Offset(0));
}

#[tokio::test(start_paused = true)]
async fn a_load_waits_until_the_partition_leads_under_the_epoch() {
    let log = Arc::new(MemoryLog::default());
    let shard = start(&log);
    log.change(|state| state.leader_epoch = Some(LeaderEpoch(2)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fetch(&shard).await, "COORDINATOR_LOAD_IN_PROGRESS");
    log.change(|state| state.leader_epoch = Some(EPOCH));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(fetch(&shard).await, "[]");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_not_replicated_in_time_may_be_tried_again() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    log.change(|state| state.is_replicated_at_once = false);
    let began = tokio::time::Instant::now();
    assert_eq!(commit(&shard, 5).await, "COORDINATOR_NOT_AVAILABLE");
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    // It was in the log all the time.
    log.change(|state| state.is_replicated_at_once = true);
    assert_eq!(fetch(&shard).await, "[5]");
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_the_log_refuses_changes_nothing() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    assert_eq!(commit(&shard, 5).await, "NONE");
    let mut answers = Vec::new();
    for error in [ErrorCode::NotEnoughReplicas, ErrorCode::KafkaStorageError, ErrorCode::FencedLeaderEpoch] {
        log.change(|state| state.append_error = Some(error));
        answers.push(commit(&shard, 6).await);
    }
    log.change(|state| state.append_error = None);
    answers.push(fetch(&shard).await);
    expect![[r#"
        [
            "COORDINATOR_NOT_AVAILABLE",
            "NOT_COORDINATOR",
            "NOT_COORDINATOR",
            "[5]",
        ]
    "#]]
    .assert_debug_eq(&answers);
}

#[tokio::test(start_paused = true)]
async fn sessions_run_on_the_shards_own_clock_and_start_afresh_after_a_failover() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    let member_id = join(&shard).await;
    let mut answers = vec![sync(&shard, member_id.clone()).await];
    tokio::time::sleep(Duration::from_secs(9)).await;
    answers.push(heartbeat(&shard, member_id.clone()).await);
    tokio::time::sleep(Duration::from_secs(9)).await;
    drop(shard);
    let shard = loaded(&log).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    answers.push(heartbeat(&shard, member_id.clone()).await);
    tokio::time::sleep(Duration::from_secs(11)).await;
    answers.push(heartbeat(&shard, member_id).await);
    expect![[r#"
        [
            "NONE",
            "NONE",
            "NONE",
            "UNKNOWN_MEMBER_ID",
        ]
    "#]]
    .assert_debug_eq(&answers);
}

#[tokio::test(start_paused = true)]
async fn many_clients_at_once_are_all_answered() {
    let log = MemoryLog::led();
    let shard = loaded(&log).await;
    let commits = (0..2_000).map(|offset| commit(&shard, offset));
    let answers = futures::future::join_all(commits).await;
    assert!(answers.iter().all(|answer| answer == "NONE"));
    assert_eq!(log.log_end_offset(), Offset(2_000));
}
