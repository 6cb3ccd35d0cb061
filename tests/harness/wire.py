"""Kafka's wire protocol by hand, for what clients do not offer or would never send."""

import socket
import struct
import time

ERRORS = {
    0: "NONE", 1: "OFFSET_OUT_OF_RANGE", 2: "CORRUPT_MESSAGE", 3: "UNKNOWN_TOPIC_OR_PARTITION",
    5: "LEADER_NOT_AVAILABLE",
    6: "NOT_LEADER_OR_FOLLOWER", 7: "REQUEST_TIMED_OUT", 10: "MESSAGE_TOO_LARGE", 17: "INVALID_TOPIC_EXCEPTION",
    19: "NOT_ENOUGH_REPLICAS", 20: "NOT_ENOUGH_REPLICAS_AFTER_APPEND", 35: "UNSUPPORTED_VERSION",
    36: "TOPIC_ALREADY_EXISTS",
    37: "INVALID_PARTITIONS", 38: "INVALID_REPLICATION_FACTOR", 39: "INVALID_REPLICA_ASSIGNMENT", 40: "INVALID_CONFIG",
    42: "INVALID_REQUEST", 43: "UNSUPPORTED_FOR_MESSAGE_FORMAT", 56: "KAFKA_STORAGE_ERROR",
    76: "UNSUPPORTED_COMPRESSION_TYPE",
    84: "ELECTION_NOT_NEEDED", 87: "INVALID_RECORD",
}

PRODUCE, METADATA, API_VERSIONS, ELECT_LEADERS, REASSIGN, DESCRIBE_QUORUM, UNREGISTER_BROKER = 0, 3, 18, 43, 45, 55, 64


class ConnectionClosed(Exception):
    """The broker closed the connection instead of answering."""


class Connection:
    """One TCP connection; requests are answered in order."""

    def __init__(self, port: int, timeout: float = 10.0, host: str = "127.0.0.1"):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation_id = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, api_key: int, version: int, body: bytes, flexible: bool = False) -> int:
        self.correlation_id += 1
        header = struct.pack(">hhih", api_key, version, self.correlation_id, -1) + (b"\0" if flexible else b"")
        self.socket.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
        return self.correlation_id

    def receive(self, flexible: bool = False) -> "Reader":
        """The next response's body."""
        (length,) = struct.unpack(">i", self.read_exactly(4))
        reader = Reader(self.read_exactly(length))
        self.answered = reader.int32()
        if flexible:
            reader.tags()
        return reader

    def call(self, api_key: int, version: int, body: bytes, flexible: bool = False) -> "Reader":
        sent = self.send(api_key, version, body, flexible)
        reader = self.receive(flexible)
        assert self.answered == sent, "responses out of order"
        return reader

    def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionClosed(f"after {len(data)} of {count} bytes")
            data += part
        return bytes(data)


