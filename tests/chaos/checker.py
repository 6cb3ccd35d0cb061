"""Is a history right? Functions from values to violations; `test_checker.py` plants each of them.

The names are those of Jepsen's Kafka tests and of Redpanda's chaos tests, where they have one. Besides the history there is
the log: what a reader of its own found after the cluster had healed, from the first offset to the end, by partition and
offset. Topics of a round have neither retention, compaction nor transactions, so that offsets have no gaps.
"""

from bisect import bisect_right
from collections import defaultdict
from typing import Iterator, NamedTuple

from .events import Ack, Assigned, Commit, Committed, Failure, History, Read, Reset, parse, value_of

#: Violations of a kind that are told of; the others are counted.
MAX_TOLD = 5

Log = dict[int, dict[int, str]]


class Violation(NamedTuple):
    kind: str
    what: str
    #: Where to look: partition and offset, where there are such.
    partition: int | None = None
    offset: int | None = None
    at: float | None = None


def check(history: History, log: Log) -> list[Violation]:
    """All that is wrong, at most a few of each kind."""
    found = []
    for rule in (inconsistent_offsets, duplicates, lost_writes, unseen, unknown_records, send_order, real_time_order,
                 poll_order, group_starts, committed_offsets, resets, fatal_failures):
        violations = list(rule(history, log))
        found += violations[:MAX_TOLD]
        if len(violations) > MAX_TOLD:
            found.append(Violation(violations[0].kind, f"and {len(violations) - MAX_TOLD} more"))
    return found


def inconsistent_offsets(history: History, log: Log) -> Iterator[Violation]:
    """An offset holds one record, whoever says so and whenever."""
    values: dict[tuple[int, int], str] = {}

    def clash(partition: int, offset: int, value: str, who: str) -> Iterator[Violation]:
        known = values.setdefault((partition, offset), value)
        if known != value:
            what = f"{partition}@{offset}: {who} {value[:80]!r}, before it was {known[:80]!r}"
            yield Violation("inconsistent-offset", what, partition, offset)

    for ack in history.of[Ack]:
        value = value_of(ack.client, ack.partition, ack.sequence)
        yield from clash(ack.partition, ack.offset, value, "acknowledged as")
    for read in history.of[Read]:
        yield from clash(read.partition, read.offset, read.value, f"{read.reader} read")
    for partition, records in log.items():
        for offset, value in records.items():
            yield from clash(partition, offset, value, "the log has")


def duplicates(history: History, log: Log) -> Iterator[Violation]:
    """An idempotent producer's record is in the log once."""
    for partition, records in log.items():
        first: dict[str, int] = {}
        for offset, value in sorted(records.items()):
            if first.setdefault(value, offset) != offset:
                yield Violation("duplicate", f"{value} at {partition}@{first[value]} and {offset}", partition, offset)


def lost_writes(history: History, log: Log) -> Iterator[Violation]:
    """What was acknowledged is in the log."""
    for ack in history.of[Ack]:
        value = value_of(ack.client, ack.partition, ack.sequence)
        there = log.get(ack.partition, {}).get(ack.offset)
        if there != value:
            what = f"{value}, acknowledged at {ack.partition}@{ack.offset}; there is {there!r}"
            yield Violation("lost-write", what, ack.partition, ack.offset)


def unseen(history: History, log: Log) -> Iterator[Violation]:
    """After healing, each group and each reader without one has read everything that was acknowledged."""
    group_of = {assigned.reader: assigned.group or assigned.reader for assigned in history.of[Assigned]}
    seen: dict[str, set[tuple[int, int]]] = {group: set() for group in group_of.values()}
    for read in history.of[Read]:
        seen[group_of[read.reader]].add((read.partition, read.offset))
    for ack in history.of[Ack]:
        for group, offsets in seen.items():
            if (ack.partition, ack.offset) not in offsets:
                what = f"{ack.partition}@{ack.offset}, acknowledged to {ack.client}, was never read by {group}"
                yield Violation("unseen", what, ack.partition, ack.offset)


def unknown_records(history: History, log: Log) -> Iterator[Violation]:
    """Read fidelity: every record is one that was sent to its partition, byte for byte."""
    for partition, records in log.items():
        for offset, value in records.items():
            record = parse(value)
            if record is None or record[1] != partition or record[2] >= history.sent.get(record[:2], 0):
                yield Violation("unknown-record", f"{value[:80]!r} at {partition}@{offset}", partition, offset)


def send_order(history: History, log: Log) -> Iterator[Violation]:
    """A producer's records are in the log in the order in which it sent them; only those given up may be missing."""
    given_up = {(failure.client, failure.partition, failure.sequence) for failure in history.of[Failure]}
    for partition, records in log.items():
        next_of: dict[str, int] = defaultdict(int)
        for offset, value in sorted(records.items()):
            record = parse(value)
            if record is None:
                continue
            client, _, sequence = record
            due = next_of[client]
            if sequence < due:
                # A repetition is a duplicate, and told as such.
                continue
            missing = [number for number in range(due, sequence) if (client, partition, number) not in given_up]
            if missing:
                what = f"{value} at {partition}@{offset} came before {value_of(client, partition, missing[0])}"
                yield Violation("send-order", what, partition, offset)
            next_of[client] = sequence + 1


