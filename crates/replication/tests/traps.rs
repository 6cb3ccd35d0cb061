//! The traps of replication that can be told without a disk or a network, one short story each. The numbers are
//! those of the list that the design refers to.
//!
//! In a leader's story, broker 1 leads epoch 5 of a partition with replicas 1, 2 and 3; its log ends at 10 when it is
//! elected and everything is durable. `min.insync.replicas` is 2 and a follower may lag for 100 ms.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use vltava_replication::{
    BrokerStatus, Durability, EpochCache, EpochEntry, FetchPosition, FollowerAction, FollowerState,
    FollowerSubscription, IsrRejection, LeaderAction, LeaderState, LogOffsets, PartitionAssignment, ReplicationConfig,
    check_leader_epoch,
};
use vltava_types::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, Offset, PartitionEpoch};

struct Story {
    leader: LeaderState,
    epochs: EpochCache,
    brokers: BTreeMap<BrokerId, BrokerStatus>,
    now_ms: i64,
}

impl Story {
    fn new(durability: Durability, high_watermark: i64, isr: &[i32]) -> Self {
        let status = |id: i32| BrokerStatus {
            broker_epoch: BrokerEpoch(100 + i64::from(id)),
            fenced: false,
            in_controlled_shutdown: false,
        };
        let brokers: BTreeMap<_, _> = (1..=3).map(|id| (BrokerId(id), status(id))).collect();
        let offsets = LogOffsets {
            log_start_offset: Offset(0),
            high_watermark: Offset(high_watermark),
            durable_offset: Offset(10),
            log_end_offset: Offset(10),
        };
        let config = ReplicationConfig { durability, min_in_sync_replicas: 2, lag_time_max_ms: 100 };
        let leader = LeaderState::new(BrokerId(1), assignment(1, isr), brokers.clone(), offsets, config, 0);
        let epochs = epochs(&[(3, 0), (5, 10)]);
        Self { leader, epochs, brokers, now_ms: 0 }
    }

    /// Plays one line; returns what came of it.
    fn play(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| words[i].parse::<i64>().expect("a number");
        let broker = |i: usize| BrokerId(words[i].parse().expect("a broker"));
        let brokers = |from: usize| -> Vec<BrokerId> { (from..words.len()).map(broker).collect() };
        let now = self.now_ms;
        let actions = match words[0] {
            "append-to" => self.leader.on_appended(Offset(number(1)), now),
            "flush-to" => self.leader.on_flushed(Offset(number(1)), now),
            // follower, fetch offset, last epoch
            "subscribe" => {
                let follower = broker(1);
                let broker_epoch = words.get(4).map_or(self.brokers[&follower].broker_epoch.value(), |_| number(4));
                let subscription = FollowerSubscription {
                    follower,
                    broker_epoch: BrokerEpoch(broker_epoch),
                    leader_epoch: LeaderEpoch(5),
                    fetch_offset: Offset(number(2)),
                    last_fetched_epoch: LeaderEpoch(number(3) as i32),
                    durable_offset: Offset(number(2)),
                    log_start_offset: Offset(0),
                };
                match self.leader.on_subscribe(&subscription, &self.epochs, now) {
                    Ok((FetchPosition::Matches, actions)) => actions,
                    Ok((position, _)) => return show_position(position),
                    Err(error) => return format!("{}: {error}", error.code()),
                }
            }
            // follower, log end, durable
            "ack" => match self.leader.on_acknowledged(broker(1), Offset(number(2)), Offset(number(3)), now) {
                Ok(actions) => actions,
                Err(error) => return format!("{}: {error}", error.code()),
            },
            // follower, log start
            "starts" => match self.leader.on_follower_log_start(broker(1), Offset(number(2))) {
                Ok(()) => vec![],
                Err(error) => return format!("{}: {error}", error.code()),
            },
            // own log start
            "low-watermark?" => return format!("{:?}", self.leader.low_watermark(Offset(number(1)))),
            "leave" => {
                self.leader.on_left(broker(1));
                vec![]
            }
            "accepted" => {
                let epoch = PartitionEpoch(self.leader.partition_epoch().value() + 1);
                self.leader.on_isr_accepted(LeaderEpoch(5), epoch, &brokers(1), now)
            }
            // The answer that the last image has told already.
            "accepted-late" => {
                self.leader.on_isr_accepted(LeaderEpoch(5), self.leader.partition_epoch(), &brokers(1), now)
            }
            "rejected" => {
                let code = (1..=133).filter_map(ErrorCode::from_code).find(|code| code.name() == words[1]);
                let rejection = IsrRejection::from_code(code);
                self.leader.on_isr_rejected(LeaderEpoch(5), self.leader.partition_epoch(), rejection, now)
            }
            "image" => {
                let epoch = self.leader.partition_epoch().value() + 1;
                self.leader.on_assignment(assignment(epoch, &ids(&brokers(1))), now)
            }
            "fence" | "unfence" | "shut-down" | "re-register" => {
                let status = self.brokers.get_mut(&broker(1)).expect("one of three");
                match words[0] {
                    "shut-down" => status.in_controlled_shutdown = true,
                    "re-register" => status.broker_epoch = BrokerEpoch(number(2)),
                    word => status.fenced = word == "fence",
                }
                self.leader.on_brokers(self.brokers.clone(), now)
            }
            "wait" => {
                self.now_ms += number(1);
                self.leader.on_tick(self.now_ms)
            }
            "produce?" => {
                return match self.leader.check_min_in_sync_replicas() {
                    Ok(()) => "yes".to_owned(),
                    Err(error) => error.to_string(),
                };
            }
            "acks-all?" => return format!("{:?}", self.leader.ack_state(Offset(number(1)))),
            "latest?" => {
                return self.leader.latest_offset().map_or_else(|error| error.to_string(), |offset| offset.to_string());
            }
            word => panic!("unknown word {word}"),
        };
        actions.iter().map(show_action).collect::<Vec<_>>().join(", ")
    }
}

