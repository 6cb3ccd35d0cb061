//! One story for each replication trap that is the controller's to avoid.

use expect_test::expect;

use crate::world::check;

/// KIP-497: an ISR change counts only if it was proposed on the state that the controller has.
#[test]
fn trap_07_isr_changes_are_compare_and_set() {
    check(
        "
        up 1 2 3
        create t on=1,2,3
        isr t-0 1,2
        isr t-0 1,2,3 partition-epoch=0
        isr t-0 1,2,3 leader-epoch=1
        isr t-0 1,2,3 partition-epoch=2
        isr t-0 1,2,3 by=2
        isr t-0 2
        isr t-0 1,1
        isr t-0 1,4
        down 1
        isr t-0 2 by=2 leader-epoch=0
        isr t-0 2,3
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2,3 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            isr t-0 1,2 -> isr 1,2 at 1
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2
            isr t-0 1,2,3 partition-epoch=0 -> INVALID_UPDATE_VERSION
            isr t-0 1,2,3 leader-epoch=1 -> NOT_CONTROLLER
            isr t-0 1,2,3 partition-epoch=2 -> NOT_CONTROLLER
            isr t-0 1,2,3 by=2 -> INVALID_REQUEST
            isr t-0 2 -> INVALID_REQUEST
            isr t-0 1,1 -> INVALID_REQUEST
            isr t-0 1,4 -> INVALID_REQUEST
            down 1
                t-0: 1,2,3 leader 2 epoch 1 isr 2
            isr t-0 2 by=2 leader-epoch=0 -> FENCED_LEADER_EPOCH
            isr t-0 2,3 -> isr 2,3 at 3
                t-0: 1,2,3 leader 2 epoch 1 isr 2,3
        "#]],
    );
}

/// KIP-841: whoever is fenced or stopping is not put back into an ISR.
#[test]
fn trap_09_fenced_replicas_do_not_join_an_isr() {
    check(
        "
        up 1 2 3
        create t on=1,2,3
        down 3
        isr t-0 1,2,3
        heartbeat 2 shutdown
        isr t-0 1,2
        heartbeat 3
        isr t-0 1,3
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2,3 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            down 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2
            isr t-0 1,2,3 -> INELIGIBLE_REPLICA
            heartbeat 2 shutdown -> unfenced
                t-0: 1,2,3 leader 1 epoch 0 isr 1
            isr t-0 1,2 -> INELIGIBLE_REPLICA
            heartbeat 3 -> unfenced
            isr t-0 1,3 -> isr 1,3 at 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,3
        "#]],
    );
}

/// KIP-903: a leader that knows the follower by an earlier registration proposes a replica that is no more.
#[test]
fn trap_10_a_reborn_broker_does_not_join_under_its_old_epoch() {
    check(
        "
        up 1 2
        create t on=1,2
        down 2
        register 2 run=2
        heartbeat 2
        isr t-0 1,2 epoch-of-2=3
        isr t-0 1,2
        isr t-0 1 epoch-of-1=1
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            down 2
                t-0: 1,2 leader 1 epoch 0 isr 1
            register 2 run=2 -> epoch 8
            heartbeat 2 -> unfenced
            isr t-0 1,2 epoch-of-2=3 -> INELIGIBLE_REPLICA
            isr t-0 1,2 -> isr 1,2 at 2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            isr t-0 1 epoch-of-1=1 -> STALE_BROKER_EPOCH
        "#]],
    );
}

/// KIP-966: the last replica standing loses its unflushed end; those that left the ISR before it still have everything.
#[test]
fn trap_11_the_last_replica_standing_is_not_trusted_after_an_unclean_shutdown() {
    check(
        "
        up 1 2 3
        create t on=1,2,3 min.insync.replicas=2
        down 3
        down 2
        down 1
        register 1 run=2 previous=none
        heartbeat 1
        register 2 run=2 previous=clean
        heartbeat 2
        isr t-0 2,1
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2,3 min.insync.replicas=2 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            down 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2
            down 2
                t-0: 1,2,3 leader 1 epoch 0 isr 1 elr 2
            down 1
                t-0: 1,2,3 no leader, epoch 1 isr - elr 2,1 last leader 1
            register 1 run=2 previous=none -> epoch 12
                t-0: 1,2,3 no leader, epoch 1 isr - elr 2 last leader 1
            heartbeat 1 -> unfenced
            register 2 run=2 previous=clean -> epoch 14
            heartbeat 2 -> unfenced
                t-0: 1,2,3 leader 2 epoch 2 isr 2
            isr t-0 2,1 -> isr 2,1 at 6
                t-0: 1,2,3 leader 2 epoch 2 isr 2,1
        "#]],
    );
}

