"""Compose files in the manner of the official Kafka image, with only the image's name changed: one broker without any
settings, one with a mounted file, one with variables, three that vote and serve, and three that serve beside three that
vote."""

import json
import subprocess
from pathlib import Path

import yaml
from confluent_kafka import Producer

from harness.history import EAGER, read_all

SINGLE = """
services:
  broker:
    image: vltava
    hostname: broker
    ports: ["9092:9092"]
"""

MOUNTED = """
services:
  broker:
    image: vltava
    hostname: broker
    ports: ["9192:9092"]
    environment:
      CLUSTER_ID: '4L6g3nShT-eMCtK--X86sw'
    volumes: ["{directory}:/mnt/shared/config"]
"""

PROPERTIES = """
process.roles=broker,controller
node.id=7
listeners=PLAINTEXT_HOST://:9092,CONTROLLER://:9093,PLAINTEXT://:19092
advertised.listeners=PLAINTEXT_HOST://localhost:9192,PLAINTEXT://broker:19092
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.voters=7@broker:9093
inter.broker.listener.name=PLAINTEXT
log.dirs=/tmp/kraft-combined-logs
offsets.topic.replication.factor=1
"""

COMBINED = """
services:
  kafka:
    image: vltava
    hostname: kafka
    ports: ["9292:9092"]
    environment:
      KAFKA_NODE_ID: 1
      KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT'
      KAFKA_ADVERTISED_LISTENERS: 'PLAINTEXT_HOST://localhost:9292,PLAINTEXT://kafka:19092'
      KAFKA_PROCESS_ROLES: 'broker,controller'
      KAFKA_CONTROLLER_QUORUM_VOTERS: '1@kafka:29093'
      KAFKA_LISTENERS: 'CONTROLLER://:29093,PLAINTEXT_HOST://:9092,PLAINTEXT://:19092'
      KAFKA_INTER_BROKER_LISTENER_NAME: 'PLAINTEXT'
      KAFKA_CONTROLLER_LISTENER_NAMES: 'CONTROLLER'
      CLUSTER_ID: '4L6g3nShT-eMCtK--X86sw'
      KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR: 1
      KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS: 0
      KAFKA_TRANSACTION_STATE_LOG_MIN_ISR: 1
      KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR: 1
      KAFKA_LOG_DIRS: '/tmp/kraft-combined-logs'
"""


#: What every node of the clusters below is given.
COMMON = {
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT",
    "KAFKA_INTER_BROKER_LISTENER_NAME": "PLAINTEXT",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": 1,
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": 0,
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": 1,
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": 1,
    "KAFKA_LOG_DIRS": "/tmp/kraft-combined-logs",
}


def service(name: str, environment: dict, ports: list[str] = ()) -> dict:
    return {"image": "vltava", "hostname": name, "container_name": f"vltava-test-{name}", "ports": list(ports),
            "environment": {**COMMON, **environment}}


def combined_cluster() -> dict:
    """Three nodes, each broker and controller."""
    voters = ",".join(f"{number}@kafka-{number}:9093" for number in (1, 2, 3))
    return {"version": "2", "services": {f"kafka-{number}": service(f"kafka-{number}", {
        "KAFKA_NODE_ID": number,
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": voters,
        "KAFKA_LISTENERS": "PLAINTEXT://:19092,CONTROLLER://:9093,PLAINTEXT_HOST://:9092",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://kafka-{number}:19092,PLAINTEXT_HOST://localhost:{number + 1}9092",
    }, [f"{number + 1}9092:9092"]) for number in (1, 2, 3)}}


def isolated_cluster() -> dict:
    """Three controllers, and three brokers that depend on them."""
    voters = ",".join(f"{number}@controller-{number}:9093" for number in (1, 2, 3))
    controllers = {f"controller-{number}": service(f"controller-{number}", {
        "KAFKA_NODE_ID": number,
        "KAFKA_PROCESS_ROLES": "controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": voters,
        "KAFKA_LISTENERS": "CONTROLLER://:9093",
    }) for number in (1, 2, 3)}
    brokers = {f"kafka-{number}": {**service(f"kafka-{number}", {
        "KAFKA_NODE_ID": number + 3,
        "KAFKA_PROCESS_ROLES": "broker",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": voters,
        "KAFKA_LISTENERS": "PLAINTEXT://:19092,PLAINTEXT_HOST://:9092",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://kafka-{number}:19092,PLAINTEXT_HOST://localhost:{number + 1}9092",
    }, [f"{number + 1}9092:9092"]), "depends_on": list(controllers)} for number in (1, 2, 3)}
    return {"version": "2", "services": {**controllers, **brokers}}


def check_round_trip(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, **EAGER})
    producer.produce("greetings", b"ahoj")
    assert producer.flush(30) == 0
    assert list(read_all(bootstrap, "greetings", 1).values()) == [b"ahoj"]