fn assignment(partition_epoch: i32, isr: &[i32]) -> PartitionAssignment {
    PartitionAssignment {
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(partition_epoch),
        replicas: [1, 2, 3].map(BrokerId).to_vec(),
        isr: isr.iter().copied().map(BrokerId).collect(),
    }
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.value()).collect()
}

fn epochs(entries: &[(i32, i64)]) -> EpochCache {
    let entry = |&(epoch, start)| EpochEntry { epoch: LeaderEpoch(epoch), start_offset: Offset(start) };
    EpochCache::from_entries(entries.iter().map(entry))
}

fn show_position(position: FetchPosition) -> String {
    match position {
        FetchPosition::Matches => "matches".to_owned(),
        FetchPosition::Diverging(end) => format!("diverging: epoch {} ends at {}", end.epoch, end.end_offset),
        FetchPosition::OutOfRange { log_start_offset, log_end_offset } => {
            format!("out of range {log_start_offset}..{log_end_offset}")
        }
    }
}

fn show_action(action: &LeaderAction) -> String {
    match action {
        LeaderAction::AdvanceHighWatermark(offset) => format!("high watermark {offset}"),
        LeaderAction::ProposeIsr(proposal) => {
            let members: Vec<_> = proposal.new_isr.iter().map(|(id, epoch)| format!("{id}@{epoch}")).collect();
            format!("propose [{}] upon {}", members.join(" "), proposal.partition_epoch)
        }
    }
}

fn check(mut story: Story, lines: &[&str], expected: Expect) {
    let mut told = String::new();
    for line in lines {
        let outcome = story.play(line);
        let outcome = if outcome.is_empty() { "nothing" } else { &outcome };
        writeln!(told, "{line} -> {outcome}").expect("strings take everything");
    }
    expected.assert_eq(&told);
}

fn page_cache(high_watermark: i64, isr: &[i32]) -> Story {
    Story::new(Durability::PageCache, high_watermark, isr)
}

fn flush(high_watermark: i64, isr: &[i32]) -> Story {
    Story::new(Durability::Flush, high_watermark, isr)
}

fn follower(log_start: i64, high_watermark: i64, log_end: i64) -> FollowerState {
    let offsets = LogOffsets {
        log_start_offset: Offset(log_start),
        high_watermark: Offset(high_watermark),
        durable_offset: Offset(log_end),
        log_end_offset: Offset(log_end),
    };
    FollowerState::new(BrokerId(2), Some(BrokerId(1)), LeaderEpoch(9), offsets)
}

