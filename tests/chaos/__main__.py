"""Runs rounds of faults for some minutes: `python -m chaos --minutes 120 --seed 7 --output <directory>`.

Each round has a topic of its own, all kinds of clients at work on it, faults in the order that the seed draws, and at its
end everything healed, read, compared and checked. The exit code is 1 if anything was violated or did not heal; then the
history is kept, with the seed, what was violated, and the events around it.
"""

import argparse
import json
import os
import random
import sys
import time
import traceback
from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic

from harness.history import EAGER
from harness.log_files import assert_replicas_identical
from harness.processes import Cluster, wait_for
from harness.pulse import Pulse
from harness.small_disk import SmallDisk

from . import checker, report
from .clients import CommitWatcher, IdempotentProducer, JavaClient, Member, Reader, Worker
from .events import Ack, Commit, Failure, Fault, History, Read
from .faults import FAULTS, World, rotation
from .network import Network, NotPossible

BROKERS = 3
PARTITIONS = 6
DISK_MIB = 256
MIB = 1 << 20
#: Longer than any healing has a right to take.
HEALING_TIMEOUT = 150
#: How long throughput is measured before a fault and after healing.
CALM = 4.0


class Violated(Exception):
    """Something is wrong; what was said of it is printed already."""


class Clients:
    """Everybody who writes to and reads from one round's topic."""

    def __init__(self, world: World, history: History, per_second: float, directory: Path, with_java: bool):
        bootstrap, topic, partitions = world.cluster.bootstrap, world.topic, world.partitions
        self.history = history
        self.producers: list[Worker] = [
            IdempotentProducer(name, bootstrap, topic, partitions, per_second, history) for name in ("one", "two")
        ]
        self.reader = Reader("reader", bootstrap, topic, partitions, history)
        self.members = [Member(f"member-{index}", "librdkafka", bootstrap, topic, history) for index in (1, 2)]
        self.java: JavaClient | None = None
        groups = ["librdkafka"]
        if with_java:
            groups.append("java")
            self.java = JavaClient("java", "java", bootstrap, topic, partitions, per_second, history,
                                   directory / "java-client.log")
        self.watcher = CommitWatcher(groups, bootstrap, topic, partitions, history)
        self.all: list[Worker] = [*self.producers, self.reader, *self.members, self.watcher]
        if self.java is not None:
            self.all.append(self.java)

    @property
    def names(self) -> list[str]:
        return ["one", "two"] + (["java"] if self.java is not None else [])

    def start(self) -> None:
        for client in self.all:
            client.start()

    def check_alive(self) -> None:
        for client in self.all:
            if client.problem is not None:
                raise client.problem

    def acknowledged_since(self, moment: float, partitions: int) -> bool:
        """Whether every client has got through to every partition with a record sent after `moment`."""
        missing = {(name, partition) for name in self.names for partition in range(partitions)}
        for ack in reversed(self.history.of[Ack]):
            if ack.at < moment or not missing:
                break
            if ack.sent > moment:
                missing.discard((ack.client, ack.partition))
        return not missing

    def stop_writing(self) -> None:
        if self.java is not None:
            self.java.end_input("flush")
        for producer in self.producers:
            producer.stop()

    def stop(self) -> None:
        for client in (self.java, *self.members, self.reader, self.watcher):
            if client is not None:
                client.stop()

    def destroy(self) -> None:
        for client in self.all:
            client.stopping.set()
        if self.java is not None:
            self.java.kill()


