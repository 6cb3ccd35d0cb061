"""Runs a command line by Kafka's own tool and by ours against one cluster, and compares output and exit code."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer
from harness.processes import binary

#: The main classes behind the names.
CLASSES = {
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-reassign-partitions": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
    "kafka-leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "kafka-metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-cluster": "org.apache.kafka.tools.ClusterTool",
}

#: What the two write about stands under names that begin with these, so that neither meets the other's traces.
JAVA, RUST = "java", "rust"


@pytest.fixture(scope="session")
def bootstrap() -> str:
    return os.environ["BOOTSTRAP_SERVERS"]


class KafkaTools:
    """Kafka's own tools, in one Java process."""

    def __init__(self):
        self.start()

    def start(self) -> None:
        classpath = Path(os.environ["TOOLS_CLASS_PATH"]).read_text().strip()
        self.process = subprocess.Popen(
            ["java", "-XX:TieredStopAtLevel=1", "-cp", classpath, Path(__file__).parent / "ToolRunner.java"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )

    def run(self, tool: str, arguments: list[str]) -> tuple[int, str]:
        return self.run_class(CLASSES[tool], arguments)

    def run_class(self, main_class: str, arguments: list[str]) -> tuple[int, str]:
        request = {"class": main_class, "arguments": arguments}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            # The library that reads sub-commands ends the whole process over a mistake, having printed to standard error.
            code = self.process.wait(30)
            self.start()
            return code, ""
        answer = json.loads(line)
        return answer["code"], answer["out"]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(30)


def run_ours(tool: str, arguments: list[str]) -> tuple[int, str]:
    done = subprocess.run([binary(), tool, *arguments], capture_output=True, text=True, timeout=120)
    if done.stderr:
        print(f"[{tool} {' '.join(arguments)}] {done.stderr.splitlines()[0]}")
    return done.returncode, done.stdout


@pytest.fixture(scope="session")
def kafka_tools():
    tools = KafkaTools()
    yield tools
    tools.close()


#: What differs from run to run, and what stands for it.
VOLATILE = [
    (re.compile(r"(TopicId: )\S{22}"), r"\1ID"),
    (re.compile(rf"\b({JAVA}|{RUST})-"), "ours-"),
    # Kafka adds the stack trace of an error.
    (re.compile(r"\n(\S+Exception|\S+Error)(: [^\n]*)?\n(\tat [^\n]*\n|Caused by: [^\n]*\n|\t\.\.\. [^\n]*\n)*\n*"), "\n"),
]


def normalise(text: str) -> str:
    for pattern, replacement in VOLATILE:
        text = pattern.sub(replacement, text)
    return text


class Comparison:
    """Runs command lines twice; `{me}` in them is the prefix of whoever runs it."""

    def __init__(self, kafka_tools: KafkaTools, bootstrap: str, directory: Path):
        self.kafka_tools = kafka_tools
        self.bootstrap = bootstrap
        self.directory = directory

    def __call__(self, line: str, *, unordered: bool = False, hide: str | None = None, code: int | None = None,
                 between=lambda: None) -> str:
        """Both must agree; returns what they print. `unordered`: lines may come in any order, as Java's hash maps give
        them. `hide`: a pattern of what is not compared. `between`: done before the second."""
        results = []
        for prefix, run in ((JAVA, self.kafka_tools.run), (RUST, run_ours)):
            words = shlex.split(line.replace("{me}", prefix))
            # After the sub-command, before it, or anywhere.
            place = 2 if words[0] == "kafka-cluster" else 1
            words[place:place] = ["--bootstrap-server", self.bootstrap]
            exit_code, out = run(words[0], words[1:])
            out = normalise(out)
            if hide:
                out = re.sub(hide, "…", out)
            if unordered:
                out = "\n".join(sorted(re.split(r"\n", out)))
            results.append((exit_code, out))
            if prefix == JAVA:
                between()
        kafka, ours = results
        if ours != kafka:
            pytest.fail(f"\n$ {line}\n--- Kafka: {kafka[0]}\n{kafka[1]}\n--- ours: {ours[0]}\n{ours[1]}", pytrace=False)
        if code is not None:
            assert ours[0] == code, f"$ {line}: exit code {ours[0]}\n{ours[1]}"
        return ours[1]

    def file(self, name: str, contents) -> str:
        """A JSON or text file for both, in which `{me}` stands for nothing: name topics of one prefix only."""
        path = self.directory / name
        path.write_text(contents if isinstance(contents, str) else json.dumps(contents))
        return str(path)

    def twin_file(self, name: str, contents) -> str:
        """A file for each, told apart by the prefix."""
        text = contents if isinstance(contents, str) else json.dumps(contents)
        for prefix in (JAVA, RUST):
            (self.directory / f"{prefix}-{name}").write_text(text.replace("{me}", prefix))
        return str(self.directory / f"{{me}}-{name}")


@pytest.fixture
def compare(kafka_tools, bootstrap, tmp_path) -> Comparison:
    return Comparison(kafka_tools, bootstrap, tmp_path)


@pytest.fixture
def produce(bootstrap):
    """Writes so many records to partitions of twin topics."""
    def write(topic: str, counts: dict[int, int], timestamp: int = 0) -> None:
        producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
        for prefix in (JAVA, RUST):
            for partition, count in counts.items():
                for number in range(count):
                    producer.produce(topic.replace("{me}", prefix), f"{number}".encode(), partition=partition,
                                     timestamp=timestamp + number if timestamp else 0)
        assert producer.flush(60) == 0

    return write
