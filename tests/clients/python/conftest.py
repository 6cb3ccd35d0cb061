"""The cluster under test is named by BOOTSTRAP_SERVERS; `cargo xtask test` starts one."""

import itertools
import os
import sys
import time

import pytest

try:
    # kafka-python 2.0.2 carries a copy of six whose lazy modules Python 3.12 and later cannot import.
    import six

    sys.modules.setdefault("kafka.vendor.six.moves", six.moves)
except ImportError:
    pass

COUNTER = itertools.count()

#: A time of the client's own, and within the retention of a new topic.
NOW_MS = int(time.time() * 1000) - 60_000

#: What clients get wrong first: empty values, no value, bytes that are no text, and text beyond ASCII.
RECORDS = [
    (b"key", b"value", [], NOW_MS + 1),
    (None, b"no key", [("trace", b"\x00\xff")], NOW_MS + 2),
    (b"", b"", [("empty", b"")], NOW_MS + 3),
    (b"\x00\xfe\xff", bytes(range(256)), [("a", b"1"), ("a", b"2"), ("b", b"3")], NOW_MS + 4),
    ("Vltava – řeka".encode(), "řeka".encode() * 500, [("jméno", "Labe".encode())], NOW_MS + 5),
]


@pytest.fixture(scope="session")
def bootstrap() -> str:
    return os.environ.get("BOOTSTRAP_SERVERS", "localhost:9092")


@pytest.fixture
def fresh(request):
    """Names that no earlier test or run has used."""
    def name(kind: str) -> str:
        return f"{kind}-{os.getpid()}-{int(time.time())}-{next(COUNTER)}"

    return name


def wait_for(what: str, condition, timeout: float = 30.0):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"timed out after {timeout} s waiting for {what}")
