"""The manifests of deploy/k8s: that they build, that they follow Kubernetes' schemas, and that they fit together. What they
do to brokers is rehearsed in tests/cluster/test_kubernetes_rules.py."""

import os
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

#: From the oldest release that puts a pod's ordinal into a label to the newest one that there are schemas of.
VERSIONS = ["1.28", "1.31", "1.34"]


@pytest.fixture(scope="module")
def resources() -> dict[str, dict]:
    """What `kubectl apply -k` would send, by kind and name."""
    built = subprocess.run([os.environ.get("KUSTOMIZE", "kustomize"), "build", ROOT / "deploy/k8s"],
                           capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in yaml.safe_load_all(built.stdout)}


@pytest.fixture
def stateful_set(resources) -> dict:
    return resources["StatefulSet/vltava"]["spec"]


@pytest.fixture
def container(stateful_set) -> dict:
    return stateful_set["template"]["spec"]["containers"][0]


def test_everything_is_there(resources):
    assert set(resources) == {
        "Namespace/vltava", "StatefulSet/vltava", "Service/vltava", "Service/vltava-headless", "PodDisruptionBudget/vltava",
    }
    for name, resource in resources.items():
        if not name.startswith("Namespace/"):
            assert resource["metadata"]["namespace"] == "vltava"


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_follows_the_schema(resources, version):
    for resource in resources.values():
        kubernetes_validate.validate(resource, version, strict=True)


def test_the_schema_check_can_fail(resources):
    wrong = yaml.safe_load(yaml.safe_dump(resources["StatefulSet/vltava"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_selectors_and_ports_meet(resources, stateful_set, container):
    labels = stateful_set["template"]["metadata"]["labels"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for name in ("Service/vltava", "Service/vltava-headless"):
        service = resources[name]["spec"]
        assert service["selector"].items() <= labels.items()
        for port in service["ports"]:
            target = port.get("targetPort", port["port"])
            assert target in ports or target in ports.values(), port
    for selector in (stateful_set["selector"], resources["PodDisruptionBudget/vltava"]["spec"]["selector"]):
        assert selector["matchLabels"].items() <= labels.items()
    assert stateful_set["serviceName"] == "vltava-headless"
    assert resources["Service/vltava-headless"]["spec"]["clusterIP"] == "None"
    assert resources["Service/vltava-headless"]["spec"]["publishNotReadyAddresses"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] in ports


def test_every_voter_is_a_pod_and_brokers_beyond_them_are_learners(stateful_set, container):
    environment = {variable["name"]: variable for variable in container["env"]}
    voters = environment["KAFKA_CONTROLLER_QUORUM_VOTERS"]["value"].split(",")
    assert [voter.split("@")[0] for voter in voters] == [str(ordinal) for ordinal in range(stateful_set["replicas"])]
    for ordinal, voter in enumerate(voters):
        assert voter.split("@")[1].startswith(f"vltava-{ordinal}.vltava-headless.$(POD_NAMESPACE).svc.")
    # A node that the voters do not list is a learner if it is not told its roles.
    assert "KAFKA_PROCESS_ROLES" not in environment
    node_id = environment["KAFKA_NODE_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert node_id == "metadata.labels['apps.kubernetes.io/pod-index']"


def test_a_recovering_broker_is_not_restarted_and_one_broker_goes_at_a_time(resources, stateful_set, container):
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez", "live while logs are recovered"
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert resources["PodDisruptionBudget/vltava"]["spec"]["maxUnavailable"] == 1
    assert stateful_set["updateStrategy"]["type"] == "RollingUpdate"
    pod = stateful_set["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    assert pod["affinity"]["podAntiAffinity"]
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])


def test_what_is_written_lies_in_the_claimed_volume(stateful_set, container):
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    mount = container["volumeMounts"][0]
    assert environment["KAFKA_LOG_DIRS"].startswith(mount["mountPath"])
    assert mount["name"] == stateful_set["volumeClaimTemplates"][0]["metadata"]["name"]
    assert stateful_set["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
