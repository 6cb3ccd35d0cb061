"""Hours in the life of a cluster: does anything grow? (issue 3, item 6)

    python3 tests/performance/soak.py [--minutes 30] [--rate 3000] [--history FILE]

Three brokers with short retention and steady compaction; producers with acks=all at a steady rate; a group that reads the tail and
commits, a reader that begins at the head again and again, and one that reads the compacted topic whole. Memory, open files,
bytes on disk and the latency of acknowledged writes are sampled, and the run's last quarter is held against its second one
(the first is for warming up). Fails if one of them has grown, or if the group missed or repeated a record.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness.processes import Cluster  # noqa: E402

EVENTS, STATE = "events", "state"
PARTITIONS = 6
VALUE = os.urandom(1000)
KEYS = 2000
MEGABYTE = 1 << 20

#: What a quarter of the run may be above an earlier one before we call it growth. Latency is the machine's as much as ours.
ALLOWED = {"memory": 1.10, "files": 1.10, "disk": 1.25, "p50": 1.5, "p99": 2.0}

TOPICS = {
    EVENTS: {"segment.bytes": str(4 * MEGABYTE), "retention.bytes": str(16 * MEGABYTE), "retention.ms": "120000"},
    STATE: {"cleanup.policy": "compact", "segment.bytes": str(MEGABYTE), "min.cleanable.dirty.ratio": "0.1",
            "delete.retention.ms": "1000"},
}


@dataclass
class Sample:
    """What was seen at one moment; the sum over the brokers. Milliseconds and bytes."""

    second: float
    memory: float
    files: float
    disk: float
    p50: float
    p99: float
    largest: float
    acknowledged: int


@dataclass
class Load:
    """What the clients' threads share."""

    bootstrap: str
    stopping: threading.Event = field(default_factory=threading.Event)
    latencies: list[float] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    #: The next number that the group expects of each partition.
    expected: list[int] = field(default_factory=lambda: [0] * PARTITIONS)
    problems: list[str] = field(default_factory=list)
    whole_reads: dict[str, int] = field(default_factory=lambda: {EVENTS: 0, STATE: 0})

    def client(self, **settings):
        return {"bootstrap.servers": self.bootstrap, **settings}

    def produce(self, rate: int) -> None:
        producer = Producer(self.client(acks="all", **{"enable.idempotence": True, "linger.ms": 5}))
        begun = time.monotonic()
        sent = 0
        numbers = [0] * PARTITIONS

        def acknowledged(partition: int, at: float):
            def told(error, message):
                if error:
                    self.problems.append(f"{message.topic()}: {error}")
                    return
                self.latencies.append((time.monotonic() - at) * 1000)
                if partition >= 0:
                    self.acknowledged[partition] += 1
            return told

        while not self.stopping.is_set():
            while sent < (time.monotonic() - begun) * rate:
                partition = sent % PARTITIONS
                now = time.monotonic()
                producer.produce(EVENTS, key=str(numbers[partition]), value=VALUE, partition=partition,
                                 on_delivery=acknowledged(partition, now))
                numbers[partition] += 1
                if sent % 5 == 0:
                    key = str(sent // 5 % KEYS)
                    value = None if sent % 50 == 0 else VALUE[:200]
                    producer.produce(STATE, key=key, value=value, on_delivery=acknowledged(-1, now))
                sent += 1
                producer.poll(0)
            producer.poll(0.005)
        producer.flush(30)

    def read_tail(self) -> None:
        """As a group that commits. Numbers follow each other in every partition."""
        consumer = Consumer(self.client(**{"group.id": "tail", "auto.offset.reset": "earliest", "auto.commit.interval.ms": 500}))
        consumer.subscribe([EVENTS])
        quiet = 0
        while not self.stopping.is_set() or quiet < 5:
            message = consumer.poll(1.0)
            quiet = 0 if message else quiet + 1
            if message is None or message.error():
                continue
            partition, number = message.partition(), int(message.key())
            if number != self.expected[partition]:
                self.problems.append(f"{EVENTS}-{partition}: {number} came where {self.expected[partition]} was due")
            self.expected[partition] = number + 1
        consumer.close()

    def read_from_the_head(self, topic: str) -> None:
        """From the first record to what was the last one, again and again."""
        consumer = Consumer(self.client(**{"group.id": f"head-{topic}", "enable.auto.commit": False,
                                           "enable.partition.eof": True, "auto.offset.reset": "earliest"}))
        partitions = range(PARTITIONS if topic == EVENTS else 1)
        while not self.stopping.is_set():
            ends = {partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
                    for partition in partitions}
            consumer.assign([TopicPartition(topic, partition, -2) for partition in partitions])
            while ends and not self.stopping.is_set():
                message = consumer.poll(1.0)
                # What is written meanwhile is not waited for. At the end of a partition comes an error that says so.
                if message is not None and (message.error() or message.offset() + 1 >= ends.get(message.partition(), 0)):
                    ends.pop(message.partition(), None)
            self.whole_reads[topic] += 1
            self.stopping.wait(2)
        consumer.close()


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass  # Retention and compaction go on.
    return total


def take_sample(cluster: Cluster, load: Load, begun: float) -> Sample:
    latencies, load.latencies = sorted(load.latencies), []
    share = lambda part: latencies[int(part * (len(latencies) - 1))] if latencies else 0.0  # noqa: E731
    return Sample(
        second=round(time.monotonic() - begun, 1),
        memory=sum(broker.resident_bytes() for broker in cluster.brokers),
        files=sum(open_files(broker.pid) for broker in cluster.brokers),
        disk=sum(bytes_below(broker.data) for broker in cluster.brokers),
        p50=round(share(0.5), 2), p99=round(share(0.99), 2), largest=round(share(1.0), 2),
        acknowledged=sum(load.acknowledged),
    )


def growth(samples: list[Sample]) -> dict[str, float]:
    """The median of the last quarter over that of the second one."""
    quarter = len(samples) // 4
    early, late = samples[quarter:2 * quarter], samples[-quarter:]
    medians = lambda name, part: statistics.median(getattr(sample, name) for sample in part)  # noqa: E731
    return {name: medians(name, late) / medians(name, early) for name in ALLOWED}


def show(sample: Sample) -> str:
    return (f"{sample.second:7.0f} s  memory {sample.memory / MEGABYTE:6.1f} MiB  files {sample.files:4.0f}  "
            f"disk {sample.disk / MEGABYTE:7.1f} MiB  p50 {sample.p50:6.2f}  p99 {sample.p99:7.2f}  "
            f"max {sample.largest:7.2f} ms  acknowledged {sample.acknowledged}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=30)
    arguments.add_argument("--rate", type=int, default=3000, help="records of 1 KB a second")
    arguments.add_argument("--history", type=Path, help="where the samples go, a JSON object a line")
    options = arguments.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="vltava-soak-"))
    cluster = Cluster(directory, 3, log_retention_check_interval_ms="5000", log_segment_delete_delay_ms="5000",
                      log_cleaner_backoff_ms="2000", offsets_topic_segment_bytes=str(MEGABYTE))
    samples = []
    try:
        cluster.start()
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        topics = [NewTopic(name, PARTITIONS if name == EVENTS else 1, 3, config=configs) for name, configs in TOPICS.items()]
        for created in admin.create_topics(topics, operation_timeout=20).values():
            created.result(30)
        load = Load(cluster.bootstrap)
        threads = [threading.Thread(target=load.produce, args=[options.rate]), threading.Thread(target=load.read_tail),
                   *(threading.Thread(target=load.read_from_the_head, args=[topic]) for topic in TOPICS)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        interval = min(10.0, options.minutes * 60 / 40)
        while time.monotonic() - begun < options.minutes * 60:
            time.sleep(interval)
            samples.append(take_sample(cluster, load, begun))
            print(show(samples[-1]), flush=True)
        load.stopping.set()
        for thread in threads:
            thread.join()
        if options.history:
            options.history.write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in samples))
    finally:
        cluster.destroy()
        shutil.rmtree(directory)
    if load.expected != load.acknowledged:
        load.problems.append(f"acknowledged {load.acknowledged}, read {load.expected}")
    grown = growth(samples)
    print("last quarter over second: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in grown.items()))
    print("read from the head: " + ", ".join(f"{topic} {count} times" for topic, count in load.whole_reads.items()))
    load.problems += [f"{name} grew {ratio:.2f} times" for name, ratio in grown.items() if ratio > ALLOWED[name]]
    for problem in load.problems[:20]:
        print(f"FAILED: {problem}")
    return 1 if load.problems else 0


if __name__ == "__main__":
    sys.exit(main())
