"""Replicas as they lie on disk: Kafka's segment files, batch by batch."""

import struct
from pathlib import Path

from .processes import Broker, Cluster


def partition_directory(broker: Broker, topic: str, partition: int) -> Path:
    return broker.data / f"{topic}-{partition}"


def batches(directory: Path) -> list[tuple[int, bytes]]:
    """Every batch of a partition with its base offset, over all segments in order, up to a torn tail."""
    found = []
    for segment in sorted(directory.glob("*.log")):
        data = segment.read_bytes()
        at = 0
        while at + 61 <= len(data):
            base_offset, length = struct.unpack_from(">qi", data, at)
            end = at + 12 + length
            if length <= 0 or end > len(data):
                break
            found.append((base_offset, data[at:end]))
            at = end
    return found


def assert_replicas_identical(cluster: Cluster, topic: str, partitions: int) -> int:
    """Compares all replicas byte by byte; for a cluster at rest, whose log ends are its high watermarks.
    Returns the number of bytes compared."""
    compared = 0
    for partition in range(partitions):
        replicas = {
            broker.node_id: batches(partition_directory(broker, topic, partition))
            for broker in cluster.brokers
            if partition_directory(broker, topic, partition).exists()
        }
        assert replicas, f"no replica of {topic}-{partition} on disk"
        (first_id, first), *rest = replicas.items()
        for other_id, other in rest:
            for (offset, bytes_of_first), (_, bytes_of_other) in zip(first, other):
                assert bytes_of_first == bytes_of_other, (
                    f"{topic}-{partition}: brokers {first_id} and {other_id} differ at offset {offset}"
                )
            assert len(first) == len(other), (
                f"{topic}-{partition}: broker {first_id} has {len(first)} batches, broker {other_id} has {len(other)}"
            )
        compared += sum(len(batch) for _, batch in first)
    return compared
