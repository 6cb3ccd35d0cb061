"""Prometheus with the repository's configuration and rules on a real cluster, and the queries of the Grafana dashboard."""

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from harness.history import EAGER
from harness.processes import Cluster, free_ports, wait_for

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy/compose/prometheus"
DASHBOARD = ROOT / "deploy/compose/grafana/dashboards/vltava.json"

#: Each broker leads one partition, so that any coordinator has to ask the others.
TOPIC, PARTITIONS = "watched", range(3)

#: In each partition.
RECORDS, CONSUMED = 50, 20


def metric_names(expression: str) -> set[str]:
    names = re.findall(r"\b(?:vltava|process)_[a-z_]+", expression)
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in names}


def documented() -> set[str]:
    """docs/metrics.md; a test in crates/vltava holds it against what a node publishes."""
    page = (ROOT / "docs/metrics.md").read_text()
    return {name for name in re.findall(r"^\| `([a-z_]+)`", page, re.MULTILINE)}


def dashboard_queries() -> list[tuple[str, str]]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]


def rules() -> list[dict]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_every_metric_in_dashboard_and_rules_exists():
    queries = dashboard_queries() + [(rule["alert"], rule["expr"]) for rule in rules()]
    assert len(queries) > 20
    for title, expression in queries:
        unknown = metric_names(expression) - documented()
        assert not unknown, f"{title}: {unknown}"


def test_the_dashboard_is_laid_out_and_asks_the_provisioned_source():
    dashboard = json.loads(DASHBOARD.read_text())
    sources = yaml.safe_load(
        (ROOT / "deploy/compose/grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    uids = {source["uid"] for source in sources}
    taken = set()
    for panel in dashboard["panels"]:
        assert panel["datasource"]["uid"] in uids, panel["title"]
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, f"{panel['title']} overlaps"
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


def test_prometheus_accepts_configuration_and_rules():
    for what, file in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        checked = subprocess.run([promtool(), "check", what, PROMETHEUS / file], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def promtool() -> str:
    found = shutil.which("promtool")
    assert found, "Prometheus is needed (on Debian: apt-get install prometheus)"
    return found


class Prometheus:
    def __init__(self, directory: Path, cluster: Cluster):
        """With the repository's files; only the names of the compose network are replaced."""
        self.port = free_ports(1)[0]
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
        assert len(targets) == len(cluster.brokers)
        targets[:] = [f"127.0.0.1:{broker.http_port}" for broker in cluster.brokers]
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        directory.mkdir()
        shutil.copy(PROMETHEUS / "alerts.yml", directory)
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        with (directory / "log").open("w") as log:
            self.process = subprocess.Popen(
                [shutil.which("prometheus"), f"--config.file={directory / 'prometheus.yml'}",
                 f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"],
                stdout=log, stderr=log,
            )
        wait_for("Prometheus to answer", lambda: self.query("up"), timeout=60)

    def query(self, expression: str) -> list[dict]:
        arguments = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query?{arguments}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    def value(self, expression: str) -> float | None:
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def alerts(self) -> dict[str, str]:
        """What is pending or firing, by name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/alerts", timeout=10) as answer:
            return {alert["labels"]["alertname"]: alert["state"] for alert in json.load(answer)["data"]["alerts"]}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture
def cluster(tmp_path):
    promtool()
    cluster = Cluster(tmp_path / "cluster", 3).start()
    yield cluster
    cluster.destroy()


@pytest.fixture
def prometheus(tmp_path, cluster):
    prometheus = Prometheus(tmp_path / "prometheus", cluster)
    yield prometheus
    prometheus.stop()


def commit(bootstrap: str, group: str, offset: int) -> None:
    """As a consumer does that then goes away."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False, **EAGER})

    def committed() -> bool:
        try:
            consumer.commit(offsets=[TopicPartition(TOPIC, index, offset) for index in PARTITIONS], asynchronous=False)
            return True
        except KafkaException as error:
            # The first one creates the topic of the offsets.
            assert error.args[0].retriable() or "coordinator" in error.args[0].str().lower(), error
            return False

    wait_for(f"{group} to commit", committed)
    consumer.close()


def fill(bootstrap: str) -> float:
    """A topic, a group that has consumed a part of it, and one that has consumed everything; both are gone. Returns when
    what the first has not consumed was written."""
    admin = AdminClient({"bootstrap.servers": bootstrap, **EAGER})
    admin.create_topics([NewTopic(TOPIC, len(PARTITIONS), 3)], operation_timeout=20)[TOPIC].result(30)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", **EAGER})
    for count in (CONSUMED, RECORDS - CONSUMED):
        written = time.time()
        for number in range(count):
            for partition in PARTITIONS:
                producer.produce(TOPIC, f"{number}".encode(), partition=partition)
        assert producer.flush(30) == 0
    commit(bootstrap, "stopped", CONSUMED)
    commit(bootstrap, "done", RECORDS)
    return written


def test_a_cluster_is_watched(cluster, prometheus):
    written = fill(cluster.bootstrap)
    wait_for("all brokers to be scraped", lambda: prometheus.value("sum(up)") == 3, timeout=30)

    # Groups without members, from the brokers that coordinate them, over partitions that all brokers lead.
    def lags(name: str, group: str = "stopped") -> list[float]:
        return [float(one["value"][1]) for one in prometheus.query(f'vltava_group_{name}{{group="{group}"}}')]

    assert len({partition["leader"] for partition in cluster.topic(TOPIC).values()}) == 3
    behind = [RECORDS - CONSUMED for _ in PARTITIONS]
    wait_for("the group's lag", lambda: lags("lag_records") == behind)
    assert lags("committed_offset") == [CONSUMED for _ in PARTITIONS]
    waited = time.time() - written
    assert all(abs(waited - seconds) < 5 for seconds in lags("lag_seconds")), (waited, lags("lag_seconds"))
    time.sleep(3)
    assert all(seconds >= waited for seconds in lags("lag_seconds")), "they wait on"
    for name in ("lag_records", "lag_seconds"):
        assert lags(name, "done") == [0 for _ in PARTITIONS]

    # Every query of the dashboard finds something.
    for title, expression in dashboard_queries():
        wait_for(f"data for {title}: {expression}", lambda: prometheus.query(expression), timeout=30)
    assert prometheus.value("max(vltava_live_brokers)") == 3
    assert prometheus.value("sum(vltava_active_controller)") == 1
    assert prometheus.value("sum(vltava_under_min_isr_partitions)") == 0
    wait_for("alerts to calm down", lambda: not prometheus.alerts(), timeout=30)

    # One broker less: partitions have nobody to spare.
    first = cluster.brokers[0]
    first.kill()
    wait_for("a broker to be missed", lambda: "BrokerDown" in prometheus.alerts(), timeout=30)
    wait_for("partitions at the minimum", lambda: prometheus.value("sum(vltava_at_min_isr_partitions)") > 0, timeout=30)
    first.start()
    cluster.wait_in_sync(TOPIC)
    # Whoever coordinates the group now tells the same.
    wait_for("the group's lag", lambda: lags("lag_records") == behind)
