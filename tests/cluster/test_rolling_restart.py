"""SIGTERM to one broker after another, under load."""

import time

from conftest import create_topic
from harness.history import RunningProducer, check, read_all, summary
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for

TOPIC = "rolling"
PARTITIONS = 3


def test_each_broker_stops_in_order_and_nobody_notices(cluster, report):
    create_topic(cluster, TOPIC, PARTITIONS)
    # Every partition has another leader, and one of the brokers is the controller.
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=500).start()
    for partition in range(PARTITIONS):
        wait_for("the first records", lambda: producer.produced_after(0.0, partition))
    pauses = []
    for broker in cluster.brokers:
        time.sleep(0.5)
        moment = time.monotonic()
        broker.stop()
        stopped = time.monotonic()
        for partition in range(PARTITIONS):
            wait_for(f"writes on partition {partition}", lambda: producer.produced_after(stopped, partition))
            pauses.append(producer.longest_pause(moment, time.monotonic(), partition))
        report(f"broker {broker.node_id} stopped within {stopped - moment:.1f} s")
        broker.start()
        wait_for("the broker to serve", lambda: len(cluster.live_brokers(broker)) == 3, timeout=60)
        cluster.wait_in_sync(TOPIC)
    producer.stop()
    report(check(producer, read_all(cluster.bootstrap, TOPIC, PARTITIONS), []))
    report(f"pause of acknowledged writes: {summary(pauses)}")
    cluster.stop()
    report(f"replicas identical over {assert_replicas_identical(cluster, TOPIC, PARTITIONS)} bytes")
