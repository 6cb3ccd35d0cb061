//! Carries out the plan's faults, and undoes them when they are over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use vltava_host::disk::Faults;

use super::cuts::state_of;
use super::inspector::Inspector;
use super::ledger::Ledger;
use super::plan::{Aim, Fault, NetworkFault};
use crate::cluster::{Cluster, Ending};
use crate::network::{NetworkState, ordered};

/// A supervisor starts a process that ended by itself so long after.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// A broker that is asked to stop, or to become ready again, may take so long before the next one is restarted.
const ROLLING_PATIENCE: Duration = Duration::from_secs(15);

/// A fault that is in force.
struct Active {
    fault: Fault,
    until: Duration,
    /// Brokers whose processes it ended.
    ended: Vec<i32>,
    /// What it does to the network, once it is known.
    network: Option<NetworkFault>,
    rolling: Option<Rolling>,
}

/// A rolling restart under way.
#[derive(Clone, Copy, Debug)]
struct Rolling {
    broker: i32,
    since: Duration,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Stopping,
    Starting,
}

/// All faults in force.
#[derive(Default)]
pub struct Nemesis {
    active: Vec<Active>,
    /// Brokers that a supervisor is about to start.
    restarts: BTreeMap<i32, Duration>,
    /// The broker whose disk was tampered with, until everything is in sync again: so long the others have to stay.
    mending: Option<i32>,
    /// Cuts that are over. Each second one has cost the connections their lives.
    mended: u64,
}

/// What the nemesis acts on.
pub struct World<'a> {
    pub cluster: &'a mut Cluster,
    pub inspector: &'a mut Inspector,
    pub ledger: &'a mut Ledger,
    pub brokers: u16,
    pub now: Duration,
}

impl World<'_> {
    fn all(&self) -> Vec<i32> {
        (1..=i32::from(self.brokers)).collect()
    }

    fn crash(&mut self, broker: i32) {
        self.inspector.on_process_ends(self.cluster, broker);
        self.cluster.crash(broker);
    }

    fn kill(&mut self, broker: i32) {
        self.inspector.on_process_ends(self.cluster, broker);
        self.cluster.kill(broker);
    }

    /// Whether every broker runs and every replica is in sync: then whatever one broker has, others have too.
    fn is_whole(&self) -> bool {
        let is_in_sync = |broker: i32| self.cluster.view(broker).is_some_and(|view| view.readiness().is_ok());
        self.all().into_iter().all(is_in_sync)
            && self
                .inspector
                .newest()
                .partitions()
                .all(|(_, partition)| partition.isr.len() == partition.replicas.len())
    }

    /// The controller as the brokers believe.
    fn controller(&self) -> Option<i32> {
        self.all().into_iter().find_map(|id| Some(self.cluster.view(id)?.controller()?.value()))
    }
}

impl Nemesis {
    pub fn begin(&mut self, world: &mut World<'_>, fault: &Fault, aim: &Aim, lasts: Duration) {
        let fault = &aimed(world, fault, aim);
        if self.mending.is_some() && fault.ends_processes() {
            return;
        }
        world.ledger.note(world.now, format!("{fault:?} for {lasts:?}"));
        let mut active =
            Active { fault: fault.clone(), until: world.now + lasts, ended: vec![], network: None, rolling: None };
        match fault {
            Fault::PowerLoss(brokers) => {
                for broker in up(world, brokers) {
                    world.crash(broker);
                    active.ended.push(broker);
                }
            }
            Fault::Kill(brokers) => {
                for broker in up(world, brokers) {
                    world.kill(broker);
                    active.ended.push(broker);
                }
            }
            Fault::PowerLossAtChange(broker, change) => {
                if world.cluster.is_up(*broker) {
                    world.cluster.fail_power_at(*broker, *change);
                }
            }
            Fault::RollingRestart => {
                // One at a time is what operators do.
                if self.active.iter().any(|active| active.rolling.is_some()) {
                    return;
                }
                active.rolling = Some(Rolling { broker: 0, since: world.now, phase: Phase::Starting });
            }
            Fault::Pause(broker) => {
                if !world.cluster.is_up(*broker) {
                    return;
                }
                world.cluster.machine(*broker).pause();
                active.network = Some(NetworkFault::Disconnected(*broker));
            }
            Fault::SlowDisk(broker, delay) => {
                world.cluster.machine(*broker).set_disk_delay_ms(delay.as_millis() as u64)
            }
            Fault::FullDisk(broker, room) => world.cluster.limit_disk(*broker, Some(*room)),
            Fault::ClockSkew(broker, offset_ms) => world.cluster.machine(*broker).set_clock_offset_ms(*offset_ms),
            Fault::SyncFails(broker, sync) => {
                if world.cluster.is_up(*broker) {
                    let faults = Faults { sync_fails_at: Some(*sync), ..Faults::default() };
                    world.cluster.disk(*broker).set_faults(faults);
                }
            }
            Fault::PageLoss(broker) | Fault::WipedDisk(broker) | Fault::BitFlips(broker, _) => {
                if !world.is_whole() || self.active.iter().any(|active| active.fault.ends_processes()) {
                    return;
                }
                self.mending = Some(*broker);
                active.ended.push(*broker);
                match fault {
                    Fault::PageLoss(_) => world.crash(*broker),
                    _ => world.kill(*broker),
                }
                world.inspector.distrust(*broker);
                match fault {
                    Fault::BitFlips(_, logs) => world.cluster.flip_bits(*broker, *logs),
                    Fault::WipedDisk(_) => world.cluster.disk(*broker).wipe(),
                    _ => {}
                }
            }
            Fault::Network(network) => {
                active.network = match network {
                    NetworkFault::ControllerIsolated => world.controller().map(NetworkFault::Isolated),
                    network => Some(network.clone()),
                };
            }
        }
        let is_network = active.network.is_some();
        self.active.push(active);
        if is_network {
            self.apply_network(world, &BTreeSet::new());
        }
    }