/// A follower whose log ends at `log_end` negotiates with a leader until their logs match.
fn negotiate(
    follower_epochs: &[(i32, i64)],
    log_end: i64,
    leader_epochs: &[(i32, i64)],
    leader_end: i64,
    expected: Expect,
) {
    let mut local = epochs(follower_epochs);
    let leader_epochs = epochs(leader_epochs);
    let leader_offsets = LogOffsets { log_end_offset: Offset(leader_end), ..LogOffsets::default() };
    let mut state = follower(0, 0, log_end);
    let mut told = String::new();
    loop {
        let asked = state.subscription(&local, BrokerEpoch(1), Offset(0));
        let position = vltava_replication::fetch_position(
            &leader_epochs,
            leader_offsets,
            asked.fetch_offset,
            asked.last_fetched_epoch,
        );
        write!(told, "{} of epoch {}: {}", asked.fetch_offset, asked.last_fetched_epoch, show_position(position))
            .expect("strings take everything");
        let FetchPosition::Diverging(end) = position else { break };
        let Ok(FollowerAction::TruncateTo(cut)) = state.on_diverging(LeaderEpoch(9), end, &local) else {
            panic!("a truncation was expected");
        };
        writeln!(told, " -> truncate to {cut}").expect("strings take everything");
        local.truncate_from_end(cut);
        state.on_truncated(cut);
    }
    told.push('\n');
    expected.assert_eq(&told);
}

