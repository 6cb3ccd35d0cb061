"""How long one Produce request waits that writes to many partitions of one broker, in both durability modes.

    VLTAVA_BINARY=target/release/vltava python3 tests/performance/written_at_once.py [--directory DIR]

Prints medians. Nothing here passes or fails: docs/adr/0008 holds what was seen.
"""

import argparse
import shutil
import statistics
import struct
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import wire  # noqa: E402
from harness.processes import Cluster, wait_for  # noqa: E402
from many_partitions import create_topic, leads  # noqa: E402

PARTITIONS = 1000


def seconds(connection: wire.Connection, topic: str, partitions: int, batch: bytes) -> float:
    data = b"".join(struct.pack(">ii", index, len(batch)) + batch for index in range(partitions))
    body = struct.pack(">hhii", -1, -1, 60_000, 1) + wire.string(topic) + struct.pack(">i", partitions) + data
    begun = time.monotonic()
    reader = connection.call(wire.PRODUCE, 3, body)
    took = time.monotonic() - begun
    [(_, errors)] = reader.array(lambda: (reader.string(), reader.array(
        lambda: (reader.int32(), reader.int16(), reader.int64(), reader.int64())[1])))
    assert errors == [0] * partitions, set(errors)
    return took


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--directory")
    directory = Path(tempfile.mkdtemp(dir=arguments.parse_args().directory))
    batch = wire.record_batch([bytes(1000)])
    print(f"{'partitions':<12}{'page-cache':>12}{'flush':>12}  (ms)")
    clusters = {mode: Cluster(directory / mode, 1, vltava_durability=mode) for mode in ("page-cache", "flush")}
    try:
        for cluster in clusters.values():
            cluster.start()
            with wire.Connection(cluster.brokers[0].port, 300) as connection:
                create_topic(connection, "many", PARTITIONS)
            wait_for("the topic", lambda: leads(cluster.brokers[0], "many", PARTITIONS - 1))
        for partitions, rounds in ((1, 101), (10, 51), (100, 25), (1000, 9)):
            medians = []
            for cluster in clusters.values():
                with wire.Connection(cluster.brokers[0].port, 300) as connection:
                    took = [seconds(connection, "many", partitions, batch) for _ in range(rounds)]
                medians.append(1000 * statistics.median(took))
            print(f"{partitions:<12}{medians[0]:>12.2f}{medians[1]:>12.2f}", flush=True)
    finally:
        for cluster in clusters.values():
            cluster.destroy()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
