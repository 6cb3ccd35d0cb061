"""A producer and consumers at work, what they saw, and whether that is right.

Values are unique: `<key>:<sequence number of the key>`. Keys decide partitions, so the sequence numbers of a key must
come back in order, without gaps and without repetition.
"""

import statistics
import threading
import time
from collections import defaultdict

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

#: Clients that look for a new leader as quickly as they can be told to.
EAGER = {
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 100,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "topic.metadata.refresh.fast.interval.ms": 50,
    "topic.metadata.refresh.interval.ms": 10_000,
    "socket.connection.setup.timeout.ms": 2_000,
}


class RunningProducer:
    """An idempotent acks=all producer at a bounded full speed, on a thread of its own."""

    def __init__(self, bootstrap: str, topic: str, keys: int = 16, per_second: int = 3_000, **settings):
        self.topic = topic
        self.keys = keys
        self.per_second = per_second
        self.next_sequence = [0] * keys
        #: (key, sequence number) -> (partition, offset)
        self.acknowledged: dict[tuple[int, int], tuple[int, int]] = {}
        #: partition -> (when acknowledged, when produced), in order of acknowledgement
        self.acknowledgements: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.failures: list[str] = []
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 2,
            "partitioner": "murmur2_random", "delivery.timeout.ms": 120_000, "queue.buffering.max.messages": 20_000,
            **EAGER, **settings,
        })
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "RunningProducer":
        self.thread.start()
        return self

    def _run(self) -> None:
        key = 0
        started = time.monotonic()
        produced = 0
        while not self.stopping.is_set():
            due = int((time.monotonic() - started) * self.per_second)
            # A long pause is not caught up in one burst.
            due = min(due, produced + self.per_second // 10)
            while produced < due:
                sequence = self.next_sequence[key]
                try:
                    self.producer.produce(
                        self.topic, key=str(key).encode(), value=f"{key}:{sequence}".encode(),
                        on_delivery=self._delivered(key, sequence, time.monotonic()),
                    )
                except BufferError:
                    break
                self.next_sequence[key] += 1
                produced += 1
                key = (key + 1) % self.keys
            if produced < due:
                started = time.monotonic() - produced / self.per_second
            self.producer.poll(0.002)

    def _delivered(self, key: int, sequence: int, produced_at: float):
        def delivered(error, message):
            if error is not None:
                self.failures.append(f"{key}:{sequence}: {error}")
                return
            self.acknowledged[key, sequence] = (message.partition(), message.offset())
            self.acknowledgements[message.partition()].append((time.monotonic(), produced_at))

        return delivered

    def produced_after(self, moment: float, partition: int) -> bool:
        """Whether a record produced after `moment` was acknowledged on the partition."""
        acknowledgements = self.acknowledgements[partition]
        return bool(acknowledgements) and acknowledgements[-1][1] > moment

    def pause_after(self, moment: float, partition: int) -> float:
        """The longest time without an acknowledgement on the partition, from `moment` until a record that was
        produced after it is acknowledged."""
        longest, last = 0.0, moment
        for acknowledged_at, produced_at in list(self.acknowledgements[partition]):
            if acknowledged_at <= moment:
                continue
            longest = max(longest, acknowledged_at - last)
            last = acknowledged_at
            if produced_at > moment:
                return longest
        raise AssertionError(f"no record was acknowledged on partition {partition} after the fault")

    def longest_pause(self, since: float, until: float, partition: int) -> float:
        """The longest time without an acknowledgement on the partition between two moments."""
        times = [at for at, _ in list(self.acknowledgements[partition]) if since < at < until]
        return max(later - earlier for earlier, later in zip([since, *times], [*times, until]))

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()
        left = self.producer.flush(120)
        assert left == 0, f"{left} records were neither acknowledged nor refused"


class RunningConsumer:
    """A member of a group, on a thread of its own. Notes what it saw at every offset."""

    def __init__(self, bootstrap: str, topic: str, group: str, **settings):
        self.seen: dict[tuple[int, int], bytes] = {}
        self.contradictions: list[str] = []
        self.errors: list[str] = []
        self.assigned: list[list[int]] = []
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
            "session.timeout.ms": 6_000, "heartbeat.interval.ms": 500, "auto.commit.interval.ms": 500,
            **EAGER, **settings,
        })
        self.consumer.subscribe([topic], on_assign=self._assigned)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _assigned(self, _consumer, partitions) -> None:
        self.assigned.append(sorted(partition.partition for partition in partitions))

    def start(self) -> "RunningConsumer":
        self.thread.start()
        return self

    def _run(self) -> None:
        while not self.stopping.is_set():
            for message in self.consumer.consume(500, 0.1):
                if message.error():
                    if message.error().code() != KafkaError._PARTITION_EOF:
                        self.errors.append(str(message.error()))
                    continue
                at = message.partition(), message.offset()
                before = self.seen.setdefault(at, message.value())
                if before != message.value():
                    self.contradictions.append(f"{at}: first {before!r}, then {message.value()!r}")
        self.consumer.close()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(60)
        assert not self.thread.is_alive(), "the consumer does not close"