class Run:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.output: Path = options.output
        self.draw = random.Random(options.seed)
        self.faults = rotation(self.draw, options.only)
        self.measured: list[report.Measured] = []
        self.ends = time.monotonic() + options.minutes * 60
        self.totals = {"acknowledged": 0, "read": 0, "commits": 0, "bytes compared": 0, "rounds": 0, "quiet": 0}

    def say(self, line: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)

    def run(self) -> None:
        with Network(BROKERS) as network:
            homes = [network.home(node) for node in network.nodes]
            cluster = Cluster(
                self.output / "cluster", BROKERS, homes=homes,
                log_segment_bytes=str(4 * MIB), replica_lag_time_max_ms="3000", offsets_topic_num_partitions="3",
                vltava_disk_reserve_bytes=str(8 * MIB), vltava_metadata_reserve_bytes=str(4 * MIB),
                log_segment_delete_delay_ms="1000",
            )
            disks = {broker.node_id: SmallDisk(broker.data, DISK_MIB) for broker in cluster.brokers}
            try:
                cluster.start(120)
                while time.monotonic() < self.ends:
                    number = self.totals["rounds"]
                    self.round(World(cluster, network, disks, self.draw, f"round-{number}", PARTITIONS))
                cluster.stop()
            finally:
                for broker in cluster.brokers:
                    broker.resume()
                cluster.destroy()
                for disk in disks.values():
                    disk.unmount()

    def round(self, world: World) -> None:
        """Faults for a while, then the reckoning."""
        cluster, topic = world.cluster, world.topic
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
        pulse_topic = f"{topic}-pulse"
        new = [NewTopic(topic, world.partitions, 3), NewTopic(pulse_topic, 1, 3)]
        for created in admin.create_topics(new, operation_timeout=30).values():
            created.result(60)
        cluster.wait_in_sync(topic, pulse_topic, timeout=HEALING_TIMEOUT)
        history = History()
        clients = Clients(world, history, self.options.rate / 3, self.output, not self.options.without_java)
        pulse = Pulse(cluster, pulse_topic).start()
        try:
            clients.start()
            wait_for("the first records", lambda: clients.acknowledged_since(0.0, world.partitions), 90)
            ends = min(self.ends, time.monotonic() + self.options.round_minutes * 60)
            while time.monotonic() < ends:
                self.fault(world, history, clients, pulse)
            self.reckon(world, history, clients, pulse)
        except BaseException as error:
            if not isinstance(error, Violated):
                self.say(f"seed {self.options.seed}: {type(error).__name__}: {error}")
                traceback.print_exc()
            history.write(self.output / f"violated-{topic}.jsonl.gz")
            clients.destroy()
            pulse.stopping.set()
            raise
        if self.options.keep_histories:
            history.write(self.output / f"{topic}.jsonl.gz")
        for deleted in admin.delete_topics([topic, pulse_topic], operation_timeout=30).values():
            deleted.result(60)
        self.totals["rounds"] += 1
        self.write_report("so far no invariant violated")

    def fault(self, world: World, history: History, clients: Clients, pulse: Pulse) -> None:
        kind = next(self.faults)
        if kind is None:
            self.totals["quiet"] += 1
            time.sleep(self.draw.uniform(3.0, 10.0))
            clients.check_alive()
            return
        begin, held = FAULTS[kind]
        time.sleep(CALM)
        begun, monotonic = time.time(), time.monotonic()
        what, undo = begin(world)
        time.sleep(self.draw.uniform(*held))
        undo()
        over = time.time()
        world.cluster.wait_in_sync(world.topic, pulse.topic, "__consumer_offsets", timeout=HEALING_TIMEOUT)
        healed = time.time()
        wait_for(f"records to get through after {what}",
                 lambda: clients.acknowledged_since(healed, world.partitions), 120)
        wait_for(f"the pulse to get through after {what}",
                 lambda: pulse.acknowledged_at[-1] > monotonic + healed - begun, 60)
        clients.check_alive()
        time.sleep(CALM)
        history.note(Fault(kind, what, begun, over, healed))
        self.measured.append(self.measure(kind, what, begun, over, healed, monotonic, history, clients, pulse))
        last = self.measured[-1]
        self.say(f"{what}: left so {last.held:.1f} s, in sync after {last.healing:.1f} s, writes paused "
                 f"{last.cluster_pause:.2f} s, for clients {last.client_pause:.2f} s")

    def measure(self, kind, what, begun, over, healed, monotonic, history, clients, pulse) -> report.Measured:
        times = sorted(ack.at for ack in history.of[Ack] if ack.at > begun - CALM)
        streams: dict[tuple[str, int], list[float]] = {
            (name, partition): [] for name in clients.names for partition in range(PARTITIONS)
        }
        for ack in history.of[Ack]:
            if ack.at > begun - CALM:
                streams[ack.client, ack.partition].append(ack.at)
        pulses = [at - monotonic + begun for at in pulse.acknowledged_at if at > monotonic - CALM]
        return report.Measured(
            kind, what, over - begun, healed - over,
            report.longest_gap(pulses, begun, healed),
            max(report.longest_gap(sorted(stream), begun, healed) for stream in streams.values()),
            report.rate(times, begun - CALM, begun),
            report.rate(times, begun, over),
            report.rate(times, time.time() - CALM, time.time()),
        )

    def reckon(self, world: World, history: History, clients: Clients, pulse: Pulse) -> None:
        """Everything is healed. Is everything there, the same everywhere, and was it so all the time?"""
        cluster, topic = world.cluster, world.topic
        pulse.stop()
        clients.stop_writing()
        if clients.java is not None:
            wait_for("the Java producer to end", lambda: self.all_answered("java", history), 200)
        ends = {}
        for ack in history.of[Ack]:
            ends[ack.partition] = max(ack.offset, ends.get(ack.partition, -1))
        log_reader = Reader("end", cluster.bootstrap, topic, world.partitions, history)
        log_reader.start()

        def caught_up() -> bool:
            readers = [["reader"], ["end"], [member.name for member in clients.members]]
            readers += [["java-member"]] if clients.java else []
            return all(max(history.last_read.get((name, partition), -1) for name in names) >= end
                       for names in readers for partition, end in ends.items())

        try:
            wait_for("all readers to read to the end", caught_up, 120, interval=1.0)
        except AssertionError as error:
            # The checker says what is missing.
            self.say(str(error))
        clients.stop()
        log_reader.stop()
        cluster.wait_in_sync(topic, timeout=HEALING_TIMEOUT)
        log = log_reader.log()
        started = time.monotonic()
        violations = checker.check(history, log)
        try:
            compared = self.compare_replicas(cluster, topic, world.partitions)
        except AssertionError as error:
            violations.append(checker.Violation("replicas-differ", str(error)))
            compared = 0
        acknowledged, read = len(history.of[Ack]), len(history.of[Read])
        self.totals["acknowledged"] += acknowledged
        self.totals["read"] += read
        self.totals["commits"] += sum(commit.ok for commit in history.of[Commit])
        self.totals["bytes compared"] += compared
        self.say(f"{topic}: {acknowledged} records acknowledged, {read} reads, {len(history.of[Fault])} faults, replicas "
                 f"identical over {compared} bytes; {len(violations)} violations "
                 f"(checked in {time.monotonic() - started:.1f} s)")
        if violations:
            self.tell(history, violations)
            raise Violated

    def all_answered(self, client: str, history: History) -> bool:
        """Every record that was sent has been acknowledged or given up."""
        sent = sum(count for (name, _), count in history.sent.items() if name == client)
        acknowledged = sum(ack.client == client for ack in history.of[Ack])
        given_up = sum(failure.client == client for failure in history.of[Failure])
        return acknowledged + given_up >= sent

    def compare_replicas(self, cluster: Cluster, topic: str, partitions: int) -> int:
        """Writers have ended, but a follower may be a moment behind."""
        for attempt in range(20):
            try:
                return assert_replicas_identical(cluster, topic, partitions)
            except AssertionError:
                if attempt == 19:
                    raise
                time.sleep(0.5)
        raise AssertionError("not reached")

    def tell(self, history: History, violations: list[checker.Violation]) -> None:
        lines = [f"seed {self.options.seed}", *(str(fault) for fault in history.of[Fault])]
        for violation in violations:
            lines += ["", f"VIOLATED {violation.kind}: {violation.what}", *checker.excerpt(history, violation)]
        (self.output / "violations.txt").write_text("\n".join(lines) + "\n")
        print("\n".join(lines), flush=True)

    def write_report(self, verdict: str) -> str:
        """As a file of JSON and as text; also while the run goes on."""
        summary = {
            "seed": self.options.seed, "verdict": verdict, **self.totals,
            "faults": [measured._asdict() for measured in self.measured],
        }
        (self.output / "run.json").write_text(json.dumps(summary, indent=1))
        totals = ", ".join(f"{count} {name}" for name, count in self.totals.items())
        words = report.text(self.measured) if self.measured else "no fault was measured"
        text = f"seed {self.options.seed}: {verdict}; {totals}, {len(self.measured)} faults\n\n{words}\n"
        (self.output / "report.txt").write_text(text)
        return text


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--round-minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--rate", type=float, default=600, help="records a second of all clients together")
    parser.add_argument("--only", action="append", choices=sorted(FAULTS), help="only faults of these names")
    parser.add_argument("--without-java", action="store_true")
    parser.add_argument("--keep-histories", action="store_true", help="also those without a violation")
    parser.add_argument("--output", type=Path, required=True, help="where brokers, histories and the report go")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    run = Run(options)
    run.say(f"seed {options.seed}, {options.minutes:g} minutes, process {os.getpid()}")
    failed = True
    try:
        run.run()
        failed = False
    except NotPossible as error:
        print(f"NOT TESTED: network namespaces are needed: {error}", file=sys.stderr)
    except Violated:
        pass
    except BaseException:
        traceback.print_exc()
    print(f"\n{run.write_report('VIOLATED' if failed else 'no invariant violated')}", flush=True)
    return int(failed)


if __name__ == "__main__":
    code = main()
    # Librdkafka's threads of a failed run do not always let the interpreter end.
    sys.stdout.flush()
    os._exit(code)
