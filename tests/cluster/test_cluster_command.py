"""`vltava serve` and `vltava cluster` as a user types them (issue 2, "Start")."""

import os
import re
import signal
import socket
import subprocess

import pytest
from confluent_kafka import Consumer, Producer

from harness.history import EAGER
from harness.processes import binary, free_ports, wait_for


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}


class Command:
    """The command, with what it prints."""

    def __init__(self, directory, *arguments, **variables):
        self.errors = directory / "stderr"
        self.process = subprocess.Popen(
            [binary(), *arguments], cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=self.errors.open("ab"), text=True, env=environment() | variables, start_new_session=True,
        )

    def first_line(self) -> str:
        line = self.process.stdout.readline().strip()
        assert line, self.errors.read_text()
        return line

    def children(self) -> list[int]:
        return list(map(int, open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split()))

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def command(tmp_path):
    commands = []

    def start(*arguments, **variables) -> Command:
        commands.append(Command(tmp_path, *map(str, arguments), **variables))
        return commands[-1]

    yield start
    for one in commands:
        if one.process.poll() is None:
            one.end(signal.SIGTERM)


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    errors = []
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "message.timeout.ms": 20_000, **EAGER})
    producer.produce(topic, value, on_delivery=lambda error, _: error and errors.append(error))
    assert producer.flush(30) == 0 and not errors, errors


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"reads-{topic}-{count}",
                         "auto.offset.reset": "earliest", **EAGER})
    consumer.subscribe([topic])
    values: list[bytes] = []

    def enough():
        values.extend(message.value() for message in consumer.consume(count, 1.0) if not message.error())
        return len(values) >= count

    wait_for(f"{count} records", enough)
    consumer.close()
    return values


def base_port(count: int) -> int:
    """A port that is free together with those that follow it."""
    while True:
        (first,) = free_ports(1)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_three_brokers_start_stop_on_ctrl_c_and_have_the_same_data_next_time(command):
    port = base_port(9)
    arguments = ("cluster", "--brokers", 3, "--data-dir", "data", "--base-port", port)
    first = command(*arguments)
    line = first.first_line()
    assert line == "bootstrap.servers=" + ",".join(f"127.0.0.1:{port + step}" for step in range(3))
    assert len(first.children()) == 3
    bootstrap = line.partition("=")[2]
    produce(bootstrap, "kept", b"one")
    brokers = first.children()
    assert first.end(signal.SIGINT) == 0
    assert all(gone(pid) for pid in brokers)
    assert first.process.stdout.read() == "", "standard output carries the bootstrap line alone"

    second = command(*arguments)
    second.first_line()
    produce(bootstrap, "kept", b"two")
    assert consume(bootstrap, "kept", 2) == [b"one", b"two"]
    assert second.end(signal.SIGTERM) == 0


def test_brokers_end_with_a_parent_that_is_killed(command):
    parent = command("cluster", "--brokers", 3, "--data-dir", "data", "--base-port", base_port(9))
    parent.first_line()
    brokers = parent.children()
    parent.process.kill()
    wait_for("the brokers to end", lambda: all(gone(pid) for pid in brokers), timeout=60)


def test_a_broker_that_dies_is_reported_and_the_others_go_on(command):
    parent = command("cluster", "--brokers", 3, "--data-dir", "data", "--base-port", base_port(9))
    bootstrap = parent.first_line().partition("=")[2]
    os.kill(parent.children()[0], signal.SIGKILL)
    wait_for("a report", lambda: "ended by itself" in parent.errors.read_text())
    produce(bootstrap, "still", b"here")
    assert parent.process.poll() is None


def test_a_port_that_is_taken_is_told_in_plain_words(command):
    port = base_port(9)
    arguments = ("cluster", "--brokers", 1, "--base-port", port)
    command(*arguments, "--data-dir", "one").first_line()
    second = command(*arguments, "--data-dir", "two")
    assert second.process.wait(60) != 0
    assert re.search(rf"{port}.*in use|in use.*{port}", second.errors.read_text(), re.I | re.S)


def test_serve_without_arguments_is_a_broker_on_localhost_9092(command, tmp_path):
    if listens(9092):
        pytest.skip("something listens on port 9092 already")
    broker = command("serve")
    wait_for("the broker", lambda: listens(9092))
    produce("localhost:9092", "first", b"light")
    assert consume("localhost:9092", "first", 1) == [b"light"]
    assert (tmp_path / "vltava-data").is_dir()
    assert "clients of listener PLAINTEXT will be told localhost:9092" in broker.errors.read_text()
    assert broker.end(signal.SIGTERM) == 0


def test_the_environment_of_the_official_image_is_understood(command, tmp_path):
    port, peer_port = free_ports(2)
    broker = command(
        "serve", "--override", "log.retention.hours=48", CLUSTER_ID="4L6g3nShT-eMCtK--X86sw", KAFKA_NODE_ID="7",
        KAFKA_PROCESS_ROLES="broker,controller",
        KAFKA_LISTENERS=f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{peer_port}",
        KAFKA_ADVERTISED_LISTENERS=f"PLAINTEXT://localhost:{port}", KAFKA_CONTROLLER_LISTENER_NAMES="CONTROLLER",
        KAFKA_LISTENER_SECURITY_PROTOCOL_MAP="PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        KAFKA_CONTROLLER_QUORUM_VOTERS=f"7@127.0.0.1:{peer_port}", KAFKA_LOG_DIRS=str(tmp_path / "logs"),
        KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR="1",
    )
    produce(f"127.0.0.1:{port}", "image", b"x")
    assert (tmp_path / "logs" / "image-0").is_dir()
    assert f"clients of listener PLAINTEXT will be told localhost:{port}" in broker.errors.read_text()


def test_a_misspelt_setting_is_an_error_that_suggests_the_nearest(command):
    broker = command("serve", "--override", "log.retention.hour=48")
    assert broker.process.wait(30) != 0
    assert "log.retention.hours" in broker.errors.read_text()
