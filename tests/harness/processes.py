"""Broker processes of a cluster on this machine, each of which a test can kill, stop or start by itself."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from . import wire

#: Below the ports that the kernel gives to outgoing connections, so that a restarted broker finds its own free.
PORTS = range(20_000, 32_000)


def binary() -> Path:
    """The program under test: VLTAVA_BINARY, or a release build, or a debug build."""
    named = os.environ.get("VLTAVA_BINARY")
    if named:
        return Path(named)
    root = Path(__file__).resolve().parents[2]
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    for profile in ("release", "debug"):
        if (target / profile / "vltava").exists():
            return target / profile / "vltava"
    raise FileNotFoundError("build the broker first: cargo build --release")


def free_ports(count: int) -> list[int]:
    """Distinct ports that nothing listens on now."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def wait_for(what: str, condition, timeout: float = 30.0, interval: float = 0.05):
    """Polls until `condition` returns something true, and returns it."""
    deadline = time.monotonic() + timeout
    problem = None
    while time.monotonic() < deadline:
        try:
            value = condition()
            if value:
                return value
        except (OSError, wire.ConnectionClosed) as error:
            problem = error
        time.sleep(interval)
    raise AssertionError(f"timed out after {timeout} s waiting for {what}" + (f" ({problem})" if problem else ""))


class Home(NamedTuple):
    """Where a node listens, and the command that starts a program there."""

    host: str
    enter: tuple[str, ...] = ()


LOOPBACK = Home("127.0.0.1")


