"""kafka-console-producer, kafka-console-consumer and the performance tools, beside Kafka's own on the same cluster.

Each tool runs in a process of its own here: Kafka's count in static fields, and all of them read standard input.
"""

import itertools
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient

from harness.processes import binary, wait_for

CLASSES = {
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "kafka-consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
}
KAFKA, OURS = "kafka", "ours"
SIDES = [KAFKA, OURS]
numbers = itertools.count()


def command(side: str, tool: str) -> list[str]:
    if side == OURS:
        return [str(binary()), tool]
    classpath = Path(os.environ["TOOLS_CLASS_PATH"]).read_text().strip()
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", classpath, CLASSES[tool]]


@pytest.fixture
def run(bootstrap):
    def run_tool(side: str, line: str, stdin: str = "", code: int | None = 0) -> subprocess.CompletedProcess:
        tool, *words = line.split(" ")
        done = subprocess.run([*command(side, tool), *words, "--bootstrap-server", bootstrap], input=stdin,
                              capture_output=True, text=True, timeout=240)
        if code is not None:
            assert done.returncode == code, f"{side}: {line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run_tool


@pytest.fixture
def topic(run) -> str:
    name = f"console-{next(numbers)}-{os.getpid()}"
    run(OURS, f"kafka-topics --create --topic {name} --partitions 3 --replication-factor 3")
    return name


def consume(run, side: str, topic: str, *options: str, count: int, ordered: bool = False) -> list[str]:
    line = " ".join(["kafka-console-consumer --topic", topic, "--from-beginning --timeout-ms 60000",
                     f"--max-messages {count}", *options])
    lines = run(side, line).stdout.splitlines()
    return lines if ordered else sorted(lines)


ALL_FIELDS = [f"--formatter-property print.{field}=true" for field in ("partition", "offset", "headers", "key", "value", "epoch")]


@pytest.mark.parametrize("producer", SIDES)
def test_lines_with_keys_headers_and_nulls_arrive_the_same(run, topic, producer):
    lines = ["a:1,b:2\tk1\tv1", "a:NULL\tk2\tNULL", "NULL\tNULL\tv3", "c:3\tk1\t"]
    run(producer, f"kafka-console-producer --topic {topic} --reader-property parse.key=true "
                  "--reader-property parse.headers=true --reader-property null.marker=NULL",
        "".join(f"{line}\n" for line in lines))
    seen = {side: consume(run, side, topic, *ALL_FIELDS, count=4) for side in SIDES}
    assert seen[OURS] == seen[KAFKA]
    assert len(seen[OURS]) == 4
    told = "\n".join(seen[OURS])
    for expected in ("a:1,b:2\tk1\tv1", "a:null\tk2\tnull", "NO_HEADERS\tnull\tv3", "c:3\tk1\t"):
        assert expected in told


def test_the_same_keys_go_to_the_same_partitions(run, topic):
    lines = "".join(f"key-{number}:{number}\n" for number in range(200))
    placed = {}
    for side in SIDES:
        run(side, f"kafka-console-producer --topic {topic} --reader-property parse.key=true --reader-property key.separator=:", lines)
    told = consume(run, OURS, topic, "--formatter-property print.partition=true", "--formatter-property print.key=true", count=400)
    for line in told:
        partition, key, _ = line.split("\t")
        placed.setdefault(key, []).append(partition)
    assert len(placed) == 200
    assert all(len(of_key) == 2 and of_key[0] == of_key[1] for of_key in placed.values())
    assert len({of_key[0] for of_key in placed.values()}) == 3


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read_by_the_other_side(run, topic, codec):
    lines = [f"line {number} of a text that can be compressed" for number in range(500)]
    run(OURS, f"kafka-console-producer --topic {topic} --compression-codec {codec}", "\n".join(lines) + "\n")
    assert consume(run, KAFKA, topic, count=500) == sorted(lines)


@pytest.mark.parametrize("options", [
    "--request-required-acks 0", "--request-required-acks 1", "--sync", "--command-property linger.ms=0",
    "--batch-size 1", "--max-memory-bytes 20000",
])
def test_the_producer_s_options_lose_nothing(run, topic, options):
    lines = [f"{number}" for number in range(300)]
    run(OURS, f"kafka-console-producer --topic {topic} {options}", "\n".join(lines) + "\n")
    assert consume(run, OURS, topic, count=300) == sorted(lines)


def test_records_of_a_partition_keep_their_order(run, topic):
    lines = [f"k:{number}" for number in range(2_000)]
    run(OURS, f"kafka-console-producer --topic {topic} --reader-property parse.key=true --reader-property key.separator=: "
              "--batch-size 200", "\n".join(lines) + "\n")
    assert consume(run, OURS, topic, count=2_000, ordered=True) == [str(number) for number in range(2_000)]


