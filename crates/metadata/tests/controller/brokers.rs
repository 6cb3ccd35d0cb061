//! Registration, sessions, shutdown, producer ids.

use expect_test::expect;

use crate::world::check;

#[test]
fn a_broker_is_unfenced_once_it_knows_of_its_registration() {
    check(
        "
        register 1
        heartbeat 1 applied=1
        heartbeat 1 fence
        heartbeat 1
        heartbeat 1 fence
        heartbeat 1
        heartbeat 1 epoch=1
        heartbeat 2
        ",
        expect![[r#"
            register 1 -> epoch 2
            heartbeat 1 applied=1 -> fenced, behind
            heartbeat 1 fence -> fenced
            heartbeat 1 -> unfenced
            heartbeat 1 fence -> fenced
            heartbeat 1 -> unfenced
            heartbeat 1 epoch=1 -> STALE_BROKER_EPOCH
            heartbeat 2 -> BROKER_ID_NOT_REGISTERED
        "#]],
    );
}

/// It was stopped, say, and goes on with what it knew: as the leader that it was.
#[test]
fn trap_15_a_fenced_broker_is_let_in_when_it_knows_who_leads_in_its_place() {
    check(
        "
        up 1 2
        create t on=1,2
        wait 1400
        heartbeat 2
        wait 1400
        wait 200
        heartbeat 1 applied=5
        heartbeat 1
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            wait 1400
            heartbeat 2 -> unfenced
            wait 1400
            wait 200
                t-0: 1,2 leader 2 epoch 1 isr 2
            heartbeat 1 applied=5 -> fenced, behind
            heartbeat 1 -> unfenced
        "#]],
    );
}

#[test]
fn a_broker_that_is_found_dead_while_it_is_fenced_has_nothing_new_to_know() {
    check(
        "
        up 1 2
        down 1
        down 1
        heartbeat 1
        ",
        expect![[r#"
            up 1 2
            down 1
            down 1
            heartbeat 1 -> unfenced
        "#]],
    );
}

#[test]
fn a_node_of_another_cluster_is_refused() {
    check(
        "
        register 1 cluster=other
        register -1
        ",
        expect![[r#"
            register 1 cluster=other -> INCONSISTENT_CLUSTER_ID
            register -1 -> INVALID_REGISTRATION
        "#]],
    );
}

#[test]
fn a_silent_broker_is_fenced_and_its_partitions_move() {
    check(
        "
        up 1 2 3
        create t on=1,2,3 min.insync.replicas=2
        wait 1400
        heartbeat 2
        heartbeat 3
        wait 1400
        wait 200
        heartbeat 3
        wait 1300
        wait 200
        wait 1400
        heartbeat 1
        heartbeat 2
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2,3 min.insync.replicas=2 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            wait 1400
            heartbeat 2 -> unfenced
            heartbeat 3 -> unfenced
            wait 1400
            wait 200
                t-0: 1,2,3 leader 2 epoch 1 isr 2,3
            heartbeat 3 -> unfenced
            wait 1300
            wait 200
                t-0: 1,2,3 leader 3 epoch 2 isr 3 elr 2
            wait 1400
            heartbeat 1 -> unfenced
            heartbeat 2 -> unfenced
        "#]],
    );
}

#[test]
fn a_controller_that_stood_still_fences_nobody_for_it() {
    check(
        "
        up 1
        create t on=1
        wait 30000
        wait 1400
        wait 1400
        wait 200
        ",
        expect![[r#"
            up 1
            create t on=1 -> 1x1
                t-0: 1 leader 1 epoch 0 isr 1
            wait 30000
            wait 1400
            wait 1400
            wait 200
                t-0: 1 no leader, epoch 1 isr - elr 1 last leader 1
        "#]],
    );
}

#[test]
fn a_new_controller_gives_everyone_time() {
    check(
        "
        up 1
        create t on=1
        wait 1400
        wait 1400
        controller
        wait 1400
        wait 1400
        wait 200
        ",
        expect![[r#"
            up 1
            create t on=1 -> 1x1
                t-0: 1 leader 1 epoch 0 isr 1
            wait 1400
            wait 1400
            controller
            wait 1400
            wait 1400
            wait 200
                t-0: 1 no leader, epoch 1 isr - elr 1 last leader 1
        "#]],
    );
}

#[test]
fn the_last_broker_stops_at_once() {
    check(
        "
        up 1
        create t on=1
        heartbeat 1 shutdown
        heartbeat 1 shutdown
        ",
        expect![[r#"
            up 1
            create t on=1 -> 1x1
                t-0: 1 leader 1 epoch 0 isr 1
            heartbeat 1 shutdown -> fenced, may exit
                t-0: 1 no leader, epoch 1 isr - elr 1 last leader 1
            heartbeat 1 shutdown -> fenced, may exit
        "#]],
    );
}

#[test]
fn replicas_in_failed_directories_lead_nothing() {
    check(
        "
        up 1 2
        create t on=1,2
        create u on=1
        heartbeat 1 offline=t-0
        isr t-0 2,1
        heartbeat 1 offline=u-0
        heartbeat 1
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            create u on=1 -> 1x1
                u-0: 1 leader 1 epoch 0 isr 1
            heartbeat 1 offline=t-0 -> unfenced
                t-0: 1,2 leader 2 epoch 1 isr 2
            isr t-0 2,1 -> INELIGIBLE_REPLICA
            heartbeat 1 offline=u-0 -> unfenced
                u-0: 1 no leader, epoch 1 isr - elr 1 last leader 1
            heartbeat 1 -> unfenced
        "#]],
    );
}

#[test]
fn an_unregistered_broker_is_gone_until_it_registers_anew() {
    check(
        "
        up 1 2
        create t on=1,2
        unregister 1
        unregister 1
        heartbeat 1 epoch=2
        register 1 run=2
        heartbeat 1
        isr t-0 2,1
        ",
        expect![[r#"
            up 1 2
            create t on=1,2 -> 1x2
                t-0: 1,2 leader 1 epoch 0 isr 1,2
            unregister 1 -> ok
                t-0: 1,2 leader 2 epoch 1 isr 2
            unregister 1 -> BROKER_ID_NOT_REGISTERED: Broker ID 1 is not currently registered
            heartbeat 1 epoch=2 -> BROKER_ID_NOT_REGISTERED
            register 1 run=2 -> epoch 8
            heartbeat 1 -> unfenced
            isr t-0 2,1 -> isr 2,1 at 2
                t-0: 1,2 leader 2 epoch 1 isr 2,1
        "#]],
    );
}

#[test]
fn producer_ids_come_in_blocks() {
    check(
        "
        up 1 2
        producer-ids 1
        producer-ids 2
        producer-ids 1 epoch=1
        producer-ids 3
        ",
        expect![[r#"
            up 1 2
            producer-ids 1 -> 0 +1000
            producer-ids 2 -> 1000 +1000
            producer-ids 1 epoch=1 -> STALE_BROKER_EPOCH
            producer-ids 3 -> BROKER_ID_NOT_REGISTERED
        "#]],
    );
}
