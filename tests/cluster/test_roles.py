"""One node that only votes, and brokers that only serve: their gRPC shares the port of their clients."""

import time

from conftest import create_topic
from harness.history import RunningConsumer, RunningProducer, check, read_all
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for

TOPIC = "roles"
PARTITIONS = 2


def wait_for_writes(producer: RunningProducer, moment: float) -> None:
    for partition in range(PARTITIONS):
        wait_for(f"writes on partition {partition}", lambda: producer.produced_after(moment, partition), timeout=60)


def test_brokers_beside_a_controller_survive_each_others_death(make_cluster, report):
    cluster = make_cluster(2, separate_controller=True)
    (controller,) = cluster.controllers
    assert cluster.controller() == controller.node_id
    create_topic(cluster, TOPIC, PARTITIONS, replicas=2)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=500).start()
    consumer = RunningConsumer(cluster.bootstrap, TOPIC, "watchers").start()
    wait_for_writes(producer, 0.0)
    for broker in cluster.brokers:
        moment = time.monotonic()
        broker.kill()
        wait_for_writes(producer, moment)
        report(f"a broker of two killed: paused "
               f"{max(producer.pause_after(moment, partition) for partition in range(PARTITIONS)) * 1000:.0f} ms")
        broker.start()
        wait_for("the broker to serve", lambda: len(cluster.live_brokers(broker)) == 2, timeout=60)
        cluster.wait_in_sync(TOPIC)

    # Nobody else votes, but the data path does not need the controller while nothing changes.
    controller.kill()
    wait_for_writes(producer, time.monotonic())
    controller.start()
    wait_for("the controller", lambda: cluster.controller() == controller.node_id, timeout=60)
    create_topic(cluster, "afterwards", replicas=2)
    wait_for_writes(producer, time.monotonic())

    producer.stop()
    log = read_all(cluster.bootstrap, TOPIC, PARTITIONS)
    wait_for("the group to have seen everything", lambda: log.keys() <= consumer.seen.keys(), timeout=60)
    consumer.stop()
    report(check(producer, log, [consumer]))
    cluster.stop()
    report(f"replicas identical over {assert_replicas_identical(cluster, TOPIC, PARTITIONS)} bytes")
