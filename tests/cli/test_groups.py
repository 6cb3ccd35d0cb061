"""kafka-consumer-groups."""

import time

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from harness.processes import wait_for

from conftest import JAVA, RUST, Comparison

TOPIC = "{me}-groups"
#: Which broker coordinates a group depends on its name.
COORDINATOR = r"[\d.]+:\d+  \(\d\)"


@pytest.fixture(scope="module")
def committed(kafka_tools, bootstrap, tmp_path_factory):
    """Twin topics with ten and five records, and a group that has read some of them."""
    compare = Comparison(kafka_tools, bootstrap, tmp_path_factory.mktemp("groups"))
    # The records are years old by their timestamps, and are to stay.
    compare(f"kafka-topics --create --topic {TOPIC} --replica-assignment 1:2:3,2:3:1,3:1:2 --config retention.ms=-1", code=0)
    producer = Producer({"bootstrap.servers": bootstrap})
    for prefix in (JAVA, RUST):
        for partition, count in ((0, 10), (1, 5)):
            for number in range(count):
                producer.produce(TOPIC.replace("{me}", prefix), b"v", partition=partition,
                                 timestamp=1_700_000_000_000 + number * 1000)
    assert producer.flush(60) == 0


def commits(consumer: Consumer, offsets: list[TopicPartition]) -> bool:
    """The first group of a cluster may find its coordinator still loading."""
    try:
        consumer.commit(offsets=offsets, asynchronous=False)
    except KafkaException as error:
        print(error)
        return False
    return True


@pytest.fixture
def group(committed, bootstrap, request):
    """The name of a group, one for each side, with committed offsets and no members."""
    name = request.node.name.removeprefix("test_").split("[")[0]
    for prefix in (JAVA, RUST):
        topic = TOPIC.replace("{me}", prefix)
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": f"{prefix}-{name}"})
        offsets = [TopicPartition(topic, 0, 4), TopicPartition(topic, 1, 5)]
        wait_for("the coordinator", lambda: commits(consumer, offsets))
        consumer.close()
    return f"{{me}}-{name}"


def test_describe_offsets_state_and_members_of_a_stopped_group(compare, group):
    compare(f"kafka-consumer-groups --describe --group {group}", code=0)
    compare(f"kafka-consumer-groups --describe --group {group} --offsets --verbose", code=0)
    compare(f"kafka-consumer-groups --describe --group {group} --state", hide=COORDINATOR, code=0)
    compare(f"kafka-consumer-groups --describe --group {group} --state --verbose", hide=COORDINATOR, code=0)
    compare(f"kafka-consumer-groups --describe --group {group} --members", code=0)
    compare(f"kafka-consumer-groups --describe --group {group} --members --verbose", code=0)


def test_describe_members_of_a_running_group(compare, committed, bootstrap):
    consumers = []
    try:
        for prefix in (JAVA, RUST):
            consumer = Consumer({
                "bootstrap.servers": bootstrap, "group.id": f"{prefix}-running", "client.id": f"{prefix}-c",
                "group.instance.id": f"{prefix}-static", "auto.offset.reset": "earliest", "enable.auto.commit": False,
            })
            consumer.subscribe([TOPIC.replace("{me}", prefix)])
            consumers.append(consumer)
            deadline = time.monotonic() + 60
            while not consumer.assignment() and time.monotonic() < deadline:
                consumer.poll(0.2)
            consumer.commit(offsets=[TopicPartition(TOPIC.replace("{me}", prefix), 0, 7)], asynchronous=False)
        identity = r"-?[0-9a-f]{8}-[0-9a-f-]{27}"
        compare("kafka-consumer-groups --describe --group {me}-running", hide=identity, code=0)
        compare("kafka-consumer-groups --describe --group {me}-running --verbose", hide=identity, code=0)
        compare("kafka-consumer-groups --describe --group {me}-running --members", hide=identity, code=0)
        compare("kafka-consumer-groups --describe --group {me}-running --members --verbose", hide=identity, code=0)
        compare("kafka-consumer-groups --describe --group {me}-running --state", hide=COORDINATOR, code=0)
        compare(f"kafka-consumer-groups --reset-offsets --group {{me}}-running --topic {TOPIC} --to-earliest --execute",
                code=0)
        compare("kafka-consumer-groups --delete --group {me}-running", code=0)
        compare(f"kafka-consumer-groups --delete-offsets --group {{me}}-running --topic {TOPIC}", code=0)
    finally:
        for consumer in consumers:
            consumer.close()


