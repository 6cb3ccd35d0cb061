"""SIGKILL, twenty times, under load (issue 2, item 3)."""

import random
import time

import pytest

from conftest import create_topic
from harness import wire
from harness.history import RunningConsumer, RunningProducer, check, read_all, summary
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for
from harness.pulse import Pulse

TOPIC = "kills"
PARTITIONS = 2
#: Led by whoever leads the first partition; see harness.pulse.
PULSE = "pulse"
KINDS = ["leader", "controller", "both"]
ROUNDS = 20


def move_leader(cluster, topic: str, partition: int, leader) -> None:
    replicas = [leader.node_id] + [broker.node_id for broker in cluster.others(leader)]
    result = cluster.ask(lambda connection: wire.reassign(connection, topic, partition, replicas))
    assert result == "NONE", f"reassignment of {topic}-{partition}: {result}"
    wait_for("the new order of replicas", lambda: cluster.topic(topic)[partition]["replicas"] == replicas)
    result = cluster.ask(lambda connection: wire.elect_preferred(connection, topic, partition))
    assert result in ("NONE", "ELECTION_NOT_NEEDED"), f"preferred election of {topic}-{partition}: {result}"
    wait_for("the new leader", lambda: cluster.topic(topic)[partition]["leader"] == leader.node_id)


def arrange(cluster, kind: str):
    """Moves leadership so that one broker is what is to be killed, and returns it with the controller."""
    controller = cluster.broker(cluster.controller())
    victim = random.choice(cluster.others(controller)) if kind == "leader" else controller
    # Either the controller leads nothing that is written to, or the victim leads the first partition, and the second
    # one shows what bystanders notice.
    bystanders = cluster.others(victim)
    first, second = bystanders if kind == "controller" else (victim, bystanders[0])
    for topic, partition, leader in [(TOPIC, 0, first), (TOPIC, 1, second), (PULSE, 0, first)]:
        move_leader(cluster, topic, partition, leader)
    return victim


@pytest.mark.parametrize("durability", ["flush"])
def test_sigkill_of_leader_and_controller_loses_and_repeats_nothing(make_cluster, report, durability):
    cluster = make_cluster(vltava_durability=durability)
    create_topic(cluster, TOPIC, PARTITIONS)
    create_topic(cluster, PULSE)
    pulse = Pulse(cluster, PULSE).start()
    producer = RunningProducer(cluster.bootstrap, TOPIC).start()
    consumers = [RunningConsumer(cluster.bootstrap, TOPIC, "watchers").start() for _ in range(2)]
    for partition in range(PARTITIONS):
        wait_for("the first records", lambda: producer.produced_after(0.0, partition))
    pauses: dict[str, list[float]] = {kind: [] for kind in KINDS}
    seen_by_client: list[float] = []
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
        wait_for("the pulse", lambda: pulse.acknowledged_at[-1] > moment)
        pauses[kind].append(pulse.pause_after(moment))
        seen_by_client.append(producer.pause_after(moment, 0))
        bystanders.append(producer.pause_after(moment, 1))
        victim.start()
        cluster.wait_in_sync(TOPIC, PULSE)
    producer.stop()
    pulse.stop()
    cluster.wait_in_sync(TOPIC, PULSE)
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
    report(f"the same as librdkafka sees it: {summary(seen_by_client)}")
    report(f"on a partition that another broker led, as librdkafka sees it: {summary(bystanders)}")
    cluster.stop()
    compared = assert_replicas_identical(cluster, TOPIC, PARTITIONS) + assert_replicas_identical(cluster, PULSE, 1)
    report(f"replicas identical over {compared} bytes")
