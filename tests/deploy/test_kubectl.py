"""The manifests through kubectl itself: `kubectl kustomize`, and create and apply as client dry runs. Building kubectl takes
minutes, so that only `cargo xtask kubectl` runs this; the other tests here use kustomize, which is the same library."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

MANIFESTS = Path(__file__).resolve().parents[2] / "deploy/k8s"
KUBECTL = os.environ.get("KUBECTL")

pytestmark = pytest.mark.skipif(not KUBECTL, reason="run by `cargo xtask kubectl`")

#: What an API server serves, by group and version: name, kind, and whether it belongs to a namespace.
SERVED = {
    "v1": [("namespaces", "Namespace", False), ("services", "Service", True)],
    "apps/v1": [("statefulsets", "StatefulSet", True)],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget", True)],
}


def discovery() -> dict[str, dict]:
    """The documents by which kubectl finds out what there is; all that a client dry run needs of a cluster."""
    groups = [version.split("/")[0] for version in SERVED if "/" in version]
    documents = {
        "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
            {"name": group, "versions": [{"groupVersion": f"{group}/v1", "version": "v1"}],
             "preferredVersion": {"groupVersion": f"{group}/v1", "version": "v1"}} for group in groups]},
    }
    for version, kinds in SERVED.items():
        path = f"/apis/{version}" if "/" in version else f"/api/{version}"
        documents[path] = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [
            {"name": name, "singularName": kind.lower(), "kind": kind, "namespaced": namespaced,
             "verbs": ["create", "get", "list", "patch"]} for name, kind, namespaced in kinds]}
    return documents


class EmptyCluster(BaseHTTPRequestHandler):
    """An API server that has nothing yet, and takes nothing: whatever is not a GET is a failure of the dry run."""

    documents = discovery()
    writes: list[str] = []

    def do_GET(self) -> None:
        document = self.documents.get(self.path.split("?")[0])
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(document or missing).encode()
        self.send_response(200 if document else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.writes.append(self.path)
        self.send_error(403)

    do_PATCH = do_PUT = do_DELETE = do_POST

    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def kubectl(tmp_path_factory):
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyCluster)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path_factory.mktemp("home")

    def run(*arguments) -> subprocess.CompletedProcess:
        return subprocess.run([KUBECTL, *arguments, "--server", f"http://127.0.0.1:{server.server_port}"],
                              capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(home)})

    yield run
    server.shutdown()


def test_kustomize(kubectl):
    built = kubectl("kustomize", MANIFESTS)
    assert built.returncode == 0, built.stderr
    assert sorted(one["kind"] for one in yaml.safe_load_all(built.stdout)) == [
        "Namespace", "PodDisruptionBudget", "Service", "Service", "StatefulSet"]


@pytest.mark.parametrize("command", ["create", "apply"])
def test_client_dry_run(kubectl, command):
    done = kubectl(command, "--dry-run=client", "--validate=ignore", "-k", MANIFESTS)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == [
        f"{name} created (dry run)" for name in (
            "namespace/vltava", "poddisruptionbudget.policy/vltava", "service/vltava", "service/vltava-headless",
            "statefulset.apps/vltava")]
    assert EmptyCluster.writes == []


def test_the_dry_run_can_fail(kubectl, tmp_path):
    (tmp_path / "wrong.yaml").write_text("apiVersion: apps/v1\nkind: StatefulSett\nmetadata: {name: vltava}\n")
    done = kubectl("create", "--dry-run=client", "--validate=ignore", "-f", tmp_path / "wrong.yaml")
    assert done.returncode == 1 and "StatefulSett" in done.stderr