def test_list(compare, group):
    name = group.removeprefix("{me}")
    assert f"ours{name}" in compare("kafka-consumer-groups --list", unordered=True, code=0)
    compare("kafka-consumer-groups --list --state", unordered=True, code=0)
    compare("kafka-consumer-groups --list --type", unordered=True, code=0)
    compare("kafka-consumer-groups --list --type --state", unordered=True, code=0)
    compare("kafka-consumer-groups --list --state Empty", unordered=True, code=0)
    compare("kafka-consumer-groups --list --state stable,dead", unordered=True, code=0)
    compare("kafka-consumer-groups --list --type classic", unordered=True, code=0)
    compare("kafka-consumer-groups --list --type consumer", unordered=True, code=0)
    compare("kafka-consumer-groups --list --state frob", code=1)
    compare("kafka-consumer-groups --list --type frob", code=1)


SCENARIOS = {
    "earliest": "--to-earliest",
    "latest": "--to-latest",
    "current": "--to-current",
    "offset": "--to-offset 3",
    "offset-too-high": "--to-offset 99",
    "shift": "--shift-by 2",
    "shift-back": "--shift-by -2",
    "datetime": "--to-datetime 2023-11-14T22:13:23.000",
    "datetime-zone": "--to-datetime 2023-11-14T22:13:23.000+00:00",
    "datetime-late": "--to-datetime 2033-01-01T00:00:00.000",
    "datetime-wrong": "--to-datetime yesterday",
    "duration": "--by-duration P9000D",
    "no-scenario": "",
    "two-scenarios": "--to-earliest --to-latest",
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_reset(compare, group, scenario):
    options = SCENARIOS[scenario]
    # A mistake is told with Java's own classes in front.
    hide = r"java\.[\w.]+Exception: .*" if scenario == "datetime-wrong" else None
    for scope in (f"--topic {TOPIC}:0,1", "--all-topics"):
        compare(f"kafka-consumer-groups --reset-offsets --group {group} {scope} {options} --dry-run",
                unordered=True, hide=hide)
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --topic {TOPIC}:0,1 {options} --export",
            unordered=True, hide=hide)
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --topic {TOPIC}:0,1 {options} --execute",
            unordered=True, hide=hide)
    compare(f"kafka-consumer-groups --describe --group {group}", code=0)


def test_reset_of_whole_topics_and_of_new_groups(compare, group):
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --topic {TOPIC} --to-earliest --execute",
            unordered=True, code=0)
    compare(f"kafka-consumer-groups --reset-offsets --group {{me}}-new --topic {TOPIC} --to-latest --execute",
            unordered=True, code=0)
    compare("kafka-consumer-groups --describe --group {me}-new", code=0)


def test_reset_from_a_file(compare, group):
    offsets = compare.twin_file("offsets.csv", f"{TOPIC},0,2\n{TOPIC},1,3\n")
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --from-file {offsets} --execute", unordered=True, code=0)
    compare(f"kafka-consumer-groups --describe --group {group}", code=0)
    more = compare.twin_file("groups.csv", f"{group},{TOPIC},0,1\n{{me}}-other,{TOPIC},1,1\n")
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --group {{me}}-other --from-file {more} --export "
            "--dry-run", unordered=True, code=0)


def test_reset_of_what_is_not_there(compare, group):
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --topic {TOPIC}:9 --to-earliest --dry-run", code=0)
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --topic {{me}}-nothing --to-earliest --dry-run")
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --topic {TOPIC}:x --to-earliest --dry-run", code=1)
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --topic {TOPIC}:2 --shift-by 1 --dry-run", code=1)
    compare(f"kafka-consumer-groups --reset-offsets --group {group} --to-earliest --dry-run", code=1)


def test_delete_offsets(compare, group):
    compare(f"kafka-consumer-groups --delete-offsets --group {group} --topic {TOPIC}:0", code=0)
    compare(f"kafka-consumer-groups --describe --group {group}", code=0)
    compare(f"kafka-consumer-groups --delete-offsets --group {group} --topic {TOPIC}", code=0)
    compare(f"kafka-consumer-groups --delete-offsets --group {group} --topic {{me}}-nothing", code=0)
    compare(f"kafka-consumer-groups --delete-offsets --group {{me}}-nobody --topic {TOPIC}", code=0)


def test_delete(compare, group):
    compare(f"kafka-consumer-groups --delete --group {group}", code=0)
    compare(f"kafka-consumer-groups --delete --group {group}", code=0)
    compare(f"kafka-consumer-groups --describe --group {group}", code=0)


def test_command_lines_that_make_no_sense(compare):
    for line in ("", "--list --describe", "--describe", "--describe --group g --members --state", "--delete",
                 "--delete --group g --topic t", "--delete-offsets --group g", "--reset-offsets --to-earliest",
                 "--reset-offsets --group g --topic t --to-earliest --dry-run --execute", "--list --group g", "--frob",
                 "--describe --group g --state Stable", "--describe --group g --all-groups"):
        compare(f"kafka-consumer-groups {line}", code=1)
