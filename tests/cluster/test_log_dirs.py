"""Several log directories: replicas move between them under load (KIP-113), and one of them may fail (issue 3)."""

import struct
import time
from pathlib import Path

import pytest

from conftest import create_topic
from harness import wire
from harness.history import RunningProducer, check, read_all
from harness.log_files import batches
from harness.processes import Cluster, wait_for

TOPIC = "moved"
ALTER_REPLICA_LOG_DIRS, DESCRIBE_LOG_DIRS = 34, 35


@pytest.fixture
def two_directories(tmp_path):
    cluster = Cluster(tmp_path / "cluster", 3, log_segment_bytes=str(1 << 20))
    for broker in cluster.brokers:
        broker.settings["log.dirs"] = f"{broker.directory / 'a'},{broker.directory / 'b'}"
    yield cluster.start()
    for node in cluster.nodes:
        print(f"--- the end of {node.log_file}:")
        print("\n".join(node.log_text().splitlines()[-30:]))
    cluster.destroy()


def string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def alter_replica_log_dir(broker, path: Path, topic: str, partition: int) -> int:
    body = struct.pack(">i", 1) + string(str(path)) + struct.pack(">i", 1) + string(topic) + \
        struct.pack(">ii", 1, partition)
    with wire.Connection(broker.port) as connection:
        reader = connection.call(ALTER_REPLICA_LOG_DIRS, 1, body)
    assert reader.int32() == 0
    [[code]] = reader.array(lambda: (reader.string(), reader.array(lambda: (reader.int32(), reader.int16())[1]))[1])
    return code


def describe_log_dirs(broker) -> dict[str, tuple[int, dict]]:
    """Directory name -> its error and, of each replica, size, lag and whether it is on its way there."""
    with wire.Connection(broker.port) as connection:
        reader = connection.call(DESCRIBE_LOG_DIRS, 1, struct.pack(">i", -1))
    assert reader.int32() == 0

    def partition(topic):
        return (topic, reader.int32()), (reader.int64(), reader.int64(), bool(reader.int8()))

    def topic():
        name = reader.string()
        return reader.array(lambda: partition(name))

    def directory():
        error, path = reader.int16(), reader.string()
        return Path(path).name, (error, dict(sum(reader.array(topic), [])))

    return dict(reader.array(directory))


def place(broker) -> list[str]:
    return [name for name in ("a", "b") if (broker.directory / name / f"{TOPIC}-0").exists()]


def test_replicas_move_under_load_and_nothing_is_lost(two_directories, report):
    cluster = two_directories
    create_topic(cluster, TOPIC, partitions=1)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=1_000).start()
    moment = time.monotonic() + 2
    wait_for("records", lambda: producer.produced_after(moment, 0))
    assert alter_replica_log_dir(cluster.brokers[0], Path("/nowhere"), TOPIC, 0) == 57
    for broker in cluster.brokers:
        [source] = place(broker)
        target = "b" if source == "a" else "a"
        started = time.monotonic()
        assert alter_replica_log_dir(broker, broker.directory / target, TOPIC, 0) == 0
        wait_for("the move", lambda: place(broker) == [target])
        report(f"broker {broker.node_id} moved its replica in {time.monotonic() - started:.2f} s")
        described = describe_log_dirs(broker)
        assert described[target][0] == 0
        size, _, is_future = described[target][1][TOPIC, 0]
        assert size > 0 and not is_future
        moment = time.monotonic()
        wait_for("records", lambda: producer.produced_after(moment, 0))
    # The one that has moved is the one that counts after a crash.
    victim = cluster.leader(TOPIC)
    victim.kill()
    victim.start()
    cluster.wait_in_sync(TOPIC)
    producer.stop()
    assert not producer.failures
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 1), []))
    cluster.wait_in_sync(TOPIC)
    cluster.stop()
    replicas = [batches(broker.directory / place(broker)[0] / f"{TOPIC}-0") for broker in cluster.brokers]
    assert replicas[0] and replicas[0] == replicas[1] == replicas[2]


def test_without_one_of_its_directories_a_broker_serves_the_others(two_directories, report):
    cluster = two_directories
    create_topic(cluster, TOPIC, partitions=4)
    producer = RunningProducer(cluster.bootstrap, TOPIC, per_second=1_000).start()
    moment = time.monotonic() + 1
    wait_for("records", lambda: all(producer.produced_after(moment, partition) for partition in range(4)))
    victim = cluster.brokers[0]
    victim.stop()
    # Somebody pulls a disk: there is something in its place that is no directory.
    (victim.directory / "b").rename(victim.directory / "pulled")
    (victim.directory / "b").write_text("no disk")
    victim.start()
    in_a = [p for p in range(4) if (victim.directory / "a" / f"{TOPIC}-{p}").exists()]
    assert 0 < len(in_a) < 4
    wait_for("the replicas of the other directory", lambda: all(
        (victim.node_id in cluster.topic(TOPIC)[p]["isr"]) == (p in in_a) for p in range(4)
    ))
    assert describe_log_dirs(victim)["b"][0] == 56
    moment = time.monotonic()
    wait_for("records", lambda: all(producer.produced_after(moment, partition) for partition in range(4)))
    victim.stop()
    (victim.directory / "b").unlink()
    (victim.directory / "pulled").rename(victim.directory / "b")
    victim.start()
    cluster.wait_in_sync(TOPIC)
    producer.stop()
    assert not producer.failures
    report(check(producer, read_all(cluster.bootstrap, TOPIC, 4), []))