    /// Time has passed. Returns whether a fault is over.
    pub fn tick(&mut self, world: &mut World<'_>) -> bool {
        self.watch_disks(world);
        self.watch_processes(world);
        self.roll(world);
        let (over, rest): (Vec<Active>, Vec<Active>) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|active| active.until <= world.now && !is_rolling(active));
        self.active = rest;
        let is_any_over = !over.is_empty();
        if self.mending.is_some() && !self.active.iter().any(|active| active.fault.ends_processes()) && world.is_whole()
        {
            self.mending = None;
        }
        self.end(world, over);
        is_any_over
    }

    /// Ends everything.
    pub fn heal(&mut self, world: &mut World<'_>) {
        let over = std::mem::take(&mut self.active);
        self.end(world, over);
        self.restarts.clear();
        for broker in world.all() {
            if world.cluster.ended(broker).is_some() {
                world.kill(broker);
            }
            if !world.cluster.is_up(broker) {
                world.cluster.restart(broker);
            }
        }
    }

    fn end(&mut self, world: &mut World<'_>, over: Vec<Active>) {
        let mut lost = BTreeSet::new();
        let mut has_network = false;
        for active in over {
            for broker in active.ended {
                if !world.cluster.is_up(broker) {
                    world.cluster.restart(broker);
                }
            }
            match active.fault {
                Fault::PowerLossAtChange(broker, _) | Fault::SyncFails(broker, _) if world.cluster.is_up(broker) => {
                    world.cluster.disk(broker).set_faults(Faults::default());
                }
                Fault::Pause(broker) => world.cluster.machine(broker).resume(),
                Fault::SlowDisk(broker, _) => world.cluster.machine(broker).set_disk_delay_ms(0),
                Fault::FullDisk(broker, _) => world.cluster.limit_disk(broker, None),
                Fault::ClockSkew(broker, _) => world.cluster.machine(broker).set_clock_offset_ms(0),
                _ => {}
            }
            if let Some(fault) = active.network {
                has_network = true;
                // Connections outlive short cuts, and long ones are found dead.
                self.mended += 1;
                if self.mended.is_multiple_of(2) && !matches!(active.fault, Fault::Pause(_)) {
                    lost.extend(state_of(&fault, world.brokers).closed.iter().map(|(one, other)| ordered(one, other)));
                }
            }
        }
        if has_network {
            self.apply_network(world, &lost);
        }
    }

    fn apply_network(&self, world: &mut World<'_>, lost: &BTreeSet<(String, String)>) {
        let mut state = NetworkState::default();
        for fault in self.active.iter().filter_map(|active| active.network.as_ref()) {
            let more = state_of(fault, world.brokers);
            state.closed.extend(more.closed);
            state.shaky.extend(more.shaky);
            state.slow.extend(more.slow);
        }
        world.cluster.set_network(state, lost);
    }

    /// A machine whose disk has lost its power is gone.
    fn watch_disks(&mut self, world: &mut World<'_>) {
        for active in &mut self.active {
            if let Fault::PowerLossAtChange(broker, _) = active.fault
                && world.cluster.is_up(broker)
                && world.cluster.disk(broker).is_without_power()
            {
                world.crash(broker);
                active.ended.push(broker);
            }
        }
    }

    /// A process that ended by itself is started again.
    fn watch_processes(&mut self, world: &mut World<'_>) {
        let is_rolled = |broker: i32| {
            let mut rolling = self.active.iter().filter_map(|active| active.rolling);
            rolling.any(|rolling| rolling.broker == broker && rolling.phase == Phase::Stopping)
        };
        for broker in world.all() {
            let Some(ending) = world.cluster.ended(broker) else { continue };
            if world.cluster.disk(broker).is_without_power() || is_rolled(broker) {
                continue;
            }
            if world.cluster.disk(broker).has_failed_a_sync() {
                // A broker that cannot trust its disk ends. What the flush was to put on the platter is lost.
                world.ledger.note(world.now, format!("broker {broker} ends after a failed flush"));
                world.crash(broker);
            } else {
                if let Ending::Failed(reason) = &ending {
                    world.ledger.violate(world.now, "broker-failed", format!("broker {broker}: {reason}"));
                }
                world.kill(broker);
            }
            self.restarts.insert(broker, world.now + RESTART_DELAY);
        }
        let due: Vec<i32> = self.restarts.iter().filter(|(_, at)| **at <= world.now).map(|(id, _)| *id).collect();
        for broker in due {
            self.restarts.remove(&broker);
            if !world.cluster.is_up(broker) {
                world.cluster.restart(broker);
            }
        }
    }

    fn roll(&mut self, world: &mut World<'_>) {
        let now = world.now;
        for active in &mut self.active {
            let Some(rolling) = &mut active.rolling else { continue };
            let is_late = rolling.since + ROLLING_PATIENCE <= now;
            let broker = rolling.broker;
            match rolling.phase {
                Phase::Stopping if world.cluster.ended(broker).is_some() || is_late || !world.cluster.is_up(broker) => {
                    if let Some(Ending::Failed(reason)) = world.cluster.ended(broker)
                        && !world.cluster.disk(broker).has_failed_a_sync()
                    {
                        world.ledger.violate(now, "broker-failed", format!("broker {broker} while stopping: {reason}"));
                    }
                    if world.cluster.is_up(broker) {
                        if is_late {
                            world.ledger.note(now, format!("broker {broker} did not stop in time, and is killed"));
                        }
                        world.kill(broker);
                        world.cluster.restart(broker);
                    }
                    *rolling = Rolling { broker, since: now, phase: Phase::Starting };
                }
                Phase::Stopping => {}
                Phase::Starting => {
                    let is_ready =
                        broker == 0 || world.cluster.view(broker).is_some_and(|view| view.readiness().is_ok());
                    if !is_ready && !is_late {
                        continue;
                    }
                    let next = broker + 1;
                    if next > i32::from(world.brokers) {
                        active.rolling = None;
                        active.until = now;
                    } else {
                        world.ledger.note(now, format!("broker {next} is asked to stop"));
                        world.cluster.ask_to_stop(next);
                        *rolling = Rolling { broker: next, since: now, phase: Phase::Stopping };
                    }
                }
            }
        }
    }
}

fn is_rolling(active: &Active) -> bool {
    active.rolling.is_some()
}

fn up(world: &World<'_>, brokers: &[i32]) -> Vec<i32> {
    brokers.iter().copied().filter(|broker| world.cluster.is_up(*broker)).collect()
}

/// The fault as it hits whom it is aimed at.
fn aimed(world: &World<'_>, fault: &Fault, aim: &Aim) -> Fault {
    let image = world.inspector.newest();
    let partition = |topic: &str, index: i32| {
        let found = image.topic_by_name(topic)?.indexed_partitions().find(|(found, _)| found.value() == index);
        found.map(|(_, partition)| partition)
    };
    let target = match aim {
        Aim::Named => None,
        Aim::Leader { topic, partition: index } => partition(topic, *index).and_then(|partition| partition.leader),
        Aim::Follower { topic, partition: index } => partition(topic, *index).and_then(|partition| {
            partition.replicas.iter().copied().find(|replica| Some(*replica) != partition.leader)
        }),
        Aim::Controller => world.controller().map(vltava_types::BrokerId),
    };
    match (target, fault.first_broker()) {
        (Some(target), Some(named)) => fault.swapped(named, target.value()),
        _ => fault.clone(),
    }
}
