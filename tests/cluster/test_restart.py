"""The whole cluster down at once, and up again (issue 2, item 8)."""

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from conftest import create_topic
from harness.history import EAGER, RunningProducer, check, read_all
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for


def described_configs(admin: AdminClient, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    (future,) = admin.describe_configs([resource]).values()
    return {name: entry.value for name, entry in future.result(30).items() if not entry.is_default}


def committed(bootstrap: str, group: str, topic: str) -> dict[int, tuple[int, str]]:
    admin = AdminClient({"bootstrap.servers": bootstrap, **EAGER})
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition) for partition in range(3)])

    def answered():
        try:
            (future,) = admin.list_consumer_group_offsets([asked], require_stable=False, request_timeout=10).values()
            return {p.partition: (p.offset, p.metadata) for p in future.result(15).topic_partitions}
        except Exception as error:  # the coordinator may still be loading
            print(error)
            return None

    return wait_for("the group's coordinator", answered, timeout=60)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_topics_configs_offsets_groups_and_records_survive_a_restart_of_everything(cluster, report, how):
    create_topic(cluster, "kept", partitions=3, retention_ms="123456789")
    create_topic(cluster, "doomed")
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
    resource = ConfigResource(ResourceType.TOPIC, "kept", incremental_configs=[
        ConfigEntry("max.message.bytes", "2000000", incremental_operation=AlterConfigOpType.SET),
    ])
    next(iter(admin.incremental_alter_configs([resource]).values())).result(30)
    next(iter(admin.delete_topics(["doomed"], operation_timeout=20).values())).result(30)
    producer = RunningProducer(cluster.bootstrap, "kept", per_second=1_000).start()
    wait_for("records", lambda: len(producer.acknowledged) > 2_000)
    producer.stop()
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "keeper", "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", **EAGER})
    consumer.subscribe(["kept"])
    assert wait_for("records for the group", lambda: consumer.consume(100, 1.0))
    offsets = [TopicPartition("kept", partition, 11 * partition + 5, metadata=f"note {partition} \u010d")
               for partition in range(3)]
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()
    configs, before = described_configs(admin, "kept"), read_all(cluster.bootstrap, "kept", 3)
    assert configs["retention.ms"] == "123456789" and configs["max.message.bytes"] == "2000000"
    topics = set(admin.list_topics(timeout=10).topics)

    if how == "SIGTERM":
        cluster.stop()
    else:
        cluster.destroy()
    cluster.start()
    cluster.wait_in_sync("kept", "__consumer_offsets")

    admin = AdminClient({"bootstrap.servers": cluster.bootstrap, **EAGER})
    assert set(admin.list_topics(timeout=10).topics) == topics and "doomed" not in topics
    assert described_configs(admin, "kept") == configs
    assert committed(cluster.bootstrap, "keeper", "kept") == {
        partition: (11 * partition + 5, f"note {partition} \u010d") for partition in range(3)
    }
    assert "keeper" in {group.group_id for group in admin.list_consumer_groups().result(30).valid}
    assert read_all(cluster.bootstrap, "kept", 3) == before
    report(check(producer, before, []))
    again = RunningProducer(cluster.bootstrap, "kept", per_second=1_000)
    again.next_sequence = list(producer.next_sequence)
    again.start()
    wait_for("more records", lambda: len(again.acknowledged) > 500)
    again.stop()
    after = read_all(cluster.bootstrap, "kept", 3)
    assert before.items() <= after.items() and len(after) == len(before) + len(again.acknowledged)
    cluster.stop()
    assert_replicas_identical(cluster, "kept", 3)
