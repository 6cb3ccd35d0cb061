"""What many partitions cost one broker: to create, to keep idle, and to open again.

    VLTAVA_BINARY=target/release/vltava python3 tests/performance/many_partitions.py [--partitions 10000] [--directory DIR]

Prints one line a figure. Nothing here passes or fails: docs/performance.md holds what was seen, and on what machine.
"""

import argparse
import os
import shutil
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import wire  # noqa: E402
from harness.processes import Cluster, wait_for  # noqa: E402

CREATE_TOPICS = 19
PARTITIONS_PER_TOPIC = 1000


def create_topic(connection: wire.Connection, name: str, partitions: int) -> None:
    body = struct.pack(">i", 1) + wire.string(name) + struct.pack(">ihii", partitions, 1, 0, 0)
    reader = connection.call(CREATE_TOPICS, 2, body + struct.pack(">ib", 120_000, 0))
    reader.int32()
    [(_, error, message)] = reader.array(lambda: (reader.string(), reader.int16(), reader.string()))
    assert error == 0, f"{name}: {wire.ERRORS.get(error, error)} {message}"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def report(what: str, value: str) -> None:
    print(f"{what:<48} {value}", flush=True)


def leads(broker, topic: str, partition: int) -> bool:
    """Whether a record can be written: leader, log and high watermark are all there."""
    try:
        with wire.Connection(broker.port) as connection:
            return wire.produce(connection, topic, partition, wire.record_batch([b"x"]))[0] == "NONE"
    except (OSError, wire.ConnectionClosed):
        return False


def seconds_until_serving(broker, topics: list[str], partitions: int) -> float:
    begun = time.monotonic()
    broker.start()
    last = (partitions - 1) % PARTITIONS_PER_TOPIC
    wait_for("the last partition to be writable", lambda: leads(broker, topics[-1], last), 600, 0.01)
    return time.monotonic() - begun


def write_everywhere(broker, topics: list[str], stop: threading.Event, size: int) -> int:
    """Writes to all partitions in turn, many requests at a time, until told to stop or cut off."""
    batch = wire.record_batch([bytes(size)])
    written = 0
    try:
        with wire.Connection(broker.port) as connection:
            while not stop.is_set():
                for partition in range(PARTITIONS_PER_TOPIC):
                    for topic in topics:
                        connection.send(wire.PRODUCE, 3, wire.produce_body(topic, partition, batch, 1))
                    for topic in topics:
                        connection.receive()
                        written += 1
                    if stop.is_set():
                        break
    except (OSError, wire.ConnectionClosed):
        pass
    return written


def idle(pid: int, seconds: int) -> str:
    before = cpu_seconds(pid)
    time.sleep(seconds)
    return f"{100 * (cpu_seconds(pid) - before) / seconds:.2f} % of one core"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--partitions", type=int, default=10_000)
    arguments.add_argument("--directory")
    arguments.add_argument("--seconds", type=int, default=20)
    options = arguments.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.directory))
    topics = [f"many-{index}" for index in range(-(-options.partitions // PARTITIONS_PER_TOPIC))]
    cluster = Cluster(directory, 1, vltava_disk_reserve_bytes="0")
    [broker] = cluster.brokers
    try:
        cluster.start()
        time.sleep(3)
        empty = broker.resident_bytes()
        report("empty broker: resident memory", f"{empty / 2**20:.1f} MiB")
        report("empty broker: open files", str(open_files(broker.pid)))
        report("empty broker: when idle", idle(broker.pid, options.seconds))

        begun = time.monotonic()
        left = options.partitions
        with wire.Connection(broker.port, 300) as connection:
            for topic in topics:
                create_topic(connection, topic, min(left, PARTITIONS_PER_TOPIC))
                left -= PARTITIONS_PER_TOPIC
        report(f"create {options.partitions} partitions", f"{time.monotonic() - begun:.1f} s")

        def measure(what: str) -> None:
            time.sleep(10)
            resident = broker.resident_bytes()
            report(f"{what}: resident memory", f"{resident / 2**20:.1f} MiB, "
                   f"{(resident - empty) / options.partitions / 1024:.1f} KiB a partition")
            report(f"{what}: open files", str(open_files(broker.pid)))
            report(f"{what}: when idle", idle(broker.pid, options.seconds))

        measure("created")
        begun = time.monotonic()
        broker.stop(600)
        report("clean shutdown", f"{time.monotonic() - begun:.2f} s")
        report("start after it, until the last one is writable",
               f"{seconds_until_serving(broker, topics, options.partitions):.2f} s")
        measure("opened")

        stop = threading.Event()
        written = []
        writer = threading.Thread(target=lambda: written.append(write_everywhere(broker, topics, stop, 1000)))
        writer.start()
        time.sleep(40)
        report("under load: open files", str(open_files(broker.pid)))
        broker.kill()
        stop.set()
        writer.join()
        report("written before SIGKILL", f"{written[0]} batches of 1 KB, one a partition in turn")
        report("start after SIGKILL, until the last one is writable",
               f"{seconds_until_serving(broker, topics, options.partitions):.2f} s")
        measure("recovered")
        begun = time.monotonic()
        broker.stop(600)
        report("clean shutdown", f"{time.monotonic() - begun:.2f} s")
        report("start after it, until the last one is writable",
               f"{seconds_until_serving(broker, topics, options.partitions):.2f} s")
    finally:
        for line in broker.log_text().splitlines()[-5:]:
            print("   ", line[:300], file=sys.stderr)
        cluster.destroy()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
