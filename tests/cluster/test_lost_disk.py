"""Brokers that come back with less than they had (issue 2, item 5)."""

import time

from conftest import create_topic
from harness.history import RunningProducer, check, read_all
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for

TOPIC = "refilled"


def produced(producer, seconds: float) -> None:
    moment = time.monotonic() + seconds
    wait_for("records", lambda: all(producer.produced_after(moment, partition) for partition in range(3)), timeout=60)


def test_a_broker_with_an_emptied_directory_is_refilled(cluster, report):
    create_topic(cluster, TOPIC, partitions=3)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=1_000).start()
    produced(producer, 3)
    victim = cluster.leader(TOPIC)
    victim.kill()
    victim.wipe()
    produced(producer, 1)
    victim.start()
    started = time.monotonic()
    cluster.wait_in_sync(TOPIC)
    report(f"back in sync {time.monotonic() - started:.1f} s after its start with an empty directory")
    # It votes again only once it has caught up; then the quorum survives the loss of another member.
    produced(producer, 1)
    other = next(broker for broker in cluster.others(victim) if broker.node_id == cluster.controller()) \
        if cluster.controller() != victim.node_id else cluster.others(victim)[0]
    other.kill()
    produced(producer, 1)
    other.start()
    cluster.wait_in_sync(TOPIC)
    producer.stop()
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 3), []))
    cluster.wait_in_sync(TOPIC)
    cluster.stop()
    assert_replicas_identical(cluster, TOPIC, 3)


def test_a_broker_restarted_after_sigkill_recovers_and_rejoins(cluster, report):
    create_topic(cluster, TOPIC, partitions=3)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=2_000).start()
    produced(producer, 2)
    for broker in cluster.brokers:
        broker.kill()
        produced(producer, 0.5)
        broker.start()
        started = time.monotonic()
        cluster.wait_in_sync(TOPIC)
        report(f"broker {broker.node_id} back in sync {time.monotonic() - started:.1f} s after its restart")
    producer.stop()
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 3), []))
    cluster.wait_in_sync(TOPIC)
    cluster.stop()
    assert_replicas_identical(cluster, TOPIC, 3)
