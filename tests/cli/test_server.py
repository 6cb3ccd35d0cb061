"""kafka-server-start, kafka-server-stop and kafka-storage, on a copy of the program of its own."""

import shutil
import subprocess

import pytest
from harness import wire
from harness.processes import binary, free_ports, wait_for


@pytest.fixture
def bin_directory(tmp_path):
    """Links to a copy, because kafka-server-stop ends everything that runs from its file."""
    program = tmp_path / "vltava"
    shutil.copy(binary(), program)
    subprocess.run([program, "install-links", tmp_path / "bin"], check=True, timeout=60)
    yield tmp_path / "bin"
    subprocess.run([tmp_path / "bin/kafka-server-stop"], env={"SIGNAL": "KILL"}, timeout=60)


def test_a_node_is_started_and_stopped_as_kafkas_are(bin_directory, tmp_path):
    port, other = free_ports(2)
    properties = tmp_path / "server.properties"
    properties.write_text(
        f"node.id=7\nprocess.roles=broker,controller\nlisteners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{other}\n"
        f"controller.listener.names=CONTROLLER\ncontroller.quorum.voters=7@127.0.0.1:{other}\n"
        f"inter.broker.listener.name=PLAINTEXT\n"
        f"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={tmp_path}/wrong\n")

    def run(name, *arguments):
        return subprocess.run([bin_directory / name, *arguments], capture_output=True, text=True, timeout=60, cwd=tmp_path)

    made = run("kafka-storage.sh", "random-uuid")
    formatted = run("kafka-storage.sh", "format", "-t", made.stdout.strip(), "-c", "server.properties", "--standalone")
    assert (formatted.returncode, "No format is needed" in formatted.stdout) == (0, True)
    assert run("kafka-server-stop.sh").stdout == "No kafka server to stop\n"
    started = run("kafka-server-start.sh", "-daemon", "server.properties", "--override", f"log.dirs={tmp_path}/data")
    assert started.returncode == 0

    def live():
        with wire.Connection(port) as connection:
            return wire.metadata(connection, [])["brokers"]

    wait_for("the node", live, 60)
    assert (tmp_path / "data").is_dir() and not (tmp_path / "wrong").exists()
    assert (tmp_path / "logs" / "kafkaServer.out").stat().st_size > 0
    assert run("kafka-server-stop.sh", "--node-id=8").returncode == 0
    assert live()
    assert run("kafka-server-stop.sh", "--node-id=7").returncode == 0
    wait_for("the end of the node", lambda: run("kafka-server-stop.sh").returncode == 1, 60)


def test_command_lines_that_make_no_sense(bin_directory):
    done = subprocess.run([bin_directory / "kafka-server-start"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout[:7]) == (1, "USAGE: ")
    for arguments in ([], ["format"], ["format", "-t", "x", "-c", "/nothing"], ["info", "-c", "/nothing"]):
        assert subprocess.run([bin_directory / "kafka-storage", *arguments], timeout=60, capture_output=True).returncode == 1
