"""Round trips with confluent-kafka (librdkafka), the newest and 2.6.1."""

import time
from collections import defaultdict

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType,
)
from conftest import RECORDS, wait_for


def create(bootstrap: str, name: str, partitions: int = 1, **configs: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    topic = NewTopic(name, partitions, 3, config={key.replace("_", "."): value for key, value in configs.items()})
    admin.create_topics([topic])[name].result(30)


def produce(bootstrap: str, topic: str, records: list[dict], **settings) -> list[tuple[int, int]]:
    """Produces and returns partition and offset of each record."""
    places, errors = {}, []
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, **settings})

    def delivered(index):
        def note(error, message):
            if error:
                errors.append(error)
            places[index] = (message.partition(), message.offset())
        return note

    for index, record in enumerate(records):
        producer.produce(topic, on_delivery=delivered(index), **record)
    assert producer.flush(60) == 0
    assert not errors, errors
    return [places[index] for index in range(len(records))]


def read(consumer: Consumer, count: int, timeout: float = 30.0) -> list:
    messages = []

    def enough():
        for message in consumer.consume(count - len(messages), 0.2):
            assert message.error() is None, message.error()
            messages.append(message)
        return len(messages) >= count

    wait_for(f"{count} records", enough, timeout)
    return messages


def consumer_of(bootstrap: str, group: str, *topics: str, **settings) -> Consumer:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                         "session.timeout.ms": 10_000, "heartbeat.interval.ms": 500, **settings})
    consumer.subscribe(list(topics))
    return consumer


@pytest.mark.parametrize("idempotence", [True, False])
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_byte_for_byte(bootstrap, fresh, codec, idempotence):
    topic = fresh("bytes")
    create(bootstrap, topic)
    records = [{"key": key, "value": value, "headers": headers, "timestamp": timestamp, "partition": 0}
               for key, value, headers, timestamp in RECORDS]
    places = produce(bootstrap, topic, records, **{"compression.type": codec, "enable.idempotence": idempotence})
    assert places == [(0, offset) for offset in range(len(RECORDS))]
    consumer = consumer_of(bootstrap, fresh("readers"), topic)
    messages = read(consumer, len(RECORDS))
    assert [(m.key(), m.value(), m.headers() or [], m.timestamp()) for m in messages] == [
        (key, value, headers, (TIMESTAMP_CREATE_TIME, timestamp)) for key, value, headers, timestamp in RECORDS
    ]
    consumer.close()


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_many_records_in_many_batches(bootstrap, fresh, codec):
    topic = fresh("many")
    create(bootstrap, topic, 3)
    records = [{"key": b"%d" % (number % 17), "value": b"%d:" % number + b"x" * (number % 700)}
               for number in range(20_000)]
    places = produce(bootstrap, topic, records, **{"compression.type": codec, "enable.idempotence": True})
    assert len(set(places)) == len(records)
    consumer = consumer_of(bootstrap, fresh("readers"), topic)
    by_key = defaultdict(list)
    for message in read(consumer, len(records), 60):
        by_key[message.key()].append(int(message.value().partition(b":")[0]))
    assert all(numbers == sorted(set(numbers)) for numbers in by_key.values())
    assert sum(map(len, by_key.values())) == len(records)
    consumer.close()


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_group_shares_and_hands_over_partitions(bootstrap, fresh, strategy):
    topic, group = fresh("shared"), fresh("sharers")
    create(bootstrap, topic, 4)
    settings = {"partition.assignment.strategy": strategy}
    members = [consumer_of(bootstrap, group, topic, **settings) for _ in range(2)]

    def spread():
        for member in members:
            member.poll(0.05)
        return sorted(len(member.assignment()) for member in members) == [2, 2]

    wait_for("two partitions each", spread, 60)
    members.pop().close()

    def taken_over():
        members[0].poll(0.05)
        return len(members[0].assignment()) == 4

    wait_for("all partitions at the one that is left", taken_over, 60)
    members[0].close()


def test_a_static_member_keeps_its_partitions_over_a_restart(bootstrap, fresh):
    topic, group = fresh("static"), fresh("statics")
    create(bootstrap, topic, 2)
    names = ["one", "two"]
    members = [consumer_of(bootstrap, group, topic, **{"group.instance.id": name}) for name in names]

    def assigned():
        for member in members:
            member.poll(0.05)
        return all(len(member.assignment()) == 1 for member in members)

    wait_for("one partition each", assigned, 60)
    before = members[0].assignment()
    members[0].close()
    members[0] = consumer_of(bootstrap, group, topic, **{"group.instance.id": "one"})
    wait_for("its partition again", assigned, 60)
    assert members[0].assignment() == before
    for member in members:
        member.close()


def test_committed_offsets_and_their_metadata_come_back(bootstrap, fresh):
    topic, group = fresh("committed"), fresh("committers")
    create(bootstrap, topic, 2)
    produce(bootstrap, topic, [{"value": b"x", "partition": number % 2} for number in range(20)])
    consumer = consumer_of(bootstrap, group, topic, **{"enable.auto.commit": False})
    read(consumer, 20)
    consumer.commit(offsets=[TopicPartition(topic, 0, 7, metadata="poznámka"), TopicPartition(topic, 1, 3)],
                    asynchronous=False)
    committed = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], 30)
    assert [(p.offset, p.metadata) for p in committed] == [(7, "poznámka"), (3, None)] or \
        [(p.offset, p.metadata or "") for p in committed] == [(7, "poznámka"), (3, "")]
    consumer.close()
    again = consumer_of(bootstrap, group, topic)
    assert {(m.partition(), m.offset()) for m in read(again, 10)} == (
        {(0, offset) for offset in range(7, 10)} | {(1, offset) for offset in range(3, 10)})
    again.close()


def test_configs_partitions_and_offsets_through_the_admin_client(bootstrap, fresh):
    topic = fresh("managed")
    create(bootstrap, topic, 1, retention_ms="86400000")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    resource = ConfigResource(ResourceType.TOPIC, topic)

    def configs():
        (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return {name: entry.value for name, entry in future.result(30).items()}

    assert configs()["retention.ms"] == "86400000"
    set_size = ConfigEntry("segment.bytes", "2097152", incremental_operation=AlterConfigOpType.SET)
    resource.add_incremental_config(set_size)
    (future,) = admin.incremental_alter_configs([resource]).values()
    future.result(30)
    wait_for("the new value", lambda: configs()["segment.bytes"] == "2097152")
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    wait_for("four partitions", lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == 4)
    produce(bootstrap, topic, [{"value": b"x", "partition": 2} for _ in range(5)])
    partition = TopicPartition(topic, 2)
    (latest,) = admin.list_offsets({partition: OffsetSpec.latest()}).values()
    assert latest.result(30).offset == 5
    cluster = admin.describe_cluster().result(30)
    assert len(cluster.nodes) == 3 and cluster.cluster_id
    admin.delete_topics([topic])[topic].result(30)


def test_a_long_poll_returns_as_soon_as_there_is_something(bootstrap, fresh):
    topic = fresh("tail")
    create(bootstrap, topic)
    consumer = consumer_of(bootstrap, fresh("tailers"), topic, **{"fetch.wait.max.ms": 10_000})
    wait_for("an assignment", lambda: consumer.poll(0.05) is None and consumer.assignment())
    time.sleep(1)
    produced = time.monotonic()
    produce(bootstrap, topic, [{"value": b"now"}], **{"linger.ms": 0})
    assert consumer.poll(10).value() == b"now"
    assert time.monotonic() - produced < 3
    consumer.close()
