"""The three experiments of a Kafka beginner's tutorial with kafka-python, and its round trips.

Runs with the newest kafka-python and with 2.0.2, which speaks the oldest versions of the protocol still in wide use.
"""

import threading
import time
from collections import defaultdict

import kafka
import pytest
from conftest import RECORDS, wait_for
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.partitioner.default import murmur2

IS_OLD = kafka.__version__.startswith("2.0")


def create(bootstrap: str, name: str, partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(name, partitions, 3)])
    admin.close()


def read(consumer, count: int, timeout: float = 30.0) -> list:
    """The next `count` records."""
    records = []

    def enough():
        for batch in consumer.poll(timeout_ms=200, max_records=count - len(records)).values():
            records.extend(batch)
        return len(records) >= count

    wait_for(f"{count} records", enough, timeout)
    return records


class Member(threading.Thread):
    """A consumer of a group on a thread of its own."""

    def __init__(self, bootstrap: str, topic: str, group: str):
        super().__init__(daemon=True)
        self.consumer = KafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
            session_timeout_ms=10_000, heartbeat_interval_ms=500, max_poll_interval_ms=20_000,
            metadata_max_age_ms=2_000,
        )
        self.stopping = threading.Event()
        self.partitions: set[int] = set()
        self.values: list[bytes] = []
        self.start()

    def run(self) -> None:
        while not self.stopping.is_set():
            for records in self.consumer.poll(timeout_ms=200).values():
                self.values.extend(record.value for record in records)
            self.partitions = {partition.partition for partition in self.consumer.assignment()}
        self.partitions = set()
        self.consumer.close()

    def stop(self) -> None:
        self.stopping.set()
        self.join(30)
        assert not self.is_alive()


def test_experiment_1_a_producer_and_a_consumer(bootstrap, fresh):
    """The topic is created by its first use."""
    topic = fresh("hello")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(100):
        producer.send(topic, b"message %d" % number)
    producer.flush(30)
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest",
                             consumer_timeout_ms=10_000)
    values = [record.value for record, _ in zip(consumer, range(100))]
    assert values == [b"message %d" % number for number in range(100)]
    consumer.close()
    producer.close()


def test_experiment_2_when_one_of_two_consumers_stops_the_other_takes_both_partitions(bootstrap, fresh):
    topic, group = fresh("two"), fresh("pair")
    create(bootstrap, topic, 2)
    first, second = Member(bootstrap, topic, group), Member(bootstrap, topic, group)
    wait_for("one partition each", lambda: len(first.partitions) == len(second.partitions) == 1
             and first.partitions != second.partitions, 60)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(20):
        producer.send(topic, b"%d" % number, partition=number % 2)
    producer.flush(30)
    wait_for("both halves", lambda: len(first.values) + len(second.values) == 20)
    assert {int(value) % 2 for value in first.values} != {int(value) % 2 for value in second.values}
    second.stop()
    wait_for("both partitions at the one that is left", lambda: first.partitions == {0, 1}, 60)
    before = len(first.values)
    for number in range(20, 40):
        producer.send(topic, b"%d" % number, partition=number % 2)
    producer.flush(30)
    wait_for("all of the second half", lambda: len(first.values) == before + 20)
    assert sorted(map(int, first.values[before:])) == list(range(20, 40))
    first.stop()
    producer.close()


