//! Topics and configs.

use expect_test::expect;
use vltava_metadata::controller::ControllerConfig;
use vltava_types::BrokerId;

use crate::world::{World, check};

#[test]
fn names_are_kafkas() {
    check(
        r#"
        up 1
        create ""
        create .
        create ..
        create a/b
        create ünder
        create a.b 1x1
        create a_b 1x1
        create a.b 1x1
        create a-b 1x1
        "#,
        expect![[r#"
            up 1
            create "" -> INVALID_TOPIC_EXCEPTION: Topic name is invalid: the empty string is not allowed
            create . -> INVALID_TOPIC_EXCEPTION: Topic name is invalid: '.' is not allowed
            create .. -> INVALID_TOPIC_EXCEPTION: Topic name is invalid: '..' is not allowed
            create a/b -> INVALID_TOPIC_EXCEPTION: Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'
            create ünder -> INVALID_TOPIC_EXCEPTION: Topic name is invalid: 'ünder' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'
            create a.b 1x1 -> 1x1
                a.b-0: 1 leader 1 epoch 0 isr 1
            create a_b 1x1 -> INVALID_TOPIC_EXCEPTION: Topic 'a_b' collides with existing topic: a.b
            create a.b 1x1 -> TOPIC_ALREADY_EXISTS: Topic 'a.b' already exists.
            create a-b 1x1 -> 1x1
                a-b-0: 1 leader 1 epoch 0 isr 1
        "#]],
    );
    let long = "x".repeat(250);
    let mut world = World::new(ControllerConfig::default());
    assert!(world.told(&format!("create {long}")).contains("is longer than the max allowed length 249"));
}

#[test]
fn counts_must_be_possible() {
    check(
        "
        create t 1x1
        up 1
        create t 0x1
        create t 1x0
        create t 1x2
        create t 20000x1
        create t 2x1 dry
        create t 2x-1
        create u 1x3 clamp
        create w 1x1 on=1
        expand t 2
        expand t 1
        expand t 4 on=1
        expand t 4 dry
        expand t 4
        expand v 4
        ",
        expect![[r#"
            create t 1x1 -> INVALID_REPLICATION_FACTOR: Unable to replicate the partition 1 time(s): The target replication factor of 1 cannot be reached because only 0 broker(s) are registered.
            up 1
            create t 0x1 -> INVALID_PARTITIONS: Number of partitions was set to an invalid non-positive value.
            create t 1x0 -> INVALID_REPLICATION_FACTOR: Replication factor must be larger than 0, or -1 to use the default value.
            create t 1x2 -> INVALID_REPLICATION_FACTOR: Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered.
            create t 20000x1 -> POLICY_VIOLATION: Excessively large number of partitions per request.
            create t 2x1 dry -> 2x1
            create t 2x-1 -> 2x1
                t-0: 1 leader 1 epoch 0 isr 1
                t-1: 1 leader 1 epoch 0 isr 1
            create u 1x3 clamp -> 1x1
                u-0: 1 leader 1 epoch 0 isr 1
            create w 1x1 on=1 -> INVALID_REQUEST: A manual partition assignment was specified, but replication factor was not set to -1.
            expand t 2 -> INVALID_PARTITIONS: Topic already has 2 partition(s).
            expand t 1 -> INVALID_PARTITIONS: The topic t currently has 2 partition(s); 1 would not be an increase.
            expand t 4 on=1 -> INVALID_REPLICA_ASSIGNMENT: Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.
            expand t 4 dry -> ok
            expand t 4 -> ok
                t-2: 1 leader 1 epoch 0 isr 1
                t-3: 1 leader 1 epoch 0 isr 1
            expand v 4 -> UNKNOWN_TOPIC_OR_PARTITION: This server does not host this topic-partition.
        "#]],
    );
}

#[test]
fn manual_assignments_are_checked() {
    check(
        "
        up 1 2 3
        create t on=1,1
        create t on=1,9
        create t on=1,2/3
        create t on=1,2/-
        down 3
        create t on=3
        create t on=3,1/2,3
        expand t 3 on=1,2,3
        expand t 3 on=2,1
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,1 -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes the broker 1 more than once.
            create t on=1,9 -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes broker 9, but no such broker is registered.
            create t on=1,2/3 -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes a partition with 1 replica(s), but this is not consistent with previous partitions, which have 2 replica(s).
            create t on=1,2/- -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes an empty replica list.
            down 3
            create t on=3 -> INVALID_REPLICA_ASSIGNMENT: All brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown.
            create t on=3,1/2,3 -> 2x2
                t-0: 3,1 leader 1 epoch 0 isr 1
                t-1: 2,3 leader 2 epoch 0 isr 2
            expand t 3 on=1,2,3 -> INVALID_REPLICA_ASSIGNMENT: The manual partition assignment includes a partition with 3 replica(s), but this is not consistent with previous partitions, which have 2 replica(s).
            expand t 3 on=2,1 -> ok
                t-2: 2,1 leader 2 epoch 0 isr 2,1
        "#]],
    );
}

#[test]
fn racks_and_leaders_alternate() {
    check(
        "
        up 1@a 2@a 3@b 4@b
        create t 8x2
        ",
        expect![[r#"
            up 1@a 2@a 3@b 4@b
            create t 8x2 -> 8x2
                t-0: 2,3 leader 2 epoch 0 isr 2,3
                t-1: 4,1 leader 4 epoch 0 isr 4,1
                t-2: 1,4 leader 1 epoch 0 isr 1,4
                t-3: 3,2 leader 3 epoch 0 isr 3,2
                t-4: 2,4 leader 2 epoch 0 isr 2,4
                t-5: 1,3 leader 1 epoch 0 isr 1,3
                t-6: 4,2 leader 4 epoch 0 isr 4,2
                t-7: 3,1 leader 3 epoch 0 isr 3,1
        "#]],
    );
}

#[test]
fn leaders_and_replicas_spread_evenly() {
    let mut world = World::new(ControllerConfig::default());
    world.told("up 1 2 3 4 5");
    world.told("create t 500x3");
    for id in 1..=5 {
        assert_eq!(world.image.partitions_led_by(BrokerId(id)).count(), 100, "leaderships of {id}");
        assert_eq!(world.image.partitions_hosted_by(BrokerId(id)).count(), 300, "replicas of {id}");
    }
    // When one fails, its leaderships spread over the others.
    world.told("down 3");
    for id in [1, 2, 4, 5] {
        let count = world.image.partitions_led_by(BrokerId(id)).count();
        assert!((115..=135).contains(&count), "leaderships of {id}: {count}");
    }
}

#[test]
fn fenced_brokers_are_the_last_resort() {
    check(
        "
        up 1 2 3
        down 2
        create t 3x2
        create u 1x3
        ",
        expect![[r#"
            up 1 2 3
            down 2
            create t 3x2 -> 3x2
                t-0: 3,1 leader 3 epoch 0 isr 3,1
                t-1: 1,3 leader 1 epoch 0 isr 1,3
                t-2: 1,3 leader 1 epoch 0 isr 1,3
            create u 1x3 -> 1x3
                u-0: 3,1,2 leader 3 epoch 0 isr 3,1
        "#]],
    );
}

#[test]
fn configs_are_validated_and_lists_edited() {
    check(
        "
        up 1
        create t 1x1 no.such.config=1
        create t 1x1 retention.ms=soon
        create t 1x1 retention.ms=1000
        config topic:t cleanup.policy+=compact
        config topic:t cleanup.policy-=delete !retention.ms
        config topic:t retention.ms+=5
        config topic:t segment.bytes=1048576 replace
        config topic:none retention.ms=1
        config broker:1 log.retention.ms=5
        config broker:1 min.insync.replicas=2
        config broker:1 node.id=2
        config broker:9 log.retention.ms=5
        config brokers log.retention.ms=7
        config brokers !min.insync.replicas
        config brokers log.retention.ms=8 replace
        ",
        expect![[r#"
            up 1
            create t 1x1 no.such.config=1 -> INVALID_CONFIG: Unknown topic config name: no.such.config
            create t 1x1 retention.ms=soon -> INVALID_CONFIG: Invalid value soon for configuration retention.ms: Not a number of type LONG
            create t 1x1 retention.ms=1000 -> 1x1
                t-0: 1 leader 1 epoch 0 isr 1
            config topic:t cleanup.policy+=compact -> cleanup.policy=delete,compact retention.ms=1000
            config topic:t cleanup.policy-=delete !retention.ms -> cleanup.policy=compact
            config topic:t retention.ms+=5 -> INVALID_CONFIG: Can't APPEND to key retention.ms because its type is not LIST.
            config topic:t segment.bytes=1048576 replace -> segment.bytes=1048576
            config topic:none retention.ms=1 -> UNKNOWN_TOPIC_OR_PARTITION: The topic does not exist.
            config broker:1 log.retention.ms=5 -> log.retention.ms=5
            config broker:1 min.insync.replicas=2 -> INVALID_CONFIG: Broker-level min.insync.replicas cannot be altered while ELR is enabled.
            config broker:1 node.id=2 -> INVALID_REQUEST: Cannot update these configs dynamically: Set(node.id)
            config broker:9 log.retention.ms=5 -> BROKER_ID_NOT_REGISTERED: No broker with id 9 found.
            config brokers log.retention.ms=7 -> log.retention.ms=7 min.insync.replicas=1
            config brokers !min.insync.replicas -> INVALID_CONFIG: Cluster-level min.insync.replicas cannot be removed while ELR is enabled.
            config brokers log.retention.ms=8 replace -> log.retention.ms=8 min.insync.replicas=1
        "#]],
    );
}

/// With a smaller number the ISR may commit without the ELR, which is out of date from then on.
#[test]
fn a_smaller_min_isr_ends_eligibility_at_once() {
    check(
        "
        up 1 2 3
        create t on=1,2,3 min.insync.replicas=3
        down 3
        down 2
        config topic:t min.insync.replicas=2
        config topic:t min.insync.replicas=1
        config topic:t min.insync.replicas=3
        config topic:t !min.insync.replicas
        ",
        expect![[r#"
            up 1 2 3
            create t on=1,2,3 min.insync.replicas=3 -> 1x3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3
            down 3
                t-0: 1,2,3 leader 1 epoch 0 isr 1,2 elr 3
            down 2
                t-0: 1,2,3 leader 1 epoch 0 isr 1 elr 3,2
            config topic:t min.insync.replicas=2 -> min.insync.replicas=2
            config topic:t min.insync.replicas=1 -> min.insync.replicas=1
                t-0: 1,2,3 leader 1 epoch 0 isr 1
            config topic:t min.insync.replicas=3 -> min.insync.replicas=3
            config topic:t !min.insync.replicas
        "#]],
    );
}

#[test]
fn an_internal_topic_grows_when_brokers_come() {
    check(
        "
        up 1
        create t 2x3 clamp
        config topic:t retention.ms=1
        wait 500
        up 2
        wait 500
        isr t-0 1,2
        isr t-1 1,2
        up 3
        wait 100
        wait 400
        isr t-0 1,2,3
        isr t-1 1,2,3
        wait 500
        config topic:t retention.ms=2
        wait 500
        ",
        expect![[r#"
            up 1
            create t 2x3 clamp -> 2x1
                t-0: 1 leader 1 epoch 0 isr 1
                t-1: 1 leader 1 epoch 0 isr 1
            config topic:t retention.ms=1 -> retention.ms=1 vltava.target.replication.factor=3
            wait 500
            up 2
            wait 500
                t-0: 2,1 leader 1 epoch 0 isr 1 adding 2
                t-1: 1,2 leader 1 epoch 0 isr 1 adding 2
            isr t-0 1,2 -> isr 1,2 at 2
                t-0: 2,1 leader 1 epoch 0 isr 1,2
            isr t-1 1,2 -> isr 1,2 at 2
                t-1: 1,2 leader 1 epoch 0 isr 1,2
            up 3
            wait 100
            wait 400
                t-0: 2,1,3 leader 1 epoch 0 isr 1,2 adding 3
                t-1: 1,2,3 leader 1 epoch 0 isr 1,2 adding 3
            isr t-0 1,2,3 -> isr 1,2,3 at 4
                t-0: 2,1,3 leader 1 epoch 0 isr 1,2,3
            isr t-1 1,2,3 -> isr 1,2,3 at 4
                t-1: 1,2,3 leader 1 epoch 0 isr 1,2,3
            wait 500
            config topic:t retention.ms=2 -> retention.ms=2
            wait 500
        "#]],
    );
}

#[test]
fn a_topic_grows_over_racks() {
    check(
        "
        up 1@a
        create t 2x2 clamp
        up 2@a 3@b
        wait 500
        ",
        expect![[r#"
            up 1@a
            create t 2x2 clamp -> 2x1
                t-0: 1 leader 1 epoch 0 isr 1
                t-1: 1 leader 1 epoch 0 isr 1
            up 2@a 3@b
            wait 500
                t-0: 3,1 leader 1 epoch 0 isr 1 adding 3
                t-1: 1,3 leader 1 epoch 0 isr 1 adding 3
        "#]],
    );
}
