"""Disks without room: records are refused and everything else goes on, until there is room again (issue 3)."""

import time

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec, ResourceType,
)

from conftest import create_topic
from harness.history import EAGER, RunningProducer, check, read_all
from harness.log_files import assert_replicas_identical
from harness.processes import Cluster, wait_for
from harness.small_disk import SmallDisk

TOPIC = "stored"
FULL = "the log directory is full"
MIB = 1 << 20


@pytest.fixture
def small_disks(tmp_path):
    """Three brokers, each with a disk of 24 MiB of its own: 4 MiB in reserve, 2 MiB for the metadata."""
    cluster = Cluster(
        tmp_path / "cluster", 3,
        vltava_disk_reserve_bytes=str(4 * MIB), vltava_metadata_reserve_bytes=str(2 * MIB),
        replica_lag_time_max_ms="3000", log_segment_bytes=str(MIB),
        offsets_topic_num_partitions="3",
        log_retention_check_interval_ms="500", log_segment_delete_delay_ms="200",
    )
    disks = {broker.node_id: SmallDisk(broker.data, 24) for broker in cluster.brokers}
    yield cluster.start(), disks
    for node in cluster.nodes:
        print(f"--- the end of {node.log_file}:")
        print("\n".join(node.log_text().splitlines()[-40:]))
    cluster.destroy()
    for disk in disks.values():
        disk.unmount()


def produced(producer, seconds: float) -> None:
    moment = time.monotonic() + seconds
    wait_for("records", lambda: all(producer.produced_after(moment, partition) for partition in range(3)), timeout=60)


def fill(cluster, disks) -> None:
    for disk in disks.values():
        disk.fill()
    for broker in cluster.brokers:
        wait_for(f"broker {broker.node_id} to say that it is full", lambda: FULL in broker.log_text())


def test_disks_that_are_really_full_refuse_records_and_nothing_else(small_disks, report):
    cluster, disks = small_disks
    create_topic(cluster, TOPIC, partitions=3)
    create_topic(cluster, "unwanted", partitions=1)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=1_000).start()
    produced(producer, 1)
    fill(cluster, disks)
    # What was appended before may still be acknowledged, when a follower without room has left the ISR.
    time.sleep(5)
    before = len(producer.acknowledged)
    time.sleep(3)
    assert len(producer.acknowledged) == before, "a full disk has taken records"
    assert all(disk.free_bytes() < 4 * MIB for disk in disks.values())

    # Reads and metadata go on, the latter with its own reserve.
    history = read_all(cluster.bootstrap, TOPIC, 3)
    assert len(history) >= before
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
    admin.delete_topics(["unwanted"], operation_timeout=20)["unwanted"].result(30)
    admin.create_topics([NewTopic("begun-while-full", 1, 3)], operation_timeout=20)["begun-while-full"].result(30)
    reserves = sum("the metadata log goes on with its reserve" in broker.log_text() for broker in cluster.brokers)
    report(f"{reserves} brokers wrote metadata to their reserve")
    assert reserves == 3

    for disk in disks.values():
        disk.empty()
    started = time.monotonic()
    produced(producer, 0)
    report(f"records are taken again {time.monotonic() - started:.1f} s after there was room")
    cluster.wait_in_sync(TOPIC, "begun-while-full")
    produced(producer, 1)
    producer.stop()
    assert not producer.failures
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 3), []))
    cluster.wait_in_sync(TOPIC)
    cluster.stop()
    assert "log directory failed" not in "".join(broker.log_text() for broker in cluster.brokers)
    assert_replicas_identical(cluster, TOPIC, 3)