class Broker:
    """One node: its settings, its directory, and its process while it runs."""

    def __init__(self, node_id: int, directory: Path, settings: dict[str, str], port: int | None,
                 home: "Home" = LOOPBACK, http_port: int | None = None):
        self.node_id = node_id
        self.home = home
        self.directory = directory
        self.settings = settings
        self.port = port
        self.http_port = http_port
        #: None for what a broker chooses by itself.
        self.log_format: str | None = "human"
        self.process: subprocess.Popen | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log_file(self) -> Path:
        return self.directory / "broker.log"

    def start(self) -> None:
        """Starts the process; returns at once. Call on the main thread only: the process ends with its parent."""
        assert self.process is None or self.process.poll() is not None, f"node {self.node_id} runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / "server.properties"
        file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_")}
        environment.pop("VLTAVA_LOG_FORMAT", None)
        if self.log_format is not None:
            environment["VLTAVA_LOG_FORMAT"] = self.log_format
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.home.enter, binary(), "serve", file, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        return f"{self.home.host}:{self.port}"

    def connect(self, timeout: float = 10.0) -> wire.Connection:
        return wire.Connection(self.port, timeout, self.home.host)

    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> None:
        if self.runs():
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has closed its sockets."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def stop(self, timeout: float = 40.0) -> None:
        """SIGTERM, and the orderly end that it asks for."""
        self.signal(signal.SIGTERM)
        if self.process is not None:
            self.process.wait(timeout)

    def pause(self) -> None:
        """SIGSTOP, and wait until each thread stands still: until then a request may still be taken."""
        self.signal(signal.SIGSTOP)
        if self.runs():
            wait_for("all threads to stand still", lambda: all(state == "T" for state in self.thread_states()), interval=0.001)

    def thread_states(self) -> list[str]:
        stats = [file.read_text() for file in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        return [stat.rpartition(")")[2].split()[0] for stat in stats]

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def wipe(self) -> None:
        assert not self.runs()
        shutil.rmtree(self.data)

    def get(self, path: str, timeout: float = 2.0) -> tuple[int, str]:
        """Status and body of a path of the node's HTTP listener; status 0 if nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.home.host}:{self.http_port}{path}", timeout=timeout) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def resident_bytes(self) -> int:
        """The memory that the process holds."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"node {self.node_id} has no memory: it is gone")

    def log_text(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


class Cluster:
    """Brokers that vote and serve, or brokers beside one node that only votes."""

    def __init__(self, directory: Path, brokers: int = 3, separate_controller: bool = False,
                 racks: list[str] | None = None, homes: list[Home] | None = None, log_format: str | None = "human",
                 **overrides: str):
        self.directory = directory
        ports = free_ports(3 * brokers + 1)
        client_ports, http_ports, peer_ports = ports[:brokers], ports[brokers:2 * brokers], ports[2 * brokers:]
        homes = homes or [LOOPBACK] * brokers
        self.brokers = []
        self.controllers = []
        if separate_controller:
            voters = f"100@127.0.0.1:{peer_ports[-1]}"
        else:
            voters = ",".join(f"{index + 1}@{homes[index].host}:{peer_ports[index]}" for index in range(brokers))
        common = {
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": voters,
            "default.replication.factor": str(min(brokers, 3)),
            "min.insync.replicas": "2" if brokers >= 3 else "1",
            "group.initial.rebalance.delay.ms": "100",
            **{name.replace("_", "."): value for name, value in overrides.items()},
        }
        for index in range(brokers):
            node_id = index + 1
            home = directory / f"broker-{node_id}"
            host = homes[index].host
            listeners = f"PLAINTEXT://{host}:{client_ports[index]}"
            if not separate_controller:
                listeners += f",CONTROLLER://{host}:{peer_ports[index]}"
            self.brokers.append(Broker(node_id, home, {
                "node.id": str(node_id),
                "process.roles": "broker" if separate_controller else "broker,controller",
                "listeners": listeners,
                "inter.broker.listener.name": "PLAINTEXT",
                "log.dirs": str(home / "data"),
                "vltava.http.listener": f"{homes[index].host}:{http_ports[index]}",
                **({"broker.rack": racks[index]} if racks else {}),
                **common,
            }, client_ports[index], homes[index], http_ports[index]))
        if separate_controller:
            home = directory / "controller-100"
            self.controllers.append(Broker(100, home, {
                "node.id": "100",
                "process.roles": "controller",
                "listeners": f"CONTROLLER://127.0.0.1:{peer_ports[-1]}",
                "log.dirs": str(home / "data"),
                "vltava.http.listener": "",
                **common,
            }, None))

        for node in self.nodes:
            node.log_format = log_format

    @property
    def nodes(self) -> list[Broker]:
        return self.controllers + self.brokers

    @property
    def bootstrap(self) -> str:
        return ",".join(broker.address for broker in self.brokers)

    def broker(self, node_id: int) -> Broker:
        return next(broker for broker in self.brokers if broker.node_id == node_id)

    def others(self, broker: Broker) -> list[Broker]:
        return [other for other in self.brokers if other is not broker]

    def running(self) -> list[Broker]:
        return [broker for broker in self.brokers if broker.runs()]

    def start(self, timeout: float = 60.0) -> "Cluster":
        for node in self.nodes:
            if not node.runs():
                node.start()
        self.wait_ready(timeout)
        return self

    def wait_ready(self, timeout: float = 60.0) -> None:
        """Until every running broker knows every running broker as live."""
        running = self.running()

        def ready():
            for node in self.nodes:
                assert node.process is None or node.process.poll() in (None, -signal.SIGKILL), (
                    f"node {node.node_id} ended: \n" + "\n".join(node.log_text().splitlines()[-20:])
                )
            expected = {broker.node_id for broker in running}
            return all(set(self.live_brokers(broker)) == expected for broker in running)

        wait_for("all brokers to be live", ready, timeout)

    def live_brokers(self, broker: Broker) -> list[int]:
        with broker.connect() as connection:
            return wire.metadata(connection, [])["brokers"]

    def ask(self, question):
        """Runs `question(connection)` on the first running broker that answers."""
        problem = None
        for broker in self.running():
            try:
                with broker.connect() as connection:
                    return question(connection)
            except (OSError, wire.ConnectionClosed) as error:
                problem = error
        raise wire.ConnectionClosed(f"no broker answers: {problem}")

    def topic(self, name: str) -> dict[int, dict]:
        """The partitions of a topic by index: leader, replicas, isr."""
        return self.ask(lambda connection: wire.metadata(connection, [name]))["topics"].get(name, {})

    def topic_as_known_by(self, broker: Broker, name: str) -> dict[int, dict]:
        try:
            with broker.connect() as connection:
                return wire.metadata(connection, [name])["topics"].get(name, {})
        except (OSError, wire.ConnectionClosed):
            return {}

    def leader(self, topic: str, partition: int = 0) -> Broker:
        def found():
            leader = self.topic(topic).get(partition, {}).get("leader", -1)
            return self.broker(leader) if leader > 0 and self.broker(leader).runs() else None

        return wait_for(f"a running leader of {topic}-{partition}", found)

    def controller(self) -> int:
        """The node that leads the metadata quorum."""
        def found():
            leader = self.ask(wire.quorum_leader)
            return leader if leader > 0 else None

        return wait_for("a controller", found)

    def wait_in_sync(self, *topics: str, timeout: float = 60.0) -> None:
        """Until every replica of the topics is in sync again, and every running broker knows it: one that was stopped
        or cut off answers from what it knew until it has caught up."""
        def in_sync():
            for topic in topics:
                views = [self.topic_as_known_by(broker, topic) for broker in self.running()]
                partitions = views[0] if views else {}
                if not partitions or any(view != partitions for view in views):
                    return False
                if any(len(p["isr"]) != len(p["replicas"]) for p in partitions.values()):
                    return False
            return True

        wait_for(f"all replicas of {', '.join(topics)} to be in sync", in_sync, timeout)

    def stop(self) -> None:
        """SIGTERM to all at once; what does not end is killed and reported."""
        for node in self.nodes:
            node.resume()
            node.signal(signal.SIGTERM)
        stuck = []
        for node in self.nodes:
            if node.process is not None:
                try:
                    node.process.wait(40)
                except subprocess.TimeoutExpired:
                    stuck.append(node.node_id)
                    node.kill()
        assert not stuck, f"nodes {stuck} did not end on SIGTERM"

    def destroy(self) -> None:
        """SIGKILL to all, at the end of a test."""
        for node in self.nodes:
            node.kill()
