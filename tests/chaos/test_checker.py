"""The checker is checked: a sound history passes, and each violation that is planted in it is told by its name."""

import pytest

from chaos.checker import check
from chaos.events import (
    Ack, Assigned, Commit, Committed, Failure, Fault, History, Read, Reset, padded, unpadded, value_of,
)

PARTITIONS, RECORDS = 2, 20


def sound() -> tuple[History, dict]:
    """Two producers, a reader by assignment, and a group whose partitions change hands once."""
    history, log = History(), {}
    for partition in range(PARTITIONS):
        log[partition] = {}
        for offset in range(RECORDS):
            client, sequence = ("one", "two")[offset % 2], offset // 2
            log[partition][offset] = value_of(client, partition, sequence)
            history.note(Ack(client, partition, sequence, offset, offset + 0.1, offset + 0.5))
            history.note_sent(client, partition, sequence + 1)
    history.note(Assigned("alone", "", 0, (0, 1), 0.0))
    history.note(Assigned("first", "group", 0, (0, 1), 0.0))
    for partition in range(PARTITIONS):
        for offset in range(RECORDS):
            history.note(Read("alone", 0, partition, offset, log[partition][offset], offset + 1))
        for offset in range(12):
            history.note(Read("first", 0, partition, offset, log[partition][offset], offset + 1))
        history.note(Commit("group", partition, 10, True, 30.0, 30.1))
        history.note(Committed("group", partition, 10, 31.0, 31.1))
    history.note(Assigned("second", "group", 0, (0, 1), 40.0))
    for partition in range(PARTITIONS):
        for offset in range(10, RECORDS):
            history.note(Read("second", 0, partition, offset, log[partition][offset], offset + 41))
        history.note(Commit("group", partition, RECORDS, True, 70.0, 70.1))
        history.note(Committed("group", partition, RECORDS, 71.0, 71.1))
    return history, log


def replace(events: list, index: int, **changes) -> None:
    events[index] = events[index]._replace(**changes)


def read_another_value(history, log):
    replace(history.of[Read], 5, value="two:0:9")


def log_has_another_value(history, log):
    log[0][5], log[0][7] = log[0][7], log[0][5]


def same_record_twice(history, log):
    log[0][RECORDS] = log[0][RECORDS - 1]


def acknowledged_record_is_gone(history, log):
    del log[0][RECORDS - 1]


def group_misses_a_record(history, log):
    history.of[Read][:] = [r for r in history.of[Read] if (r.reader, r.partition, r.offset) != ("second", 1, 19)]


def nobody_sent_it(history, log):
    log[0][RECORDS] = value_of("three", 0, 0)


def sent_elsewhere(history, log):
    log[1][RECORDS] = value_of("one", 0, 10)
    history.note_sent("one", 0, 11)


def damaged_on_the_way(history, log):
    log[0][RECORDS] = unpadded(padded(value_of("one", 0, 10))[:-1] + "?")
    history.note_sent("one", 0, 11)


def later_record_first(history, log):
    log[0][RECORDS] = value_of("one", 0, 11)
    log[0][RECORDS + 1] = value_of("one", 0, 10)
    history.note_sent("one", 0, 12)


def sent_after_an_acknowledgement_and_stored_before_it(history, log):
    replace(history.of[Ack], 4, sent=9.0, at=9.5)


def reader_skips(history, log):
    history.of[Read][:] = [r for r in history.of[Read] if (r.reader, r.partition, r.offset) != ("alone", 0, 7)]


def reader_goes_back(history, log):
    index = next(i for i, r in enumerate(history.of[Read]) if (r.reader, r.offset) == ("alone", 8))
    again = [r for r in history.of[Read] if (r.reader, r.partition) == ("alone", 0) and r.offset <= 8]
    history.of[Read][index + 1:index + 1] = again


def member_begins_at_zero(history, log):
    early = [Read("second", 0, 0, o, log[0][o], 41.0) for o in range(10)]
    index = next(i for i, r in enumerate(history.of[Read]) if r.reader == "second")
    history.of[Read][index:index] = early


def member_begins_beyond_the_commit(history, log):
    history.of[Commit].pop(0)
    history.of[Committed].pop(0)


def commit_is_forgotten(history, log):
    history.note(Committed("group", 0, -1, 80.0, 80.1))


def commit_goes_back(history, log):
    history.note(Committed("group", 1, 10, 80.0, 80.1))


def reader_is_told_out_of_range(history, log):
    history.note(Reset("alone", 0, "OFFSET_OUT_OF_RANGE", 5.0))


def producer_is_told_out_of_order(history, log):
    history.note(Failure("one", 0, 99, "OUT_OF_ORDER_SEQUENCE_NUMBER", True, 5.0))


PLANTED = {
    read_another_value: "inconsistent-offset",
    log_has_another_value: "inconsistent-offset",
    same_record_twice: "duplicate",
    acknowledged_record_is_gone: "lost-write",
    group_misses_a_record: "unseen",
    nobody_sent_it: "unknown-record",
    sent_elsewhere: "unknown-record",
    damaged_on_the_way: "unknown-record",
    later_record_first: "send-order",
    sent_after_an_acknowledgement_and_stored_before_it: "real-time-order",
    reader_skips: "poll-skip",
    reader_goes_back: "nonmonotonic-poll",
    member_begins_at_zero: "group-start",
    member_begins_beyond_the_commit: "group-start",
    commit_is_forgotten: "commit-went-back",
    commit_goes_back: "commit-went-back",
    reader_is_told_out_of_range: "reset",
    producer_is_told_out_of_order: "fatal",
}


def test_a_sound_history_passes():
    assert check(*sound()) == []


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_violation_is_told(plant):
    history, log = sound()
    plant(history, log)
    assert PLANTED[plant] in {violation.kind for violation in check(history, log)}


def test_a_record_that_was_given_up_may_be_missing_or_there():
    history, log = sound()
    history.note(Failure("one", 0, 10, "timed out", False, 50.0))
    history.note_sent("one", 0, 12)
    log[0][RECORDS] = value_of("one", 0, 11)
    assert check(history, log) == []
    log[0] = {**log[0], RECORDS: value_of("one", 0, 10), RECORDS + 1: value_of("one", 0, 11)}
    assert check(history, log) == []


def test_a_history_survives_being_written(tmp_path):
    history, log = sound()
    history.note(Fault("kill", "broker 1", 1.0, 2.0, 3.0))
    history.write(tmp_path / "history.jsonl.gz")
    again = History.read(tmp_path / "history.jsonl.gz")
    assert (again.of, again.sent) == (history.of, history.sent)
