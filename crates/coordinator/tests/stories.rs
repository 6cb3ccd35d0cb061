//! Stories of groups, one behaviour each. See `support` for the language.

mod support;

use expect_test::{Expect, expect};
use support::{Story, config};
use vltava_coordinator::group::GroupConfig;
use vltava_coordinator::records::{GroupMetadataValue, GroupRecord};
use vltava_types::TimestampMs;

fn check(script: &str, expected: Expect) {
    check_with(config(), script, expected);
}

fn check_with(config: GroupConfig, script: &str, expected: Expect) {
    expected.assert_eq(&Story::new(config).run(script));
}

/// a#01 and b#02 are in the first generation, led by a#01, and wait for their partitions.
const TWO_JOINED: &str = "
    a: join a v=3
    b: join b v=3
    +6000
";

/// a#01 and b#02 are in the first generation, led by a#01, and have a partition each.
const TWO_MEMBERS: &str = "
    a: join a v=3
    b: join b v=3
    +6000
    a: sync a#01 assign=a#01:t-0,b#02:t-1
    b: sync b#02
";

/// a#01 is in the first generation, alone, and has a partition.
const ONE_MEMBER: &str = "
    a: join a v=3
    +3000
    a: sync a#01 assign=a#01:t-0
";

/// What comes after an opening that other stories tell in full.
fn check_after(opening: &str, script: &str, expected: Expect) {
    let mut story = Story::new(config());
    story.run(opening);
    expected.assert_eq(&story.run(script));
}

