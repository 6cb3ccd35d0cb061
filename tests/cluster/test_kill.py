"""SIGKILL, twenty times, under load (issue 2, item 3)."""

import random
import time

import pytest

from conftest import create_topic
from harness import wire
from harness.history import RunningConsumer, RunningProducer, check, read_all, summary
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for

TOPIC = "kills"
PARTITIONS = 2
KINDS = ["leader", "controller", "both"]
ROUNDS = 20


def arrange(cluster, kind: str):
    """Moves leadership so that one broker is what is to be killed, and returns it with the controller."""
    controller = cluster.broker(cluster.controller())
    victim = random.choice(cluster.others(controller)) if kind == "leader" else controller
    for partition in range(PARTITIONS):
        if kind == "controller":
            # It leads nothing that is written to.
            first = cluster.others(victim)[partition % 2]
        else:
            # It leads the first partition; the other one shows what bystanders notice.
            first = victim if partition == 0 else cluster.others(victim)[0]
        replicas = [first.node_id] + [broker.node_id for broker in cluster.others(first)]
        result = cluster.ask(lambda connection: wire.reassign(connection, TOPIC, partition, replicas))
        assert result == "NONE", f"reassignment: {result}"
        wait_for("the new order of replicas", lambda: cluster.topic(TOPIC)[partition]["replicas"] == replicas)
        result = cluster.ask(lambda connection: wire.elect_preferred(connection, TOPIC, partition))
        assert result in ("NONE", "ELECTION_NOT_NEEDED"), f"preferred election: {result}"
        wait_for("the new leader", lambda: cluster.topic(TOPIC)[partition]["leader"] == first.node_id)
    return victim


@pytest.mark.parametrize("durability", ["flush"])
def test_sigkill_of_leader_and_controller_loses_and_repeats_nothing(make_cluster, report, durability):
    cluster = make_cluster(vltava_durability=durability)
    create_topic(cluster, TOPIC, PARTITIONS)
    producer = RunningProducer(cluster.bootstrap, TOPIC).start()
    consumers = [RunningConsumer(cluster.bootstrap, TOPIC, "watchers").start() for _ in range(2)]
    for partition in range(PARTITIONS):
        wait_for("the first records", lambda: producer.produced_after(0.0, partition))
    pauses: dict[str, list[float]] = {kind: [] for kind in KINDS}
    bystanders: list[float] = []
    for number in range(ROUNDS):
        kind = KINDS[number % len(KINDS)]
        victim = arrange(cluster, kind)
        time.sleep(random.uniform(0.3, 1.0))
        moment = time.monotonic()
        victim.kill()
        for partition in range(PARTITIONS):
            wait_for(f"writes to resume on partition {partition} after kill {number} ({kind})",
                     lambda: producer.produced_after(moment, partition), timeout=60)
        measured = [producer.pause_after(moment, partition) for partition in range(PARTITIONS)]
        if kind == "controller":
            pauses[kind].append(max(measured))
        else:
            pauses[kind].append(measured[0])
            bystanders.append(measured[1])
        victim.start()
        cluster.wait_in_sync(TOPIC)
    producer.stop()
    cluster.wait_in_sync(TOPIC)
    log = read_all(cluster.bootstrap, TOPIC, PARTITIONS)
    acknowledged = set(producer.acknowledged.values())
    wait_for("the group to have seen everything",
             lambda: acknowledged <= set().union(*(consumer.seen for consumer in consumers)), timeout=60)
    for consumer in consumers:
        consumer.stop()
    report(check(producer, log, consumers))
    for kind in KINDS:
        report(f"pause of acknowledged writes, kill of {kind}: {summary(pauses[kind])}")
    report(f"pause over all kills: {summary([pause for kind in KINDS for pause in pauses[kind]])}")
    report(f"pause on a partition that another broker led: {summary(bystanders)}")
    cluster.stop()
    compared = assert_replicas_identical(cluster, TOPIC, PARTITIONS)
    report(f"replicas identical over {compared} bytes")