def test_an_image_without_settings_is_a_broker_on_localhost(compose, tmp_path: Path):
    file = tmp_path / "compose.yml"
    file.write_text(SINGLE)
    compose(file).wait_ready("broker")
    check_round_trip("localhost:9092")


def test_a_mounted_properties_file_is_honoured(compose, tmp_path: Path):
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "server.properties").write_text(PROPERTIES)
    file = tmp_path / "compose.yml"
    file.write_text(MOUNTED.format(directory=settings))
    project = compose(file)
    project.wait_ready("broker")
    check_round_trip("localhost:9192")
    quorum = project.exec(
        "broker", "/opt/kafka/bin/kafka-metadata-quorum.sh", "--bootstrap-server", "broker:19092", "describe", "--status",
    )
    assert ["LeaderId:", "7"] in [line.split() for line in quorum.splitlines()]
    told = project.exec(
        "broker", "/opt/kafka/bin/kafka-cluster.sh", "cluster-id", "--bootstrap-server", "broker:19092",
    )
    assert told.strip() == "Cluster ID: 4L6g3nShT-eMCtK--X86sw"


def test_variables_and_cluster_id_are_honoured(compose, tmp_path: Path):
    file = tmp_path / "compose.yml"
    file.write_text(COMBINED)
    project = compose(file)
    project.wait_ready("kafka")
    check_round_trip("localhost:9292")
    told = project.exec(
        "kafka", "/opt/kafka/bin/kafka-cluster.sh", "cluster-id", "--bootstrap-server", "kafka:19092",
    )
    assert told.strip() == "Cluster ID: 4L6g3nShT-eMCtK--X86sw"


def check_cluster(project, brokers: list[str]) -> None:
    """From the host and from inside, with Kafka's tools by their usual paths."""
    project.wait_ready(*brokers)
    inside = ("--bootstrap-server", "kafka-1:19092,kafka-2:19092,kafka-3:19092")
    project.exec("kafka-1", "/opt/kafka/bin/kafka-topics.sh", *inside, "--create", "--topic", "spread", "--partitions", "3",
                 "--replication-factor", "3")
    described = project.exec("kafka-2", "/opt/kafka/bin/kafka-topics.sh", *inside, "--describe", "--topic", "spread")
    assert described.count("Partition: ") == 3 and "ReplicationFactor: 3" in described
    project.exec("kafka-3", "/opt/kafka/bin/kafka-console-producer.sh", *inside, "--topic", "spread", given="from inside\n")
    read = project.exec("kafka-1", "/opt/kafka/bin/kafka-console-consumer.sh", *inside, "--topic", "spread",
                        "--from-beginning", "--max-messages", "1", "--timeout-ms", "30000")
    assert read == "from inside\n"
    check_round_trip("localhost:29092,localhost:39092,localhost:49092")


def test_three_combined_nodes_are_a_cluster(compose, tmp_path: Path):
    file = tmp_path / "compose.yml"
    file.write_text(yaml.safe_dump(combined_cluster()))
    check_cluster(compose(file), ["kafka-1", "kafka-2", "kafka-3"])


def test_brokers_beside_controllers_are_a_cluster(compose, tmp_path: Path):
    file = tmp_path / "compose.yml"
    file.write_text(yaml.safe_dump(isolated_cluster()))
    project = compose(file)
    check_cluster(project, ["kafka-1", "kafka-2", "kafka-3"])
    project.wait_ready("controller-1", "controller-2", "controller-3")


def test_the_image_is_small_and_runs_as_nobody_in_particular():
    told = subprocess.run(["docker", "image", "inspect", "vltava"], capture_output=True, text=True, check=True)
    (image,) = json.loads(told.stdout)
    assert image["Size"] < 30_000_000, image["Size"]
    assert image["Config"]["User"] == "1000:1000"
    assert image["Config"]["Healthcheck"]["Test"] == ["CMD", "/usr/local/bin/vltava", "health", "--ready"]
    assert image["Config"]["StopSignal"] == "SIGTERM"


def test_the_first_process_ends_in_order_when_it_is_told_to(compose, tmp_path: Path):
    """There is no init in between: the broker is process 1."""
    file = tmp_path / "compose.yml"
    file.write_text(SINGLE)
    project = compose(file)
    project.wait_ready("broker")
    container = project.run("ps", "--quiet", "broker").strip()
    project.run("stop", "--timeout", "30", "broker")
    told = subprocess.run(["docker", "inspect", "--format", "{{.State.ExitCode}}", container], capture_output=True, text=True)
    assert told.stdout.strip() == "0", "SIGKILL would be 137"
    assert "shut down" in project.run("logs", "--no-color", "broker")
