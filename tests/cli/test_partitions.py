"""kafka-get-offsets, kafka-delete-records, kafka-log-dirs, kafka-leader-election, kafka-reassign-partitions."""

import json
import re
import time

import pytest

from conftest import JAVA, RUST, run_ours


def test_get_offsets(compare, produce):
    # The records are years old by their timestamps, and are to stay.
    compare("kafka-topics --create --topic {me}-offsets --replica-assignment 1,2,3 --config retention.ms=-1", code=0)
    produce("{me}-offsets", {0: 10, 1: 3}, timestamp=1_700_000_000_000)
    only = "--topic {me}-offsets"
    assert compare(f"kafka-get-offsets {only}", code=0) == "ours-offsets:0:10\nours-offsets:1:3\nours-offsets:2:0\n"
    for place in ("latest", "earliest", "max-timestamp", "-1", "-2", "-3", "earliest-local", "1700000000005", "1900000000000"):
        compare(f"kafka-get-offsets {only} --time {place}", code=0)
    compare(f"kafka-get-offsets {only} --partitions 0,2", code=0)
    for rule in (":0", ":1-", ":-2", ":0-1", ""):
        compare(f"kafka-get-offsets --topic-partitions {{me}}-offsets{rule}", code=0)
    compare("kafka-get-offsets --topic {me}-nothing", code=1)
    compare(f"kafka-get-offsets {only} --partitions x", code=1)
    compare(f"kafka-get-offsets {only} --time soon", code=1)
    compare(f"kafka-get-offsets {only} --topic-partitions t", code=1)
    compare("kafka-get-offsets --frob", code=1)


def test_delete_records(compare, produce):
    compare("kafka-topics --create --topic {me}-records --replica-assignment 1,2", code=0)
    produce("{me}-records", {0: 10, 1: 4})
    offsets = [{"topic": "{me}-records", "partition": 0, "offset": 3}, {"topic": "{me}-records", "partition": 1, "offset": -1}]
    file = compare.twin_file("records.json", {"partitions": offsets, "version": 1})
    compare(f"kafka-delete-records --offset-json-file {file}", unordered=True, code=0)
    compare("kafka-get-offsets --topic {me}-records --time earliest", code=0)
    beyond = compare.twin_file("beyond.json", {"partitions": [{"topic": "{me}-records", "partition": 0, "offset": 99}]})
    compare(f"kafka-delete-records --offset-json-file {beyond}", code=0)
    for name, contents in (("broken", "{"), ("empty", "{}"), ("version", '{"version": 2}'),
                           ("twice", json.dumps({"partitions": offsets[:1] * 2}))):
        file = compare.twin_file(f"{name}.json", contents)
        compare(f"kafka-delete-records --offset-json-file {file}", code=1)
    compare("kafka-delete-records", code=1)


def test_log_dirs(compare, produce):
    compare("kafka-topics --create --topic {me}-dirs --replica-assignment 1:2,2:3", code=0)
    produce("{me}-dirs", {0: 10})

    def described(line):
        return compare(line, hide=r'(?s)\{"(brokers|version)".*', code=0)

    described("kafka-log-dirs --describe --topic-list {me}-dirs")
    compare("kafka-log-dirs --describe --broker-list 2 --topic-list {me}-dirs,{me}-nothing", code=0)
    compare("kafka-log-dirs --describe --broker-list 9", code=1)
    compare("kafka-log-dirs", code=1)
    # The order of partitions is Java's, so documents are compared by what they say.
    documents = []
    for prefix, run in ((JAVA, compare.kafka_tools.run), (RUST, run_ours)):
        _, out = run("kafka-log-dirs", ["--bootstrap-server", compare.bootstrap, "--describe", "--topic-list", f"{prefix}-dirs"])
        document = json.loads(out.splitlines()[-1].replace(f"{prefix}-", "ours-"))
        for broker in document["brokers"]:
            for directory in broker["logDirs"]:
                directory["partitions"].sort(key=lambda partition: partition["partition"])
        documents.append(document)
    assert documents[0] == documents[1]
    assert [broker["broker"] for broker in documents[1]["brokers"]] == [1, 2, 3]


def test_leader_election(compare):
    compare("kafka-topics --create --topic {me}-elect --replica-assignment 1:2,2:3", code=0)
    elect = "kafka-leader-election --election-type"
    compare(f"{elect} preferred --topic {{me}}-elect --partition 0", code=0)
    compare(f"{elect} PREFERRED --topic {{me}}-elect --partition 1", code=0)
    compare(f"{elect} preferred --topic {{me}}-elect --partition 7", code=1)
    compare(f"{elect} unclean --topic {{me}}-elect --partition 0", code=0)
    listed = compare.twin_file("elect.json", {"partitions": [{"topic": "{me}-elect", "partition": 0}]})
    compare(f"{elect} preferred --path-to-json-file {listed}", code=0)
    for line in ("--topic t --partition 0", "--election-type preferred", "--election-type frob --all-topic-partitions",
                 "--election-type preferred --topic t", "--election-type preferred --partition 0 --all-topic-partitions",
                 "--election-type preferred --topic t --partition 0 --all-topic-partitions"):
        compare(f"kafka-leader-election {line}", code=1)


