"""The commands of common Kafka tutorials, typed as they stand, through links made by `vltava install-links`."""

import os
import re
import signal
import socket
import subprocess
import textwrap

import pytest

from harness.processes import binary, free_ports, wait_for

#: What tutorials write. Replaced only if something listens there already.
ADDRESS = "localhost:9092"


def is_free(first: int) -> bool:
    for port in range(first, first + 9):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


class Shell:
    """Three brokers as the README starts them, and a shell that finds Kafka's tools on its path."""

    def __init__(self, directory):
        self.port = next(port for port in (9092, *(free_ports(1)[0] for _ in range(100))) if is_free(port))
        links = directory / "bin"
        subprocess.run([binary(), "install-links", links], check=True, capture_output=True)
        self.environment = {**os.environ, "PATH": f"{links}:{os.environ['PATH']}"}
        self.log = (directory / "cluster.log").open("ab")
        self.cluster = subprocess.Popen(
            [binary(), "cluster", "--brokers", "3", "--base-port", str(self.port), "--data-dir", directory / "data",
             "--override", "group.initial.rebalance.delay.ms=0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        assert self.cluster.stdout.readline().startswith("bootstrap.servers=")

    def start(self, line: str) -> subprocess.Popen:
        line = line.replace(ADDRESS, f"localhost:{self.port}")
        return subprocess.Popen(["bash", "-c", f"exec {line}"], env=self.environment, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def type(self, line: str, stdin: str = "") -> str:
        process = self.start(line)
        out, err = process.communicate(stdin, timeout=60)
        assert process.returncode == 0, f"$ {line}\n{out}\n{err}"
        return out.replace(f":{self.port}", ":9092")

    def watch(self, line: str, count: int) -> list[str]:
        """Runs what ends by Ctrl-C only, until it has printed so many records."""
        process = self.start(line)
        assert process.stdout.readline() == deprecated("formatter")
        lines = [process.stdout.readline().rstrip("\n") for _ in range(count)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert out == "", f"$ {line}\n{lines}\nand more: {out}"
        assert f"Processed a total of {count} messages" in err
        assert process.returncode in (0, 130)
        return lines

    def kill_broker(self, node_id: int) -> None:
        children = open(f"/proc/{self.cluster.pid}/task/{self.cluster.pid}/children").read().split()
        os.kill(int(children[node_id - 1]), signal.SIGKILL)

    def stop(self) -> None:
        self.cluster.send_signal(signal.SIGTERM)
        self.cluster.wait(60)
        self.log.close()


@pytest.fixture
def shell(tmp_path):
    shell = Shell(tmp_path)
    yield shell
    shell.stop()


def deprecated(kind: str) -> str:
    """What Kafka's tools of this release say first to what older tutorials write, each in words of its own."""
    word = {"reader": "Warning:", "formatter": "Option"}[kind]
    return (f"{word} --property is deprecated and will be removed in a future version. "
            f"Use --{kind}-property instead.\n")


def matches(told: str, template: str) -> None:
    """Each line of the template is a regular expression for the line of the output at its place."""
    expected = textwrap.dedent(template).strip("\n").split("\n")
    lines = told.rstrip("\n").split("\n")
    assert len(lines) == len(expected), told
    for line, pattern in zip(lines, expected):
        assert re.fullmatch(pattern.replace("{n}", r"\d+"), line), f"{line!r} is not {pattern!r} in\n{told}"


DESCRIBE = "kafka-topics.sh --describe --topic orders --bootstrap-server localhost:9092"
CONSUME = ("kafka-console-consumer.sh --topic orders --bootstrap-server localhost:9092 --group readers "
           "--property print.key=true --property print.value=true")


def test_tutorial(shell):
    line = ("kafka-topics.sh --create --topic orders --partitions 3 --replication-factor 3 "
            "--bootstrap-server localhost:9092")
    assert shell.type(line) == "Created topic orders.\n"
    assert shell.type("kafka-topics.sh --list --bootstrap-server localhost:9092") == "orders\n"

    produce = ("kafka-console-producer.sh --topic orders --bootstrap-server localhost:9092 --property parse.key=true "
               "--property key.separator=:")
    assert shell.type(produce, "alice:apples\nbob:bread\nalice:avocados\ncarol:cheese\n") == deprecated("reader")

    seen = shell.watch("kafka-console-consumer.sh --topic orders --from-beginning --bootstrap-server localhost:9092 "
                       "--property print.key=true --property print.value=true", 4)
    assert sorted(seen) == ["alice\tapples", "alice\tavocados", "bob\tbread", "carol\tcheese"]
    assert seen.index("alice\tapples") < seen.index("alice\tavocados")

    described = shell.type(DESCRIBE)
    matches(described, r"""
        Topic: orders\tTopicId: \S{22}\tPartitionCount: 3\tReplicationFactor: 3\tConfigs: .*
        \tTopic: orders\tPartition: 0\tLeader: [123]\tReplicas: [123],[123],[123]\tIsr: [123],[123],[123]\tElr: .*\tLastKnownElr: .*
        \tTopic: orders\tPartition: 1\tLeader: [123]\tReplicas: [123],[123],[123]\tIsr: [123],[123],[123]\tElr: .*\tLastKnownElr: .*
        \tTopic: orders\tPartition: 2\tLeader: [123]\tReplicas: [123],[123],[123]\tIsr: [123],[123],[123]\tElr: .*\tLastKnownElr: .*
    """)

    assert len(shell.watch(f"{CONSUME} --from-beginning", 4)) == 4
    listed = shell.type("kafka-consumer-groups.sh --bootstrap-server localhost:9092 --list").splitlines()
    assert "readers" in listed
    groups = shell.type("kafka-consumer-groups.sh --bootstrap-server localhost:9092 --describe --group readers")
    header, *rows = [re.split(r"\s+", line.strip()) for line in groups.splitlines() if line.strip()]
    assert header == ["GROUP", "TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST",
                      "CLIENT-ID"]
    assert sum(int(row[3]) for row in rows) == 4 and all(row[5] == "0" for row in rows)

    reset = shell.type("kafka-consumer-groups.sh --bootstrap-server localhost:9092 --group readers --reset-offsets "
                       "--to-earliest --topic orders --execute")
    rows = [re.split(r"\s+", line.strip()) for line in reset.splitlines() if line.startswith("readers")]
    assert sorted(rows) == [["readers", "orders", str(partition), "0"] for partition in range(3)]
    assert sorted(shell.watch(CONSUME, 4)) == sorted(seen)

    # Not the broker at the tutorial's address: a tool that knows only this one would have nobody to ask.
    leader = next(int(node) for node in re.findall(r"Leader: (\d)", described) if node != "1")
    consumer = shell.start(CONSUME)
    shell.kill_broker(leader)

    def has_a_new_leader():
        told = shell.type(DESCRIBE)
        leaders = re.findall(r"Leader: (\S+)", told)
        return len(leaders) == 3 and str(leader) not in leaders and "none" not in leaders and told

    described = wait_for("other leaders", has_a_new_leader)
    for isr in re.findall(r"Isr: ([\d,]+)", described):
        assert str(leader) not in isr.split(",") and len(isr.split(",")) == 2

    assert shell.type(produce, "dave:dates\n") == deprecated("reader")
    assert consumer.stdout.readline() == deprecated("formatter")
    assert consumer.stdout.readline() == "dave\tdates\n", "it goes on consuming"
    consumer.send_signal(signal.SIGINT)
    consumer.communicate(timeout=60)
