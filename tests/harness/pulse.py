"""One acks=all record after another on one partition, by hand: how long does the cluster itself not acknowledge?

A client library looks for a new leader at times of its own (librdkafka once a second); this one looks at once, so the
longest gap between its acknowledgements is the cluster's.
"""

import threading
import time

from . import wire
from .processes import Cluster

#: Longer than any answer takes while a leader lives, and short enough to leave one that stands still.
ANSWER_TIMEOUT = 1.0


class Pulse:
    """Writes to partition 0 of a topic on a thread of its own."""

    def __init__(self, cluster: Cluster, topic: str):
        self.brokers = {broker.node_id: broker for broker in cluster.brokers}
        self.topic = topic
        self.acknowledged_at: list[float] = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Pulse":
        self.thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()

    def pause_after(self, moment: float) -> float:
        """The longest time without an acknowledgement from `moment` on."""
        times = [moment, *(at for at in self.acknowledged_at if at > moment)]
        assert len(times) > 1, f"nothing was acknowledged on {self.topic} after the fault"
        return max(after - before for before, after in zip(times, times[1:]))

    def _run(self) -> None:
        avoid = None
        while not self.stopping.is_set():
            leader = self._find_leader(avoid)
            if leader is not None:
                self._write_to(leader)
            avoid = leader
            time.sleep(0.005)

    def _find_leader(self, avoid: int | None) -> int | None:
        """Asks every broker, the one that has just failed us last."""
        for node_id in sorted(self.brokers, key=lambda node_id: node_id == avoid):
            try:
                with self.brokers[node_id].connect(ANSWER_TIMEOUT) as connection:
                    partition = wire.metadata(connection, [self.topic])["topics"].get(self.topic, {}).get(0)
                    if partition and partition["leader"] in self.brokers:
                        return partition["leader"]
            except (OSError, wire.ConnectionClosed):
                continue
        return None

    def _write_to(self, leader: int) -> None:
        """Until it fails."""
        try:
            with self.brokers[leader].connect(ANSWER_TIMEOUT) as connection:
                while not self.stopping.is_set():
                    error, _ = wire.produce(connection, self.topic, 0, wire.record_batch([b"pulse"]))
                    if error != "NONE":
                        return
                    self.acknowledged_at.append(time.monotonic())
                    time.sleep(0.002)
        except (OSError, wire.ConnectionClosed):
            return
