"""Clients at work, and what they note: librdkafka here, Kafka's Java client in a process of its own (`ChaosClient.java`)."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from harness.history import EAGER

from .events import Ack, Assigned, Commit, Committed, Failure, History, Read, Reset, padded, unpadded, value_of

#: How long a record is tried; longer than any fault and its healing.
PATIENCE_MS = 180_000
#: Lost connections are what this is about.
QUIET = {**EAGER, "log_level": 2}
RANGE_ERRORS = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}


class Worker:
    """Something on a thread of its own, until it is told to stop."""

    def __init__(self):
        self.stopping = threading.Event()
        self.problem: BaseException | None = None
        self.thread = threading.Thread(target=self._guarded, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def _guarded(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self.problem = error

    def run(self) -> None:
        raise NotImplementedError

    def stop(self, timeout: float = PATIENCE_MS / 1000 + 20) -> None:
        self.stopping.set()
        self.thread.join(timeout)
        assert not self.thread.is_alive(), f"{type(self).__name__} does not end"
        if self.problem is not None:
            raise self.problem


class IdempotentProducer(Worker):
    """librdkafka with acks=all, at a bounded rate, over all partitions in turn."""

    def __init__(self, name: str, bootstrap: str, topic: str, partitions: int, per_second: float, history: History):
        super().__init__()
        self.name, self.topic, self.partitions, self.per_second = name, topic, partitions, per_second
        self.history = history
        self.producer = Producer({
            "bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all", "linger.ms": 5,
            "delivery.timeout.ms": PATIENCE_MS, "queue.buffering.max.messages": 10_000,
            "socket.timeout.ms": 10_000, "request.timeout.ms": 8_000, "error_cb": self._failed, **QUIET,
        })

    def _failed(self, error: KafkaError) -> None:
        if error.fatal():
            self.history.note(Failure(self.name, -1, -1, str(error), True, time.time()))

    def run(self) -> None:
        counts = [0] * self.partitions
        partition = 0
        due = time.monotonic()
        while not self.stopping.is_set():
            self.producer.poll(0.002)
            if time.monotonic() < due:
                continue
            sequence = counts[partition]
            try:
                self.history.note_sent(self.name, partition, sequence + 1)
                self.producer.produce(
                    self.topic, partition=partition, key=self.name.encode(),
                    value=padded(value_of(self.name, partition, sequence)).encode(),
                    on_delivery=self._delivered(partition, sequence, time.time()),
                )
            except BufferError:
                self.producer.poll(0.05)
                continue
            counts[partition] += 1
            partition = (partition + 1) % self.partitions
            # A pause is not caught up in one burst.
            due = max(due + 1 / self.per_second, time.monotonic() - 0.1)
        left = self.producer.flush(PATIENCE_MS / 1000)
        assert left == 0, f"{left} records of {self.name} were neither acknowledged nor refused"

    def _delivered(self, partition: int, sequence: int, sent: float):
        def delivered(error, message):
            now = time.time()
            if error is None:
                self.history.note(Ack(self.name, partition, sequence, message.offset(), sent, now))
            else:
                self.history.note(Failure(self.name, partition, sequence, str(error), error.fatal(), now))

        return delivered


class Reader(Worker):
    """Reads all partitions from their start, by assignment."""

    def __init__(self, name: str, bootstrap: str, topic: str, partitions: int, history: History):
        super().__init__()
        self.name, self.topic, self.partitions, self.history = name, topic, partitions, history
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": name, "enable.auto.commit": False,
            "auto.offset.reset": "error", "fetch.wait.max.ms": 100, "socket.timeout.ms": 10_000, **QUIET,
        })

    def run(self) -> None:
        everything = tuple(range(self.partitions))
        self.history.note(Assigned(self.name, "", 0, everything, time.time()))
        self.consumer.assign([TopicPartition(self.topic, partition, 0) for partition in everything])
        while not self.stopping.is_set():
            for message in self.consumer.consume(500, 0.1):
                now = time.time()
                error = message.error()
                if error is not None:
                    if error.code() in RANGE_ERRORS:
                        self.history.note(Reset(self.name, message.partition(), str(error), now))
                    continue
                value = unpadded(message.value().decode(errors="replace"))
                self.history.note(Read(self.name, 0, message.partition(), message.offset(), value, now))
        self.consumer.close()

    def log(self) -> dict[int, dict[int, str]]:
        """All that it has read."""
        found: dict[int, dict[int, str]] = {partition: {} for partition in range(self.partitions)}
        for read in self.history.of[Read]:
            if read.reader == self.name:
                found[read.partition][read.offset] = read.value
        return found


class Member(Worker):
    """A member of a group, which commits what it has read once a second and waits for the answer."""

    def __init__(self, name: str, group: str, bootstrap: str, topic: str, history: History):
        super().__init__()
        self.name, self.group, self.topic, self.history = name, group, topic, history
        self.generation = -1
        self.next: dict[int, int] = {}
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "session.timeout.ms": 10_000, "heartbeat.interval.ms": 1_000,
            "fetch.wait.max.ms": 100, "socket.timeout.ms": 10_000, **QUIET,
        })

    def run(self) -> None:
        self.consumer.subscribe([self.topic], on_assign=self._assigned, on_revoke=self._revoked,
                                on_lost=self._revoked)
        committed_at = time.monotonic()
        while not self.stopping.is_set():
            # The callbacks run within this call, so that what it returns belongs to the present generation.
            message = self.consumer.poll(0.1)
            if message is not None and message.error() is None:
                self.next[message.partition()] = message.offset() + 1
                value = unpadded(message.value().decode(errors="replace"))
                self.history.note(
                    Read(self.name, self.generation, message.partition(), message.offset(), value, time.time()))
            if time.monotonic() > committed_at + 1:
                self._commit()
                committed_at = time.monotonic()
        self.consumer.close()

    def _assigned(self, _consumer, partitions) -> None:
        self.generation += 1
        self.next = {}
        assigned = tuple(sorted(partition.partition for partition in partitions))
        self.history.note(Assigned(self.name, self.group, self.generation, assigned, time.time()))

    def _revoked(self, _consumer, _partitions) -> None:
        self.next = {}

    def _commit(self) -> None:
        offsets = [TopicPartition(self.topic, partition, offset) for partition, offset in self.next.items()]
        if not offsets:
            return
        begun = time.time()
        attempt = {offset.partition: offset.offset for offset in offsets}
        try:
            answers = self.consumer.commit(offsets=offsets, asynchronous=False)
            ok = {answer.partition for answer in answers if answer.error is None}
        except KafkaException:
            ok = set()
        now = time.time()
        for partition, offset in attempt.items():
            self.history.note(Commit(self.group, partition, offset, partition in ok, begun, now))


class CommitWatcher(Worker):
    """Asks again and again what the groups have committed."""

    def __init__(self, groups: list[str], bootstrap: str, topic: str, partitions: int, history: History):
        super().__init__()
        self.history = history
        self.partitions = [TopicPartition(topic, partition) for partition in range(partitions)]
        self.consumers = {
            group: Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, **QUIET})
            for group in groups
        }

    def run(self) -> None:
        while not self.stopping.wait(0.5):
            for group, consumer in self.consumers.items():
                begun = time.time()
                try:
                    answers = consumer.committed(self.partitions, 5)
                except KafkaException:
                    continue
                now = time.time()
                for answer in answers:
                    if answer.error is None:
                        offset = max(-1, answer.offset)
                        self.history.note(Committed(group, answer.partition, offset, begun, now))
        for consumer in self.consumers.values():
            consumer.close()


class JavaClient(Worker):
    """Kafka's Java client: an idempotent producer and a member of a group in one process, which tells on its standard
    output what it does, a line of JSON an event, and ends when its standard input does."""

    def __init__(self, name: str, group: str, bootstrap: str, topic: str, partitions: int, per_second: float,
                 history: History, log_file: Path):
        super().__init__()
        self.name, self.group, self.history = name, group, history
        class_path = Path(os.environ["TOOLS_CLASS_PATH"]).read_text().strip()
        self.log = log_file.open("ab")
        self.process = subprocess.Popen(
            ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", class_path,
             Path(__file__).parent / "ChaosClient.java", name, group, bootstrap, topic, str(partitions),
             str(per_second), str(PATIENCE_MS)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )

    def run(self) -> None:
        for line in self.process.stdout:
            kind, *fields = json.loads(line)
            if kind == "sent":
                self.history.note_sent(self.name, *fields)
            elif kind == "ack":
                self.history.note(Ack(self.name, *fields))
            elif kind == "fail":
                self.history.note(Failure(self.name, *fields))
            elif kind == "assigned":
                generation, partitions, at = fields
                self.history.note(Assigned(f"{self.name}-member", self.group, generation, tuple(partitions), at))
            elif kind == "read":
                generation, partition, offset, text, at = fields
                self.history.note(Read(f"{self.name}-member", generation, partition, offset, unpadded(text), at))
            elif kind == "commit":
                self.history.note(Commit(self.group, *fields))
        assert self.process.wait() == 0, f"the Java client ended with {self.process.returncode}"

    def end_input(self, word: str) -> None:
        """Tells it to stop producing (`flush`) or altogether (`stop`)."""
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def stop(self, timeout: float = PATIENCE_MS / 1000 + 20) -> None:
        self.end_input("stop")
        super().stop(timeout)
        self.log.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
