"""Compose files in the manner of the official Kafka image, with only the image's name changed: one broker without any
settings, one with a mounted file, and the usual combined cluster."""

from pathlib import Path

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
