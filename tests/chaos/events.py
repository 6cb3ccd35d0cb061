"""What clients did and saw, as values. Times are seconds of the wall clock, which all processes of one machine share.

A record's value is `<client>:<partition>:<sequence number>`, and padding that follows from it. Sequence numbers count per
client and partition, so that every value is unique and its place among its client's is known.
"""

import gzip
import json
import threading
import zlib
from pathlib import Path
from typing import NamedTuple


class Ack(NamedTuple):
    """A record was acknowledged."""

    client: str
    partition: int
    sequence: int
    offset: int
    sent: float
    at: float


class Failure(NamedTuple):
    """A record was given up: nobody knows whether it is in the log. A fatal one is the end of its producer."""

    client: str
    partition: int
    sequence: int
    error: str
    fatal: bool
    at: float


class Assigned(NamedTuple):
    """A reader begins to read partitions, by assignment or because its group says so."""

    reader: str
    group: str
    generation: int
    partitions: tuple[int, ...]
    at: float


class Read(NamedTuple):
    """A reader got a record. The value is that of the record without its padding, or all of it if that is wrong."""

    reader: str
    generation: int
    partition: int
    offset: int
    value: str
    at: float


class Reset(NamedTuple):
    """A reader was told that its position is not in the log."""

    reader: str
    partition: int
    error: str
    at: float


class Commit(NamedTuple):
    """A member tried to commit an offset."""

    group: str
    partition: int
    offset: int
    ok: bool
    begun: float
    at: float


class Committed(NamedTuple):
    """What the coordinator says is committed; -1 is nothing."""

    group: str
    partition: int
    offset: int
    begun: float
    at: float


class Fault(NamedTuple):
    """A fault, when it was over, and when the cluster had healed."""

    kind: str
    what: str
    begun: float
    over: float
    healed: float


KINDS = {kind.__name__: kind for kind in (Ack, Failure, Assigned, Read, Reset, Commit, Committed, Fault)}


class History:
    """Events of many threads, each kind in the order in which it was noted."""

    def __init__(self):
        self.lock = threading.Lock()
        self.of = {kind: [] for kind in KINDS.values()}
        #: (client, partition) -> how many records were handed to the client
        self.sent: dict[tuple[str, int], int] = {}
        #: (reader, partition) -> where it is
        self.last_read: dict[tuple[str, int], int] = {}

    def note(self, event) -> None:
        self.of[type(event)].append(event)
        if type(event) is Read:
            self.last_read[event.reader, event.partition] = event.offset

    def note_sent(self, client: str, partition: int, count: int) -> None:
        with self.lock:
            self.sent[client, partition] = max(count, self.sent.get((client, partition), 0))

    def write(self, path: Path) -> None:
        with gzip.open(path, "wt", compresslevel=3) as file:
            file.write(json.dumps({"sent": [[*key, count] for key, count in sorted(self.sent.items())]}) + "\n")
            for kind, events in self.of.items():
                for event in list(events):
                    file.write(json.dumps([kind.__name__, *event]) + "\n")

    @classmethod
    def read(cls, path: Path) -> "History":
        history = cls()
        with gzip.open(path, "rt") as file:
            for client, partition, count in json.loads(next(file))["sent"]:
                history.sent[client, partition] = count
            for line in file:
                name, *fields = json.loads(line)
                if name == "Assigned":
                    fields[3] = tuple(fields[3])
                history.note(KINDS[name](*fields))
        return history


def value_of(client: str, partition: int, sequence: int) -> str:
    return f"{client}:{partition}:{sequence}"


def padded(value: str) -> str:
    """The value as it travels: made longer by what follows from it."""
    return f"{value}|{zlib.crc32(value.encode()):08x}" * 4


def unpadded(text: str) -> str:
    """The value in what was read, or what was read if it is not as it was sent."""
    value = text.split("|", 1)[0]
    return value if padded(value) == text else text


def parse(value: str) -> tuple[str, int, int] | None:
    """Client, partition and sequence number of a value; None if it is not one of ours."""
    try:
        client, partition, sequence = value.split(":")
        return client, int(partition), int(sequence)
    except ValueError:
        return None
