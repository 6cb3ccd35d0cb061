"""Scaling in: `vltava brokers drain` under load, then the broker goes."""

import json
import subprocess
import time

from conftest import create_topic
from confluent_kafka.admin import AdminClient, NewTopic

from harness.history import EAGER, RunningProducer, check, read_all
from harness.processes import binary, wait_for

TOPIC = "drained"
PARTITIONS = 12


def drain(cluster, *arguments: str) -> subprocess.CompletedProcess:
    command = [binary(), "brokers", "drain", "--bootstrap-server", cluster.bootstrap, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180)


def hosted(cluster, broker: int) -> list[int]:
    return [index for index, partition in cluster.topic(TOPIC).items() if broker in partition["replicas"]]


def test_a_drained_broker_can_go(make_cluster, report):
    cluster = make_cluster(4, default_replication_factor="3", min_insync_replicas="2")
    create_topic(cluster, TOPIC, PARTITIONS)
    producer = RunningProducer(cluster.bootstrap, TOPIC, keys=96, per_second=500).start()
    for partition in range(PARTITIONS):
        wait_for("the first records", lambda: producer.produced_after(0.0, partition))
    on_four = hosted(cluster, 4)
    assert on_four, "the fourth broker hosts something"

    planned = drain(cluster, "4", "--dry-run", "--output", "json")
    assert planned.returncode == 0, planned
    moves = json.loads(planned.stdout)
    assert [move["partition"] for move in moves] == on_four
    assert all(4 in move["from"] and 4 not in move["to"] and len(set(move["to"])) == 3 for move in moves)
    assert hosted(cluster, 4) == on_four, "a dry run moves nothing"

    began = time.monotonic()
    drained = drain(cluster, "4", "--at-a-time", "4")
    assert drained.returncode == 0, drained
    report(f"drained {len(on_four)} partitions in {time.monotonic() - began:.1f} s")
    assert f"{len(on_four)} of {len(on_four)} partitions moved" in drained.stderr
    assert "no replica is left on 4" in drained.stderr
    assert "broker 4 votes in the metadata quorum" in drained.stderr
    wait_for("everybody to know", lambda: not hosted(cluster, 4))
    assert all(len(partition["replicas"]) == 3 for partition in cluster.topic(TOPIC).values())

    cluster.broker(4).stop()
    stopped = time.monotonic()
    for partition in range(PARTITIONS):
        wait_for("writes to go on", lambda: producer.produced_after(stopped, partition))
    cluster.wait_in_sync(TOPIC)
    producer.stop()
    report(check(producer, read_all(cluster.bootstrap, TOPIC, PARTITIONS), []))


def test_what_would_break_a_replication_factor_is_refused(cluster):
    create_topic(cluster, TOPIC, 2)
    before = cluster.topic(TOPIC)
    for arguments in (["3"], ["3", "--dry-run"], ["2", "3"]):
        refused = drain(cluster, *arguments)
        assert refused.returncode == 1, refused
        assert f"{TOPIC}-0 has 3 replicas" in refused.stderr and "add a broker" in refused.stderr
    assert cluster.topic(TOPIC) == before
    unknown = drain(cluster, "9")
    assert unknown.returncode == 1 and "there is no broker 9" in unknown.stderr


def test_a_drain_that_was_broken_off_goes_on(make_cluster):
    cluster = make_cluster(4, default_replication_factor="2", min_insync_replicas="1")
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
    admin.create_topics([NewTopic(TOPIC, PARTITIONS, 2)])[TOPIC].result(30)
    cluster.wait_in_sync(TOPIC)
    command = [binary(), "brokers", "drain", "--bootstrap-server", cluster.bootstrap, "4", "--at-a-time", "1"]
    broken_off = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.7)
    broken_off.kill()
    broken_off.wait()
    assert drain(cluster, "4").returncode == 0
    wait_for("everybody to know", lambda: not hosted(cluster, 4))
    again = drain(cluster, "4")
    assert again.returncode == 0 and "no replica is left on 4" in again.stderr