def test_election_after_the_leader_has_moved(compare):
    """The preferred leader changes with the order of replicas, so that there is something to elect."""
    compare("kafka-topics --create --topic {me}-prefer --replica-assignment 1:2", code=0)
    moves = {"partitions": [{"topic": "{me}-prefer", "partition": 0, "replicas": [2, 1]}]}
    file = compare.twin_file("prefer.json", moves)
    compare(f"kafka-reassign-partitions --execute --reassignment-json-file {file}", hide=r'"log_dirs":\[[^\]]*\]',
            between=lambda: wait_for_moves(compare), code=0)
    wait_for_moves(compare)
    compare("kafka-leader-election --election-type preferred --topic {me}-prefer --partition 0", code=0)
    assert "Leader: 2" in compare("kafka-topics --describe --topic {me}-prefer", hide=r"Isr: \S+", code=0)


def wait_for_moves(compare) -> None:
    deadline = time.monotonic() + 60
    while "No partition" not in (out := ours(compare, "kafka-reassign-partitions", "--list")):
        assert time.monotonic() < deadline, out
        time.sleep(0.2)


def ours(compare, tool: str, *arguments: str) -> str:
    return run_ours(tool, ["--bootstrap-server", compare.bootstrap, *arguments])[1]


def test_partitions_are_moved(compare, produce):
    compare("kafka-topics --create --topic {me}-move --replica-assignment 1:2,2:3", code=0)
    produce("{me}-move", {0: 10})
    targets = [{"topic": "{me}-move", "partition": 0, "replicas": [2, 3]},
               {"topic": "{me}-move", "partition": 1, "replicas": [3, 1]}]
    file = compare.twin_file("move.json", {"version": 1, "partitions": targets})
    directories = r'"log_dirs":\[[^\]]*\]'
    compare(f"kafka-reassign-partitions --verify --reassignment-json-file {file}", code=0)
    compare(f"kafka-reassign-partitions --execute --reassignment-json-file {file} --throttle 10000000",
            hide=directories, between=lambda: wait_for_moves(compare), code=0)
    wait_for_moves(compare)
    compare("kafka-configs --describe --topic {me}-move", code=0)
    compare(f"kafka-reassign-partitions --verify --reassignment-json-file {file}", code=0)
    compare("kafka-configs --describe --topic {me}-move", code=0)
    compare(f"kafka-reassign-partitions --cancel --reassignment-json-file {file}", code=0)
    compare("kafka-reassign-partitions --list", code=0)
    grown = compare.twin_file("grown.json", {"partitions": [{**targets[0], "replicas": [2, 3, 1]}]})
    compare(f"kafka-reassign-partitions --execute --reassignment-json-file {grown} --disallow-replication-factor-change",
            hide=directories, code=1)
    compare(f"kafka-reassign-partitions --execute --reassignment-json-file {grown} --additional", hide=directories, code=0)
    wait_for_moves(compare)


def test_moves_are_proposed(compare):
    compare("kafka-topics --create --topic {me}-propose --replica-assignment 1:2,1:2,1:2", code=0)
    topics = compare.twin_file("topics.json", {"topics": [{"topic": "{me}-propose"}], "version": 1})
    line = f"kafka-reassign-partitions --generate --topics-to-move-json-file {topics} --broker-list"
    # Where a proposal begins is up to chance.
    proposed = compare(f"{line} 1,2,3", hide=r'"replicas":\[\d,\d\](?!,"log_dirs":\["/)|"log_dirs":\["/[^\]]*\]', code=0)
    assert "Proposed partition reassignment configuration\n" in proposed
    compare(f"{line} 1,1", code=1)
    compare(f"{line} 1", code=1)
    missing = compare.twin_file("missing.json", {"topics": [{"topic": "{me}-nothing"}]})
    compare(f"kafka-reassign-partitions --generate --topics-to-move-json-file {missing} --broker-list 1,2", code=1)


@pytest.mark.parametrize("name, contents", {
    "broken": "{",
    "empty": "{}",
    "no-replicas": '{"partitions": [{"topic": "{me}-move", "partition": 0, "replicas": []}]}',
    "doubled": '{"partitions": [{"topic": "{me}-move", "partition": 0, "replicas": [1, 1]}]}',
    "unknown-broker": '{"partitions": [{"topic": "{me}-move", "partition": 0, "replicas": [9]}]}',
    "unknown-topic": '{"partitions": [{"topic": "{me}-nothing", "partition": 0, "replicas": [1]}]}',
    "unknown-partition": '{"partitions": [{"topic": "{me}-move", "partition": 9, "replicas": [1]}]}',
}.items())
def test_moves_that_make_no_sense(compare, name, contents):
    compare("kafka-topics --create --topic {me}-move --if-not-exists --replica-assignment 1:2", code=0)
    file = compare.twin_file(f"{name}.json", contents)
    # Kafka shows what its JSON parser says.
    hide = r"(?s)Error: .*" if name == "broken" else None
    compare(f"kafka-reassign-partitions --execute --reassignment-json-file {file}", hide=hide, code=1)


def test_command_lines_that_make_no_sense(compare):
    for line in ("", "--list --verify", "--execute", "--generate --broker-list 1", "--list --throttle 1", "--frob"):
        compare(f"kafka-reassign-partitions {line}", code=1)