def real_time_order(history: History, log: Log) -> Iterator[Violation]:
    """What was sent after something else had been acknowledged comes after it."""
    of_partition = defaultdict(list)
    for ack in history.of[Ack]:
        of_partition[ack.partition].append(ack)
    for partition, acks in of_partition.items():
        acks.sort(key=lambda ack: ack.at)
        times = [ack.at for ack in acks]
        largest: list[Ack] = []
        for ack in acks:
            largest.append(ack if not largest or ack.offset > largest[-1].offset else largest[-1])
        for ack in acks:
            before = bisect_right(times, ack.sent) - 1
            # The clocks of two threads are read a moment after what they tell of.
            if before >= 0 and times[before] < ack.sent - 0.005 and largest[before].offset > ack.offset:
                what = (f"{value_of(ack.client, partition, ack.sequence)} at {partition}@{ack.offset} was sent after "
                        f"offset {largest[before].offset} had been acknowledged")
                yield Violation("real-time-order", what, partition, ack.offset)


def poll_order(history: History, log: Log) -> Iterator[Violation]:
    """As long as a reader keeps a partition, it reads offset after offset."""
    last: dict[tuple[str, int, int], int] = {}
    for read in history.of[Read]:
        key = read.reader, read.generation, read.partition
        before = last.get(key)
        last[key] = read.offset
        if before is not None and read.offset != before + 1:
            kind = "poll-skip" if read.offset > before else "nonmonotonic-poll"
            what = f"{read.reader} read {read.partition}@{read.offset} after {before}"
            yield Violation(kind, what, read.partition, read.offset)


def group_starts(history: History, log: Log) -> Iterator[Violation]:
    """A member begins where its group has committed: not before an offset whose commit had succeeded, and not after all
    that anybody has tried to commit."""
    first: dict[tuple[str, int, int], Read] = {}
    for read in history.of[Read]:
        first.setdefault((read.reader, read.generation, read.partition), read)
    commits = defaultdict(list)
    for commit in history.of[Commit]:
        commits[commit.group, commit.partition].append(commit)
    for assigned in history.of[Assigned]:
        for partition in assigned.partitions if assigned.group else ():
            read = first.get((assigned.reader, assigned.generation, partition))
            if read is None:
                continue
            known = commits[assigned.group, partition]
            succeeded = max((c.offset for c in known if c.ok and c.at < assigned.at), default=0)
            tried = max((c.offset for c in known if c.begun < read.at), default=0)
            if not succeeded <= read.offset <= tried:
                what = (f"{read.reader} began at {partition}@{read.offset}, and its group had committed {succeeded} "
                        f"and tried to commit {tried}")
                yield Violation("group-start", what, partition, read.offset)


def committed_offsets(history: History, log: Log) -> Iterator[Violation]:
    """Committed offsets never go back, and are never below one whose commit has succeeded."""
    commits = defaultdict(list)
    for commit in history.of[Commit]:
        if commit.ok:
            commits[commit.group, commit.partition].append((commit.at, commit.offset))
    floors = {}
    for key, known in commits.items():
        known.sort()
        offsets, largest = [], 0
        for _, offset in known:
            largest = max(largest, offset)
            offsets.append(largest)
        floors[key] = [at for at, _ in known], offsets
    seen: dict[tuple[str, int], Committed] = {}
    for committed in sorted(history.of[Committed], key=lambda committed: committed.begun):
        key = committed.group, committed.partition
        times, offsets = floors.get(key, ([], []))
        index = bisect_right(times, committed.begun) - 1
        floor = offsets[index] if index >= 0 else -1
        before = seen.get(key)
        if before is not None and before.at <= committed.begun:
            floor = max(floor, before.offset)
        if committed.offset < floor:
            what = f"{committed.group} has {committed.offset} committed on {committed.partition}, after {floor}"
            yield Violation("commit-went-back", what, committed.partition, committed.offset, committed.at)
        if before is None or committed.offset >= before.offset:
            seen[key] = committed


def resets(history: History, log: Log) -> Iterator[Violation]:
    """No reader is told that what it had read, or begins with, is not in the log."""
    for reset in history.of[Reset]:
        yield Violation("reset", f"{reset.reader} on {reset.partition}: {reset.error}", reset.partition)


def fatal_failures(history: History, log: Log) -> Iterator[Violation]:
    """No producer hears that its sequence is out of order, or that another has taken its place."""
    for failure in history.of[Failure]:
        if failure.fatal:
            yield Violation("fatal", f"{failure.client}: {failure.error}", failure.partition)


def excerpt(history: History, violation: Violation, around: int = 3) -> list[str]:
    """What the history says near the place of a violation, and what faults there were, in order of time."""
    events = []
    for kind in (Ack, Read):
        events += [event for event in history.of[kind] if event.partition == violation.partition
                   and violation.offset is not None and abs(event.offset - violation.offset) <= around]
    at = violation.at or max((event.at for event in events), default=0.0)
    for kind in (Commit, Committed, Reset, Failure):
        events += [event for event in history.of[kind] if event.partition == violation.partition
                   and at - 15 < event.at < at + 5]
    events.sort(key=lambda event: event.at)
    return [str(event) for event in events[:80]]
