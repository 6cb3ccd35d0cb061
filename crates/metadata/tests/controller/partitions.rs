//! Elections, balancing, reassignment.

use expect_test::expect;

use crate::world::check;

#[test]
fn elections_on_request() {
    check(
        "
        up 1 2
        create t on=1,2
        create u on=2,1
        elect preferred t-0
        down 1
        elect preferred t-0
        elect unclean t-0
        heartbeat 1
        elect preferred t-0
        isr t-0 2,1
        elect preferred
        elect preferred nope-0
        isr t-0 1
        down 1
        elect unclean t-0
        down 2
        elect unclean t-0
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            create u on=2,1 -> 1x2
                u-0: 2,1 leader 2 epoch 0 isr 2,1
            elect preferred t-0 -> t-0 ELECTION_NOT_NEEDED
            down 1
                t-0: 1,2 leader 2 epoch 1 isr 2
                u-0: 2,1 leader 2 epoch 0 isr 2
            elect preferred t-0 -> t-0 PREFERRED_LEADER_NOT_AVAILABLE
            elect unclean t-0 -> t-0 ELECTION_NOT_NEEDED
            heartbeat 1 -> unfenced
            elect preferred t-0 -> t-0 PREFERRED_LEADER_NOT_AVAILABLE
            isr t-0 2,1 -> isr 2,1 at 2
                t-0: 1,2 leader 2 epoch 1 isr 2,1
            elect preferred -> t-0 NONE
                t-0: 1,2 leader 1 epoch 2 isr 2,1
            elect preferred nope-0 -> ?-0 UNKNOWN_TOPIC_OR_PARTITION
            isr t-0 1 -> isr 1 at 4
                t-0: 1,2 leader 1 epoch 2 isr 1
            down 1
                t-0: 1,2 no leader, epoch 3 isr - elr 1 last leader 1
            elect unclean t-0 -> t-0 NONE
                t-0: 1,2 leader 2 epoch 4 isr 2 recovering
            down 2
                t-0: 1,2 no leader, epoch 5 isr - elr 2 last leader 2 recovering
                u-0: 2,1 no leader, epoch 1 isr - elr 2 last leader 2
            elect unclean t-0 -> t-0 ELIGIBLE_LEADERS_NOT_AVAILABLE
        "#]],
    );
}

#[test]
fn preferred_leaders_get_their_partitions_back_in_time() {
    check(
        "
        up 1 2
        create t on=1,2
        wait 100
        down 1
        heartbeat 1
        isr t-0 2,1
        away 300000
        heartbeat 1
        heartbeat 2
        wait 0
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            wait 100
            down 1
                t-0: 1,2 leader 2 epoch 1 isr 2
            heartbeat 1 -> unfenced
            isr t-0 2,1 -> isr 2,1 at 2
                t-0: 1,2 leader 2 epoch 1 isr 2,1
            away 300000
            heartbeat 1 -> unfenced
            heartbeat 2 -> unfenced
            wait 0
                t-0: 1,2 leader 1 epoch 2 isr 2,1
        "#]],
    );
}

