"""Whatever arrives on a client port: a proper error or a closed connection, and a broker that stays up (item 7)."""

import random
import socket
import struct

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from conftest import create_topic
from harness import wire
from harness.history import EAGER
from harness.processes import wait_for

#: What the broker may hold beyond what it held before.
MEMORY_LIMIT = 192 * 1024 * 1024


@pytest.fixture
def broker(make_cluster):
    cluster = make_cluster(1)
    create_topic(cluster, "victim", replicas=1)
    broker = cluster.brokers[0]
    broker.cluster = cluster
    before = broker.resident_bytes()
    yield broker
    assert broker.runs(), "the broker died"
    assert_serves(broker)
    grown = broker.resident_bytes() - before
    assert grown < MEMORY_LIMIT, f"the broker grew by {grown >> 20} MiB"
    assert "panicked" not in broker.log_text()


def assert_serves(broker) -> None:
    with wire.Connection(broker.port) as connection:
        error, _ = wire.produce(connection, "victim", 0, wire.record_batch([b"still here"]))
        assert error == "NONE"


def throw(broker, data: bytes, hang_up: bool = True) -> bytes | None:
    """Sends bytes and returns what came back until the broker closed; `None` if it kept the connection open."""
    with socket.create_connection(("127.0.0.1", broker.port), 5) as thrown:
        try:
            thrown.sendall(data)
            if hang_up:
                thrown.shutdown(socket.SHUT_WR)
            thrown.settimeout(5 if hang_up else 1)
            answer = b""
            while part := thrown.recv(65_536):
                answer += part
            return answer
        except (ConnectionResetError, BrokenPipeError):
            return b""
        except TimeoutError:
            return None


def framed(data: bytes) -> bytes:
    return struct.pack(">i", len(data)) + data


def test_random_bytes(broker):
    generator = random.Random(1)
    for _ in range(300):
        throw(broker, generator.randbytes(generator.randrange(1, 2_000)))
    for _ in range(300):
        throw(broker, framed(generator.randbytes(generator.randrange(1, 2_000))))


def test_truncated_frames(broker):
    whole = framed(struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0))
    for cut in range(len(whole)):
        assert throw(broker, whole[:cut]) == b""


def test_oversized_and_negative_frame_lengths_close_the_connection(broker):
    for length in (-1, -2**31, 0, 2**31 - 1, 100 * 1024 * 1024 + 1):
        answer = throw(broker, struct.pack(">i", length) + b"x" * 1_000, hang_up=False)
        assert answer == b"", f"length {length}: {answer!r}"
    assert "largest" in broker.log_text() or "frame" in broker.log_text(), "no log line says why"


def test_many_connections_that_announce_large_frames_hold_no_memory(broker):
    connections = []
    before = broker.resident_bytes()
    for _ in range(100):
        connection = socket.create_connection(("127.0.0.1", broker.port), 5)
        connection.sendall(struct.pack(">i", 100 * 1024 * 1024) + b"x" * 100)
        connections.append(connection)
    assert_serves(broker)
    grown = broker.resident_bytes() - before
    assert grown < MEMORY_LIMIT, f"100 announced frames took {grown >> 20} MiB"
    for connection in connections:
        connection.close()


