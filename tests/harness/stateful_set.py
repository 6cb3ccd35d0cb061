"""What Kubernetes does with the StatefulSet of deploy/k8s, done to real processes: the same probes with the same periods
and thresholds over HTTP, the same signals, the same order."""

import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

MANIFEST = Path(__file__).resolve().parents[2] / "deploy/k8s/statefulset.yaml"


@dataclass(frozen=True)
class Probe:
    """A httpGet probe, with Kubernetes' defaults for what it leaves out."""

    path: str
    period: float
    timeout: float
    failure_threshold: int
    success_threshold: int

    @classmethod
    def read(cls, spec: dict) -> "Probe":
        return cls(spec["httpGet"]["path"], spec.get("periodSeconds", 10), spec.get("timeoutSeconds", 1),
                   spec.get("failureThreshold", 3), spec.get("successThreshold", 1))

    def succeeds(self, broker) -> bool:
        status, _ = broker.get(self.path, self.timeout)
        return 200 <= status < 400


class StatefulSet:
    """The manifest's rules over the brokers of a cluster, the lowest ordinal first."""

    def __init__(self, brokers: list, manifest: Path = MANIFEST):
        spec = yaml.safe_load(manifest.read_text())["spec"]
        pod = spec["template"]["spec"]
        container = pod["containers"][0]
        self.replicas = spec["replicas"]
        self.grace_period = pod["terminationGracePeriodSeconds"]
        self.startup = Probe.read(container["startupProbe"])
        self.liveness = Probe.read(container["livenessProbe"])
        self.readiness = Probe.read(container["readinessProbe"])
        assert spec["updateStrategy"]["type"] == "RollingUpdate"
        self.brokers = brokers

    def start(self, broker) -> None:
        """Starts a pod: the other probes wait until the startup probe has succeeded, and a pod that takes longer than it
        allows would be restarted."""
        broker.start()
        for _ in range(self.startup.failure_threshold):
            if self.startup.succeeds(broker):
                return
            time.sleep(self.startup.period)
        raise AssertionError(f"broker {broker.node_id} failed its startup probe: Kubernetes would restart it")

    def wait_ready(self, broker, timeout: float = 120.0) -> None:
        """Probes until the pod counts as ready."""
        began = time.monotonic()
        successes = 0
        while successes < self.readiness.success_threshold:
            assert time.monotonic() < began + timeout, f"broker {broker.node_id} is not ready: {broker.get('/readyz')}"
            successes = successes + 1 if self.readiness.succeeds(broker) else 0
            if successes < self.readiness.success_threshold:
                time.sleep(self.readiness.period)

    def terminate(self, broker) -> float:
        """SIGTERM, and SIGKILL after the grace period, which must not be needed; returns how long it took."""
        began = time.monotonic()
        broker.signal(signal.SIGTERM)
        try:
            code = broker.process.wait(self.grace_period)
        except subprocess.TimeoutExpired as late:
            broker.kill()
            raise AssertionError(f"broker {broker.node_id} outlived its grace period") from late
        assert code == 0, f"broker {broker.node_id} ended with {code}"
        return time.monotonic() - began

    def roll(self):
        """A rolling update: the highest ordinal first, each pod after the one before it is ready again. Yields the broker,
        how long it took to end, and how long to be ready."""
        for broker in reversed(self.brokers):
            ended = self.terminate(broker)
            began = time.monotonic()
            self.start(broker)
            self.wait_ready(broker)
            yield broker, ended, time.monotonic() - began


class Kubelet:
    """Runs the liveness probes of all pods, every second, which is stricter than the manifest's period. A pod that fails too
    often in a row would be restarted: that is a failure."""

    PERIOD = 1.0

    def __init__(self, stateful_set: StatefulSet):
        self.stateful_set = stateful_set
        self.failed: list[int] = []
        self.probed = 0
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Kubelet":
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stopping.set()
        self.thread.join()

    def _run(self) -> None:
        probe = self.stateful_set.liveness
        failures: dict[int, int] = {}
        while not self.stopping.wait(self.PERIOD):
            for broker in self.stateful_set.brokers:
                # Between two containers of a pod there is nothing to probe.
                if not broker.runs():
                    failures[broker.node_id] = 0
                    continue
                self.probed += 1
                failures[broker.node_id] = 0 if probe.succeeds(broker) else failures.get(broker.node_id, 0) + 1
                if failures[broker.node_id] >= probe.failure_threshold:
                    self.failed.append(broker.node_id)
