"""Compose projects for the tests, which go with the test, volumes and all."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.processes import wait_for

ROOT = Path(__file__).parents[2]


class Compose:
    """One compose file, as a user runs it."""

    def __init__(self, file: Path, project: str):
        has_plugin = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        program = ["docker", "compose"] if has_plugin else ["docker-compose"]
        self.command = [*program, "--file", str(file), "--project-name", project]

    def run(self, *arguments: str) -> str:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, f"compose {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def exec(self, service: str, *command: str, given: str = "") -> str:
        """Runs a command in a container and returns what it prints."""
        done = subprocess.run(
            [*self.command, "exec", "-T", service, *command], input=given, capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == 0, f"{service}: {command}: {done.stdout}{done.stderr}"
        return done.stdout

    def wait_ready(self, *services: str) -> None:
        for service in services:
            wait_for(f"{service} to be healthy", lambda: self.health(service) == "healthy", timeout=120)

    def health(self, service: str) -> str:
        container = self.run("ps", "--quiet", service).strip()
        inspected = subprocess.run(
            ["docker", "inspect", "--format", "{{.State.Health.Status}}", container], capture_output=True, text=True,
        )
        return inspected.stdout.strip()


@pytest.fixture
def compose(tmp_path):
    """Brings a compose file up, one of the repository or one of the test."""
    projects = []

    def up(file: str | Path) -> Compose:
        path = ROOT / file if isinstance(file, str) else file
        project = Compose(path, f"vltava-test-{len(projects)}")
        projects.append(project)
        project.run("up", "--detach")
        return project

    yield up
    for project in projects:
        print(subprocess.run([*project.command, "logs", "--tail", "40"], capture_output=True, text=True).stdout)
        project.run("down", "--volumes", "--timeout", "5")


def pytest_collection_modifyitems():
    assert shutil.which("docker"), "a docker engine is needed"


@pytest.fixture
def report(capsys):
    """Prints a line that shows even when the test passes."""
    def print_line(line: str) -> None:
        with capsys.disabled():
            print(f"\n    {line}", end="", flush=True)

    return print_line