#[test]
fn a_reassignment_completes_when_all_targets_are_in_sync() {
    check(
        "
        up 1 2 3 4
        create t on=1,2,3
        reassign t-0 4,2,3
        isr t-0 1,2,3,4
        reassign t-0 2,3 same-factor
        reassign t-0 2,3
        reassign t-0 3,2
        cancel t-0
        ",
        expect![[r#"
            up 1 2 3 4
            create t on=1,2,3 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            reassign t-0 4,2,3 -> ok
                t-0: 4,2,3,1 leader 1 epoch 0 isr 1,2,3 adding 4 removing 1
            isr t-0 1,2,3,4 -> NEW_LEADER_ELECTED
                t-0: 4,2,3 leader 4 epoch 1 isr 2,3,4
            reassign t-0 2,3 same-factor -> INVALID_REPLICATION_FACTOR: The replication factor is changed from 3 to 2
            reassign t-0 2,3 -> ok
                t-0: 2,3 leader 2 epoch 2 isr 2,3
            reassign t-0 3,2 -> ok
                t-0: 3,2 leader 2 epoch 2 isr 2,3
            cancel t-0 -> NO_REASSIGNMENT_IN_PROGRESS: No partition reassignment is in progress.
        "#]],
    );
}

#[test]
fn the_leader_that_completes_its_own_removal_learns_of_it() {
    check(
        "
        up 1 2
        create t on=1
        reassign t-0 2
        isr t-0 1,2
        ",
        expect![[r#"
            up 1 2
            create t on=1 -> 1x1
                t-0: 1 leader 1 epoch 0 isr 1
            reassign t-0 2 -> ok
                t-0: 2,1 leader 1 epoch 0 isr 1 adding 2 removing 1
            isr t-0 1,2 -> NEW_LEADER_ELECTED
                t-0: 2 leader 2 epoch 1 isr 2
        "#]],
    );
}

#[test]
fn a_reassignment_can_be_cancelled_or_redirected() {
    check(
        "
        up 1 2 3 4
        create t on=1,2
        reassign t-0 3,4
        isr t-0 1,2,3
        reassign t-0 3,1
        reassign t-0 4,3
        cancel t-0
        reassign t-0 3,4
        isr t-0 1,3
        down 2
        down 1
        cancel t-0
        ",
        expect![[r#"
            up 1 2 3 4
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            reassign t-0 3,4 -> ok
                t-0: 3,4,1,2 leader 1 epoch 0 isr 1,2 adding 3,4 removing 1,2
            isr t-0 1,2,3 -> isr 1,2,3 at 2
                t-0: 3,4,1,2 leader 1 epoch 0 isr 1,2,3 adding 3,4 removing 1,2
            reassign t-0 3,1 -> ok
                t-0: 3,1 leader 1 epoch 1 isr 1,3
            reassign t-0 4,3 -> ok
                t-0: 4,3,1 leader 1 epoch 1 isr 1,3 adding 4 removing 1
            cancel t-0 -> ok
                t-0: 3,1 leader 1 epoch 2 isr 1,3
            reassign t-0 3,4 -> ok
                t-0: 3,4,1 leader 1 epoch 2 isr 1,3 adding 4 removing 1
            isr t-0 1,3 -> isr 1,3 at 6
            down 2
            down 1
                t-0: 3,4,1 leader 3 epoch 3 isr 3 adding 4 removing 1
            cancel t-0 -> ok
                t-0: 3,1 leader 3 epoch 4 isr 3
        "#]],
    );
}

/// What the leader has acknowledged may be on the added replica alone.
#[test]
fn a_cancellation_that_would_lose_records_is_refused() {
    check(
        "
        up 1 2 3
        create t on=1,2
        reassign t-0 3,2
        isr t-0 1,3
        down 1
        cancel t-0
        heartbeat 1
        isr t-0 3,1
        cancel t-0
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            reassign t-0 3,2 -> ok
                t-0: 3,2,1 leader 1 epoch 0 isr 1,2 adding 3 removing 1
            isr t-0 1,3 -> isr 1,3 at 2
                t-0: 3,2,1 leader 1 epoch 0 isr 1,3 adding 3 removing 1
            down 1
                t-0: 3,2,1 leader 3 epoch 1 isr 3 adding 3 removing 1
            cancel t-0 -> INVALID_REPLICA_ASSIGNMENT: Unable to revert partition assignment for t-0 because it would require an unclean leader election
            heartbeat 1 -> unfenced
            isr t-0 3,1 -> isr 3,1 at 4
                t-0: 3,2,1 leader 3 epoch 1 isr 3,1 adding 3 removing 1
            cancel t-0 -> ok
                t-0: 2,1 leader 1 epoch 2 isr 1
        "#]],
    );
}

#[test]
fn impossible_reassignments_are_refused() {
    check(
        "
        up 1 2
        create t on=1,2
        reassign t-0 -
        reassign t-0 1,1
        reassign t-0 1,7
        reassign t-5 1,2
        cancel t-0
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            reassign t-0 - -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes an empty replica list.
            reassign t-0 1,1 -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes the broker 1 more than once.
            reassign t-0 1,7 -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 7, but no such broker is registered.
            reassign t-5 1,2 -> UNKNOWN_TOPIC_OR_PARTITION: The topic or partition does not exist.
            cancel t-0 -> NO_REASSIGNMENT_IN_PROGRESS: No partition reassignment is in progress.
        "#]],
    );
}