def test_experiment_3_a_restarted_consumer_resumes_and_a_new_group_reads_all(bootstrap, fresh):
    topic, group = fresh("resumed"), fresh("steady")
    create(bootstrap, topic, 1)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(30):
        producer.send(topic, b"%d" % number)
    producer.flush(30)
    options = {"bootstrap_servers": bootstrap, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    first = KafkaConsumer(topic, group_id=group, **options)
    assert [int(record.value) for record in read(first, 10)] == list(range(10))
    first.commit()
    assert first.committed(TopicPartition(topic, 0)) == 10
    # Read but not committed: these come again.
    read(first, 5)
    first.close()
    second = KafkaConsumer(topic, group_id=group, **options)
    assert [int(record.value) for record in read(second, 20)] == list(range(10, 30))
    second.close()
    other = KafkaConsumer(topic, group_id=fresh("newcomer"), **options)
    assert [int(record.value) for record in read(other, 30)] == list(range(30))
    other.close()
    producer.close()


@pytest.mark.parametrize("compression", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_byte_for_byte(bootstrap, fresh, compression):
    topic = fresh("bytes")
    create(bootstrap, topic, 1)
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=compression, linger_ms=20)
    futures = [
        producer.send(topic, key=key, value=value, headers=headers, timestamp_ms=timestamp, partition=0)
        for key, value, headers, timestamp in RECORDS
    ]
    producer.flush(30)
    assert [future.get(10).offset for future in futures] == list(range(len(RECORDS)))
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    records = read(consumer, len(RECORDS))
    assert [(r.key, r.value, list(r.headers), r.timestamp) for r in records] == RECORDS
    assert [r.offset for r in records] == list(range(len(RECORDS)))
    consumer.close()
    producer.close()


@pytest.mark.skipif(IS_OLD, reason="kafka-python 2.0.2 has no idempotent producer")
@pytest.mark.parametrize("idempotence", [True, False])
def test_idempotence_on_and_off(bootstrap, fresh, idempotence):
    topic = fresh("idempotent")
    create(bootstrap, topic, 1)
    producer = KafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=idempotence, acks="all")
    futures = [producer.send(topic, b"%d" % number) for number in range(500)]
    producer.flush(30)
    assert [future.get(10).offset for future in futures] == list(range(500))
    producer.close()


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_level_of_acknowledgement(bootstrap, fresh, acks):
    topic = fresh("acks")
    create(bootstrap, topic, 1)
    options = {} if IS_OLD else {"enable_idempotence": False}
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks=acks, **options)
    for number in range(50):
        producer.send(topic, b"%d" % number)
    producer.flush(30)
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    assert [int(record.value) for record in read(consumer, 50)] == list(range(50))
    consumer.close()
    producer.close()


def test_keys_decide_partitions(bootstrap, fresh):
    topic = fresh("keyed")
    create(bootstrap, topic, 6)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for number in range(300):
        producer.send(topic, key=b"key-%d" % (number % 30), value=b"%d" % number)
    producer.flush(30)
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    values = defaultdict(list)
    for record in read(consumer, 300):
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 6
        values[record.key].append(int(record.value))
    assert len(values) == 30 and all(numbers == sorted(numbers) for numbers in values.values())
    consumer.close()
    producer.close()


def test_offsets_by_time_and_ends(bootstrap, fresh):
    topic = fresh("times")
    create(bootstrap, topic, 1)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    start = int(time.time() * 1000) - 60_000
    for number in range(10):
        producer.send(topic, b"%d" % number, timestamp_ms=start + 1_000 * number).get(30)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partition = TopicPartition(topic, 0)
    found = consumer.offsets_for_times({partition: start + 4_500})[partition]
    assert (found.offset, found.timestamp) == (5, start + 5_000)
    assert consumer.beginning_offsets([partition]) == {partition: 0}
    assert consumer.end_offsets([partition]) == {partition: 10}
    consumer.close()
    producer.close()


def test_admin_calls(bootstrap, fresh):
    topic, group = fresh("managed"), fresh("managers")
    create(bootstrap, topic, 3)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    assert topic in admin.list_topics()
    (described,) = admin.describe_topics([topic])
    assert len(described["partitions"]) == 3
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest")
    consumer.poll(timeout_ms=5_000)
    wait_for("an assignment", lambda: consumer.poll(timeout_ms=100) is not None and consumer.assignment())
    consumer.commit()
    list_groups = admin.list_consumer_groups if IS_OLD else admin.list_groups
    wait_for("the group to be listed", lambda: any(group in str(listed) for listed in list_groups()), 10)
    consumer.close()
    admin.delete_topics([topic])
    wait_for("the topic to be gone", lambda: topic not in admin.list_topics())
    admin.close()
