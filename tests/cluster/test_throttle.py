"""Reassignment with a throttle (KIP-73): what moves is slow, what is in sync is not."""

import json
import subprocess
import time

from confluent_kafka import Producer

from conftest import create_topic
from harness.processes import binary, wait_for

TOPIC = "moved"
MEGABYTE = 1_000_000


def write(cluster, count: int) -> float:
    """Writes so many records of a kilobyte with acks=all; how long that took."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    started = time.monotonic()
    for _ in range(count):
        producer.produce(TOPIC, bytes(1000), partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0
    return time.monotonic() - started


def execute(cluster, tmp_path, replicas: list[int], throttle: int, *arguments: str) -> str:
    file = tmp_path / "move.json"
    file.write_text(json.dumps({"partitions": [{"topic": TOPIC, "partition": 0, "replicas": replicas}]}))
    done = subprocess.run(
        [binary(), "kafka-reassign-partitions", "--bootstrap-server", cluster.bootstrap, "--execute",
         "--reassignment-json-file", file, "--throttle", str(throttle), *arguments],
        capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_throttled_move_takes_its_time_and_a_lifted_throttle_counts_at_once(cluster, tmp_path, report):
    create_topic(cluster, TOPIC, replicas=2)
    write(cluster, 12_000)
    replicas = cluster.topic(TOPIC)[0]["replicas"]
    (newcomer,) = {1, 2, 3} - set(replicas)
    targets = [replicas[0], newcomer]

    def is_moved():
        partition = cluster.topic(TOPIC)[0]
        return sorted(partition["replicas"]) == sorted(targets) == sorted(partition["isr"])

    told = execute(cluster, tmp_path, targets, MEGABYTE)
    started = time.monotonic()
    assert f"The inter-broker throttle limit was set to {MEGABYTE} B/s" in told
    # Those in sync are as fast as ever: at the limit of a megabyte a second this would take as long as it has records.
    taken = write(cluster, 2_000)
    report(f"2 MB with acks=all in {taken:.2f} s beside a move of 12 MB at 1 MB/s")
    assert taken < 2
    time.sleep(max(0.0, started + 6 - time.monotonic()))
    assert not is_moved(), "12 MB at 1 MB/s take longer than six seconds"
    lifted = time.monotonic()
    execute(cluster, tmp_path, targets, 100 * MEGABYTE, "--additional")
    wait_for("the move", is_moved)
    report(f"moved {time.monotonic() - lifted:.2f} s after the limit was raised to 100 MB/s")
    assert time.monotonic() - started < 12