def test_retention_goes_on_while_disks_are_full_and_makes_the_room_that_records_are_taken_in_again(small_disks, report):
    cluster, disks = small_disks
    old = ["old-by-size", "old-by-time", "old-by-hand"]
    for topic in [TOPIC, *old]:
        create_topic(cluster, topic, partitions=3 if topic == TOPIC else 1)
    filling = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", **EAGER})
    for topic in old:
        for _ in range(42):
            filling.produce(topic, value=bytes(100_000))
        assert filling.flush(60) == 0
    cluster.wait_in_sync(*old)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=200).start()
    produced(producer, 1)
    fill(cluster, disks)

    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})

    def configure(topic: str, name: str, value: str) -> None:
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET),
        ])
        admin.incremental_alter_configs([resource])[resource].result(30)

    def first_offset(topic: str) -> int:
        at = TopicPartition(topic, 0)
        # A client of its own, because older ones would ask with the leader epoch from before the restart.
        asking = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
        return asking.list_offsets({at: OffsetSpec.earliest()})[at].result(30).offset

    def segment_bytes(topic: str) -> list[int]:
        # With those that wait to be deleted: what counts is room.
        return [sum(file.stat().st_size for file in disk.path.glob(f"{topic}-0/*.log*")) for disk in disks.values()]

    def wait_until_small(topic: str) -> None:
        # At most what is kept, and a segment that holds a part of it.
        wait_for(f"{topic} to lose its segments on every disk", lambda: max(segment_bytes(topic)) <= 2 * MIB)
        free = [disk.free_bytes() // 1024 for disk in disks.values()]
        report(f"{topic} begins at {first_offset(topic)}; KiB left: {free}")

    assert [first_offset(topic) for topic in old] == [0, 0, 0]
    assert all(size > 4 * MIB for topic in old for size in segment_bytes(topic))
    refused_from = time.monotonic()
    time.sleep(3)
    assert not any(producer.produced_after(refused_from, partition) for partition in range(3)), "a full disk took records"
    configure("old-by-size", "retention.bytes", str(MIB))
    wait_until_small("old-by-size")
    admin.delete_records([TopicPartition("old-by-hand", 0, 40)])[TopicPartition("old-by-hand", 0)].result(30)
    wait_until_small("old-by-hand")
    configure("old-by-time", "retention.ms", "1000")
    wait_until_small("old-by-time")

    # Of old-by-time, even the active segment has gone where there was room for a new one.
    by_size, by_time, by_hand = (first_offset(topic) for topic in old)
    assert 20 <= by_size <= 35 and by_time >= 30 and by_hand == 40
    # What has filled the disks is still there: the room is what retention has made.
    produced(producer, 0)
    assert all(disk.filler.exists() for disk in disks.values())
    producer.stop()
    assert not producer.failures
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 3), []))
    cluster.wait_in_sync(TOPIC, *old)
    starts = [first_offset(topic) for topic in old]
    cluster.stop()
    assert "log directory failed" not in "".join(broker.log_text() for broker in cluster.brokers)
    for topic, partitions in [(TOPIC, 3), *((topic, 1) for topic in old)]:
        assert_replicas_identical(cluster, topic, partitions)
    # What was moved on a full disk is still so after a restart.
    cluster.start()
    cluster.wait_in_sync(TOPIC, *old)
    assert [first_offset(topic) for topic in old] == starts


def test_a_follower_without_room_leaves_the_isr_and_comes_back_by_itself(small_disks, report):
    cluster, disks = small_disks
    create_topic(cluster, TOPIC, partitions=3)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=1_000).start()
    produced(producer, 1)
    victim = cluster.leader(TOPIC, 0)
    disks[victim.node_id].fill()
    wait_for("the others to go on without it", lambda: all(
        victim.node_id not in cluster.topic(TOPIC)[partition]["isr"]
        for partition in range(3) if cluster.leader(TOPIC, partition) is not victim
    ))
    moment = time.monotonic()
    led_by_others = [p for p in range(3) if cluster.leader(TOPIC, p) is not victim]
    wait_for("records", lambda: all(producer.produced_after(moment, p) for p in led_by_others))
    disks[victim.node_id].empty()
    started = time.monotonic()
    cluster.wait_in_sync(TOPIC)
    report(f"in sync again {time.monotonic() - started:.1f} s after there was room")
    produced(producer, 1)
    producer.stop()
    assert not producer.failures
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 3), []))
    cluster.wait_in_sync(TOPIC)
    cluster.stop()
    assert_replicas_identical(cluster, TOPIC, 3)


def test_a_fast_producer_stops_at_the_reserve_and_metadata_keeps_its_own(small_disks, report):
    cluster, disks = small_disks
    create_topic(cluster, "flood", partitions=1)
    producer = Producer({
        "bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 5, "message.timeout.ms": 8_000, **EAGER,
    })
    refused: list[str] = []
    acknowledged = 0

    def delivered(error, _):
        nonlocal acknowledged
        if error is None:
            acknowledged += 1
        else:
            refused.append(error.name())

    deadline = time.monotonic() + 60
    while not refused and time.monotonic() < deadline:
        try:
            producer.produce("flood", value=bytes(100_000), on_delivery=delivered)
        except BufferError:
            pass
        producer.poll(0.001)
    assert refused, "40 MiB fitted on a disk of 24 MiB"
    free = {node_id: disk.free_bytes() // 1024 for node_id, disk in disks.items()}
    report(f"{acknowledged} records of 100 kB taken, then {refused[0]}; KiB left: {free}")
    # The leader stops at the reserve, not at the end of the disk.
    assert free[cluster.leader("flood").node_id] > 3 * 1024
    assert all(broker.runs() for broker in cluster.brokers)
    producer.purge()
    producer.flush(10)
    cluster.wait_in_sync("flood")