def read_all(bootstrap: str, topic: str, partitions: int, timeout: float = 120.0) -> dict[tuple[int, int], bytes]:
    """The whole topic, read by assignment from the beginning to its present end."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reads-all", "enable.auto.commit": False, **EAGER})
    ends = {}
    for partition in range(partitions):
        _, ends[partition] = consumer.get_watermark_offsets(TopicPartition(topic, partition), 30)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
    seen: dict[tuple[int, int], bytes] = {}
    positions = {partition: 0 for partition in range(partitions)}
    deadline = time.monotonic() + timeout
    while any(positions[partition] < ends[partition] for partition in range(partitions)):
        assert time.monotonic() < deadline, f"reading all of {topic} stopped at {positions} of {ends}"
        for message in consumer.consume(1_000, 0.2):
            if message.error():
                continue
            at = message.partition(), message.offset()
            assert at not in seen, f"{at} was delivered twice"
            assert positions[at[0]] <= at[1], f"{at} came after {positions[at[0]]}"
            seen[at] = message.value()
            positions[at[0]] = at[1] + 1
    consumer.close()
    return seen


def check(producer: RunningProducer, log: dict[tuple[int, int], bytes], consumers: list[RunningConsumer]) -> str:
    """Nothing acknowledged is lost, nothing is there twice, keys are in order, and everybody saw the same log.
    Returns a summary for people."""
    assert not producer.failures, f"{len(producer.failures)} records were refused, first: {producer.failures[0]}"
    expected = {at: f"{key}:{sequence}".encode() for (key, sequence), at in producer.acknowledged.items()}
    assert len(expected) == len(producer.acknowledged), "two records were acknowledged at the same offset"
    lost = [(at, value) for at, value in expected.items() if log.get(at) != value]
    assert not lost, f"{len(lost)} acknowledged records are lost, first: {lost[0]}, there now: {log.get(lost[0][0])}"
    offsets_of = defaultdict(list)
    for at, value in log.items():
        offsets_of[value].append(at)
    twice = {value: places for value, places in offsets_of.items() if len(places) > 1}
    assert not twice, f"{len(twice)} records are there twice, first: {next(iter(twice.items()))}"
    next_of_key: dict[int, int] = defaultdict(int)
    for _, value in sorted(log.items()):
        key, sequence = map(int, value.split(b":"))
        assert sequence == next_of_key[key], f"key {key}: {sequence} came where {next_of_key[key]} was due"
        next_of_key[key] += 1
    for consumer in consumers:
        assert not consumer.contradictions, f"an offset changed its record: {consumer.contradictions[0]}"
        wrong = [(at, value) for at, value in consumer.seen.items() if log.get(at) != value]
        assert not wrong, f"a consumer saw {wrong[0]}, which the log does not have"
    if consumers:
        seen = set().union(*(consumer.seen for consumer in consumers))
        unseen = expected.keys() - seen
        assert not unseen, f"{len(unseen)} acknowledged records reached no member of the group, first: {min(unseen)}"
    return f"{len(expected)} records acknowledged, 0 lost, 0 duplicated, {len(next_of_key)} keys in order"


def summary(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds) * 1000:.0f} ms, max {max(seconds) * 1000:.0f} ms over {len(seconds)}"
