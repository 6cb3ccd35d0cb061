"""Consumers that say where they are read from a replica near to them (KIP-392)."""

import json
import time

from confluent_kafka import Consumer, Producer, TopicPartition
from conftest import create_topic

SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
RACKS = ["a", "b", "c"]


class Reader:
    """Reads one partition from its start, and knows which broker sent it how many bytes."""

    def __init__(self, bootstrap: str, rack: str):
        self.received: dict[int, int] = {}
        self.values: list[bytes] = []
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap, "group.id": f"near-{rack}", "client.rack": rack,
            "enable.auto.commit": False, "statistics.interval.ms": 200, "stats_cb": self.on_statistics,
        })
        self.consumer.assign([TopicPartition("near", 0, 0)])

    def on_statistics(self, text: str) -> None:
        for broker in json.loads(text)["brokers"].values():
            if broker["nodeid"] > 0:
                self.received[broker["nodeid"]] = broker["rxbytes"]

    def read(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.values) < count and time.monotonic() < deadline:
            for message in self.consumer.consume(1000, 0.2):
                if not message.error():
                    self.values.append(message.value())
        # Until what was received is told.
        end = time.monotonic() + 1
        while time.monotonic() < end:
            self.consumer.poll(0.1)


def produce(bootstrap: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "linger.ms": 5})
    for value in values:
        producer.produce("near", value, partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0


def test_a_consumer_reads_in_its_rack_and_from_the_leader_when_that_is_gone(make_cluster):
    cluster = make_cluster(racks=RACKS, replica_selector_class=SELECTOR)
    create_topic(cluster, "near")
    values = [b"%06d" % index + bytes(2000) for index in range(3000)]
    produce(cluster.bootstrap, values[:1500])
    leader = cluster.leader("near")
    [near, other] = cluster.others(leader)
    reader = Reader(cluster.bootstrap, RACKS[near.node_id - 1])
    reader.read(1500)
    assert reader.values == values[:1500]
    assert reader.received[near.node_id] > 1400 * 2000, f"{reader.received}, and {near.node_id} is near"
    assert reader.received.get(leader.node_id, 0) < 100 * 2000, f"{reader.received}, and {leader.node_id} leads"

    # What is written while it waits at the end comes from there too, as soon as the follower knows that it is committed.
    produce(cluster.bootstrap, values[1500:2000])
    reader.read(2000)
    assert reader.values == values[:2000]
    assert reader.received[near.node_id] > 1900 * 2000

    near.kill()
    produce(",".join(f"127.0.0.1:{broker.port}" for broker in (leader, other)), values[2000:])
    reader.read(3000)
    assert reader.values == values
    reader.consumer.close()


def test_without_a_selector_everybody_reads_from_the_leader(make_cluster):
    cluster = make_cluster(racks=RACKS)
    create_topic(cluster, "near")
    values = [b"%06d" % index + bytes(2000) for index in range(500)]
    produce(cluster.bootstrap, values)
    leader = cluster.leader("near")
    near = cluster.others(leader)[0]
    reader = Reader(cluster.bootstrap, RACKS[near.node_id - 1])
    reader.read(500)
    reader.consumer.close()
    assert reader.values == values
    assert reader.received[leader.node_id] > 490 * 2000