#[test]
fn trap_01_a_lagging_high_watermark_truncates_nothing() {
    // The follower's high watermark is 0; its log agrees with the leader's.
    negotiate(
        &[(3, 0)],
        10,
        &[(3, 0), (9, 12)],
        20,
        expect![[r#"
        10 of epoch 3: matches
    "#]],
    );
    // The tail that an old leader wrote alone goes.
    negotiate(
        &[(3, 0), (4, 10)],
        15,
        &[(3, 0), (9, 10)],
        20,
        expect![[r#"
        15 of epoch 4: diverging: epoch 3 ends at 10 -> truncate to 10
        10 of epoch 3: matches
    "#]],
    );
}

#[test]
fn trap_02_fast_elections_need_more_than_one_lookup() {
    negotiate(
        &[(1, 0), (3, 10), (6, 20)],
        30,
        &[(1, 0), (2, 8), (5, 14), (9, 25)],
        40,
        expect![[r#"
        30 of epoch 6: diverging: epoch 5 ends at 25 -> truncate to 20
        20 of epoch 3: diverging: epoch 2 ends at 14 -> truncate to 10
        10 of epoch 1: diverging: epoch 1 ends at 8 -> truncate to 8
        8 of epoch 1: matches
    "#]],
    );
    // The epoch goes on longer over there than here.
    negotiate(
        &[(1, 0), (3, 10), (6, 20)],
        30,
        &[(1, 0), (3, 10), (9, 25)],
        40,
        expect![[r#"
        30 of epoch 6: diverging: epoch 3 ends at 25 -> truncate to 20
        20 of epoch 3: matches
    "#]],
    );
}

#[test]
fn trap_03_requests_of_another_epoch_are_refused_in_both_directions() {
    let mut told = String::new();
    for requested in [None, Some(LeaderEpoch::NONE), Some(LeaderEpoch(4)), Some(LeaderEpoch(5)), Some(LeaderEpoch(6))] {
        let outcome = check_leader_epoch(requested, LeaderEpoch(5)).map_err(|error| error.code());
        writeln!(told, "{requested:?} -> {outcome:?}").expect("strings take everything");
    }
    expect![[r#"
        None -> Ok(())
        Some(LeaderEpoch(-1)) -> Ok(())
        Some(LeaderEpoch(4)) -> Err(FencedLeaderEpoch)
        Some(LeaderEpoch(5)) -> Ok(())
        Some(LeaderEpoch(6)) -> Err(UnknownLeaderEpoch)
    "#]]
    .assert_eq(&told);

    // A follower uses nothing that another leadership sent.
    let mut state = follower(0, 5, 10);
    assert!(state.on_leader_offsets(LeaderEpoch(8), Offset(10), Offset(0)).is_err());
    assert!(state.on_batches(LeaderEpoch(10), Offset(10)).is_err());
    assert_eq!(state.high_watermark(), Offset(5));
}

#[test]
fn trap_04_a_diverging_follower_is_told_so_and_does_not_count() {
    check(
        page_cache(8, &[1, 2, 3]),
        &["subscribe 2 12 4", "ack 2 12 12", "subscribe 3 10 3", "subscribe 2 10 3"],
        expect![[r#"
            subscribe 2 12 4 -> diverging: epoch 3 ends at 10
            ack 2 12 12 -> INVALID_REQUEST: broker 2 acknowledged before it subscribed
            subscribe 3 10 3 -> nothing
            subscribe 2 10 3 -> high watermark 10
        "#]],
    );
}

#[test]
fn trap_05_a_new_leader_does_not_know_the_latest_offset() {
    check(
        page_cache(4, &[1, 2]),
        &["latest?", "subscribe 2 7 3", "latest?", "ack 2 10 10", "latest?"],
        expect![[r#"
        latest? -> the high watermark has not yet reached the start of this leader epoch
        subscribe 2 7 3 -> high watermark 7
        latest? -> the high watermark has not yet reached the start of this leader epoch
        ack 2 10 10 -> high watermark 10
        latest? -> 10
    "#]],
    );
    // Follower 3 has reached the high watermark, but not the start of this leadership.
    check(
        page_cache(4, &[1, 2]),
        &["subscribe 3 7 3", "ack 3 9 9", "ack 3 10 10"],
        expect![[r#"
            subscribe 3 7 3 -> nothing
            ack 3 9 9 -> nothing
            ack 3 10 10 -> propose [1@101 2@102 3@103] upon 1
        "#]],
    );
}

#[test]
fn trap_06_the_high_watermark_waits_for_the_slowest_of_the_maximal_isr() {
    check(
        page_cache(10, &[1, 2]),
        &[
            "subscribe 2 10 3",
            "subscribe 3 10 3",
            "append-to 20",
            "ack 2 20 20",
            "accepted 1 2 3",
            "ack 3 15 15",
            "ack 3 20 20",
        ],
        expect![[r#"
            subscribe 2 10 3 -> nothing
            subscribe 3 10 3 -> propose [1@101 2@102 3@103] upon 1
            append-to 20 -> nothing
            ack 2 20 20 -> nothing
            accepted 1 2 3 -> nothing
            ack 3 15 15 -> high watermark 15
            ack 3 20 20 -> high watermark 20
        "#]],
    );
}

#[test]
fn trap_06_who_is_or_may_be_in_the_isr_is_waited_for_even_if_it_is_gone() {
    check(
        page_cache(10, &[1, 2, 3]),
        &["subscribe 2 10 3", "fence 3", "append-to 20", "ack 2 20 20", "image 1 2"],
        expect![[r#"
            subscribe 2 10 3 -> nothing
            fence 3 -> nothing
            append-to 20 -> nothing
            ack 2 20 20 -> nothing
            image 1 2 -> high watermark 20
        "#]],
    );
    check(
        page_cache(10, &[1, 2]),
        &[
            "subscribe 2 10 3",
            "subscribe 3 10 3",
            "fence 3",
            "append-to 20",
            "ack 2 20 20",
            "rejected INELIGIBLE_REPLICA",
        ],
        expect![[r#"
            subscribe 2 10 3 -> nothing
            subscribe 3 10 3 -> propose [1@101 2@102 3@103] upon 1
            fence 3 -> nothing
            append-to 20 -> nothing
            ack 2 20 20 -> nothing
            rejected INELIGIBLE_REPLICA -> high watermark 20
        "#]],
    );
}

#[test]
fn trap_06_nothing_is_committed_below_the_minimum_isr() {
    check(
        page_cache(10, &[1]),
        &[
            "fence 2",
            "fence 3",
            "append-to 20",
            "produce?",
            "subscribe 2 10 3",
            "unfence 2",
            "ack 2 20 20",
            "accepted 1 2",
        ],
        expect![[r#"
            fence 2 -> nothing
            fence 3 -> nothing
            append-to 20 -> nothing
            produce? -> 1 replicas are in sync where 2 are required
            subscribe 2 10 3 -> nothing
            unfence 2 -> nothing
            ack 2 20 20 -> propose [1@101 2@102] upon 1
            accepted 1 2 -> high watermark 20
        "#]],
    );
}

#[test]
fn trap_06_a_replica_about_to_join_is_waited_for() {
    check(
        page_cache(10, &[1, 2]),
        &[
            "subscribe 2 10 3",
            "subscribe 3 8 3",
            "append-to 12",
            "ack 2 12 12",
            "ack 3 10 10",
            "rejected INELIGIBLE_REPLICA",
            "append-to 14",
            "ack 2 14 14",
            "ack 3 14 14",
        ],
        expect![[r#"
            subscribe 2 10 3 -> nothing
            subscribe 3 8 3 -> nothing
            append-to 12 -> nothing
            ack 2 12 12 -> high watermark 12
            ack 3 10 10 -> nothing
            rejected INELIGIBLE_REPLICA -> nothing
            append-to 14 -> nothing
            ack 2 14 14 -> nothing
            ack 3 14 14 -> propose [1@101 2@102 3@103] upon 1, high watermark 14
        "#]],
    );
}

#[test]
fn trap_07_a_proposal_counts_from_when_it_is_made_until_it_is_refused() {
    // Expansion: 3 counts at once, and no more after a definite refusal.
    check(
        page_cache(10, &[1, 2]),
        &[
            "subscribe 2 10 3",
            "subscribe 3 10 3",
            "append-to 20",
            "ack 2 20 20",
            "wait 101",
            "rejected INELIGIBLE_REPLICA",
            "wait 1",
        ],
        expect![[r#"
            subscribe 2 10 3 -> nothing
            subscribe 3 10 3 -> propose [1@101 2@102 3@103] upon 1
            append-to 20 -> nothing
            ack 2 20 20 -> nothing
            wait 101 -> nothing
            rejected INELIGIBLE_REPLICA -> high watermark 20
            wait 1 -> nothing
        "#]],
    );
    // Shrinking: 3 counts until the controller has agreed. An unknown outcome changes nothing and is asked again.
    check(
        page_cache(10, &[1, 2, 3]),
        &[
            "subscribe 2 10 3",
            "append-to 20",
            "ack 2 20 20",
            "wait 101",
            "wait 101",
            "rejected REQUEST_TIMED_OUT",
            "rejected INVALID_UPDATE_VERSION",
            "image 1 2",
        ],
        expect![[r#"
            subscribe 2 10 3 -> nothing
            append-to 20 -> nothing
            ack 2 20 20 -> nothing
            wait 101 -> propose [1@101 2@102] upon 1
            wait 101 -> nothing
            rejected REQUEST_TIMED_OUT -> propose [1@101 2@102] upon 1
            rejected INVALID_UPDATE_VERSION -> nothing
            image 1 2 -> high watermark 20
        "#]],
    );
}

#[test]
fn trap_07_an_answer_that_the_image_overtook_ends_no_later_proposal() {
    // 3 is on its way in by a proposal that builds upon the image. It may be accepted, and must be waited for.
    check(
        page_cache(10, &[1]),
        &[
            "subscribe 2 10 3",
            "subscribe 3 10 3",
            "image 1 2",
            "leave 3",
            "accepted-late 1 2",
            "append-to 20",
            "ack 2 20 20",
            "wait 101",
            "image 1 2 3",
        ],
        expect![[r#"
            subscribe 2 10 3 -> propose [1@101 2@102] upon 1
            subscribe 3 10 3 -> nothing
            image 1 2 -> propose [1@101 2@102 3@103] upon 2
            leave 3 -> nothing
            accepted-late 1 2 -> nothing
            append-to 20 -> nothing
            ack 2 20 20 -> nothing
            wait 101 -> nothing
            image 1 2 3 -> nothing
        "#]],
    );
}

#[test]
fn trap_08_joining_needs_everything_committed_and_word_in_this_epoch() {
    check(
        page_cache(10, &[1, 2]),
        &[
            "wait 1",
            "ack 3 10 10",
            "subscribe 2 10 3",
            "append-to 12",
            "ack 2 12 12",
            "subscribe 3 10 3",
            "ack 3 12 12",
        ],
        expect![[r#"
            wait 1 -> nothing
            ack 3 10 10 -> INVALID_REQUEST: broker 3 acknowledged before it subscribed
            subscribe 2 10 3 -> nothing
            append-to 12 -> nothing
            ack 2 12 12 -> high watermark 12
            subscribe 3 10 3 -> nothing
            ack 3 12 12 -> propose [1@101 2@102 3@103] upon 1
        "#]],
    );
}

#[test]
fn trap_08_a_follower_that_fell_silent_joins_only_when_it_speaks_again() {
    check(
        page_cache(10, &[1, 2, 3]),
        &[
            "subscribe 2 10 3",
            "subscribe 3 10 3",
            "append-to 12",
            "ack 2 12 12",
            "wait 101",
            "accepted 1 2",
            "wait 1",
            "ack 3 12 12",
        ],
        expect![[r#"
            subscribe 2 10 3 -> nothing
            subscribe 3 10 3 -> nothing
            append-to 12 -> nothing
            ack 2 12 12 -> nothing
            wait 101 -> propose [1@101 2@102] upon 1
            accepted 1 2 -> high watermark 12
            wait 1 -> nothing
            ack 3 12 12 -> propose [1@101 2@102 3@103] upon 2
        "#]],
    );
}

#[test]
fn trap_08_a_follower_whose_stream_is_gone_does_not_join() {
    check(
        page_cache(10, &[1, 2]),
        &["fence 3", "subscribe 3 10 3", "leave 3", "unfence 3", "wait 1", "subscribe 3 10 3"],
        expect![[r#"
            fence 3 -> nothing
            subscribe 3 10 3 -> nothing
            leave 3 -> nothing
            unfence 3 -> nothing
            wait 1 -> nothing
            subscribe 3 10 3 -> propose [1@101 2@102 3@103] upon 1
        "#]],
    );
}

#[test]
fn trap_09_fenced_and_departing_brokers_do_not_join() {
    check(
        page_cache(10, &[1, 2]),
        &["fence 3", "subscribe 3 10 3", "shut-down 3", "unfence 3"],
        expect![[r#"
            fence 3 -> nothing
            subscribe 3 10 3 -> nothing
            shut-down 3 -> nothing
            unfence 3 -> nothing
        "#]],
    );
    check(
        page_cache(10, &[1, 2]),
        &["fence 3", "subscribe 3 10 3", "unfence 3"],
        expect![[r#"
            fence 3 -> nothing
            subscribe 3 10 3 -> nothing
            unfence 3 -> propose [1@101 2@102 3@103] upon 1
        "#]],
    );
}

#[test]
fn trap_10_only_the_registered_incarnation_joins() {
    check(
        page_cache(10, &[1, 2]),
        &["re-register 3 200", "subscribe 3 10 3 103", "subscribe 3 10 3 200", "subscribe 3 10 3 103"],
        expect![[r#"
            re-register 3 200 -> nothing
            subscribe 3 10 3 103 -> nothing
            subscribe 3 10 3 200 -> propose [1@101 2@102 3@200] upon 1
            subscribe 3 10 3 103 -> STALE_BROKER_EPOCH: broker epoch 103 is older than 200
        "#]],
    );
}

#[test]
fn trap_10_what_is_asked_again_names_the_incarnation_that_proved_its_log() {
    // 3 loses its disk while the controller does not answer. Its new incarnation must not slip in by the old word.
    check(
        page_cache(10, &[1, 2]),
        &[
            "subscribe 3 10 3",
            "re-register 3 200",
            "subscribe 3 0 -1 200",
            "rejected REQUEST_TIMED_OUT",
            "rejected INELIGIBLE_REPLICA",
            "ack 3 10 10",
        ],
        expect![[r#"
            subscribe 3 10 3 -> propose [1@101 2@102 3@103] upon 1
            re-register 3 200 -> nothing
            subscribe 3 0 -1 200 -> nothing
            rejected REQUEST_TIMED_OUT -> propose [1@101 2@102 3@103] upon 1
            rejected INELIGIBLE_REPLICA -> nothing
            ack 3 10 10 -> propose [1@101 2@102 3@200] upon 1
        "#]],
    );
}

#[test]
fn trap_15_a_leader_that_nobody_follows_commits_nothing() {
    check(
        page_cache(10, &[1, 2, 3]),
        &[
            "append-to 20",
            "flush-to 20",
            "acks-all? 20",
            "wait 101",
            "rejected FENCED_LEADER_EPOCH",
            "acks-all? 20",
            "wait 1000",
            "acks-all? 20",
        ],
        expect![[r#"
            append-to 20 -> nothing
            flush-to 20 -> nothing
            acks-all? 20 -> Pending
            wait 101 -> propose [1@101] upon 1
            rejected FENCED_LEADER_EPOCH -> nothing
            acks-all? 20 -> Pending
            wait 1000 -> nothing
            acks-all? 20 -> Pending
        "#]],
    );
}

#[test]
fn trap_16_the_minimum_isr_is_asked_before_the_append_and_at_the_answer() {
    check(
        page_cache(10, &[1, 2]),
        &[
            "produce?",
            "subscribe 2 10 3",
            "append-to 20",
            "ack 2 20 20",
            "acks-all? 20",
            "fence 2",
            "image 1",
            "produce?",
            "acks-all? 20",
        ],
        expect![[r#"
            produce? -> yes
            subscribe 2 10 3 -> nothing
            append-to 20 -> nothing
            ack 2 20 20 -> high watermark 20
            acks-all? 20 -> Committed
            fence 2 -> nothing
            image 1 -> nothing
            produce? -> 1 replicas are in sync where 2 are required
            acks-all? 20 -> NotEnoughReplicas
        "#]],
    );
}

#[test]
fn trap_17_followers_take_a_high_watermark_without_records() {
    let mut state = follower(0, 5, 10);
    let actions = state.on_leader_offsets(LeaderEpoch(9), Offset(10), Offset(0));
    assert_eq!(actions, Ok(vec![FollowerAction::AdvanceHighWatermark(Offset(10))]));
    // The leader's may be beyond what has arrived here.
    let actions = state.on_leader_offsets(LeaderEpoch(9), Offset(12), Offset(0));
    assert_eq!(actions, Ok(vec![]));
}

#[test]
fn trap_19_the_log_start_never_goes_back() {
    let mut state = follower(4, 8, 10);
    let mut told = String::new();
    for (high_watermark, log_start) in [(8, 2), (8, 6), (8, 9), (10, 9), (10, 3)] {
        let actions = state.on_leader_offsets(LeaderEpoch(9), Offset(high_watermark), Offset(log_start));
        writeln!(told, "{high_watermark} {log_start} -> {:?}", actions.expect("the epoch is right"))
            .expect("strings take everything");
    }
    expect![[r#"
        8 2 -> []
        8 6 -> [AdvanceLogStart(Offset(6))]
        8 9 -> [AdvanceLogStart(Offset(8))]
        10 9 -> [AdvanceHighWatermark(Offset(10)), AdvanceLogStart(Offset(9))]
        10 3 -> []
    "#]]
    .assert_eq(&told);
    // What the leader no longer has is given up here too.
    assert_eq!(
        state.on_out_of_range(LeaderEpoch(9), Offset(50), Offset(90), &epochs(&[(3, 0)])),
        Ok(FollowerAction::RestartAt(Offset(50)))
    );
    assert_eq!(
        state.on_out_of_range(LeaderEpoch(9), Offset(0), Offset(9), &epochs(&[(3, 0)])),
        Ok(FollowerAction::TruncateTo(Offset(9)))
    );
}

#[test]
fn trap_26_an_epoch_that_the_leader_never_heard_of_is_cut_off_and_not_asked_for_again() {
    let state = follower(4, 8, 10);
    let act = |entries| state.on_out_of_range(LeaderEpoch(9), Offset(0), Offset(90), &epochs(entries));
    assert_eq!(act(&[(3, 0), (12, 7)]), Ok(FollowerAction::TruncateTo(Offset(7))));
    assert_eq!(act(&[(12, 4)]), Ok(FollowerAction::RestartAt(Offset(0))), "nothing of the log is known");
}

#[test]
fn trap_19_the_low_watermark_waits_for_every_replica_on_a_live_broker() {
    check(
        page_cache(10, &[1, 2]),
        &[
            "low-watermark? 7",
            "subscribe 2 10 5",
            "low-watermark? 7",
            "subscribe 3 10 5",
            "low-watermark? 7",
            "starts 2 7",
            "low-watermark? 7",
            "starts 3 9",
            "low-watermark? 7",
            "low-watermark? 8",
            "starts 3 4",
            "low-watermark? 7",
            // It keeps its log start when its stream breaks, and is waited for no longer once it is dead.
            "leave 3",
            "low-watermark? 7",
            "fence 3",
            "low-watermark? 7",
            "unfence 3",
            // What it says in another life counts anew.
            "subscribe 3 0 -1 200",
            "low-watermark? 7",
            "starts 4 7",
        ],
        expect![[r#"
            low-watermark? 7 -> None
            subscribe 2 10 5 -> nothing
            low-watermark? 7 -> None
            subscribe 3 10 5 -> propose [1@101 2@102 3@103] upon 1
            low-watermark? 7 -> Some(Offset(0))
            starts 2 7 -> nothing
            low-watermark? 7 -> Some(Offset(0))
            starts 3 9 -> nothing
            low-watermark? 7 -> Some(Offset(7))
            low-watermark? 8 -> Some(Offset(7))
            starts 3 4 -> nothing
            low-watermark? 7 -> Some(Offset(4))
            leave 3 -> nothing
            low-watermark? 7 -> Some(Offset(4))
            fence 3 -> nothing
            low-watermark? 7 -> Some(Offset(7))
            unfence 3 -> nothing
            subscribe 3 0 -1 200 -> nothing
            low-watermark? 7 -> Some(Offset(0))
            starts 4 7 -> UNKNOWN_LEADER_EPOCH: broker 4 does not host a replica of this partition
        "#]],
    );
}

#[test]
fn a_flushing_leader_counts_only_what_is_on_disk_everywhere() {
    check(
        flush(10, &[1, 2]),
        &["fence 3", "subscribe 2 10 3", "append-to 20", "ack 2 20 10", "flush-to 15", "ack 2 20 20", "flush-to 20"],
        expect![[r#"
            fence 3 -> nothing
            subscribe 2 10 3 -> nothing
            append-to 20 -> nothing
            ack 2 20 10 -> nothing
            flush-to 15 -> nothing
            ack 2 20 20 -> high watermark 15
            flush-to 20 -> high watermark 20
        "#]],
    );
}

#[test]
fn an_idle_follower_is_not_late() {
    check(
        page_cache(10, &[1, 2]),
        &["fence 3", "subscribe 2 10 3", "wait 10000", "append-to 12", "wait 50", "ack 2 11 11", "wait 51", "wait 100"],
        expect![[r#"
            fence 3 -> nothing
            subscribe 2 10 3 -> nothing
            wait 10000 -> nothing
            append-to 12 -> nothing
            wait 50 -> nothing
            ack 2 11 11 -> high watermark 11
            wait 51 -> propose [1@101] upon 1
            wait 100 -> nothing
        "#]],
    );
}

#[test]
fn a_follower_that_keeps_up_under_load_is_not_late() {
    check(
        page_cache(10, &[1, 2]),
        &[
            "fence 3",
            "subscribe 2 10 3",
            "append-to 20",
            "wait 40",
            "append-to 30",
            "ack 2 20 20",
            "wait 40",
            "append-to 40",
            "ack 2 30 30",
            "wait 40",
            "wait 40",
            "wait 40",
        ],
        expect![[r#"
            fence 3 -> nothing
            subscribe 2 10 3 -> nothing
            append-to 20 -> nothing
            wait 40 -> nothing
            append-to 30 -> nothing
            ack 2 20 20 -> high watermark 20
            wait 40 -> nothing
            append-to 40 -> nothing
            ack 2 30 30 -> high watermark 30
            wait 40 -> nothing
            wait 40 -> propose [1@101] upon 1
            wait 40 -> nothing
        "#]],
    );
}

#[test]
fn wrong_acknowledgements_are_refused() {
    check(
        page_cache(10, &[1, 2]),
        &["subscribe 2 10 7", "subscribe 2 10 3", "ack 2 11 11", "ack 2 9 10", "ack 3 10 10"],
        expect![[r#"
            subscribe 2 10 7 -> out of range 0..10
            subscribe 2 10 3 -> nothing
            ack 2 11 11 -> OFFSET_OUT_OF_RANGE: acknowledged offsets are not below the log end 10
            ack 2 9 10 -> OFFSET_OUT_OF_RANGE: acknowledged offsets are not below the log end 10
            ack 3 10 10 -> INVALID_REQUEST: broker 3 acknowledged before it subscribed
        "#]],
    );
}
