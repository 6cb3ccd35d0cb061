"""A leader that stands still for 30 seconds and comes back believing that it leads (issue 2, item 4)."""

import time

from conftest import create_topic
from harness import wire
from harness.history import RunningProducer, check, read_all
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for

TOPIC = "zombie"


def test_a_stopped_leader_acknowledges_nothing_truncates_and_rejoins(cluster, report):
    create_topic(cluster, TOPIC)
    # What is under way to a broker that stands still is given up after these times only.
    patience = {"socket.timeout.ms": 2_000, "request.timeout.ms": 1_500}
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=500, **patience).start()
    wait_for("the first records", lambda: producer.produced_after(0.0, 0))
    zombie = cluster.leader(TOPIC)
    # Opened before the stop: what is sent on these lies in the socket until the zombie wakes.
    to_all, to_leader = wire.Connection(zombie.port, 60), wire.Connection(zombie.port, 60)
    zombie.pause()
    stopped = time.monotonic()
    for connection, value, acks in ((to_all, b"zombie:all", -1), (to_leader, b"zombie:one", 1)):
        body = wire.produce_body(TOPIC, 0, wire.record_batch([value]), acks, timeout_ms=5_000)
        connection.send(wire.PRODUCE, 3, body)
    wait_for("writes to resume at a new leader", lambda: producer.produced_after(stopped, 0), timeout=30)
    report(f"writes paused for {producer.pause_after(stopped, 0) * 1000:.0f} ms when the leader stood still")
    time.sleep(max(0.0, stopped + 30 - time.monotonic()))
    zombie.resume()
    answers = {}
    for name, connection in (("acks=all", to_all), ("acks=1", to_leader)):
        try:
            answers[name] = wire.produce_result(connection.receive())[0]
        except (OSError, wire.ConnectionClosed):
            answers[name] = "connection closed"
    report(f"the zombie answered {answers}")
    assert answers["acks=all"] != "NONE", "the zombie acknowledged a record with acks=all"
    cluster.wait_in_sync(TOPIC)
    assert cluster.leader(TOPIC) is not zombie
    producer.stop()
    cluster.wait_in_sync(TOPIC)
    log = read_all(cluster.bootstrap, TOPIC, 1)
    assert b"zombie:all" not in log.values(), "a record that was refused is in the log"
    assert b"zombie:one" not in log.values(), "the zombie did not truncate what only it had"
    report(check(producer, log, []))
    cluster.stop()
    assert_replicas_identical(cluster, TOPIC, 1)
