"""Bits that flip on disk: found by the scrub, never read by a client, and repaired from another replica (issue 3)."""

import time

import pytest

from conftest import create_topic
from harness.history import RunningConsumer, RunningProducer, check, read_all
from harness.log_files import assert_replicas_identical, partition_directory
from harness.processes import Broker, wait_for

TOPIC = "watched"


def closed_segments(broker: Broker):
    return sorted(partition_directory(broker, TOPIC, 0).glob("*.log"))[:-1]


def flip_bit(broker: Broker) -> str:
    """In the middle of a batch of the oldest closed segment that has any."""
    segment = next(path for path in closed_segments(broker) if path.stat().st_size > 200)
    with segment.open("r+b") as file:
        file.seek(segment.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0x04]))
    return f"{segment.name} of broker {broker.node_id}"


@pytest.mark.parametrize("role", ["follower", "leader"])
def test_a_flipped_bit_is_found_and_repaired_under_load(make_cluster, report, role):
    cluster = make_cluster(
        vltava_scrub_interval_ms="500", vltava_scrub_bytes_per_second=str(100 << 20), log_roll_ms="1000"
    )
    create_topic(cluster, TOPIC, partitions=1)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=500).start()
    consumers = [RunningConsumer(cluster.bootstrap, TOPIC, f"readers-{role}").start()]
    leader = cluster.leader(TOPIC)
    victim = leader if role == "leader" else cluster.others(leader)[0]
    wait_for("closed segments", lambda: len(closed_segments(victim)) >= 3)
    flipped = flip_bit(victim)
    started = time.monotonic()
    wait_for("the scrub to find it", lambda: "the log is corrupt" in victim.log_text())
    found = time.monotonic() - started
    wait_for("the replica to begin anew", lambda: "begins anew" in victim.log_text())
    cluster.wait_in_sync(TOPIC)
    report(f"{flipped}: found after {found:.1f} s, in sync again after {time.monotonic() - started:.1f} s")
    if role == "leader":
        assert "following partition=watched-0" in victim.log_text()
    moment = time.monotonic()
    wait_for("records", lambda: producer.produced_after(moment, 0))
    producer.stop()
    for consumer in consumers:
        consumer.stop()
    assert not producer.failures
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 1), consumers))
    cluster.wait_in_sync(TOPIC)
    cluster.stop()
    assert assert_replicas_identical(cluster, TOPIC, 1) > 0
