"""Tools go on when a broker is gone, from the moment it dies."""

import time

from confluent_kafka import Consumer, Producer, TopicPartition
from harness.processes import Cluster, wait_for

from conftest import run_ours


def test_tools_answer_right_after_a_broker_was_killed(tmp_path):
    cluster = Cluster(tmp_path / "cluster").start()
    try:
        check(cluster)
    finally:
        cluster.destroy()


def check(cluster: Cluster) -> None:
    def run(tool: str, *arguments: str) -> str:
        began = time.monotonic()
        code, out = run_ours(tool, ["--bootstrap-server", cluster.bootstrap, *arguments])
        assert code == 0, out
        assert time.monotonic() - began < 20, f"{tool} took too long"
        return out

    run("kafka-topics", "--create", "--topic", "dead", "--replica-assignment", "1:2:3,2:3:1,3:1:2")
    cluster.wait_in_sync("dead")
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    for partition in range(3):
        for _ in range(4):
            producer.produce("dead", b"v", partition=partition)
    assert producer.flush(60) == 0
    # Groups on each coordinator.
    groups = [f"dead-{number}" for number in range(6)]
    for group in groups:
        run("kafka-consumer-groups", "--reset-offsets", "--group", group, "--topic", "dead", "--to-earliest", "--execute")
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": groups[0]})
    assert consumer.committed([TopicPartition("dead", 0)], 60)[0].offset == 0
    consumer.close()

    cluster.broker(2).kill()
    # Until another broker leads their partition of the offsets topic, nobody knows of the dead coordinator's groups.
    wait_for("all groups", lambda: sorted(run("kafka-consumer-groups", "--list").split()) == groups)
    assert run("kafka-get-offsets", "--topic", "dead") == "dead:0:4\ndead:1:4\ndead:2:4\n"
    assert "Leader: 2" not in run("kafka-topics", "--describe", "--topic", "dead")
    for group in groups:
        described = run("kafka-consumer-groups", "--describe", "--group", group)
        assert [line.split()[3:6] for line in described.splitlines()[2:]] == [["0", "4", "4"]] * 3
