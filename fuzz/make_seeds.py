"""Makes inputs for the fuzzers from what brokers have on disk and from recorded frames:
`python fuzz/make_seeds.py <data directory of a broker>`.

`record_frames.py` fills `corpus/request_frames` first. Names say where an input comes from, so that making them again
changes nothing that is still true.
"""

import struct
import sys
from hashlib import sha1
from pathlib import Path

CORPUS = Path(__file__).resolve().parent / "corpus"
MAX_BYTES = 2048
#: Key: kind of step of the group coordinator's target, least version, first flexible version.
GROUP_REQUESTS = {11: (0, 0, 6), 14: (2, 0, 4), 12: (3, 0, 4), 13: (4, 0, 4), 8: (5, 2, 8), 9: (6, 1, 6), 47: (7, 0, 99)}
SEGMENT_FILES = {".log": 0, ".index": 2, ".timeindex": 3, ".snapshot": 4}


def keep(target: str, origin: str, data: bytes) -> None:
    directory = CORPUS / target
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{origin}-{sha1(data).hexdigest()[:8]}").write_bytes(data)


def chunk(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def batches(log: bytes, limit: int) -> list[bytes]:
    """The first batches that fit the limit together."""
    found, at = [], 0
    while at + 61 <= len(log):
        end = at + 12 + struct.unpack_from(">i", log, at + 8)[0]
        if end <= at or end > min(len(log), limit):
            break
        found.append(log[at:end])
        at = end
    return found


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def records(batch: bytes) -> list[tuple[bytes, bytes | None]]:
    """Keys and values of a batch without compression."""
    if struct.unpack_from(">h", batch, 21)[0] & 7:
        return []
    found, at = [], 61
    for _ in range(struct.unpack_from(">i", batch, 57)[0]):
        length, at = varint(batch, at)
        end = at + length
        at += 1
        _, at = varint(batch, at)
        _, at = varint(batch, at)
        parts = []
        for _ in range(2):
            size, at = varint(batch, at)
            parts.append(batch[at:at + size] if size >= 0 else None)
            at += max(0, size)
        found.append((parts[0] or b"", parts[1]))
        at = end
    return found


def from_partition(directory: Path) -> None:
    name = directory.name.rsplit("-", 1)[0].strip("_")
    files, end = b"", 0
    for file in sorted(directory.iterdir()):
        if file.suffix not in SEGMENT_FILES or not file.stem.isdigit():
            continue
        contents = file.read_bytes()
        if file.suffix == ".log":
            some = batches(contents, MAX_BYTES)
            contents = b"".join(some)
            for batch in some[:2]:
                keep("record_batches", f"log-{name}", b"\x01\x00" + batch)
                keep("record_batches", f"codec-{name}", b"\x33\x09" + batch)
            if some:
                end = struct.unpack_from(">q", some[-1])[0] + struct.unpack_from(">i", some[-1], 23)[0] + 1
        contents = contents[:MAX_BYTES]
        files += bytes([SEGMENT_FILES[file.suffix]]) + struct.pack(">q", int(file.stem)) + chunk(contents)
        if len(files) > 3 * MAX_BYTES:
            break
    for extra, kind in (("leader-epoch-checkpoint", 6), ("partition.metadata", 7)):
        if (directory / extra).exists():
            files += bytes([kind]) + bytes(8) + chunk((directory / extra).read_bytes()[:MAX_BYTES])
    for mode, recovery_point in ((0x00, 0), (0x01, end), (0x0E, end // 2), (0x1E, 0)):
        keep("segment_recovery", f"{name}-{mode:02x}", bytes([mode]) + struct.pack(">qqq", recovery_point, 0, end) + files)
    index = next(iter(sorted(directory.glob("*.index"))), None)
    if index is not None:
        time_index = index.with_suffix(".timeindex").read_bytes()[:240]
        for mode in (0x00, 0x01, 0x18):
            keep("index_files", f"{name}-{mode:02x}", bytes([mode]) + chunk(index.read_bytes()[:160]) + time_index)


def from_metadata(directory: Path) -> None:
    for file in sorted(directory.glob("*.log")):
        for batch in batches(file.read_bytes(), 16 * MAX_BYTES):
            for _, payload in records(batch):
                if payload and len(payload) <= MAX_BYTES:
                    keep("metadata_records", "entry", b"\x03" + payload)
                    if payload[1] == 1:
                        keep("metadata_records", "records", b"\x00" + payload[10:])
    for file in directory.glob("*.checkpoint"):
        keep("metadata_records", "snapshot", b"\x04" + file.read_bytes()[:-4])
    state = directory / "quorum-state"
    if state.exists():
        keep("metadata_records", "quorum-state", b"\x05" + state.read_bytes())


def group_steps(frames: list[bytes]) -> bytes:
    """Recorded requests as steps of the group coordinator's target."""
    steps = b""
    for frame in frames:
        key, version = struct.unpack_from(">hh", frame)
        if key not in GROUP_REQUESTS:
            continue
        kind, least, flexible = GROUP_REQUESTS[key]
        at = 10 + max(0, struct.unpack_from(">h", frame, 8)[0])
        if version >= flexible:
            # No tagged fields.
            at += 1
        steps += bytes([kind, 3, version - least]) + chunk(frame[at:])
    return steps


def from_groups(data: Path) -> None:
    stored = []
    for directory in sorted(data.glob("__consumer_offsets-*")):
        for file in sorted(directory.glob("*.log")):
            for batch in batches(file.read_bytes(), 8 * MAX_BYTES):
                stored += records(batch)
    by_client: dict[str, list[bytes]] = {}
    for file in sorted((CORPUS / "request_frames").iterdir()):
        by_client.setdefault(file.name.split("-api")[0], []).append(file.read_bytes())
    some = b"".join(chunk(key) + (b"\x01" + chunk(value) if value is not None else b"\x00") for key, value in stored[:8])
    keep("group_coordinator", "records", bytes([len(stored[:8])]) + some)
    for client, frames in by_client.items():
        steps = group_steps(frames)
        if steps:
            keep("group_coordinator", client, b"\x00" + steps[:2 * MAX_BYTES])
            keep("group_coordinator", f"{client}-loaded", bytes([len(stored[:8])]) + some + steps[:2 * MAX_BYTES])


def from_produce_requests() -> None:
    """Batches of every codec, as clients compress them."""
    for file in sorted((CORPUS / "request_frames").glob("*-api0-*")):
        frame = file.read_bytes()
        # The magic of a batch, behind base offset, length and leader epoch, where the length fits what is there.
        for at in range(8, len(frame) - 61):
            length = struct.unpack_from(">i", frame, at + 8)[0]
            if frame[at:at + 8] == bytes(8) and frame[at + 16] == 2 and 49 <= length <= len(frame) - at - 12:
                codec = struct.unpack_from(">h", frame, at + 21)[0] & 7
                batch = frame[at:at + 12 + length]
                keep("record_batches", f"{file.name.split('-api')[0]}-codec{codec}", b"\x00\x00" + batch)
                keep("record_batches", f"{file.name.split('-api')[0]}-mended{codec}", b"\x01\x20" + batch)


def of_the_controller() -> None:
    """Requests to the controller, which only nodes send, written by hand in the codec of `vltava_metadata`."""
    def text(value: str) -> bytes:
        return struct.pack(">I", len(value)) + value.encode()

    def frame(kind: int, body: bytes) -> bytes:
        return struct.pack(">HBI", kind, 1, len(body)) + body

    none, topic_id = struct.pack(">I", 0), bytes([1]) * 16
    endpoint = text("localhost") + struct.pack(">H", 9092) + text("PLAINTEXT")
    partition = topic_id + struct.pack(">i", 0)

    def register(broker: int, incarnation: int) -> bytes:
        listeners = struct.pack(">I", 1) + text("PLAINTEXT") + endpoint
        return frame(1, struct.pack(">i", broker) + text("") + bytes([incarnation]) * 16 + listeners + endpoint + b"\0"
                     + struct.pack(">I", 1) + bytes(16) + b"\1" + struct.pack(">q", -1))

    def heartbeat(broker: int, epoch: int, fence: int, shut_down: int) -> bytes:
        return frame(2, struct.pack(">iqqBB", broker, epoch, 5, fence, shut_down) + none + none)

    def alter_partitions(broker: int, epoch: int, isr: list[int]) -> bytes:
        members = struct.pack(">I", len(isr)) + b"".join(struct.pack(">iq", id, id + 1) for id in isr)
        return frame(3, struct.pack(">iqI", broker, epoch, 1) + partition + struct.pack(">ii", 0, 0) + members + b"\0")

    def create_topic(name: str, id: int, configs: dict[str, str]) -> bytes:
        named = b"".join(text(key) + text(value) for key, value in configs.items())
        return frame(4, struct.pack(">I", 1) + text(name) + bytes([id]) * 16 + struct.pack(">ih", 3, 2) + none
                     + struct.pack(">I", len(configs)) + named + b"\0" + b"\0")

    delete = frame(5, struct.pack(">I", 1) + b"\0" + text("a"))
    grow = frame(6, struct.pack(">I", 1) + text("a") + struct.pack(">i", 4) + b"\0" + b"\0")
    configs = frame(7, struct.pack(">I", 1) + b"\0" + topic_id + struct.pack(">I", 1) + b"\0"
                    + text("min.insync.replicas") + text("2") + b"\0\0")
    elect = frame(8, b"\0\0")
    elect_unclean = frame(8, b"\1\1" + struct.pack(">I", 1) + partition)
    reassign = frame(9, struct.pack(">I", 1) + partition + b"\1" + struct.pack(">Iii", 2, 2, 0) + b"\1")
    ids = frame(10, struct.pack(">iq", 0, 1))
    unregister = frame(11, struct.pack(">i", 2))
    fence = heartbeat(1, 2, 1, 0)
    stories = [
        [heartbeat(0, 1, 0, 0), alter_partitions(0, 1, [0, 1]), heartbeat(1, 2, 0, 1), elect],
        [create_topic("b", 2, {"retention.ms": "1000"}), create_topic("b", 3, {}), delete, grow],
        [configs, fence, reassign, elect_unclean, ids],
        [register(3, 7), heartbeat(3, 4, 0, 0), reassign, unregister, register(2, 9)],
        [alter_partitions(0, 1, [0]), fence, heartbeat(0, 1, 0, 1), elect_unclean, delete],
    ]
    for story in stories:
        keep("controller_requests", "story", b"".join(b"\x05" + chunk(request) for request in story))
        for request in story:
            keep("controller_requests", "request", b"\x05" + chunk(request))
            keep("metadata_records", "request", b"\x01" + request)


def main() -> None:
    data = Path(sys.argv[1])
    of_the_controller()
    for directory in sorted(data.iterdir()):
        if directory.name.startswith("__cluster_metadata"):
            from_metadata(directory)
        elif (directory / "partition.metadata").exists():
            from_partition(directory)
    from_groups(data)
    from_produce_requests()
    for target in sorted(CORPUS.iterdir()):
        print(f"{target.name}: {sum(1 for _ in target.iterdir())} inputs")


if __name__ == "__main__":
    main()