class Reader:
    """Reads a response from its start."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        assert count >= 0 and self.at + count <= len(self.data), "the response is too short"
        self.at += count
        return self.data[self.at - count:self.at]

    def int8(self): return struct.unpack(">b", self.take(1))[0]
    def int16(self): return struct.unpack(">h", self.take(2))[0]
    def int32(self): return struct.unpack(">i", self.take(4))[0]
    def int64(self): return struct.unpack(">q", self.take(8))[0]

    def string(self):
        length = self.int16()
        return None if length < 0 else self.take(length).decode()

    def array(self, read):
        return [read() for _ in range(max(0, self.int32()))]

    def uvarint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def compact_string(self):
        length = self.uvarint()
        return None if length == 0 else self.take(length - 1).decode()

    def compact_array(self, read):
        return [read() for _ in range(max(0, self.uvarint() - 1))]

    def tags(self):
        for _ in range(self.uvarint()):
            self.uvarint()
            self.take(self.uvarint())


def uvarint(value: int) -> bytes:
    data = bytearray()
    while value >= 0x80:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def varint(value: int) -> bytes:
    """Zigzag, as in records."""
    return uvarint((value << 1) ^ (value >> 63))


def string(text: str) -> bytes:
    return struct.pack(">h", len(text.encode())) + text.encode()


def compact_string(text: str) -> bytes:
    return uvarint(len(text.encode()) + 1) + text.encode()


def api_versions(connection: Connection) -> dict[int, tuple[int, int]]:
    """The advertised range of versions by key."""
    reader = connection.call(API_VERSIONS, 0, b"")
    assert reader.int16() == 0
    return {key: (low, high) for key, low, high in
            reader.array(lambda: (reader.int16(), reader.int16(), reader.int16()))}


def metadata(connection: Connection, topics: list[str], create: bool = False) -> dict:
    """Live brokers, and the partitions of the topics named, which are not created unless version 4 is told to."""
    body = struct.pack(">i", len(topics)) + b"".join(map(string, topics)) + bytes([create])
    reader = connection.call(METADATA, 4, body)
    reader.int32()
    brokers = reader.array(lambda: (reader.int32(), reader.string(), reader.int32(), reader.string()))
    reader.string()
    reader.int32()

    def partition():
        _error, index, leader = reader.int16(), reader.int32(), reader.int32()
        replicas = reader.array(reader.int32)
        return index, {"leader": leader, "replicas": replicas, "isr": reader.array(reader.int32)}

    def topic():
        _error, name, _internal = reader.int16(), reader.string(), reader.int8()
        return name, dict(reader.array(partition))

    return {"brokers": [broker[0] for broker in brokers], "topics": dict(reader.array(topic))}


def quorum_leader(connection: Connection) -> int:
    """The node that leads the metadata quorum, as DescribeQuorum has it; -1 while there is none."""
    body = uvarint(2) + compact_string("__cluster_metadata") + uvarint(2) + struct.pack(">i", 0) + b"\0\0\0"
    reader = connection.call(DESCRIBE_QUORUM, 0, body, flexible=True)
    if reader.int16() != 0 or reader.uvarint() != 2:
        return -1
    reader.compact_string()
    if reader.uvarint() != 2:
        return -1
    reader.int32()
    return reader.int32() if reader.int16() == 0 else -1


def reassign(connection: Connection, topic: str, partition: int, replicas: list[int]) -> str:
    """Sets a partition's replicas, the preferred leader first."""
    body = struct.pack(">i", 10_000) + uvarint(2) + compact_string(topic) + uvarint(2) + struct.pack(">i", partition)
    body += uvarint(len(replicas) + 1) + b"".join(struct.pack(">i", replica) for replica in replicas) + b"\0\0\0"
    reader = connection.call(REASSIGN, 0, body, flexible=True)
    reader.int32()
    error = reader.int16()
    reader.compact_string()
    if error == 0 and reader.uvarint() == 2:
        reader.compact_string()
        if reader.uvarint() == 2:
            reader.int32()
            error = reader.int16()
    return ERRORS.get(error, str(error))


def elect_preferred(connection: Connection, topic: str, partition: int) -> str:
    """Asks for the preferred leader of one partition."""
    body = b"\0" + struct.pack(">i", 1) + string(topic) + struct.pack(">iii", 1, partition, 10_000)
    reader = connection.call(ELECT_LEADERS, 1, body)
    reader.int32()
    error = reader.int16()
    for _ in range(reader.int32()):
        reader.string()
        for _ in range(reader.int32()):
            reader.int32()
            error = error or reader.int16()
            reader.string()
    return ERRORS.get(error, str(error))


def produce_body(topic: str, partition: int, batch: bytes | None, acks: int = -1, timeout_ms: int = 10_000) -> bytes:
    """A Produce request of version 3 for one partition."""
    records = struct.pack(">i", -1) if batch is None else struct.pack(">i", len(batch)) + batch
    return (struct.pack(">hhii", -1, acks, timeout_ms, 1) + string(topic) + struct.pack(">ii", 1, partition) + records)


def produce_result(reader: Reader) -> tuple[str, int]:
    """The error and base offset of a Produce response of version 3 for one partition."""
    assert reader.int32() == 1
    reader.string()
    assert reader.int32() == 1
    reader.int32()
    error = reader.int16()
    return ERRORS.get(error, str(error)), reader.int64()


def produce(connection: Connection, topic: str, partition: int, batch: bytes | None, acks: int = -1,
            timeout_ms: int = 10_000) -> tuple[str, int]:
    return produce_result(connection.call(PRODUCE, 3, produce_body(topic, partition, batch, acks, timeout_ms)))


def record_batch(values: list[bytes], **damage: int) -> bytes:
    """A batch of version 2 without compression; `damage` replaces header fields after, or the CRC before, its check."""
    now = int(time.time() * 1000)
    records = b""
    for index, value in enumerate(values):
        body = b"\0" + varint(0) + varint(index) + varint(-1) + varint(len(value)) + value + varint(0)
        records += varint(len(body)) + body
    after_crc = struct.pack(">hiqqqhii", damage.get("attributes", 0), damage.get("last_offset_delta", len(values) - 1),
                            now, now, damage.get("producer_id", -1), damage.get("producer_epoch", -1),
                            damage.get("base_sequence", -1), damage.get("record_count", len(values))) + records
    crc = damage.get("crc", crc32c(after_crc))
    after_length = struct.pack(">ibI", -1, damage.get("magic", 2), crc) + after_crc
    return struct.pack(">qi", 0, damage.get("length", len(after_length))) + after_length


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