/// A new member learns its id, joins with it, and waits for the initial delay; the leader's assignment is stored
/// before anyone learns it.
#[test]
fn two_consumers_share_a_new_group() {
    check(
        "
            a1: join a
            b1: join b
            a2: join a id=a#01
            b2: join b id=b#02
            +3000
            +3000
            b3: sync b#02
            hold
            a3: sync a#01 assign=a#01:t-0,b#02:t-1
            records
            committed
            ha: heartbeat a#01
            d: describe v=6
        ",
        expect![[r#"
            a1 <- MEMBER_ID_REQUIRED a#01
            b1 <- MEMBER_ID_REQUIRED b#02
            a2 <- joined generation 1 as a#01 leader=a#01 range members=[a#01 b#02]
            b2 <- joined generation 1 as b#02 leader=a#01 range
              g = generation 1 range leader=a#01 [a#01:t-0 b#02:t-1]
            a3 <- assigned "t-0"
            b3 <- assigned "t-1"
            ha <- ok
            d <- ok g Stable consumer range [a#01@/127.0.0.1:t-0 subscribed b#02@/127.0.0.1:t-1 subscribed]
        "#]],
    );
}

#[test]
fn the_initial_delay_grows_as_members_arrive_and_ends_at_the_rebalance_timeout() {
    check(
        "
            a: join a v=3 rebalance=7000
            +2000
            b: join b v=3 rebalance=7000
            +1000
            +2000
            c: join c v=3 rebalance=7000
            +1000
            d: join d v=3 rebalance=7000
            +999
            l: list
            +1
            l: list
        ",
        expect![[r#"
            l <- [g PreparingRebalance classic "consumer"]
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01 b#02 c#03 d#04]
            b <- joined generation 1 as b#02 leader=a#01 range
            c <- joined generation 1 as c#03 leader=a#01 range
            d <- joined generation 1 as d#04 leader=a#01 range
            l <- [g CompletingRebalance classic "consumer"]
        "#]],
    );
}

/// The tutorial's second experiment: of two consumers one goes silent, and the other gets both partitions.
#[test]
fn a_member_that_stops_is_replaced_by_the_others() {
    check(
        "
            a: join a v=3
            b: join b v=3
            +6000
            a: sync a#01 assign=a#01:t-0,b#02:t-1
            b: sync b#02
            +9000
            ha: heartbeat a#01
            +2000
            ha: heartbeat a#01
            a: join a id=a#01
            a: sync a#01 gen=2 assign=a#01:t-0+t-1
            records
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01 b#02]
            b <- joined generation 1 as b#02 leader=a#01 range
            a <- assigned "t-0"
            b <- assigned "t-1"
            ha <- ok
            ha <- REBALANCE_IN_PROGRESS
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01]
            a <- assigned "t-0+t-1"
              g = generation 1 range leader=a#01 [a#01:t-0 b#02:t-1]
              g = generation 2 range leader=a#01 [a#01:t-0+t-1]
        "#]],
    );
}

#[test]
fn a_member_that_leaves_starts_a_rebalance() {
    check_after(
        TWO_MEMBERS,
        "
            lb: leave b#02
            hb: heartbeat b#02
            ha: heartbeat a#01
            a: join a id=a#01
        ",
        expect![[r#"
            lb <- b#02 ok
            hb <- UNKNOWN_MEMBER_ID
            ha <- REBALANCE_IN_PROGRESS
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01]
        "#]],
    );
}

#[test]
fn the_last_member_to_leave_makes_the_group_empty() {
    check(
        "
            a: join a v=3
            +3000
            a: sync a#01 assign=a#01:t-0
            hold
            l: leave a#01
            records
            committed
            d: describe v=6
            ha: heartbeat a#01 gen=2
            a: join a id=a#01
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            a <- assigned "t-0"
              g = generation 1 range leader=a#01 [a#01:t-0]
              g = generation 2 none leader=none []
            l <- a#01 ok
            d <- ok g Empty consumer  []
            ha <- UNKNOWN_MEMBER_ID
            a <- UNKNOWN_MEMBER_ID a#01
        "#]],
    );
}

#[test]
fn members_that_do_not_rejoin_in_time_are_out() {
    check(
        "
            a: join a v=3 rebalance=20000 session=30000
            b: join b v=3 rebalance=20000 session=30000
            +6000
            a: sync a#01 assign=a#01:t-0,b#02:t-1
            b: sync b#02
            a: join a id=a#01 rebalance=20000 session=30000
            +19000
            hb: heartbeat b#02
            +1000
            hb: heartbeat b#02
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01 b#02]
            b <- joined generation 1 as b#02 leader=a#01 range
            a <- assigned "t-0"
            b <- assigned "t-1"
            hb <- REBALANCE_IN_PROGRESS
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01]
            hb <- UNKNOWN_MEMBER_ID
        "#]],
    );
}

#[test]
fn a_member_that_never_syncs_is_out() {
    check(
        "
            a: join a v=3 rebalance=5000 session=30000
            b: join b v=3 rebalance=5000 session=30000
            +6000
            a: sync a#01 assign=a#01:t-0,b#02:t-1
            +5000
            ha: heartbeat a#01
            a: join a id=a#01 rebalance=5000 session=30000
            hb: heartbeat b#02
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01 b#02]
            b <- joined generation 1 as b#02 leader=a#01 range
            a <- assigned "t-0"
            ha <- REBALANCE_IN_PROGRESS
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01]
            hb <- UNKNOWN_MEMBER_ID
        "#]],
    );
}

#[test]
fn a_leader_that_never_syncs_is_replaced() {
    check(
        "
            a: join a v=3 rebalance=5000 session=30000
            b: join b v=3 rebalance=5000 session=30000
            +6000
            b: sync b#02
            +5000
            b: join b id=b#02 rebalance=5000 session=30000
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01 b#02]
            b <- joined generation 1 as b#02 leader=a#01 range
            b <- REBALANCE_IN_PROGRESS
            b <- joined generation 2 as b#02 leader=b#02 range members=[b#02]
        "#]],
    );
}

#[test]
fn a_pending_member_must_come_back_within_its_session() {
    check(
        "
            a1: join a session=6000
            +6000
            a2: join a id=a#01
            l: list
        ",
        expect![[r#"
            a1 <- MEMBER_ID_REQUIRED a#01
            a2 <- UNKNOWN_MEMBER_ID a#01
            l <- []
        "#]],
    );
}

/// It cannot send heartbeats before it knows its id, so only its parked request stands for it.
#[test]
fn a_new_member_whose_client_is_gone_is_dropped_after_five_minutes() {
    check(
        "
            i: join a instance=i rebalance=1800000 session=1800000
            +3000
            i: sync i#01 instance=i
            b: join b v=3
            +299_999
            d: describe v=6
            +1
            d: describe v=6
        ",
        expect![[r#"
            i <- joined generation 1 as i#01 leader=i#01 range members=[i#01]
            i <- assigned ""
            d <- ok g PreparingRebalance consumer  [b#02@/127.0.0.1: i#01@/127.0.0.1:]
            b <- UNKNOWN_MEMBER_ID nobody
            d <- ok g PreparingRebalance consumer  [i#01@/127.0.0.1:]
        "#]],
    );
}

/// And its old process is fenced (KIP-345).
#[test]
fn a_static_member_returns_without_a_rebalance() {
    check(
        "
            a: join a instance=i1
            b: join b instance=i2
            +6000
            a: sync i1#01 instance=i1
            b: sync i2#02 instance=i2
            sa: sync i1#01 instance=i1 assign=i1#01:t-0,i2#02:t-1
            ra: join a instance=i1
            records
            sa2: sync i1#03 instance=i1
            rb: join b instance=i2
            fenced: heartbeat i2#02 instance=i2
            fenced: sync i2#02 instance=i2
            fenced: commit t-0@5 member=i2#02 gen=1 instance=i2
            fenced: join b id=i2#02 instance=i2
            fenced: leave i2#02/i2
            gone: heartbeat i2#02
            ok: heartbeat i2#04 instance=i2
        ",
        expect![[r#"
            a <- joined generation 1 as i1#01 leader=i1#01 range members=[i1#01 i2#02]
            b <- joined generation 1 as i2#02 leader=i1#01 range
            a <- assigned ""
            b <- assigned ""
            sa <- assigned ""
            ra <- joined generation 1 as i1#03 leader=i1#03 range members=[i1#03 i2#02] skip-assignment
              g = generation 1 range leader=i1#01 [i1#01: i2#02:]
              g = generation 1 range leader=i1#03 [i1#03: i2#02:]
            sa2 <- assigned ""
            rb <- joined generation 1 as i2#04 leader=i1#03 range
            fenced <- FENCED_INSTANCE_ID
            fenced <- FENCED_INSTANCE_ID
            fenced <- t-0 FENCED_INSTANCE_ID
            fenced <- FENCED_INSTANCE_ID i2#02
            fenced <- i2#02/i2 FENCED_INSTANCE_ID
            gone <- UNKNOWN_MEMBER_ID
            ok <- ok
        "#]],
    );
}

#[test]
fn an_older_client_that_returns_as_static_leader_is_not_asked_for_an_assignment() {
    check(
        "
            a: join a instance=i1 v=5
            +3000
            a: sync i1#01 instance=i1 assign=i1#01:t-0
            a: join a instance=i1 v=5
            a: sync i1#02 instance=i1
        ",
        expect![[r#"
            a <- joined generation 1 as i1#01 leader=i1#01 range members=[i1#01]
            a <- assigned "t-0"
            a <- joined generation 1 as i1#02 leader=i1#01 range
            a <- assigned "t-0"
        "#]],
    );
}

#[test]
fn a_static_member_that_returns_during_a_rebalance_fences_its_waiting_request() {
    check(
        "
            a: join a instance=i1
            a: join a instance=i1
            +3000
            sync: sync i1#02 instance=i1
            again: join a instance=i1
        ",
        expect![[r#"
            a <- FENCED_INSTANCE_ID i1#01
            a <- joined generation 1 as i1#02 leader=i1#02 range members=[i1#02]
            sync <- assigned ""
            again <- joined generation 1 as i1#03 leader=i1#03 range members=[i1#03] skip-assignment
        "#]],
    );
}

#[test]
fn a_static_member_with_another_protocol_starts_a_rebalance() {
    check(
        "
            a: join a instance=i1 protocols=range,roundrobin
            +3000
            a: sync i1#01 instance=i1 assign=i1#01:t-0
            a: join a instance=i1 protocols=roundrobin
        ",
        expect![[r#"
            a <- joined generation 1 as i1#01 leader=i1#01 range members=[i1#01]
            a <- assigned "t-0"
            a <- joined generation 2 as i1#02 leader=i1#02 roundrobin members=[i1#02]
        "#]],
    );
}

#[test]
fn a_static_member_keeps_its_old_id_if_the_new_one_cannot_be_stored() {
    check(
        "
            a: join a instance=i1
            +3000
            a: sync i1#01 instance=i1 assign=i1#01:t-0
            hold
            a: join a instance=i1
            fail NOT_ENOUGH_REPLICAS
            ha: heartbeat i1#01 instance=i1
            hb: heartbeat i1#02 instance=i1
        ",
        expect![[r#"
            a <- joined generation 1 as i1#01 leader=i1#01 range members=[i1#01]
            a <- assigned "t-0"
            a <- COORDINATOR_NOT_AVAILABLE nobody
            ha <- ok
            hb <- FENCED_INSTANCE_ID
        "#]],
    );
}

#[test]
fn a_static_member_outlives_a_join_phase_it_misses_but_not_the_sync_phase() {
    check(
        "
            a: join a instance=i1 rebalance=6000 session=20000
            b: join b v=3 rebalance=6000 session=20000
            +6000
            b: sync b#02
            a: sync i1#01 instance=i1 assign=i1#01:t-0,b#02:t-1
            b: join b id=b#02 topics=t,u rebalance=6000 session=20000
            +6000
            h: heartbeat i1#01 gen=2 instance=i1
            b: sync b#02 gen=2 assign=b#02:t-1,i1#01:t-0
            +5999
            h: heartbeat b#02 gen=2
            +1
            h: heartbeat b#02 gen=2
            d: describe v=6
        ",
        expect![[r#"
            b <- joined generation 1 as b#02 leader=i1#01 range
            a <- joined generation 1 as i1#01 leader=i1#01 range members=[b#02 i1#01]
            b <- assigned "t-1"
            a <- assigned "t-0"
            b <- joined generation 2 as b#02 leader=b#02 range members=[b#02 i1#01]
            h <- ok
            b <- assigned "t-1"
            h <- ok
            h <- REBALANCE_IN_PROGRESS
            d <- ok g PreparingRebalance consumer  [b#02@/127.0.0.1:t-1]
        "#]],
    );
}

#[test]
fn an_administrator_removes_static_members_by_instance() {
    check(
        "
            a: join a instance=i1
            b: join b instance=i2
            +6000
            a: sync i1#01 instance=i1 assign=i1#01:t-0,i2#02:t-1
            b: sync i2#02 instance=i2
            l: leave /i1 /i3 i2#01 i2#02/i1
            d: describe v=6
        ",
        expect![[r#"
            a <- joined generation 1 as i1#01 leader=i1#01 range members=[i1#01 i2#02]
            b <- joined generation 1 as i2#02 leader=i1#01 range
            a <- assigned "t-0"
            b <- assigned "t-1"
            l <- /i1 ok, /i3 UNKNOWN_MEMBER_ID, i2#01 UNKNOWN_MEMBER_ID, i2#02/i1 UNKNOWN_MEMBER_ID
            d <- ok g PreparingRebalance consumer  [i2#02@/127.0.0.1:t-1]
        "#]],
    );
}

#[test]
fn unknown_members_and_old_generations_are_refused() {
    check(
        "
            j: join x id=x#09
            s: sync x#09
            h: heartbeat x#09
            l: leave x#09
            c: commit t-0@1 member=x#09 gen=1 v=8
            c: commit t-0@1 member=x#09 gen=1 v=9
            a: join a v=3
            +3000
            a: sync a#02 assign=a#02:t-0
            j: join x id=x#09
            s: sync x#09
            h: heartbeat x#09
            l: leave x#09
            c: commit t-0@1 member=x#09 gen=1
            s: sync a#02 gen=2
            h: heartbeat a#02 gen=0
            c: commit t-0@1 member=a#02 gen=0
        ",
        expect![[r#"
            j <- UNKNOWN_MEMBER_ID x#09
            s <- UNKNOWN_MEMBER_ID
            h <- UNKNOWN_MEMBER_ID
            l <- x#09 UNKNOWN_MEMBER_ID
            c <- t-0 ILLEGAL_GENERATION
            c <- t-0 GROUP_ID_NOT_FOUND
            a <- joined generation 1 as a#02 leader=a#02 range members=[a#02]
            a <- assigned "t-0"
            j <- UNKNOWN_MEMBER_ID x#09
            s <- UNKNOWN_MEMBER_ID
            h <- UNKNOWN_MEMBER_ID
            l <- x#09 UNKNOWN_MEMBER_ID
            c <- t-0 UNKNOWN_MEMBER_ID
            s <- ILLEGAL_GENERATION
            h <- ILLEGAL_GENERATION
            c <- t-0 ILLEGAL_GENERATION
        "#]],
    );
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    check(
        "
            j: join a session=5999
            j: join a session=1800001
            j: join a group=
            s: sync a#01 group=
            h: heartbeat a#01 group=
            l: leave a#01 group=
            o: delete-offsets t-0 group=
            j: join a protocols=
            j: join a type=
            a: join a v=3
            b: join b v=3 type=connect
            b: join b v=3 protocols=other
            +3000
            s: sync a#06 type=connect
            s: sync a#06 protocol=other
        ",
        expect![[r#"
            j <- INVALID_SESSION_TIMEOUT nobody
            j <- INVALID_SESSION_TIMEOUT nobody
            j <- INVALID_GROUP_ID nobody
            s <- INVALID_GROUP_ID
            h <- INVALID_GROUP_ID
            l <- INVALID_GROUP_ID
            o <- INVALID_GROUP_ID
            j <- INCONSISTENT_GROUP_PROTOCOL nobody
            j <- INCONSISTENT_GROUP_PROTOCOL nobody
            b <- INCONSISTENT_GROUP_PROTOCOL nobody
            b <- INCONSISTENT_GROUP_PROTOCOL nobody
            a <- joined generation 1 as a#06 leader=a#06 range members=[a#06]
            s <- INCONSISTENT_GROUP_PROTOCOL
            s <- INCONSISTENT_GROUP_PROTOCOL
        "#]],
    );
}

#[test]
fn the_protocol_with_most_votes_wins_among_those_that_all_know() {
    check(
        "
            a: join a v=3 protocols=range,roundrobin,sticky
            b: join b v=3 protocols=roundrobin,range
            c: join c v=3 protocols=roundrobin,range,cooperative
            +6000
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 roundrobin members=[a#01 b#02 c#03]
            b <- joined generation 1 as b#02 leader=a#01 roundrobin
            c <- joined generation 1 as c#03 leader=a#01 roundrobin
        "#]],
    );
}

#[test]
fn a_full_group_takes_no_more() {
    let config = GroupConfig { max_size: 1, ..config() };
    check_with(
        config,
        "
            a: join a v=3
            b: join b v=3
            +3000
            a: sync a#01 assign=a#01:t-0
            c: join c v=3
            a: join a id=a#01
        ",
        expect![[r#"
            b <- GROUP_MAX_SIZE_REACHED nobody
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            a <- assigned "t-0"
            c <- GROUP_MAX_SIZE_REACHED nobody
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01]
        "#]],
    );
}

#[test]
fn a_follower_that_joins_again_unchanged_disturbs_nobody() {
    check_after(
        TWO_JOINED,
        "
            b: join b id=b#02
            a: sync a#01 assign=a#01:t-0,b#02:t-1
            b: join b id=b#02
            b: sync b#02
            ha: heartbeat a#01
            b: join b id=b#02 topics=t,u
            ha: heartbeat a#01
            a: join a id=a#01
        ",
        expect![[r#"
            b <- joined generation 1 as b#02 leader=a#01 range
            a <- assigned "t-0"
            b <- joined generation 1 as b#02 leader=a#01 range
            b <- assigned "t-1"
            ha <- ok
            ha <- REBALANCE_IN_PROGRESS
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01 b#02]
            b <- joined generation 2 as b#02 leader=a#01 range
        "#]],
    );
}

#[test]
fn a_leader_that_joins_again_starts_a_rebalance() {
    check_after(
        ONE_MEMBER,
        "
            a: join a id=a#01
        ",
        expect![[r#"
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01]
        "#]],
    );
}

#[test]
fn a_new_member_during_the_sync_phase_sends_everyone_back() {
    check_after(
        TWO_JOINED,
        "
            b: sync b#02
            hold
            a: sync a#01 assign=a#01:t-0,b#02:t-1
            c: join c v=3
            committed
            a: join a id=a#01
            b: join b id=b#02
        ",
        expect![[r#"
            a <- REBALANCE_IN_PROGRESS
            b <- REBALANCE_IN_PROGRESS
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01 b#02 c#03]
            b <- joined generation 2 as b#02 leader=a#01 range
            c <- joined generation 2 as c#03 leader=a#01 range
        "#]],
    );
}

#[test]
fn an_assignment_that_cannot_be_stored_reaches_nobody() {
    check_after(
        TWO_JOINED,
        "
            b: sync b#02
            hold
            a: sync a#01 assign=a#01:t-0,b#02:t-1
            fail NOT_ENOUGH_REPLICAS
            ha: heartbeat a#01
            a: join a id=a#01
            b: join b id=b#02
        ",
        expect![[r#"
            a <- COORDINATOR_NOT_AVAILABLE
            b <- COORDINATOR_NOT_AVAILABLE
            ha <- REBALANCE_IN_PROGRESS
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01 b#02]
            b <- joined generation 2 as b#02 leader=a#01 range
        "#]],
    );
}

#[test]
fn a_leader_that_retries_its_assignment_has_it_stored_once() {
    check(
        "
            a: join a v=3
            +3000
            hold
            first: sync a#01 assign=a#01:t-0
            second: sync a#01 assign=a#01:t-1
            committed
            records
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            first <- REBALANCE_IN_PROGRESS
            second <- assigned "t-0"
              g = generation 1 range leader=a#01 [a#01:t-0]
        "#]],
    );
}

#[test]
fn simple_consumers_commit_without_a_group() {
    check(
        "
            c: commit t-0@5 metadata=hello
            f: fetch t-0 t-1
            f: fetch
            records
            d: describe v=6
            l: list
            j: join a id=a#07
            c: commit t-0@6 member=a#07 gen=3
            c: commit t-0@6
        ",
        expect![[r#"
            c <- t-0 ok
            f <- t-0@5 epoch 3 "hello", t-1@-1 epoch -1
            f <- t-0@5 epoch 3 "hello"
              g/t-0 = 5 "hello"
            d <- ok g Empty   []
            l <- [g Empty classic ""]
            j <- UNKNOWN_MEMBER_ID a#07
            c <- t-0 UNKNOWN_MEMBER_ID
            c <- t-0 ok
        "#]],
    );
}

#[test]
fn commits_belong_to_members_of_the_generation() {
    check(
        "
            a: join a v=3
            c: commit t-0@1 member=a#01 gen=0
            +3000
            c: commit t-0@2 member=a#01 gen=1
            a: sync a#01 assign=a#01:t-0
            c: commit t-0@3 member=a#01 gen=1
            c: commit t-0@4
            b: join b v=3
            c: commit t-0@5 member=a#01 gen=1
            f: fetch t-0
        ",
        expect![[r#"
            c <- t-0 ok
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            c <- t-0 REBALANCE_IN_PROGRESS
            a <- assigned "t-0"
            c <- t-0 ok
            c <- t-0 UNKNOWN_MEMBER_ID
            c <- t-0 ok
            f <- t-0@5 epoch 3
        "#]],
    );
}

#[test]
fn trap_22_a_commit_after_a_rebalance_is_fenced_by_its_generation() {
    check_after(
        ONE_MEMBER,
        "
            a: join a id=a#01
            zombie: commit t-0@7 member=a#01 gen=1
            a: sync a#01 gen=2 assign=a#01:t-0
            zombie: commit t-0@7 member=a#01 gen=1
            c: commit t-0@8 member=a#01 gen=2
            f: fetch t-0
        ",
        expect![[r#"
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01]
            zombie <- t-0 ILLEGAL_GENERATION
            a <- assigned "t-0"
            zombie <- t-0 ILLEGAL_GENERATION
            c <- t-0 ok
            f <- t-0@8 epoch 3
        "#]],
    );
}

#[test]
fn commits_keep_a_session_alive() {
    check_after(
        ONE_MEMBER,
        "
            +9000
            c: commit t-0@1 member=a#01 gen=1
            +9000
            c: commit t-0@2 member=a#01 gen=1
            +9000
            h: heartbeat a#01
        ",
        expect![[r#"
            c <- t-0 ok
            c <- t-0 ok
            h <- ok
        "#]],
    );
}

#[test]
fn metadata_that_is_too_large_is_refused_partition_by_partition() {
    let config = GroupConfig { offset_metadata_max_bytes: 4, ..config() };
    check_with(
        config,
        "
            c: commit t-0@1 metadata=12345
            c: commit t-0@1 metadata=1234
            f: fetch t-0
        ",
        expect![[r#"
            c <- t-0 OFFSET_METADATA_TOO_LARGE
            c <- t-0 ok
            f <- t-0@1 epoch 3 "1234"
        "#]],
    );
}

#[test]
fn a_recreated_topic_does_not_inherit_offsets() {
    check(
        "
            c: commit t-0@5
            f: fetch t-0 recreated=yes
            f: fetch t-0
        ",
        expect![[r#"
            c <- t-0 ok
            f <- t-0@-1 epoch -1
            f <- t-0@5 epoch 3
        "#]],
    );
}

#[test]
fn offsets_are_told_of_groups_with_and_without_members_up_to_a_limit() {
    check_after(
        ONE_MEMBER,
        "
            c: commit t-0@5 group=empty
            c: commit t-0@7 t-1@8 u-0@9 group=many
            c: commit t-0@3 group=g member=a#01 gen=1
            all: committed-offsets
            some: committed-offsets limit=3
            none: committed-offsets limit=0
        ",
        expect![[r#"
            c <- t-0 ok
            c <- t-0 ok, t-1 ok, u-0 ok
            c <- t-0 ok
            all <- [empty/t-0@5, g/t-0@3, many/t-0@7, many/t-1@8, many/u-0@9] and 0 untold
            some <- [empty/t-0@5, g/t-0@3] and 3 untold
            none <- [] and 5 untold
        "#]],
    );
}

#[test]
fn offsets_of_deleted_topics_go() {
    check(
        "
            c: commit t-0@5 t-1@6 u-0@7
            topics-deleted t
            records
            f: fetch
        ",
        expect![[r#"
            c <- t-0 ok, t-1 ok, u-0 ok
              g/t-0 = 5
              g/t-1 = 6
              g/u-0 = 7
              g/t-0 = tombstone
              g/t-1 = tombstone
            f <- u-0@7 epoch 3
        "#]],
    );
}

#[test]
fn offsets_are_deleted_unless_their_topic_is_consumed() {
    check(
        "
            none: delete-offsets t-0
            c: commit t-0@5 u-0@6
            a: join a v=3
            +3000
            a: sync a#01 assign=a#01:t-0
            o: delete-offsets t-0 u-0 u-1
            f: fetch
            k: join k v=3 group=connect type=connect
            k: delete-offsets u-0 group=connect
        ",
        expect![[r#"
            none <- GROUP_ID_NOT_FOUND
            c <- t-0 ok, u-0 ok
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            a <- assigned "t-0"
            o <- t-0 GROUP_SUBSCRIBED_TO_TOPIC, u-0 ok, u-1 ok
            f <- t-0@5 epoch 3
            k <- NON_EMPTY_GROUP
        "#]],
    );
}

#[test]
fn groups_are_deleted_when_nobody_is_in_them() {
    check(
        "
            c: commit t-0@5
            a: join a v=3
            +3000
            a: sync a#01 assign=a#01:t-0
            x: delete g other
            l: leave a#01
            records
            hold
            x: delete g
            records
            committed
            f: fetch
            d: describe v=6
            d: describe v=5
        ",
        expect![[r#"
            c <- t-0 ok
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            a <- assigned "t-0"
            x <- g NON_EMPTY_GROUP, other GROUP_ID_NOT_FOUND
            l <- a#01 ok
              g/t-0 = 5
              g = generation 1 range leader=a#01 [a#01:t-0]
              g = generation 2 none leader=none []
              g/t-0 = tombstone
              g = tombstone
            x <- g ok
            f <- no offsets
            d <- GROUP_ID_NOT_FOUND g Dead   []
            d <- ok g Dead   []
        "#]],
    );
}

#[test]
fn groups_are_listed_by_state_and_type() {
    check(
        "
            c: commit t-0@5 group=simple
            a: join a v=3 group=running
            +3000
            b: join b v=3 group=starting
            l: list states=preparingrebalance
            l: list states=Empty,completingrebalance
            l: list types=Classic states=Empty
            l: list types=consumer
        ",
        expect![[r#"
            c <- t-0 ok
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            l <- [starting PreparingRebalance classic "consumer"]
            l <- [running CompletingRebalance classic "consumer", simple Empty classic ""]
            l <- [simple Empty classic ""]
            l <- []
        "#]],
    );
}

/// KIP-211: not from the commit, so that a group that consumes nothing for a while keeps its place.
#[test]
fn offsets_expire_after_the_group_has_been_empty_for_the_retention_time() {
    let config = GroupConfig { offsets_retention_ms: 60_000, offsets_retention_check_interval_ms: 10_000, ..config() };
    check_with(
        config,
        "
            a: join a v=3
            +3000
            a: sync a#01 assign=a#01:t-0
            c: commit t-0@5 member=a#01 gen=1
            +9000
            h: heartbeat a#01
            l: leave a#01
            records
            +59_000
            f: fetch
            +10_000
            records
            f: fetch
            l: list
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            a <- assigned "t-0"
            c <- t-0 ok
            h <- ok
            l <- a#01 ok
              g = generation 1 range leader=a#01 [a#01:t-0]
              g/t-0 = 5
              g = generation 2 none leader=none []
            f <- t-0@5 epoch 3
              g/t-0 = tombstone
              g = tombstone
            f <- no offsets
            l <- []
        "#]],
    );
}

/// And an explicit retention (OffsetCommit 2 to 4) overrides the broker's.
#[test]
fn offsets_of_simple_consumers_expire_after_their_commit() {
    let config = GroupConfig { offsets_retention_ms: 60_000, offsets_retention_check_interval_ms: 10_000, ..config() };
    check_with(
        config,
        "
            c: commit t-0@5
            c: commit t-1@6 retention=15000 v=4
            records
            +10_000
            +10_000
            records
            +40_000
            records
            l: list
        ",
        expect![[r#"
            c <- t-0 ok
            c <- t-1 ok
              g/t-0 = 5
              g/t-1 = 6 until +15000
              g/t-1 = tombstone
              g/t-0 = tombstone
            l <- []
        "#]],
    );
}

#[test]
fn a_running_group_loses_only_offsets_of_topics_it_left() {
    let config = GroupConfig { offsets_retention_ms: 20_000, offsets_retention_check_interval_ms: 10_000, ..config() };
    check_with(
        config,
        "
            c: commit t-0@5 u-0@6
            a: join a v=3 session=100000
            +3000
            a: sync a#01 assign=a#01:t-0
            +30_000
            records
            f: fetch
        ",
        expect![[r#"
            c <- t-0 ok, u-0 ok
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
            a <- assigned "t-0"
              g/t-0 = 5
              g/u-0 = 6
              g = generation 1 range leader=a#01 [a#01:t-0]
              g/u-0 = tombstone
            f <- t-0@5 epoch 3
        "#]],
    );
}

/// Nothing that a client was told may be forgotten by the next coordinator.
#[test]
fn trap_24_no_commit_is_acknowledged_or_read_before_it_is_durable() {
    check(
        "
            hold
            c: commit t-0@5
            f: fetch t-0
            committed
        ",
        expect![[r#"
            c <- t-0 ok
            f <- t-0@5 epoch 3
        "#]],
    );
}

#[test]
fn trap_24_a_commit_that_failed_is_not_acknowledged() {
    check(
        "
            hold
            c: commit t-0@5
            fail NOT_ENOUGH_REPLICAS
            hold
            c: commit t-0@5
            fail REQUEST_TIMED_OUT
            hold
            c: commit t-0@5
            fail NOT_LEADER_OR_FOLLOWER
            hold
            c: commit t-0@5
            fail MESSAGE_TOO_LARGE
        ",
        expect![[r#"
            c <- error COORDINATOR_NOT_AVAILABLE
            c <- error COORDINATOR_NOT_AVAILABLE
            c <- error NOT_COORDINATOR
            c <- error UNKNOWN_SERVER_ERROR
        "#]],
    );
}

/// Members go on without noticing more than a new address, each with a fresh session.
#[test]
fn trap_24_a_new_coordinator_knows_members_and_offsets() {
    check(
        "
            a: join a v=3
            b: join b instance=i1
            +6000
            a: sync a#01 assign=a#01:t-0,i1#02:t-1
            b: sync i1#02 instance=i1
            c: commit t-0@5 member=a#01 gen=1 metadata=m
            +9000
            failover
            +9000
            h: heartbeat a#01
            h: heartbeat i1#02 instance=i1
            b: sync i1#02 instance=i1
            f: fetch
            c: commit t-0@6 member=a#01 gen=1
            b: join b instance=i1
            d: describe v=6
            +9000
            h: heartbeat i1#03 instance=i1
            +1000
            b: join b id=i1#03 instance=i1
        ",
        expect![[r#"
            a <- joined generation 1 as a#01 leader=a#01 range members=[a#01 i1#02]
            b <- joined generation 1 as i1#02 leader=a#01 range
            a <- assigned "t-0"
            b <- assigned "t-1"
            c <- t-0 ok
            h <- ok
            h <- ok
            b <- assigned "t-1"
            f <- t-0@5 epoch 3 "m"
            c <- t-0 ok
            b <- joined generation 1 as i1#03 leader=a#01 range
            d <- ok g Stable consumer range [a#01@/127.0.0.1:t-0 subscribed i1#03@/127.0.0.1:t-1 subscribed]
            h <- ok
            b <- joined generation 2 as i1#03 leader=i1#03 range members=[i1#03]
        "#]],
    );
}

#[test]
fn trap_24_an_unfinished_rebalance_begins_again_at_the_new_coordinator() {
    check_after(
        TWO_MEMBERS,
        "
            a: join a id=a#01
            failover
            b: join b id=b#02
            h: heartbeat a#01
            a: join a id=a#01
            b: heartbeat b#02 gen=2
            b: join b id=b#02
        ",
        expect![[r#"
            a <- error NOT_COORDINATOR
            b <- joined generation 1 as b#02 leader=a#01 range
            h <- ok
            b <- ILLEGAL_GENERATION
            a <- joined generation 2 as a#01 leader=a#01 range members=[a#01 b#02]
            b <- joined generation 2 as b#02 leader=a#01 range
        "#]],
    );
}

#[test]
fn generations_wrap_to_one() {
    let mut story = Story::new(config());
    let value = GroupMetadataValue {
        protocol_type: "consumer".to_owned(),
        generation: i32::MAX,
        protocol: None,
        leader: None,
        current_state_timestamp: TimestampMs(0),
        members: Vec::new(),
    };
    story.write(&GroupRecord::GroupMetadata { group_id: "g".to_owned(), value: Some(value) });
    let told = story.run(
        "
        failover
        a: join a v=3
        +3000
    ",
    );
    expect![[r#"
        a <- joined generation 1 as a#01 leader=a#01 range members=[a#01]
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_group_above_a_lowered_limit_rebalances_after_loading() {
    let mut story = Story::new(config());
    story.run(
        "
        a: join a v=3
        b: join b v=3
        +6000
        a: sync a#01 assign=a#01:t-0,b#02:t-1
        b: sync b#02
    ",
    );
    story.config.max_size = 1;
    let told = story.run(
        "
        failover
        a: heartbeat a#01
        c: commit t-1@5 member=b#02 gen=1
        b: join b id=b#02
        a: join a id=a#01
    ",
    );
    expect![[r#"
        a <- REBALANCE_IN_PROGRESS
        c <- t-1 ok
        a <- GROUP_MAX_SIZE_REACHED nobody
    "#]]
    .assert_eq(&told);
}
