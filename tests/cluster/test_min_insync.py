"""Two of three brokers down (issue 2, item 6)."""

import time

from conftest import create_topic
from harness import wire
from harness.history import read_all
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for

TOPIC = "scarce"


def try_produce(broker, value: bytes, timeout_ms: int = 2_000) -> str:
    try:
        with wire.Connection(broker.port) as connection:
            return wire.produce(connection, TOPIC, 0, wire.record_batch([value]), timeout_ms=timeout_ms)[0]
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


def test_without_a_metadata_quorum_nothing_is_acknowledged_and_service_resumes(cluster, report):
    create_topic(cluster, TOPIC)
    produce_until_accepted(cluster, b"before")
    survivor = cluster.leader(TOPIC)
    gone = cluster.others(survivor)
    for broker in gone:
        broker.kill()
    answers = {try_produce(survivor, b"refused-%d" % number, timeout_ms=500) for number in range(12)}
    report(f"one broker of three, and no quorum: {sorted(answers)}")
    assert "NONE" not in answers
    gone[0].start()
    started = time.monotonic()
    produce_until_accepted(cluster, b"after")
    report(f"service resumed {time.monotonic() - started:.1f} s after the second broker's start")
    gone[1].start()
    cluster.wait_in_sync(TOPIC)
    values = list(read_all(cluster.bootstrap, TOPIC, 1).values())
    assert b"before" in values and b"after" in values
    cluster.stop()
    assert_replicas_identical(cluster, TOPIC, 1)
