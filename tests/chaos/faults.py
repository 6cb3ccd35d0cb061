"""The faults. Each begins when it is called, and returns what was done and how to undo it.

What is stopped, cut off or full is left so for a while, which the caller draws. After a fault the cluster heals before the
next one comes.
"""

import random
import signal
import time
from typing import Callable, NamedTuple

from harness.processes import Broker, Cluster
from harness.small_disk import SmallDisk

from .network import Network


class World(NamedTuple):
    """What faults reach."""

    cluster: Cluster
    network: Network
    disks: dict[int, SmallDisk]
    draw: random.Random
    topic: str
    partitions: int


class Begun(NamedTuple):
    what: str
    undo: Callable[[], None]


def leader(world: World) -> Broker:
    return world.cluster.leader(world.topic, world.draw.randrange(world.partitions))


def controller(world: World) -> Broker:
    return world.cluster.broker(world.cluster.controller())


def any_of(world: World) -> Broker:
    return world.draw.choice(world.cluster.brokers)


def kill(brokers: list[Broker]) -> Begun:
    for broker in brokers:
        broker.kill()

    def start():
        for broker in brokers:
            broker.start()

    return Begun(f"SIGKILL {names(brokers)}", start)


def pause(brokers: list[Broker]) -> Begun:
    for broker in brokers:
        broker.pause()

    def resume():
        for broker in brokers:
            broker.resume()

    return Begun(f"SIGSTOP {names(brokers)}", resume)


def kill_leader(world: World) -> Begun:
    return kill([leader(world)])


def kill_controller(world: World) -> Begun:
    return kill([controller(world)])


def kill_majority(world: World) -> Begun:
    return kill(world.draw.sample(world.cluster.brokers, 2))


def kill_all(world: World) -> Begun:
    return kill(world.draw.sample(world.cluster.brokers, 3))


def pause_leader(world: World) -> Begun:
    return pause([leader(world)])


def pause_controller(world: World) -> Begun:
    return pause([controller(world)])


def pause_majority(world: World) -> Begun:
    return pause(world.draw.sample(world.cluster.brokers, 2))


def pause_all(world: World) -> Begun:
    return pause(world.cluster.brokers)


def isolate(world: World) -> Begun:
    """One broker hears and reaches nobody."""
    victim = world.draw.choice((leader, controller, any_of))(world)
    world.network.isolate(victim.node_id)
    return Begun(f"isolate {victim.node_id}", world.network.heal)


def isolate_from_brokers(world: World) -> Begun:
    """Clients still reach it."""
    victim = world.draw.choice((leader, controller))(world)
    for other in world.cluster.others(victim):
        world.network.cut_both_ways(victim.node_id, other.node_id)
    return Begun(f"cut {victim.node_id} from the others, not from clients", world.network.heal)


def cut_one_way(world: World) -> Begun:
    """One broker is heard and does not hear, or hears and is not heard."""
    victim = world.draw.choice((leader, controller))(world)
    is_deaf = world.draw.random() < 0.5
    for other in world.cluster.others(victim):
        pair = (other.node_id, victim.node_id) if is_deaf else (victim.node_id, other.node_id)
        world.network.cut(*pair)
    return Begun(f"{victim.node_id} {'hears' if is_deaf else 'reaches'} no other broker", world.network.heal)


def cut_link(world: World) -> Begun:
    """Two brokers do not reach each other, and both reach the third (a bridge)."""
    one, other = world.draw.sample(world.cluster.brokers, 2)
    world.network.cut_both_ways(one.node_id, other.node_id)
    return Begun(f"cut the link {one.node_id}-{other.node_id}", world.network.heal)


def cut_everything(world: World) -> Begun:
    """No broker reaches another."""
    for broker in world.cluster.brokers:
        for other in world.cluster.others(broker):
            world.network.cut(other.node_id, broker.node_id)
    return Begun("cut all links between brokers", world.network.heal)


def flaky_link(world: World) -> Begun:
    """A link comes and goes."""
    one, other = world.draw.sample(world.cluster.brokers, 2)
    for _ in range(4):
        world.network.cut_both_ways(one.node_id, other.node_id)
        time.sleep(world.draw.uniform(0.3, 1.5))
        world.network.heal()
        time.sleep(world.draw.uniform(0.1, 0.8))
    return Begun(f"the link {one.node_id}-{other.node_id} comes and goes", world.network.heal)