def test_hostile_lengths_in_every_request_type(broker):
    with wire.Connection(broker.port) as connection:
        ranges = wire.api_versions(connection)
    bodies = [
        b"", b"\x7f\xff\xff\xff" * 16, b"\xff" * 64, b"\x00" * 64, b"\xff\xff\xff\xff\x0f" * 16, b"\x7f\xff" * 32,
        b"\x00\x00\x00\x01" * 16, b"\x01" * 64, b"\x80" * 64, b"\x00\x00\x7f\xff\xff\xff" * 8,
    ]
    generator = random.Random(2)
    for key, (low, high) in sorted(ranges.items()):
        for version in {low, (low + high) // 2, high}:
            for body in [*bodies, *(generator.randbytes(generator.randrange(200)) for _ in range(6))]:
                if key == wire.UNREGISTER_BROKER and b"\0\0\0\x01" in body:
                    continue  # Nothing hostile: it would send broker 1 away.
                for prefix in (b"", b"\0", b"\0\x02a", b"\0\x01a\0\0"):
                    frame = struct.pack(">hhih", key, version, 7, -1) + prefix + body
                    with socket.create_connection(("127.0.0.1", broker.port), 5) as thrown:
                        thrown.sendall(framed(frame))
                        thrown.shutdown(socket.SHUT_WR)
        assert broker.runs(), f"the broker died of key {key}"
        assert_serves(broker)


def test_unknown_keys_close_the_connection_and_the_log_says_why(broker):
    for key in (-1, 98, 1_000, 32_767):
        assert throw(broker, framed(struct.pack(">hhih", key, 0, 1, -1))) == b""
    assert "32767" in broker.log_text()


def test_unknown_versions(broker):
    with wire.Connection(broker.port) as connection:
        ranges = wire.api_versions(connection)
        # ApiVersions alone is answered: in version 0, with the range that is supported.
        reader = connection.call(wire.API_VERSIONS, 99, b"")
        assert wire.ERRORS[reader.int16()] == "UNSUPPORTED_VERSION"
        supported = {key: (low, high) for key, low, high in
                     reader.array(lambda: (reader.int16(), reader.int16(), reader.int16()))}
        assert supported[wire.API_VERSIONS] == ranges[wire.API_VERSIONS]
    for key, (_, high) in ranges.items():
        if key != wire.API_VERSIONS:
            answer = throw(broker, framed(struct.pack(">hhih", key, high + 1, 1, -1) + b"\0" * 32))
            assert answer == b"", f"key {key} version {high + 1} was answered"


def test_corrupt_batches_are_refused_with_the_right_error(broker):
    good = wire.record_batch([b"a", b"b"])
    wrong_format = {"CORRUPT_MESSAGE", "INVALID_RECORD", "UNSUPPORTED_FOR_MESSAGE_FORMAT"}
    cases = {
        "bad CRC": (wire.record_batch([b"a"], crc=1), {"CORRUPT_MESSAGE"}),
        "flipped bit": (good[:-1] + bytes([good[-1] ^ 1]), {"CORRUPT_MESSAGE"}),
        "unknown magic": (wire.record_batch([b"a"], magic=3), wrong_format),
        "old magic": (wire.record_batch([b"a"], magic=1), wrong_format),
        "cut short": (good[:-3], {"CORRUPT_MESSAGE", "INVALID_RECORD"}),
        "length too long": (wire.record_batch([b"a"], length=2**31 - 1), {"CORRUPT_MESSAGE", "INVALID_RECORD"}),
        "negative length": (wire.record_batch([b"a"], length=-5), {"CORRUPT_MESSAGE", "INVALID_RECORD"}),
        "wrong count": (wire.record_batch([b"a"], record_count=1_000_000), {"INVALID_RECORD", "CORRUPT_MESSAGE"}),
        "a control batch": (wire.record_batch([b"a"], attributes=0x20), {"INVALID_RECORD"}),
        "two batches": (good + good, {"INVALID_RECORD"}),
        "nothing": (b"", {"INVALID_RECORD", "CORRUPT_MESSAGE"}),
    }
    wrong = {}
    with wire.Connection(broker.port) as connection:
        for name, (batch, allowed) in cases.items():
            error, _ = wire.produce(connection, "victim", 0, batch)
            if error not in allowed:
                wrong[name] = error
    assert not wrong, wrong


def test_records_too_large(broker):
    with wire.Connection(broker.port, 30) as connection:
        error, _ = wire.produce(connection, "victim", 0, wire.record_batch([b"x" * 1_100_000]))
        assert error == "MESSAGE_TOO_LARGE"
        error, _ = wire.produce(connection, "victim", 0, wire.record_batch([b"x" * 1_000_000]))
        assert error == "NONE"


def test_impossible_topics_are_refused_with_the_right_error(broker):
    admin = AdminClient({"bootstrap.servers": broker.cluster.bootstrap, **EAGER})
    cases = {
        "a b": (NewTopic("a b", 1, 1), "INVALID_TOPIC_EXCEPTION"),
        "..": (NewTopic("..", 1, 1), "INVALID_TOPIC_EXCEPTION"),
        "long": (NewTopic("x" * 250, 1, 1), "INVALID_TOPIC_EXCEPTION"),
        "slash": (NewTopic("a/../b", 1, 1), "INVALID_TOPIC_EXCEPTION"),
        "replicas": (NewTopic("replicas", 1, 5), "INVALID_REPLICATION_FACTOR"),
        "assignment": (NewTopic("assignment", 1, replica_assignment=[[7]]), "INVALID_REPLICA_ASSIGNMENT"),
        "config": (NewTopic("config", 1, 1, config={"no.such.config": "1"}), "INVALID_CONFIG"),
        "value": (NewTopic("value", 1, 1, config={"retention.ms": "soon"}), "INVALID_CONFIG"),
        "exists": (NewTopic("victim", 1, 1), "TOPIC_ALREADY_EXISTS"),
    }
    for name, (topic, expected) in cases.items():
        (future,) = admin.create_topics([topic]).values()
        with pytest.raises(KafkaException) as raised:
            future.result(20)
        code = raised.value.args[0].code()
        assert wire.ERRORS.get(code, str(code)) == expected, f"{name}: {raised.value}"


def test_a_slow_reader_of_large_answers_holds_bounded_memory(broker):
    with wire.Connection(broker.port, 30) as connection:
        for _ in range(32):
            wire.produce(connection, "victim", 0, wire.record_batch([b"y" * 900_000]))
    # Fetch version 4: everything from offset 0, again and again, without reading a single answer.
    body = struct.pack(">iiiib", -1, 100, 1, 50_000_000, 0) + struct.pack(">i", 1) + wire.string("victim")
    body += struct.pack(">iiqi", 1, 0, 0, 50_000_000)
    connections = []
    before = broker.resident_bytes()
    for _ in range(4):
        connection = wire.Connection(broker.port, 2)
        try:
            for _ in range(200):
                connection.send(1, 4, body)
        except TimeoutError:
            pass
        connections.append(connection)
    wait_for("the broker to serve others", lambda: assert_serves(broker) or True)
    # Four connections, each with at most one answer of the largest size under way.
    grown = broker.resident_bytes() - before
    assert grown < 4 * 57_671_680 + MEMORY_LIMIT, f"unread answers took {grown >> 20} MiB"
    for connection in connections:
        connection.socket.close()
    wait_for("the memory to be given back", lambda: broker.resident_bytes() - before < MEMORY_LIMIT)
