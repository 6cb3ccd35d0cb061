"""deploy/compose/three-brokers.yml as it stands: from the host, from inside, and while containers die and restart."""

import time

from confluent_kafka.admin import AdminClient, NewTopic

from harness.history import EAGER, RunningProducer, check, read_all, summary
from harness.processes import wait_for

BOOTSTRAP = "localhost:9092,localhost:9093,localhost:9094"
INSIDE = "broker-1:19092,broker-2:19092,broker-3:19092"
SERVICES = ["broker-1", "broker-2", "broker-3"]
TOOLS = "/opt/kafka/bin"


def create_topic(name: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP, **EAGER})
    admin.create_topics([NewTopic(name, partitions, 3)])[name].result(30)
    wait_in_sync(name)


def leaders(name: str) -> dict[int, int]:
    metadata = AdminClient({"bootstrap.servers": BOOTSTRAP, **EAGER}).list_topics(name, timeout=10)
    return {partition.id: partition.leader for partition in metadata.topics[name].partitions.values()}


def wait_in_sync(name: str) -> None:
    admin = AdminClient({"bootstrap.servers": BOOTSTRAP, **EAGER})

    def in_sync() -> bool:
        partitions = admin.list_topics(name, timeout=10).topics[name].partitions.values()
        return bool(partitions) and all(len(partition.isrs) == 3 for partition in partitions)

    wait_for(f"{name} to be in sync", in_sync, timeout=60)


def test_records_cross_between_host_and_containers(compose):
    cluster = compose("deploy/compose/three-brokers.yml")
    cluster.wait_ready(*SERVICES)
    create_topic("crossing", 3)
    producer = RunningProducer(BOOTSTRAP, "crossing", per_second=200).start()
    time.sleep(1)
    producer.stop()
    inside = cluster.exec(
        "broker-2", f"{TOOLS}/kafka-console-consumer.sh", "--bootstrap-server", INSIDE, "--topic", "crossing",
        "--from-beginning", "--max-messages", str(len(producer.acknowledged)), "--timeout-ms", "30000",
    )
    assert sorted(inside.split()) == sorted(f"{key}:{sequence}" for key, sequence in producer.acknowledged)
    create_topic("back", 1)
    cluster.exec(
        "broker-3", f"{TOOLS}/kafka-console-producer.sh", "--bootstrap-server", INSIDE, "--topic", "back",
        given="from inside\n",
    )
    assert list(read_all(BOOTSTRAP, "back", 1).values()) == [b"from inside"]
    described = cluster.exec("broker-1", f"{TOOLS}/kafka-topics.sh", "--bootstrap-server", INSIDE, "--list", "--exclude-internal")
    assert described.split() == ["back", "crossing"]


def test_a_killed_leader_and_restarts_in_turn_lose_nothing_and_fail_nothing(compose, report):
    cluster = compose("deploy/compose/three-brokers.yml")
    cluster.wait_ready(*SERVICES)
    create_topic("load", 3)
    producer = RunningProducer(BOOTSTRAP, "load", per_second=300).start()
    for partition in range(3):
        wait_for("the first records", lambda: producer.produced_after(0.0, partition))

    victim = f"broker-{leaders('load')[0]}"
    moment = time.monotonic()
    cluster.run("kill", victim)
    killed = time.monotonic()
    wait_for("writes to go on", lambda: producer.produced_after(killed, 0), timeout=30)
    pause = producer.longest_pause(moment, time.monotonic(), 0)
    report(f"the leader's container was killed: writes paused for {pause * 1000:.0f} ms")
    cluster.run("up", "--detach")
    cluster.wait_ready(*SERVICES)
    wait_in_sync("load")

    pauses = []
    for service in SERVICES:
        moment = time.monotonic()
        cluster.run("restart", service)
        cluster.wait_ready(service)
        wait_in_sync("load")
        for partition in range(3):
            wait_for("writes to go on", lambda: producer.produced_after(moment, partition), timeout=30)
            pauses.append(producer.longest_pause(moment, time.monotonic(), partition))
    producer.stop()
    report(check(producer, read_all(BOOTSTRAP, "load", 3), []))
    report(f"each container restarted in turn: pauses {summary(pauses)}")
