"""What a broker writes on standard error: JSON where programs read it, lines for people on a terminal."""

import json
import os
import pty
import subprocess

from conftest import create_topic
from harness.processes import binary, wait_for


def test_elsewhere_than_on_a_terminal_each_line_is_an_object_with_fields(make_cluster):
    cluster = make_cluster(log_format=None)
    create_topic(cluster, "orders", 1)
    leader = cluster.leader("orders")
    follower = cluster.others(leader)[0]

    def events(broker) -> list[dict]:
        # The last line may not be whole yet.
        return [json.loads(line) for line in broker.log_text().split("\n")[:-1]]

    def find(broker, message: str, **fields) -> list[dict]:
        return [event for event in events(broker)
                if event["message"] == message and fields.items() <= event.items()]

    leading = wait_for("the leader's line", lambda: find(leader, "leading", partition="orders-0"))[-1]
    assert {"timestamp", "level", "target", "leader_epoch", "log_end_offset", "high_watermark"} <= leading.keys()
    following = wait_for("the follower's line", lambda: find(follower, "following", partition="orders-0",
                                                             leader=leader.node_id))[-1]
    assert following["leader_epoch"] == leading["leader_epoch"]

    # The controller takes a dead broker out of the ISR, and the leader takes it in again.
    follower.kill()
    wait_for("the ISR to shrink", lambda: len(cluster.topic("orders")[0]["isr"]) == 2)
    follower.start()
    changed = wait_for("the ISR to grow", lambda: find(leader, "isr changed", partition="orders-0"))[-1]
    assert set(changed["isr"].split(",")) == {"1", "2", "3"}
    assert {"leader_epoch", "partition_epoch"} <= changed.keys()
    controller = cluster.broker(cluster.controller())
    assert [event for event in events(controller) if "broker_id" in event or "node_id" in event], "peers are fields"
    # Every line is an object, whatever else happened.
    for broker in cluster.brokers:
        assert all(event["level"] in ("INFO", "WARN", "ERROR") for event in events(broker))


def test_on_a_terminal_lines_are_for_people(tmp_path):
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "VLTAVA_LOG"))}
    process = subprocess.Popen(
        [binary(), "serve", "--override", f"log.dirs={tmp_path / 'data'}", "--override", "listeners=PLAINTEXT://127.0.0.1:0",
         "--override", "vltava.http.listener="],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, env=environment,
    )
    os.close(theirs)
    seen = ""
    try:
        while "starts as node 1" not in seen:
            seen += os.read(ours, 4096).decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    line = next(line for line in seen.splitlines() if "starts as node 1" in line)
    assert "INFO" in line and not line.startswith("{"), line
    assert "\x1b[" in line, "colours"
