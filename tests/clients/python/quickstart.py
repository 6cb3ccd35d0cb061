"""The README's quick start: what is produced is consumed."""

import os

from kafka import KafkaConsumer, KafkaProducer

servers = os.environ.get("BOOTSTRAP_SERVERS", "localhost:9092")

producer = KafkaProducer(bootstrap_servers=servers, acks="all")
for number in range(10):
    producer.send("hello", key=b"greeting", value=b"message %d" % number)
producer.flush()

consumer = KafkaConsumer("hello", bootstrap_servers=servers, auto_offset_reset="earliest", consumer_timeout_ms=10_000)
for count, record in enumerate(consumer, 1):
    print(record.partition, record.offset, record.key, record.value)
    if count == 10:
        break
else:
    raise SystemExit("not all records came back")
