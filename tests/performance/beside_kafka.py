"""Start, memory at rest and size on disk, beside Apache Kafka on the same machine in the same run.

    python3 tests/performance/beside_kafka.py BINARY CLASS_PATH_FILE [--rounds 5] [--directory DIR]

`just beside-kafka` builds and fetches both. One node of each, alone on the machine, in turns: a fresh directory, the start
until a record is acknowledged with acks=all, a thousand records, a rest, and a start again on the same data. Kafka runs in
KRaft combined mode by its own main class, with the options of its own start script. Nothing here passes or fails; the table
goes into the README.
"""

import argparse
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import wire  # noqa: E402
from harness.processes import free_ports  # noqa: E402

#: What kafka-server-start.sh and kafka-run-class.sh give to the virtual machine.
JAVA_OPTIONS = [
    "-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
]
TOPIC = "beside"
REST_SECONDS = 20
START_TIMEOUT = 120


class Program:
    """A broker that is started on a directory and told to stop."""

    name: str

    def __init__(self, directory: Path):
        self.directory = directory
        self.port, self.peer_port, self.http_port = free_ports(3)
        self.process: subprocess.Popen | None = None
        self.directory.mkdir(parents=True)

    def properties(self) -> dict[str, str]:
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.peer_port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@127.0.0.1:{self.peer_port}",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
        }

    def settings(self) -> Path:
        file = self.directory / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in self.properties().items()))
        return file

    def prepare(self) -> None:
        """What has to be run once before the first start."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> float:
        """Returns the seconds from the call to a record's acknowledgement."""
        command = self.command()
        with (self.directory / "log").open("ab") as log:
            began = time.monotonic()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        while not self.produces_one():
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < began + START_TIMEOUT, f"{self.name} does not acknowledge a record"
            time.sleep(0.005)
        return time.monotonic() - began

    def produces_one(self) -> bool:
        """One try. Asking for the topic creates it, as with any client."""
        try:
            with wire.Connection(self.port) as connection:
                if not wire.metadata(connection, [TOPIC], create=True)["topics"].get(TOPIC):
                    return False
                return produce(connection, 1)
        except (OSError, wire.ConnectionClosed):
            return False

    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"{self.name} is gone")

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Vltava(Program):
    name = "Vltava"
    binary: Path

    def properties(self) -> dict[str, str]:
        return {**super().properties(), "vltava.http.listener": f"127.0.0.1:{self.http_port}"}

    def command(self) -> list[str]:
        return [str(self.binary), "serve", str(self.settings())]


class Kafka(Program):
    name = "Apache Kafka"
    class_path: str

    def java(self, main: str, *arguments: str) -> list[str]:
        return ["java", *JAVA_OPTIONS, "-cp", self.class_path, main, *arguments]

    def prepare(self) -> None:
        subprocess.run(
            self.java("kafka.tools.StorageTool", "format", "--cluster-id", "4L6g3nShT-eMCtK--X86sw", "--config",
                      str(self.settings())),
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )

    def command(self) -> list[str]:
        return self.java("kafka.Kafka", str(self.settings()))


def produce(connection: wire.Connection, count: int) -> bool:
    batch = wire.record_batch([b"x" * 100] * count)
    connection.send(wire.PRODUCE, 3, wire.produce_body(TOPIC, 0, batch, -1, 30_000))
    return wire.produce_result(connection.receive())[0] == "NONE"


def measure(program: Program) -> dict[str, float]:
    began = time.monotonic()
    program.prepare()
    seen = {"format": time.monotonic() - began}
    try:
        seen["first"] = program.start()
        seen["first_processor"] = program.processor_seconds()
        with wire.Connection(program.port) as connection:
            for _ in range(10):
                assert produce(connection, 100)
        time.sleep(REST_SECONDS / 2)
        busy = program.processor_seconds()
        time.sleep(REST_SECONDS / 2)
        seen["processor"] = (program.processor_seconds() - busy) / (REST_SECONDS / 2)
        seen["resident"] = program.resident_bytes()
        program.stop()
        seen["again"] = program.start()
        program.stop()
    finally:
        if program.process is not None and program.process.poll() is None:
            program.process.kill()
    return seen


def size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def java_runtime_bytes() -> int:
    """The virtual machine that runs Kafka, without what only developers need."""
    home = Path(shutil.which("java")).resolve().parents[1]
    return size(home) - sum(size(home / part) for part in ("jmods", "include", "man", "lib/src.zip") if (home / part).exists())


def stripped_bytes(binary: Path, directory: Path) -> int:
    copy = directory / "stripped"
    subprocess.run(["strip", "-o", copy, binary], check=True)
    return copy.stat().st_size


def libraries_bytes(binary: Path) -> int:
    """The C library and its loader, which an image without a base has to bring along."""
    words = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True).stdout.split()
    return sum(Path(word).resolve().stat().st_size for word in words if word.startswith("/"))


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("class_path_file", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    arguments = parser.parse_args()
    Vltava.binary = arguments.binary.resolve()
    Kafka.class_path = arguments.class_path_file.read_text().strip()
    directory = Path(tempfile.mkdtemp(prefix="beside-kafka-", dir=arguments.directory))
    loads = [os.getloadavg()[0]]
    seen: dict[str, list[dict[str, float]]] = {Vltava.name: [], Kafka.name: []}
    try:
        for number in range(arguments.rounds):
            for kind in (Vltava, Kafka):
                program = kind(directory / f"{kind.__name__}-{number}")
                seen[kind.name].append(measure(program))
                print(f"round {number + 1}, {kind.name}: {seen[kind.name][-1]}", flush=True)
                shutil.rmtree(program.directory)
                loads.append(os.getloadavg()[0])
        jars = sum(Path(jar).stat().st_size for jar in Kafka.class_path.split(":"))
        sizes = {
            Vltava.name: f"{(stripped_bytes(Vltava.binary, directory) + libraries_bytes(Vltava.binary)) / 1e6:.0f} MB",
            Kafka.name: f"{(jars + java_runtime_bytes()) / 1e6:.0f} MB ({jars / 1e6:.0f} MB of it jars)",
        }
    finally:
        shutil.rmtree(directory, ignore_errors=True)

    def row(title: str, show) -> str:
        return f"| {title} | {show(Vltava.name)} | {show(Kafka.name)} |"

    def median(key: str, form: str, scale: float = 1.0):
        return lambda name: form.format(statistics.median(round_[key] for round_ in seen[name]) * scale)

    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()[0]
    print(f"\n{date.today()}, {machine()}; {java}; medians of {arguments.rounds} rounds; load average "
          f"{min(loads):.1f} to {max(loads):.1f}\n")
    print("| | Vltava | Apache Kafka 4.3.1 |\n|---|---|---|")
    print(row("formatting the storage", lambda name: median("format", "{:.1f} s")(name) if name == Kafka.name else "not needed"))
    print(row("first start to the first acknowledged record", median("first", "{:.2f} s")))
    print(row("processor time until then, which a busy machine does not change", median("first_processor", "{:.2f} s")))
    print(row("start again on the same data to the first acknowledged record", median("again", "{:.2f} s")))
    print(row("resident memory at rest", median("resident", "{:.0f} MB", 1e-6)))
    print(row("processor at rest", median("processor", "{:.2f} % of a core", 100)))
    print(row("installed size with all it needs to run", lambda name: sizes[name]))


if __name__ == "__main__":
    main()
