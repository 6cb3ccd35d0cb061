"""Consumers that ask for much and read nothing: they hold up nobody, and cost the broker little (issue 3)."""

import socket
import struct
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from conftest import create_topic
from harness import wire
from harness.history import EAGER
from harness.log_files import partition_directory
from harness.processes import wait_for

TOPIC = "much"
MIB = 1 << 20
FETCH, OFFSET_OUT_OF_RANGE = 1, 1

#: Batches of 100 kB, of which the first segment holds 335.
BATCHES, SEGMENT = 500, 32 * MIB
READERS, REQUESTS = 16, 20


class SlowReader(wire.Connection):
    """Asks for everything from an offset on, again and again. The kernel takes little of the answers while nobody reads
    them."""

    def __init__(self, broker, offset: int):
        self.offset = offset
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        self.socket.settimeout(30)
        self.socket.connect((broker.home.host, broker.port))
        self.correlation_id = 0

    def ask(self) -> None:
        partition = struct.pack(">iqi", 0, self.offset, 50 * MIB)
        body = struct.pack(">iiiibi", -1, 500, 1, 50 * MIB, 0, 1) + wire.string(TOPIC)
        for _ in range(REQUESTS):
            self.send(FETCH, 4, body + struct.pack(">i", 1) + partition)

    def receive_records(self) -> tuple[int, bytes]:
        """The error and the records of the next answer."""
        reader = self.receive()
        reader.int32()
        assert reader.int32() == 1 and reader.string() == TOPIC and reader.int32() == 1
        reader.int32()
        error = reader.int16()
        reader.take(16)
        reader.array(lambda: reader.take(16))
        return error, reader.take(max(reader.int32(), 0))


def fetches_begun(broker) -> int:
    status, text = broker.get("/metrics")
    assert status == 200
    name = 'vltava_request_duration_seconds_count{api="Fetch"} '
    return sum(int(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def write(cluster, count: int) -> float:
    """So many batches, each a record of 100 kB; the longest time that one took."""
    longest, sent = 0.0, time.monotonic()

    def delivered(error, _message):
        nonlocal longest
        assert error is None
        longest = max(longest, time.monotonic() - sent)

    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all", "linger.ms": 0, **EAGER})
    for number in range(count):
        sent = time.monotonic()
        producer.produce(TOPIC, value=f"{number:08}".encode() * 12_500, partition=0, on_delivery=delivered)
        assert producer.flush(30) == 0
    return longest


def read_at(cluster, offset: int) -> bytes:
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "quick", "enable.auto.commit": False, **EAGER})
    consumer.assign([TopicPartition(TOPIC, 0, offset)])
    message = consumer.poll(20)
    consumer.close()
    assert message is not None and message.error() is None and message.offset() == offset
    return message.value()


@pytest.mark.parametrize("is_checked", [True, False], ids=["sent from files", "read through memory"])
def test_slow_readers_hold_up_nobody_and_cost_little_memory(make_cluster, report, is_checked):
    """A broker sends from files what it has checked. What an earlier process wrote passes through its memory first."""
    cluster = make_cluster(1, log_retention_check_interval_ms="500", log_segment_delete_delay_ms="200")
    broker = cluster.brokers[0]
    create_topic(cluster, TOPIC, replicas=1, segment_bytes=str(SEGMENT))
    write(cluster, BATCHES)
    if not is_checked:
        broker.stop()
        cluster.start()
        cluster.wait_in_sync(TOPIC)
    directory = partition_directory(broker, TOPIC, 0)
    segments = sorted(directory.glob("*.log"))
    assert [int(segment.stem) for segment in segments] == [0, 335]
    expected = segments[0].read_bytes()
    batch_size = len(expected) // 335
    read_at(cluster, BATCHES - 1)
    before, begun_before = broker.resident_bytes(), fetches_begun(broker)

    # Backwards: each asks for something that nobody has read before.
    readers = [SlowReader(broker, offset) for offset in range(320, 0, -20)]
    assert len(readers) == READERS
    for count, reader in enumerate(readers):
        reader.ask()
        wait_for("a first answer", lambda: fetches_begun(broker) > begun_before + count)
    # Until nothing moves any more.
    time.sleep(2)
    begun = fetches_begun(broker) - begun_before
    held = broker.resident_bytes() - before
    asked = REQUESTS * sum(len(expected) - reader.offset * batch_size for reader in readers)
    report(f"{begun} of {READERS * REQUESTS} requests begun; {held / MIB:.0f} MiB held of {asked // MIB} MiB asked for")
    time.sleep(2)
    assert fetches_begun(broker) - begun_before == begun, "requests are begun although nobody reads the answers"
    assert begun < READERS * REQUESTS / 4
    # One answer a reader: nothing of what is in files, 4 MiB of what is not.
    assert held < READERS * (1 if is_checked else 6) * MIB

    # Others write and read the same partition, and its oldest segments go.
    longest = write(cluster, 50)
    assert longest < 2, f"a record of 100 kB took {longest:.1f} s"
    started = time.monotonic()
    assert read_at(cluster, BATCHES + 49) == b"00000049" * 12_500
    assert read_at(cluster, 3) == b"00000003" * 12_500
    report(f"beside them: a record acknowledged within {longest * 1000:.0f} ms, two read in {time.monotonic() - started:.1f} s")
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
    deleted = admin.delete_records([TopicPartition(TOPIC, 0, BATCHES - 1)])
    assert next(iter(deleted.values())).result(20).low_watermark == BATCHES - 1
    wait_for("the segments to go", lambda: not any(directory.glob(f"{segments[0].stem}*")))

    # What was begun before that comes out whole, and is what was written.
    for reader in readers:
        answers = [reader.receive_records() for _ in range(REQUESTS)]
        whole = [records for error, records in answers if error == 0]
        assert len(whole) >= 1 and all(error in (0, OFFSET_OUT_OF_RANGE) for error, _ in answers)
        for records in whole:
            rest = expected[reader.offset * batch_size:]
            assert len(records) >= min(4 * MIB - 200_000, len(rest)) and rest.startswith(records)
        reader.socket.close()
    (length,) = struct.unpack_from(">i", expected, 8)
    assert wire.crc32c(expected[21:12 + length]) == struct.unpack_from(">I", expected, 17)[0]