def full_disk(world: World) -> Begun:
    victim = leader(world)
    disk = world.disks[victim.node_id]
    disk.fill()
    return Begun(f"the disk of {victim.node_id} is full", disk.empty)


def full_disks(world: World) -> Begun:
    for disk in world.disks.values():
        disk.fill()

    def empty():
        for disk in world.disks.values():
            disk.empty()

    return Begun("all disks are full", empty)


def restart_storm(world: World) -> Begun:
    """One broker is killed again and again, often before it has recovered."""
    victim = any_of(world)
    for _ in range(4):
        victim.kill()
        victim.start()
        time.sleep(world.draw.uniform(0.2, 2.0))
    return Begun(f"SIGKILL {victim.node_id} again and again", lambda: None)


def rolling_restart(world: World) -> Begun:
    """One after another is stopped in order and started, each when the one before is back in sync."""
    for broker in world.draw.sample(world.cluster.brokers, 3):
        broker.stop()
        broker.start()
        world.cluster.wait_in_sync(world.topic, timeout=120)
    return Begun("SIGTERM one after another", lambda: None)


def wiped_directory(world: World) -> Begun:
    """One broker comes back with nothing."""
    victim = any_of(world)
    victim.kill()
    for entry in victim.data.iterdir():
        world.disks[victim.node_id].remove(entry)
    return Begun(f"SIGKILL {victim.node_id} and empty its directory", victim.start)


def kill_while_cut(world: World) -> Begun:
    """The leader dies while one of its followers is cut off from the other."""
    victim = leader(world)
    one, other = world.cluster.others(victim)
    world.network.cut_both_ways(one.node_id, other.node_id)
    time.sleep(world.draw.uniform(0.5, 3.0))
    victim.kill()

    def undo():
        world.network.heal()
        victim.start()

    return Begun(f"cut the link {one.node_id}-{other.node_id}, then SIGKILL {victim.node_id}", undo)


def kill_after_pause(world: World) -> Begun:
    """A broker stands still, and when it goes on, the one that took over dies."""
    victim = leader(world)
    victim.pause()
    time.sleep(world.draw.uniform(3.0, 6.0))
    successor = world.draw.choice(world.cluster.others(victim))
    # The dead one's end may take the machine a while, which the other does not wait for.
    successor.signal(signal.SIGKILL)
    victim.resume()
    successor.kill()
    return Begun(f"SIGSTOP {victim.node_id}, then SIGKILL {successor.node_id} and SIGCONT", successor.start)


#: By name: what to do, and for how many seconds to leave it so.
FAULTS: dict[str, tuple[Callable[[World], Begun], tuple[float, float]]] = {
    "kill leader": (kill_leader, (0.5, 5.0)),
    "kill controller": (kill_controller, (0.5, 5.0)),
    "kill majority": (kill_majority, (0.5, 4.0)),
    "kill all": (kill_all, (0.2, 3.0)),
    "stop leader": (pause_leader, (1.0, 9.0)),
    "stop controller": (pause_controller, (1.0, 9.0)),
    "stop majority": (pause_majority, (1.0, 6.0)),
    "stop all": (pause_all, (1.0, 6.0)),
    "isolate one": (isolate, (2.0, 9.0)),
    "isolate from brokers": (isolate_from_brokers, (2.0, 9.0)),
    "cut one way": (cut_one_way, (2.0, 9.0)),
    "cut one link": (cut_link, (2.0, 9.0)),
    "cut all links": (cut_everything, (1.0, 6.0)),
    "flaky link": (flaky_link, (0.0, 1.0)),
    "full disk": (full_disk, (2.0, 6.0)),
    "full disks": (full_disks, (2.0, 5.0)),
    "restart storm": (restart_storm, (0.0, 0.5)),
    "rolling restart": (rolling_restart, (0.0, 0.5)),
    "wiped directory": (wiped_directory, (0.0, 3.0)),
    "kill while cut": (kill_while_cut, (0.5, 4.0)),
    "kill after pause": (kill_after_pause, (0.5, 3.0)),
}


def names(brokers: list[Broker]) -> str:
    return ", ".join(str(broker.node_id) for broker in brokers)


def rotation(draw: random.Random, only: list[str] | None = None):
    """Every fault in random order, again and again, and nothing a quarter of the time."""
    while True:
        kinds: list[str | None] = list(only or FAULTS)
        kinds += [None] * max(1, len(kinds) // 3)
        draw.shuffle(kinds)
        yield from kinds