def test_older_spellings_are_understood_with_a_warning(run, topic):
    run(OURS, f"kafka-console-producer --topic {topic}", "one\n")
    options = "--property print.partition=true --consumer-property fetch.min.bytes=1 --timeout-ms 60000 --max-messages 1"
    line = f"kafka-console-consumer --topic {topic} --from-beginning {options}"
    assert run(OURS, line).stdout == run(KAFKA, line).stdout
    line = f"kafka-console-producer --topic {topic} --property parse.key=false --producer-property acks=1 --max-partition-memory-bytes 9999"
    assert run(OURS, line, "two\n").stdout == run(KAFKA, line, "two\n").stdout


@pytest.mark.parametrize("first", SIDES)
def test_a_group_goes_on_where_it_was_whoever_reads(run, topic, first):
    second = KAFKA if first == OURS else OURS
    run(OURS, f"kafka-console-producer --topic {topic} --reader-property parse.key=true --reader-property key.separator=:",
        "".join(f"k:{number}\n" for number in range(10)))
    group = f"--group {topic}-group"
    assert consume(run, first, topic, group, count=4, ordered=True) == ["0", "1", "2", "3"]
    assert consume(run, second, topic, group, count=6, ordered=True) == ["4", "5", "6", "7", "8", "9"]


def test_two_members_of_both_kinds_share_the_partitions(run, bootstrap, topic):
    """A group whose leader is Kafka's client or ours: each member gets its part, and all records are read once."""
    group = f"{topic}-shared"
    members = {}
    for side in SIDES:
        members[side] = subprocess.Popen(
            [*command(side, "kafka-console-consumer"), "--topic", topic, "--group", group, "--bootstrap-server", bootstrap,
             "--command-property", "auto.offset.reset=earliest", "--formatter-property", "print.partition=true"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            # A shell that runs tests in the background ignores it, and Java inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        def both_are_members():
            described = subprocess.run([binary(), "kafka-consumer-groups", "--bootstrap-server", bootstrap, "--describe",
                                        "--group", group, "--members"], capture_output=True, text=True).stdout
            sizes = [int(line.split()[-1]) for line in described.splitlines() if line.startswith(group)]
            return sorted(sizes) == [1, 2]

        wait_for("two members with three partitions", both_are_members, timeout=60)
        run(OURS, f"kafka-console-producer --topic {topic} --reader-property parse.key=true --reader-property key.separator=:",
            "".join(f"{number}:{number}\n" for number in range(60)))
        time.sleep(5)
    finally:
        for member in members.values():
            member.send_signal(signal.SIGINT)
    try:
        seen = {side: member.communicate(timeout=60)[0].splitlines() for side, member in members.items()}
    finally:
        for member in members.values():
            member.kill()
    partitions = {side: {line.split("\t")[0] for line in lines} for side, lines in seen.items()}
    assert partitions[KAFKA] & partitions[OURS] == set()
    values = sorted(int(line.split("\t")[1]) for lines in seen.values() for line in lines)
    assert values == list(range(60))


def test_one_partition_from_an_offset(run, topic):
    run(OURS, f"kafka-console-producer --topic {topic} --reader-property parse.key=true --reader-property key.separator=:",
        "".join(f"k:{number}\n" for number in range(10)))
    told = consume(run, OURS, topic, "--formatter-property print.partition=true", count=1)
    partition = told[0].split("\t")[0].removeprefix("Partition:")
    for side in SIDES:
        line = f"kafka-console-consumer --topic {topic} --partition {partition} --offset 7 --max-messages 3"
        assert run(side, line).stdout.splitlines() == ["7", "8", "9"]


def test_commits_and_generations_are_shown_as_kafka_shows_them(run, topic):
    run(OURS, f"kafka-console-producer --topic {topic}", "one\n")
    consume(run, OURS, topic, f"--group {topic}-shown", count=1)
    for formatter in ("OffsetsMessageFormatter", "GroupMetadataMessageFormatter"):
        shown = {}
        for side in SIDES:
            # Kafka's counts the start of its own process.
            timeout = 5000 if side == OURS else 30000
            line = (f"kafka-console-consumer --topic __consumer_offsets --from-beginning --timeout-ms {timeout} "
                    f"--formatter org.apache.kafka.tools.consumer.{formatter}")
            # No line end stands between the objects.
            told = run(side, line).stdout.replace('}{"key"', '}\n{"key"').splitlines()
            shown[side] = sorted(line for line in told if f'"{topic}-shown"' in line)
        assert shown[OURS] and shown[OURS] == shown[KAFKA]


@pytest.mark.parametrize("line", [
    "kafka-console-consumer",
    "kafka-console-consumer --topic t --include u",
    "kafka-console-consumer --topic t --offset 5",
    "kafka-console-consumer --partition 0",
    "kafka-console-consumer --topic t --partition 0 --group g",
    "kafka-console-consumer --topic t --partition 0 --offset -1",
    "kafka-console-consumer --topic t --from-beginning --command-property auto.offset.reset=latest",
    "kafka-console-consumer --topic t --what",
    "kafka-console-producer",
    "kafka-console-producer --topic t --what",
    "kafka-producer-perf-test --topic t",
    "kafka-consumer-perf-test --topic t",
])
def test_mistakes_end_alike(run, line):
    results = {side: run(side, line, code=None) for side in SIDES}
    assert results[OURS].returncode == results[KAFKA].returncode == 1
    assert results[OURS].stdout == results[KAFKA].stdout == ""
    assert results[OURS].stderr


def test_a_line_without_a_key_ends_the_producer_and_what_came_before_is_sent(run, topic):
    options = f"--topic {topic} --reader-property parse.key=true --reader-property key.separator=:"
    for side in SIDES:
        done = run(side, f"kafka-console-producer {options}", "k:v\nno key\n", code=None)
        assert done.returncode == 1
        assert "No key separator found on line number 2: 'no key'" in done.stderr
    assert consume(run, OURS, topic, count=2) == ["v", "v"]


def test_a_timeout_ends_the_consumer_in_order(run, topic):
    for side in SIDES:
        done = run(side, f"kafka-console-consumer --topic {topic} --timeout-ms 3000")
        assert done.stdout == ""
        assert "Processed a total of 0 messages" in done.stderr


NUMBER = r"\d+(\.\d+)?"
SUMMARY = re.compile(rf"^2000 records sent, \d+\.\d+ records/sec \(\d+\.\d\d MB/sec\), \d+\.\d\d ms avg latency, "
                     rf"\d+\.\d\d ms max latency, \d+ ms 50th, \d+ ms 95th, \d+ ms 99th, \d+ ms 99\.9th\.$")
HEADER = ("start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, "
          "fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec")


@pytest.mark.parametrize("side", SIDES)
def test_performance_tools_tell_the_same_figures_in_the_same_form(run, topic, side):
    line = f"kafka-producer-perf-test --topic {topic} --num-records 2000 --record-size 100 --throughput -1"
    assert SUMMARY.match(run(side, line).stdout.splitlines()[-1])
    header, row = run(side, f"kafka-consumer-perf-test --topic {topic} --num-records 2000 --timeout 60000").stdout.splitlines()
    assert header == HEADER
    fields = row.split(", ")
    assert len(fields) == 10
    assert fields[2] == "0.1907" and fields[4] == "2000"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d:\d{3}", date) for date in fields[:2])


def test_throughput_is_bounded(run, topic):
    started = time.monotonic()
    run(OURS, f"kafka-producer-perf-test --topic {topic} --num-records 300 --record-size 10 --throughput 100")
    assert 2.5 < time.monotonic() - started < 15


def test_commands_for_people(bootstrap, topic):
    def vltava(*words: str, stdin: str = "") -> str:
        done = subprocess.run([binary(), *words, "--bootstrap-server", bootstrap], input=stdin, capture_output=True,
                              text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "FIRST OFFSET" in vltava("produce", topic, "hello", "--key", "k", "-H", "h=1")
    vltava("produce", topic, "--key-separator", "=", stdin="a=1\nb=2\n")
    shown = vltava("consume", topic, "--output", "json").splitlines()
    assert len(shown) == 3
    assert any('"key": "k", "value": "hello", "headers": [["h","1"]]' in line for line in shown)
    assert "hello" in vltava("consume", topic, "--max", "3")


def test_a_consumer_that_is_stopped_while_it_joins_is_no_member(bootstrap, topic):
    # A member that does not poll does not join again either: the rebalance that another one begins goes on and on.
    idle = Consumer({"bootstrap.servers": bootstrap, "group.id": topic})
    idle.subscribe([topic], on_revoke=lambda *_: None)
    wait_for("the first member's partitions", lambda: idle.poll(0.1) is None and idle.assignment())
    admin = AdminClient({"bootstrap.servers": bootstrap})

    def members() -> int:
        return len(admin.describe_consumer_groups([topic])[topic].result(30).members)

    line = ["kafka-console-consumer", "--bootstrap-server", bootstrap, "--topic", topic, "--group", topic]
    joining = subprocess.Popen([*command(OURS, line[0]), *line[1:]])
    wait_for("the second member", lambda: members() == 2)
    joining.send_signal(signal.SIGINT)
    assert joining.wait(10) == 0
    assert members() == 1
    idle.close()
