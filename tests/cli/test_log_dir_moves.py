"""kafka-reassign-partitions between the log directories of a broker (KIP-113)."""

import pytest
from confluent_kafka import Producer
from harness.processes import Cluster, wait_for

from conftest import JAVA, RUST, Comparison, run_ours

CURRENT = r'(?<=Current partition replica assignment\n\n)\{.*\}'


class Moves:
    """Twin topics on two brokers with two directories each, and files that send both replicas to one of them."""

    def __init__(self, cluster: Cluster, compare: Comparison):
        self.cluster = cluster
        self.compare = compare

    def file(self, place: str, topic: str = "{me}-t", brokers: tuple[int, ...] = (1, 2)) -> str:
        paths = [str(self.cluster.broker(broker).directory / place) for broker in brokers]
        target = {"topic": topic, "partition": 0, "replicas": brokers, "log_dirs": paths}
        return self.compare.twin_file(f"{place}-{topic.replace('{me}', 'twin')}-{len(brokers)}.json",
                                      {"version": 1, "partitions": [target]})

    def __call__(self, action: str, file: str, code: int = 0, **options) -> str:
        action, *arguments = action.split(" ", 1)
        line = f"kafka-reassign-partitions --{action} --reassignment-json-file {file} {' '.join(arguments)}"
        return self.compare(line, code=code, **options)

    def wait(self, file: str) -> None:
        """Until neither topic is on its way, as the tool says of a file."""
        def have_arrived():
            told = [run_ours("kafka-reassign-partitions", ["--bootstrap-server", self.cluster.bootstrap, "--verify",
                                                           "--preserve-throttles", "--reassignment-json-file",
                                                           file.replace("{me}", prefix)])[1] for prefix in (JAVA, RUST)]
            return all("Reassignment of replica" in each and "still in progress" not in each
                       and "not being moved" not in each for each in told)

        wait_for("the replicas in their new directories", have_arrived)


@pytest.fixture
def moves(kafka_tools, tmp_path):
    cluster = Cluster(tmp_path / "cluster", brokers=2)
    for broker in cluster.brokers:
        broker.settings["log.dirs"] = f"{broker.directory / 'a'},{broker.directory / 'b'}"
    try:
        yield Moves(cluster.start(), Comparison(kafka_tools, cluster.bootstrap, tmp_path))
    finally:
        cluster.destroy()


def test_replicas_move_between_directories(moves):
    moves.compare("kafka-topics --create --topic {me}-t --replica-assignment 1:2", code=0)
    producer = Producer({"bootstrap.servers": moves.cluster.bootstrap, "acks": "all"})
    for prefix in (JAVA, RUST):
        for number in range(400):
            producer.produce(f"{prefix}-t", bytes(1000), key=f"{number}".encode())
    assert producer.flush(60) == 0

    to_a, to_b, elsewhere = moves.file("a"), moves.file("b"), moves.file("c")
    # Where a new replica lies is the broker's choice.
    moves("execute", to_a, hide=CURRENT)
    moves.wait(to_a)
    assert "completed successfully" in moves("verify", to_a)

    # So slow that it is still under way when it is asked for.
    told = moves("execute --replica-alter-log-dirs-throttle 10000", to_b)
    assert "Successfully started moving log directory to" in told
    assert "is still in progress" in moves("verify", to_b)
    assert "instead of" in moves("verify", to_a)
    # The limit is one of the brokers: without it the second tool's move would be done before that tool is asked.
    assert "Successfully started moving log directory to" in moves("cancel --preserve-throttles", to_b)
    assert "is not being moved" in moves("verify", to_b)

    moves("execute", to_b)
    moves.wait(to_b)
    assert "completed successfully" in moves("verify", to_b)
    moves("cancel", to_b)
    # Which of the two is told of is up to Java's hash map.
    assert "Failed to alter dir" in moves("execute", elsewhere, code=1, hide=r"(?<=ours-t-0-)[12]")


def test_a_directory_is_chosen_on_the_way_to_another_broker(moves):
    moves.compare("kafka-topics --create --topic {me}-u --replica-assignment 1", code=0)
    to_b = moves.file("b", topic="{me}-u", brokers=(2,))
    moves("execute", to_b, hide=CURRENT)
    moves.wait(to_b)
    assert "completed successfully" in moves("verify", to_b)
