"""Two of three brokers down (issue 2, item 6)."""

import time

from confluent_kafka import Producer

from conftest import create_topic
from harness import wire
from harness.history import EAGER, read_all
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for

TOPIC = "scarce"


def try_produce(broker, value: bytes, timeout_ms: int = 2_000, acks: int = -1) -> str:
    try:
        with wire.Connection(broker.port) as connection:
            return wire.produce(connection, TOPIC, 0, wire.record_batch([value]), acks, timeout_ms)[0]
    except (OSError, wire.ConnectionClosed) as error:
        return f"no answer: {error}"


def produce_until_accepted(cluster, value: bytes) -> None:
    wait_for("a record to be accepted", lambda: try_produce(cluster.leader(TOPIC), value) == "NONE", timeout=60)


def test_with_a_controller_alive_writes_are_refused_with_not_enough_replicas(make_cluster, report):
    cluster = make_cluster(separate_controller=True)
    create_topic(cluster, TOPIC)
    accepted = []
    for number in range(20):
        produce_until_accepted(cluster, b"before-%d" % number)
        accepted.append(b"before-%d" % number)
    survivor = cluster.leader(TOPIC)
    gone = cluster.others(survivor)
    for broker in gone:
        broker.kill()
    killed = time.monotonic()
    answers = []

    def refused():
        answers.append(try_produce(survivor, b"refused", timeout_ms=500))
        assert answers[-1] != "NONE", "a record was acknowledged with one replica in sync"
        return answers[-1] == "NOT_ENOUGH_REPLICAS"

    wait_for("NOT_ENOUGH_REPLICAS", refused, timeout=60)
    report(f"NOT_ENOUGH_REPLICAS {time.monotonic() - killed:.1f} s after the kills; until then {sorted(set(answers))}")
    assert try_produce(survivor, b"refused-again") == "NOT_ENOUGH_REPLICAS"
    gone[0].start()
    produce_until_accepted(cluster, b"after")
    accepted.append(b"after")
    gone[1].start()
    cluster.wait_in_sync(TOPIC)
    values = list(read_all(cluster.bootstrap, TOPIC, 1).values())
    missing = [value for value in accepted if value not in values]
    assert not missing, f"lost: {missing}"
    assert b"refused-again" not in values
    cluster.stop()
    assert_replicas_identical(cluster, TOPIC, 1)


def refusal_of_a_client(producer: Producer, value: bytes) -> str:
    """The error that a client which does not retry gets for one record; empty if it was acknowledged."""
    errors = []
    producer.produce(TOPIC, value, on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    return errors[0].name() if errors and errors[0] else "" if errors else "no report"


def test_the_last_of_three_combined_nodes_refuses_acks_all_with_not_enough_replicas(cluster, report):
    create_topic(cluster, TOPIC)
    accepted = [b"before-%d" % number for number in range(20)]
    for value in accepted:
        produce_until_accepted(cluster, value)
    survivor = cluster.leader(TOPIC)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "retries": 0, **EAGER})
    assert refusal_of_a_client(producer, b"client") == ""
    accepted.append(b"client")
    gone = cluster.others(survivor)
    for broker in gone:
        broker.kill()
    killed = time.monotonic()
    answers = []

    def refused():
        answers.append(try_produce(survivor, b"refused-%d" % len(answers), timeout_ms=5_000))
        assert answers[-1] != "NONE", "a record was acknowledged with one broker of three alive"
        return answers[-1] == "NOT_ENOUGH_REPLICAS"

    wait_for("NOT_ENOUGH_REPLICAS", refused, timeout=30)
    report(f"NOT_ENOUGH_REPLICAS {time.monotonic() - killed:.1f} s after the kills; until then {sorted(set(answers))}")
    assert refusal_of_a_client(producer, b"refused-client") == "NOT_ENOUGH_REPLICAS"
    # That lasts, and only acks=all is told so: nobody is served without a session.
    until = time.monotonic() + 4
    while time.monotonic() < until:
        assert try_produce(survivor, b"refused-later") == "NOT_ENOUGH_REPLICAS"
        assert try_produce(survivor, b"refused-acks-1", acks=1) == "NOT_LEADER_OR_FOLLOWER"
        time.sleep(0.05)

    gone[0].start()
    started = time.monotonic()
    produce_until_accepted(cluster, b"after")
    accepted.append(b"after")
    report(f"service resumed {time.monotonic() - started:.1f} s after the second broker's start")
    two = sorted([survivor.node_id, gone[0].node_id])
    wait_for("the isr to shrink", lambda: sorted(cluster.topic(TOPIC)[0]["isr"]) == two)
    gone[1].start()
    cluster.wait_in_sync(TOPIC)
    values = list(read_all(cluster.bootstrap, TOPIC, 1).values())
    missing = [value for value in accepted if value not in values]
    assert not missing, f"lost: {missing}"
    appended = [b"refused-%d" % number for number, answer in enumerate(answers) if answer != "NOT_ENOUGH_REPLICAS"]
    wrong = [value for value in values if value.startswith(b"refused") and value not in appended]
    assert not wrong, f"refused before the append, and in the log: {wrong}"
    cluster.stop()
    assert_replicas_identical(cluster, TOPIC, 1)
