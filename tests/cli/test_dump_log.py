"""Kafka's own dump tool reads what a broker has written: segments of every codec, indexes, a compacted log, the groups' offsets and
the producers' snapshots."""

import os
import re
from pathlib import Path

import pytest
from conftest import KafkaTools
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from harness.processes import Cluster, wait_for

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = 3000
KEYS = 50
GROUP = "dumped"

#: What the tool says of indexes that do not fit their log, and of batches that are not whole.
COMPLAINTS = re.compile(r"(?i)mismatch|non-consecutive|out of order|isvalid: false|corrupt|exception|error")


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory) -> Path:
    """The directory of a broker that has written all this and ended in order."""
    cluster = Cluster(tmp_path_factory.mktemp("dumped"), 1, log_segment_bytes=str(1 << 20), log_cleaner_backoff_ms="200",
                      offsets_topic_num_partitions="1")
    try:
        cluster.start()
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        topics = [NewTopic(codec, 1, 1) for codec in CODECS]
        compacted = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01", "segment.bytes": str(1 << 20)}
        topics.append(NewTopic("compacted", 1, 1, config=compacted))
        for created in admin.create_topics(topics, operation_timeout=20).values():
            created.result(30)
        for codec in CODECS:
            produce(cluster, codec, codec, lambda number: str(number))
        data = cluster.brokers[0].data
        produce(cluster, "compacted", "none", lambda number: str(number % KEYS))
        wait_for("the log to be compacted", lambda: sum(map(size, logs(data / "compacted-0"))) < RECORDS * 500, 60)
        consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": GROUP})
        consumer.commit(offsets=[TopicPartition("none", 0, 1234)], asynchronous=False)
        consumer.close()
        cluster.brokers[0].stop()
        yield data
    finally:
        cluster.destroy()


def produce(cluster: Cluster, topic: str, codec: str, key) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "compression.type": codec,
                         "batch.size": 20_000, "linger.ms": 5})
    for number in range(RECORDS):
        # Of which half can be compressed away: clients leave alone what cannot be.
        producer.produce(topic, key=key(number), value=os.urandom(500).hex())
        producer.poll(0)
    assert producer.flush(60) == 0


def size(path: Path) -> int:
    return path.stat().st_size


def logs(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.log"))


def dump(tools: KafkaTools, files: list[Path], *options: str) -> str:
    assert files
    code, out = tools.run_class("org.apache.kafka.tools.DumpLogSegments", ["--files", ",".join(map(str, files)), *options])
    assert code == 0, out
    complaint = COMPLAINTS.search(re.sub(r"payload: .*", "", out))
    assert not complaint, out[max(0, complaint.start() - 300):complaint.end() + 300]
    return out


@pytest.mark.parametrize("codec", CODECS)
def test_segments_of_every_codec(kafka_tools, log_dir, codec):
    files = logs(log_dir / f"{codec}-0")
    assert len(files) > 1
    out = dump(kafka_tools, files, "--print-data-log", "--skip-record-metadata")
    assert out.count("payload: ") == RECORDS
    assert f"compresscodec: {codec}" in out
    assert "isvalid: true" in out


@pytest.mark.parametrize("topic", [*CODECS, "compacted"])
def test_indexes_agree_with_their_logs(kafka_tools, log_dir, topic):
    directory = log_dir / f"{topic}-0"
    for suffix in ("index", "timeindex"):
        files = sorted(directory.glob(f"*.{suffix}"))
        assert max(map(size, files)) > 0
        dump(kafka_tools, files, "--verify-index-only")
    dump(kafka_tools, sorted(directory.glob("*.index")), "--index-sanity-check")


def test_a_compacted_log_keeps_the_last_record_of_each_key(kafka_tools, log_dir):
    out = dump(kafka_tools, logs(log_dir / "compacted-0"), "--print-data-log")
    offsets = [int(offset) for offset in re.findall(r"^\| offset: (\d+)", out, re.MULTILINE)]
    assert offsets == sorted(set(offsets))
    assert set(range(RECORDS - KEYS, RECORDS)) <= set(offsets)
    assert len(offsets) < RECORDS


def test_committed_offsets(kafka_tools, log_dir):
    out = dump(kafka_tools, logs(log_dir / "__consumer_offsets-0"), "--offsets-decoder")
    commit = next(line for line in out.splitlines() if GROUP in line and "1234" in line)
    assert '"topic":"none"' in commit.replace(" ", "")


def test_snapshots_of_producers(kafka_tools, log_dir):
    out = dump(kafka_tools, sorted((log_dir / "none-0").glob("*.snapshot")))
    assert re.search(r"producerId: \d+ producerEpoch: 0 .*lastSequence: \d+", out), out
