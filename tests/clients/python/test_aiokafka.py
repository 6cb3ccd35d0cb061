"""Round trips with aiokafka."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from conftest import RECORDS


async def create(bootstrap: str, name: str, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 3)])
    await admin.close()


async def read(consumer: AIOKafkaConsumer, count: int) -> list:
    return [await asyncio.wait_for(consumer.getone(), 30) for _ in range(count)]


@pytest.mark.parametrize("idempotence", [True, False])
@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_records_come_back_byte_for_byte(bootstrap, fresh, codec, idempotence):
    async def story():
        topic = fresh("bytes")
        await create(bootstrap, topic)
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, enable_idempotence=idempotence)
        await producer.start()
        for key, value, headers, timestamp in RECORDS:
            await producer.send_and_wait(topic, value, key=key, headers=headers, timestamp_ms=timestamp, partition=0)
        await producer.stop()
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        records = await read(consumer, len(RECORDS))
        assert [(r.key, r.value, list(r.headers), r.timestamp) for r in records] == RECORDS
        await consumer.stop()

    asyncio.run(story())


def test_a_group_shares_partitions_and_resumes_from_its_commits(bootstrap, fresh):
    async def story():
        topic, group = fresh("shared"), fresh("sharers")
        await create(bootstrap, topic, 2)
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        for number in range(20):
            await producer.send_and_wait(topic, b"%d" % number, partition=number % 2)
        options = {"bootstrap_servers": bootstrap, "group_id": group, "auto_offset_reset": "earliest",
                   "enable_auto_commit": False, "heartbeat_interval_ms": 500, "metadata_max_age_ms": 2_000}
        first = AIOKafkaConsumer(topic, **options)
        await first.start()
        seen = sorted([int(record.value) for record in await read(first, 20)])
        assert seen == list(range(20))
        await first.commit({TopicPartition(topic, 0): (10, "řeka"), TopicPartition(topic, 1): 9})
        assert await first.committed(TopicPartition(topic, 0)) == 10
        second = AIOKafkaConsumer(topic, **options)
        await second.start()

        async def shared():
            while not (len(first.assignment()) == len(second.assignment()) == 1):
                await first.getmany(timeout_ms=50)
                await second.getmany(timeout_ms=50)

        await asyncio.wait_for(shared(), 60)
        await first.stop()
        await second.stop()
        third = AIOKafkaConsumer(topic, **options)
        await third.start()
        (record,) = await read(third, 1)
        assert (record.partition, record.offset) == (1, 9)
        await third.stop()
        await producer.stop()

    asyncio.run(story())
