"""A network of its own for the brokers: each in a network namespace, all on one bridge, where the clients are too.

Cuts are silent: packets vanish where they arrive, in one direction or both, and established connections stand until
somebody gives them up.
"""

import os
import subprocess
from pathlib import Path

from harness.processes import Home


class NotPossible(Exception):
    """Namespaces take root, iproute2 and iptables."""


def run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NotPossible(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise NotPossible(f"{' '.join(command)}: {error.stderr.strip()}") from error


def remove_leftovers() -> None:
    """The networks of runs that were killed."""
    for namespace in Path("/run/netns").glob("vc*"):
        owner = namespace.name.removeprefix("vc").split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            subprocess.run(["ip", "netns", "del", namespace.name], capture_output=True, check=False)


class Network:
    """Nodes are numbered from 1; 254 is the clients' side."""

    CLIENTS = 254

    def __init__(self, nodes: int):
        self.nodes = range(1, nodes + 1)
        self.name = f"vc{os.getpid()}"
        self.prefix = f"10.213.{os.getpid() % 256}"

    def __enter__(self) -> "Network":
        remove_leftovers()
        try:
            # The bridge has a namespace of its own too: container engines filter what passes the host's bridges.
            run("ip", "netns", "add", self.name)
            run("ip", "-n", self.name, "link", "add", "hub", "type", "bridge")
            run("ip", "-n", self.name, "link", "set", "hub", "up")
            run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "clients", "netns", self.name)
            run("ip", "-n", self.name, "link", "set", "clients", "master", "hub", "up")
            run("ip", "address", "add", f"{self.address(self.CLIENTS)}/24", "dev", self.name)
            run("ip", "link", "set", self.name, "up")
            for node in self.nodes:
                namespace, link = self.namespace(node), f"node-{node}"
                run("ip", "netns", "add", namespace)
                run("ip", "-n", self.name, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
                run("ip", "-n", self.name, "link", "set", link, "master", "hub", "up")
                run("ip", "-n", namespace, "address", "add", f"{self.address(node)}/24", "dev", "eth0")
                run("ip", "-n", namespace, "link", "set", "eth0", "up")
                run("ip", "-n", namespace, "link", "set", "lo", "up")
            self.heal()
        except NotPossible:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for node in self.nodes:
            subprocess.run(["ip", "netns", "del", self.namespace(node)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    def namespace(self, node: int) -> str:
        return f"{self.name}-{node}"

    def address(self, node: int) -> str:
        return f"{self.prefix}.{node}"

    def home(self, node: int) -> Home:
        return Home(self.address(node), ("ip", "netns", "exec", self.namespace(node)))

    def cut(self, source: int, target: int) -> None:
        """Nothing that `source` sends reaches `target`, which is a broker."""
        run("ip", "netns", "exec", self.namespace(target),
            "iptables", "--append", "INPUT", "--source", self.address(source), "--jump", "DROP")

    def cut_answers_to_clients(self, node: int) -> None:
        run("ip", "netns", "exec", self.namespace(node),
            "iptables", "--append", "OUTPUT", "--destination", self.address(self.CLIENTS), "--jump", "DROP")

    def cut_both_ways(self, one: int, other: int) -> None:
        self.cut(one, other)
        self.cut(other, one)

    def isolate(self, node: int) -> None:
        """From everybody, clients included."""
        for other in (*(other for other in self.nodes if other != node), self.CLIENTS):
            self.cut(other, node)
            if other != self.CLIENTS:
                self.cut(node, other)
        self.cut_answers_to_clients(node)

    def heal(self) -> None:
        for node in self.nodes:
            run("ip", "netns", "exec", self.namespace(node), "iptables", "--flush")
