"""Real processes under the rules of deploy/k8s: a rolling update under load, and when a broker counts as ready."""

import time

from conftest import create_topic
from harness.history import RunningProducer, check, read_all, summary
from harness.log_files import assert_replicas_identical
from harness.processes import wait_for
from harness.stateful_set import Kubelet, StatefulSet

TOPIC = "rolled"
PARTITIONS = 6


def test_a_rolling_update_loses_nothing_and_fails_nothing(cluster, report):
    create_topic(cluster, TOPIC, PARTITIONS)
    stateful_set = StatefulSet(cluster.brokers)
    assert stateful_set.replicas == len(cluster.brokers)
    for broker in cluster.brokers:
        stateful_set.wait_ready(broker)
    producer = RunningProducer(cluster.bootstrap, TOPIC, keys=48, per_second=500).start()
    for partition in range(PARTITIONS):
        wait_for("the first records", lambda: producer.produced_after(0.0, partition))
    pauses = []
    began = time.monotonic()
    with Kubelet(stateful_set) as kubelet:
        for broker, ended, ready in stateful_set.roll():
            report(f"broker {broker.node_id} ended within {ended:.1f} s and was ready {ready:.1f} s after its start")
            # What the next termination relies on: nobody lacks this broker any more.
            for view in cluster.topic(TOPIC).values():
                assert broker.node_id in view["isr"], f"broker {broker.node_id} is ready, and not in sync: {view}"
        for partition in range(PARTITIONS):
            rolled = time.monotonic()
            wait_for("writes to go on", lambda: producer.produced_after(rolled, partition))
            pauses.append(producer.longest_pause(began, time.monotonic(), partition))
    assert kubelet.probed > 0 and not kubelet.failed, f"Kubernetes would have restarted {kubelet.failed}"
    producer.stop()
    report(check(producer, read_all(cluster.bootstrap, TOPIC, PARTITIONS), []))
    report(f"pause of acknowledged writes: {summary(pauses)}")
    cluster.wait_in_sync(TOPIC)
    cluster.stop()
    report(f"replicas identical over {assert_replicas_identical(cluster, TOPIC, PARTITIONS)} bytes")


def test_a_broker_is_ready_only_when_its_partitions_are_back_in_the_isr(cluster):
    # On two brokers only: with its leader stopped, the other one cannot catch up.
    create_topic(cluster, "pair", 1, 2, min_insync_replicas="1")
    replicas = cluster.topic("pair")[0]["replicas"]
    leader, follower = cluster.leader("pair"), cluster.broker(replicas[-1])
    assert leader is not follower
    follower.stop()
    producer = RunningProducer(cluster.bootstrap, "pair", per_second=500).start()
    stopped = time.monotonic()
    wait_for("records that the follower lacks", lambda: producer.produced_after(stopped, 0))
    producer.stop()
    wait_for("the follower to be out of the ISR", lambda: cluster.topic("pair")[0]["isr"] == [leader.node_id])
    leader.pause()
    try:
        follower.start()
        wait_for("the follower to live", lambda: follower.get("/livez")[0] == 200)
        reason = wait_for("the follower to be let in", lambda: catching_up(follower), timeout=60)
        assert "pair-0" in reason, reason
        for _ in range(20):
            assert follower.get("/readyz")[0] == 503, "ready without having caught up"
            assert follower.get("/livez")[0] == 200, "a broker that waits for its leader lives"
            time.sleep(0.1)
    finally:
        leader.resume()
    wait_for("the follower to be ready", lambda: follower.get("/readyz")[0] == 200, timeout=60)
    assert follower.node_id in cluster.topic_as_known_by(follower, "pair")[0]["isr"]


def catching_up(broker) -> str | None:
    """Why the broker is not ready, once the controller has let it in."""
    status, reason = broker.get("/readyz")
    return reason if status == 503 and "not in sync" in reason else None
