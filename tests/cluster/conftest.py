"""Clusters for the tests, which end with the test, whatever it did to them."""

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from harness.history import EAGER
from harness.processes import Cluster


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.when == "call":
        item.failed_in_call = report.failed


@pytest.fixture
def make_cluster(tmp_path, request):
    """Starts a cluster in the test's own directory."""
    clusters = []

    def make(brokers: int = 3, **options) -> Cluster:
        cluster = Cluster(tmp_path / f"cluster-{len(clusters)}", brokers, **options)
        clusters.append(cluster)
        return cluster.start()

    yield make
    for cluster in clusters:
        if getattr(request.node, "failed_in_call", True):
            for node in cluster.nodes:
                state = "runs" if node.runs() else "does not run"
                print(f"--- node {node.node_id} {state}; the end of {node.log_file}:")
                print("\n".join(node.log_text().splitlines()[-40:]))
        cluster.destroy()


@pytest.fixture
def cluster(make_cluster) -> Cluster:
    """Three brokers that vote and serve."""
    return make_cluster()


@pytest.fixture
def report(capsys):
    """Prints a line that shows even when the test passes."""
    def print_line(line: str) -> None:
        with capsys.disabled():
            print(f"\n    {line}", end="", flush=True)

    return print_line


def create_topic(cluster: Cluster, name: str, partitions: int = 1, replicas: int = 3, **configs: str) -> None:
    """Creates a topic and waits until all its replicas are in sync."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
    named = {key.replace("_", "."): value for key, value in configs.items()}
    topic = NewTopic(name, partitions, replicas, config=named)
    admin.create_topics([topic], operation_timeout=20)[name].result(30)
    cluster.wait_in_sync(name)
