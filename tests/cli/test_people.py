"""The commands for people, and what is the same for all tools."""

import json
import os
import subprocess
import time

import pytest
from harness.processes import binary, wait_for

from conftest import CLASSES


def vltava(*arguments: str, server: str | None = None, code: int = 0) -> subprocess.CompletedProcess:
    environment = {**os.environ, "VLTAVA_BOOTSTRAP_SERVER": server or os.environ["BOOTSTRAP_SERVERS"]}
    done = subprocess.run([binary(), *arguments], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == code, done
    return done


def rows(*arguments: str) -> list[dict]:
    return json.loads(vltava(*arguments, "--output", "json").stdout)


@pytest.fixture
def topic(request):
    name = f"people-{request.node.name.removeprefix('test_')}"
    vltava("topics", "create", name, "--partitions", "2", "--replication-factor", "2", "--config", "retention.ms=1000000")
    yield name
    vltava("topics", "delete", name)


def test_topics(topic):
    assert topic in [row["topic"] for row in rows("topics", "list")]
    described = rows("topics", "describe", topic)
    assert [(row["partition"], len(row["replicas"]), row["out_of_sync"]) for row in described] == [(0, 2, []), (1, 2, [])]
    vltava("topics", "grow", topic, "--partitions", "4")
    assert len(rows("topics", "describe", topic)) == 4
    assert "there already" in vltava("topics", "create", topic, "--if-not-exists").stderr
    assert f"cannot create {topic}: " in vltava("topics", "create", topic, code=1).stderr
    assert "cannot describe" in vltava("topics", "describe", "people-nothing", code=1).stderr
    table = vltava("topics", "describe", topic).stdout.splitlines()
    assert table[0].split() == ["TOPIC", "PARTITION", "LEADER", "LEADER", "EPOCH", "REPLICAS", "ISR", "OUT", "OF", "SYNC"]
    assert vltava("topics", "describe", topic, "-o", "yaml").stdout.startswith(f'- topic: "{topic}"\n  partition: 0\n')


def test_configs(topic):
    of_topic = ("topic", topic)
    assert {"config": "retention.ms", "value": "1000000", "source": "DYNAMIC_TOPIC_CONFIG", "read_only": False} in rows(
        "configs", "describe", *of_topic)
    vltava("configs", "set", *of_topic, "retention.bytes=5000000")
    assert "retention.bytes" in [row["config"] for row in rows("configs", "describe", *of_topic)]
    vltava("configs", "unset", *of_topic, "retention.bytes", "retention.ms")
    assert not {"retention.bytes", "retention.ms"} & {row["config"] for row in rows("configs", "describe", *of_topic)}
    assert len(rows("configs", "describe", "broker", "2", "--all")) > 50
    assert "cannot set configs" in vltava("configs", "set", *of_topic, "frob=1", code=1).stderr


def test_groups_and_offsets(topic):
    assert [row["log_end_offset"] for row in rows("offsets", topic)] == [0, 0]
    planned = rows("groups", "reset", "people-group", "--topic", topic, "--to", "latest")
    assert [(row["old_offset"], row["new_offset"]) for row in planned] == [(None, 0), (None, 0)]
    assert "people-group" not in [row["group"] for row in rows("groups", "list")]
    vltava("groups", "reset", "people-group", "--topic", topic, "--to", "earliest", "--execute")
    assert [row["lag"] for row in rows("groups", "describe", "people-group")] == [0, 0]
    assert rows("groups", "members", "people-group") == []
    assert [row["new_offset"] for row in rows("groups", "reset", "people-group", "--to", "9")] == [0, 0]
    vltava("groups", "delete", "people-group")


def test_partitions_and_nodes(topic):
    assert sorted(row["node"] for row in rows("quorum")) == [1, 2, 3]
    assert [row["role"] for row in rows("quorum")].count("leader") == 1
    assert [(row["broker"], row["state"]) for row in rows("brokers")] == [(1, "live"), (2, "live"), (3, "live")]
    assert rows("brokers", "list") == rows("brokers")
    # The answer to its creation comes from one broker; the others learn of the topic a moment later.
    wait_for("both replicas of both partitions", lambda: len(rows("log-dirs", "--topic", topic)) == 4)
    assert rows("producers", topic) == []
    assert {row["outcome"] for row in rows("elect", "preferred", topic)} == {"not needed"}
    elected = vltava("elect", "preferred", f"{topic}:9", "--output", "json", code=1)
    assert "1 of 1 elections failed" in elected.stderr
    replicas = rows("topics", "describe", topic)[0]["replicas"]
    vltava("reassign", "move", topic, "0", "--replicas", ",".join(str(broker) for broker in reversed(replicas)))
    rows("reassign", "list")


def test_nobody_answers():
    for arguments in (["topics", "list"], ["quorum"]):
        done = vltava(*arguments, server="127.0.0.1:1", code=1)
        assert "no broker answered at 127.0.0.1:1" in done.stderr and "try `vltava serve`" in done.stderr


def test_a_tool_waits_as_long_as_it_is_told(tmp_path):
    """Scripts wait for a cluster by asking it: Kafka's tools give up after a minute unless they are told otherwise."""
    settings = tmp_path / "client.properties"
    settings.write_text("default.api.timeout.ms=1500\n")
    began = time.monotonic()
    done = vltava("kafka-topics", "--bootstrap-server", "127.0.0.1:1", "--list", "--command-config", str(settings), code=1)
    assert 1.0 < time.monotonic() - began < 15
    assert "waiting up to" in done.stderr
    assert "Timed out waiting for a node assignment" in done.stdout


def test_links_work_by_their_names(tmp_path, bootstrap):
    vltava("install-links", str(tmp_path / "bin"))
    links = {link.name for link in (tmp_path / "bin").iterdir()}
    assert {name + suffix for name in CLASSES for suffix in ("", ".sh")} <= links
    for name in ("kafka-cluster", "kafka-cluster.sh"):
        done = subprocess.run([tmp_path / "bin" / name, "cluster-id", "--bootstrap-server", bootstrap],
                              capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout[:12]) == (0, "Cluster ID: ")


def test_what_is_not_built_is_refused():
    for tool in ("kafka-acls", "kafka-transactions", "kafka-delegation-tokens", "kafka-features"):
        assert "not built yet" in vltava(tool, "--list", code=1).stderr


def test_completions_and_man_pages(tmp_path):
    for shell in ("bash", "zsh", "fish"):
        assert "topics" in vltava("completions", shell).stdout
    vltava("man-pages", str(tmp_path / "man"))
    assert (tmp_path / "man" / "vltava-topics-create.1").read_text().startswith(".")