/// The last copy of all is kept, however it shut down: to give it up would lose what it does hold.
#[test]
fn trap_11_the_last_copy_is_not_given_up() {
    check(
        "
        up 1 2
        create t on=1
        down 1
        register 1 run=2 previous=none
        heartbeat 1
        ",
        expect![[r#"
            up 1 2
            create t on=1 -> 1x1
                t-0: 1 leader 1 epoch 0 isr 1
            down 1
                t-0: 1 no leader, epoch 1 isr - elr 1 last leader 1
            register 1 run=2 previous=none -> epoch 8
            heartbeat 1 -> unfenced
                t-0: 1 leader 1 epoch 2 isr 1
        "#]],
    );
}

/// A marker with the epoch of the last registration is the only proof of a clean shutdown.
#[test]
fn trap_12_only_the_current_epoch_in_the_marker_counts_as_clean() {
    check(
        "
        up 1 2 3
        create t on=1,2,3 min.insync.replicas=3
        down 3
        register 3 run=2 previous=clean
        heartbeat 3
        isr t-0 1,2,3
        down 3
        register 3 run=3 previous=4
        heartbeat 3
        isr t-0 1,2,3
        down 3
        register 3 run=4 previous=none
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2,3 min.insync.replicas=3 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            down 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2 elr 3
            register 3 run=2 previous=clean -> epoch 10
            heartbeat 3 -> unfenced
            isr t-0 1,2,3 -> isr 1,2,3 at 2
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            down 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2 elr 3
            register 3 run=3 previous=4 -> epoch 14
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2
            heartbeat 3 -> unfenced
            isr t-0 1,2,3 -> isr 1,2,3 at 5
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            down 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2 elr 3
            register 3 run=4 previous=none -> epoch 18
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2
        "#]],
    );
}

/// A broker that comes back with other disks has nothing, even where it had the last copy. Only an operator may decide
/// to go on without it.
#[test]
fn trap_12_wiped_disks_lose_last_copies() {
    check(
        "
        up 1 2
        create t on=1
        create u on=1,2
        down 1
        register 1 run=2 wiped
        heartbeat 1
        elect unclean t-0
        isr t-0 1 recovered
        ",
        expect![[r#"
            up 1 2
            create t on=1 -> 1x1
                t-0: 1 leader 1 epoch 0 isr 1
            create u on=1,2 -> 1x2
                u-0: 1,2 leader 1 epoch 0 isr 1,2
            down 1
                t-0: 1 no leader, epoch 1 isr - elr 1 last leader 1
                u-0: 1,2 leader 2 epoch 1 isr 2
            register 1 run=2 wiped -> epoch 9
                t-0: 1 no leader, epoch 1 isr -
            heartbeat 1 -> unfenced
            elect unclean t-0 -> t-0 NONE
                t-0: 1 leader 1 epoch 2 isr 1 recovering
            isr t-0 1 recovered -> isr 1 at 4
                t-0: 1 leader 1 epoch 2 isr 1
        "#]],
    );
}

/// The marker speaks for the disks that are there. What lay on one that is not may be needed, and another copy has it.
#[test]
fn trap_12_a_missing_disk_is_not_made_up_for_by_a_clean_shutdown() {
    check(
        "
        up 1 2
        register 3 run=1 disks=7,8
        heartbeat 3
        create t on=1,2,3 min.insync.replicas=3
        down 3
        register 3 run=2 previous=clean disks=7,8,9
        down 3
        register 3 run=3 previous=clean disks=7,9
        ",
        expect![[r#"
            up 1 2
            register 3 run=1 disks=7,8 -> epoch 6
            heartbeat 3 -> unfenced
            create t on=1,2,3 min.insync.replicas=3 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            down 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2 elr 3
            register 3 run=2 previous=clean disks=7,8,9 -> epoch 10
            down 3
            register 3 run=3 previous=clean disks=7,9 -> epoch 11
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2
        "#]],
    );
}

/// Two incarnations must not share a registration.
#[test]
fn trap_29_a_new_incarnation_waits_for_the_old_ones_fencing() {
    check(
        "
        register 1 run=1
        heartbeat 1
        register 1 run=1
        register 1 run=2
        away 2999
        register 1 run=2
        away 1
        register 1 run=2
        heartbeat 1 epoch=2
        heartbeat 1
        down 1 epoch=2
        heartbeat 1
        down 1
        register 1 run=3
        unregister 1
        register 1 run=1
        ",
        expect![[r#"
            register 1 run=1 -> epoch 2
            heartbeat 1 -> unfenced
            register 1 run=1 -> epoch 2
            register 1 run=2 -> DUPLICATE_BROKER_REGISTRATION
            away 2999
            register 1 run=2 -> DUPLICATE_BROKER_REGISTRATION
            away 1
            register 1 run=2 -> epoch 4
            heartbeat 1 epoch=2 -> STALE_BROKER_EPOCH
            heartbeat 1 -> unfenced
            down 1 epoch=2
            heartbeat 1 -> unfenced
            down 1
            register 1 run=3 -> epoch 7
            unregister 1 -> ok
            register 1 run=1 -> epoch 9
        "#]],
    );
}

/// The leaderships move, the others learn of it, and only then may the process exit.
#[test]
fn trap_30_a_stopping_broker_waits_until_all_others_know() {
    check(
        "
        up 1 2 3
        create t on=1,2,3
        create u on=1
        heartbeat 1 shutdown
        heartbeat 2
        heartbeat 1 shutdown
        heartbeat 3 applied=5
        heartbeat 1 shutdown
        heartbeat 3
        heartbeat 1 shutdown
        register 1 run=2 previous=clean
        heartbeat 1
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2,3 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            create u on=1 -> 1x1
                u-0: 1 leader 1 epoch 0 isr 1
            heartbeat 1 shutdown -> unfenced
                t-0: 1,2,3 leader 2 epoch 1 isr 2,3
                u-0: 1 no leader, epoch 1 isr - elr 1 last leader 1
            heartbeat 2 -> unfenced
            heartbeat 1 shutdown -> unfenced
            heartbeat 3 applied=5 -> unfenced
            heartbeat 1 shutdown -> unfenced
            heartbeat 3 -> unfenced
            heartbeat 1 shutdown -> fenced, may exit
            register 1 run=2 previous=clean -> epoch 12
            heartbeat 1 -> unfenced
                u-0: 1 leader 1 epoch 2 isr 1
        "#]],
    );
}

/// Whoever takes over in the middle of a shutdown does not let the broker go early.
#[test]
fn trap_30_holds_across_a_change_of_controller() {
    check(
        "
        up 1 2
        create t on=1,2
        heartbeat 1 shutdown
        controller
        heartbeat 1 shutdown
        heartbeat 2
        heartbeat 1 shutdown
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            heartbeat 1 shutdown -> unfenced
                t-0: 1,2 leader 2 epoch 1 isr 2
            controller
            heartbeat 1 shutdown -> unfenced
            heartbeat 2 -> unfenced
            heartbeat 1 shutdown -> fenced, may exit
        "#]],
    );
}

/// A recreated topic shares nothing with the one before it.
#[test]
fn trap_31_a_recreated_topic_has_another_id_and_no_configs_of_the_old() {
    check(
        "
        up 1 2
        create t on=1,2 retention.ms=1000
        isr t-0 1
        delete t
        delete t
        create t on=2,1
        config topic:t cleanup.policy=compact
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 retention.ms=1000 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            isr t-0 1 -> isr 1 at 1
                t-0: 1,2 leader 1 epoch 0 isr 1
            delete t -> deleted t
            delete t -> UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition.
            create t on=2,1 -> 1x2
                t-0: 2,1 leader 2 epoch 0 isr 2,1
            config topic:t cleanup.policy=compact -> cleanup.policy=compact
        "#]],
    );
}

/// Off by default; where allowed, the leader is marked and alone in its ISR until it has recovered.
#[test]
fn trap_32_an_uncleanly_elected_leader_is_marked() {
    check(
        "
        up 1 2
        create t on=1,2
        isr t-0 1
        down 1
        elect preferred t-0
        config topic:t unclean.leader.election.enable=true
        isr t-0 2,1
        heartbeat 1
        isr t-0 2,1
        isr t-0 2,1 recovered
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            isr t-0 1 -> isr 1 at 1
                t-0: 1,2 leader 1 epoch 0 isr 1
            down 1
                t-0: 1,2 no leader, epoch 1 isr - elr 1 last leader 1
            elect preferred t-0 -> t-0 PREFERRED_LEADER_NOT_AVAILABLE
            config topic:t unclean.leader.election.enable=true -> unclean.leader.election.enable=true
                t-0: 1,2 leader 2 epoch 2 isr 2 recovering
            isr t-0 2,1 -> INVALID_REQUEST
            heartbeat 1 -> unfenced
            isr t-0 2,1 -> INVALID_REQUEST
            isr t-0 2,1 recovered -> isr 2,1 at 4
                t-0: 1,2 leader 2 epoch 2 isr 2,1
        "#]],
    );
}
