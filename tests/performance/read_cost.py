"""What reading costs a broker: processor seconds for each gigabyte that a consumer takes.

    python3 tests/performance/read_cost.py BINARY [BINARY ...] [--directory DIR] [--megabytes 1000]

Several programs take turns in the same run, so that they can be compared on a machine that is not quiet. Nothing here
passes or fails: docs/performance.md holds what was seen.
"""

import argparse
import os
import shutil
import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import wire  # noqa: E402
from harness.processes import Cluster, wait_for  # noqa: E402
from many_partitions import create_topic, leads  # noqa: E402

FETCH = 1
BATCH_BYTES = 250_000
ROUNDS = 4


def processor_seconds(pid: int) -> tuple[float, float]:
    """In this program, and in the system for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def fill(connection: wire.Connection, batches: int) -> None:
    batch = wire.record_batch([os.urandom(BATCH_BYTES)])
    for index in range(batches):
        connection.send(wire.PRODUCE, 3, wire.produce_body("read", 0, batch, 1, 60_000))
        if index >= 4:
            assert wire.produce_result(connection.receive())[0] == "NONE"
    for _ in range(min(4, batches)):
        assert wire.produce_result(connection.receive())[0] == "NONE"


def read(connection: wire.Connection, batches: int) -> int:
    """Reads all records, a megabyte at a time, and looks at no more than where each answer ends. Returns their bytes."""
    taken = offset = 0
    scratch = bytearray(4 << 20)
    while offset < batches:
        body = struct.pack(">iiiibi", -1, 500, 1, 50 << 20, 0, 1) + wire.string("read")
        connection.send(FETCH, 4, body + struct.pack(">iiqi", 1, 0, offset, 1 << 20))
        (length,) = struct.unpack(">i", connection.read_exactly(4))
        view, got = memoryview(scratch)[:length], 0
        while got < length:
            count = connection.socket.recv_into(view[got:])
            assert count > 0
            got += count
        # Each batch has one record, and the first of them begins where its answer says.
        records = length - (4 + 4 + 4 + 6 + 4 + 4 + 2 + 8 + 8 + 4 + 4)
        assert records > 0, "there are records"
        taken += records
        offset += records // BATCH_BYTES
    return taken


def measure(binary: str, directory: Path, megabytes: int) -> None:
    os.environ["VLTAVA_BINARY"] = binary
    cluster = Cluster(directory / Path(binary).name, 1, vltava_durability="page-cache", vltava_disk_reserve_bytes="0")
    try:
        [broker] = cluster.start(180).brokers
        with wire.Connection(broker.port, 120) as connection:
            create_topic(connection, "read", 1)
            wait_for("the topic", lambda: leads(broker, "read", 0))
        batches = megabytes * 1_000_000 // BATCH_BYTES
        with wire.Connection(broker.port, 120) as connection:
            fill(connection, batches)
        for restart in (False, True):
            if restart:
                broker.stop(120)
                broker.start()
                cluster.wait_ready(180)
            for turn in range(ROUNDS):
                before, begun = processor_seconds(broker.pid), time.monotonic()
                with wire.Connection(broker.port, 120) as connection:
                    taken = read(connection, batches) / 1e9
                after, took = processor_seconds(broker.pid), time.monotonic() - begun
                user, system = ((b - a) / taken for a, b in zip(before, after))
                print(f"{Path(binary).name:<20} {'started again, ' if restart else 'as written, '}round {turn}: "
                      f"user {user:.2f} + system {system:.2f} = {user + system:.2f} s/GB, {1000 * taken / took:.0f} MB/s",
                      flush=True)
    finally:
        cluster.destroy()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("binaries", nargs="+")
    arguments.add_argument("--directory")
    arguments.add_argument("--megabytes", type=int, default=1000)
    options = arguments.parse_args()
    directory = Path(tempfile.mkdtemp(dir=options.directory))
    try:
        for binary in options.binaries:
            measure(binary, directory, options.megabytes)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
