//! Simulated brokers, and the hands that crash and cut them off.

mod damage;
mod links;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use vltava::node::{Node, NodeView};
use vltava_broker::config::BrokerConfig;
use vltava_host::disk::{Faults, SimDisk};
use vltava_host::machine::{Machine, Pausable};
use vltava_host::random::Generator;

pub use damage::is_noticeable;
pub use links::Meanwhile;

use crate::network::{NetworkState, Passage};

/// Where simulated time begins: 2026-01-01T00:00:00Z.
const EPOCH_SECONDS: u64 = 1_767_225_600;

/// One turmoil step, unless another is asked for.
const TICK: Duration = Duration::from_millis(1);

/// How long a message is under way at most, on a network at rest.
const MAX_LATENCY: Duration = Duration::from_millis(5);

const CLIENT_PORT: u16 = 9092;
const CONTROLLER_PORT: u16 = 9093;

/// What to simulate.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    pub seed: u64,
    /// Each votes and serves.
    pub brokers: u16,
    /// How much simulated time may pass before the run counts as stuck.
    pub duration: Duration,
    /// Kafka's property names, over the simulation's defaults, for every broker.
    pub properties: BTreeMap<String, String>,
    /// One step. Larger ones cost less real time, and messages take at least one.
    pub tick: Duration,
    /// A broker's process that ends by itself does not end the simulation: see [`Cluster::ended`].
    pub outlives_brokers: bool,
}

impl ClusterOptions {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            brokers: 3,
            duration: Duration::from_secs(120),
            properties: BTreeMap::new(),
            tick: TICK,
            outlives_brokers: false,
        }
    }
}

/// A cluster on a simulated network, with one disk and one clock per broker.
pub struct Cluster {
    sim: turmoil::Sim<'static>,
    brokers: u16,
    clients: Vec<String>,
    /// By broker.
    disks: BTreeMap<i32, SimDisk>,
    processes: BTreeMap<i32, Rc<Process>>,
    machines: BTreeMap<i32, Machine>,
    /// Brokers without a process.
    down: BTreeSet<i32>,
    network: NetworkState,
    held: BTreeSet<(String, String)>,
    /// Of the held links, by the addresses of their ends: what passes from the first to the second, and back.
    passages: BTreeMap<(IpAddr, IpAddr), (Passage, Passage)>,
    random: Generator,
    /// Of a link at rest.
    max_latency: Duration,
    /// Of all hosts, by their addresses.
    names: BTreeMap<IpAddr, String>,
}

/// What is known of a broker's process from outside.
#[derive(Default)]
struct Process {
    view: RefCell<Option<NodeView>>,
    /// Why it ended, once it has.
    ended: RefCell<Option<Ending>>,
    /// Asks it to stop in order.
    is_to_stop: Cell<bool>,
    stop: Notify,
}

impl Process {
    async fn asked_to_stop(&self) {
        while !self.is_to_stop.get() {
            self.stop.notified().await;
        }
    }
}

/// How a broker's process ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was asked to.
    InOrder,
    Failed(String),
}

impl Cluster {
    /// Creates the hosts. Nothing runs before the first step.
    #[must_use]
    pub fn new(options: &ClusterOptions) -> Self {
        vltava_host::random::seed(options.seed);
        let max_latency = MAX_LATENCY.max(options.tick);
        let mut sim = turmoil::Builder::new()
            .rng_seed(options.seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS))
            .simulation_duration(options.duration)
            .tick_duration(options.tick)
            .min_message_latency(options.tick)
            .max_message_latency(max_latency)
            // A segment is one write of a sender: HTTP/2 sends many small ones before it reads.
            .tcp_capacity(65_536)
            .build();
        let mut disks = BTreeMap::new();
        let mut processes = BTreeMap::new();
        let mut machines = BTreeMap::new();
        Machine::forget_all();
        SimDisk::unmount_all();
        for id in 1..=options.brokers {
            let disk_seed = vltava_host::random::u64();
            let disk = SimDisk::mount(mount_point(id), disk_seed);
            disks.insert(i32::from(id), disk.clone());
            let properties = properties(id, options);
            let process = Rc::new(Process::default());
            processes.insert(i32::from(id), Rc::clone(&process));
            let machine = Machine::default();
            machines.insert(i32::from(id), machine.clone());
            let outlives_brokers = options.outlives_brokers;
            sim.host(host_name(id), move || {
                let run = run_broker(properties.clone(), host_name(id), disk.clone(), Rc::clone(&process));
                let (process, machine) = (Rc::clone(&process), machine.clone());
                async move {
                    machine.boot();
                    let ending = Pausable::new(run).await;
                    match (ending, outlives_brokers) {
                        (Err(failure), false) => Err(failure.into()),
                        (ending, _) => {
                            let ending =
                                ending.map_or_else(|failure| Ending::Failed(failure.to_string()), |()| Ending::InOrder);
                            process.view.take();
                            process.ended.replace(Some(ending));
                            std::future::pending().await
                        }
                    }
                }
            });
        }
        let names = (1..=options.brokers).map(|id| (sim.lookup(host_name(id)), host_name(id))).collect();
        Self {
            sim,
            brokers: options.brokers,
            clients: Vec::new(),
            disks,
            processes,
            machines,
            down: BTreeSet::new(),
            network: NetworkState::default(),
            held: BTreeSet::new(),
            passages: BTreeMap::new(),
            random: Generator::new(options.seed),
            max_latency,
            names,
        }
    }

    /// Adds a client. The simulation ends when all clients have.
    pub fn client(&mut self, name: &str, client: impl Future<Output = turmoil::Result> + 'static) {
        self.clients.push(name.to_owned());
        self.sim.client(name, client);
        self.names.insert(self.sim.lookup(name), name.to_owned());
    }

    /// Where clients reach each broker.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        (1..=self.brokers).map(|id| format!("{}:{CLIENT_PORT}", host_name(id))).collect()
    }

    /// The addresses that clients start from.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.addresses().join(",")
    }

    /// Lets one tick pass. True when all clients have ended.
    pub fn step(&mut self) -> turmoil::Result<bool> {
        self.deliver_some();
        self.sim.step()
    }

    /// Whether the broker has a process.
    #[must_use]
    pub fn is_up(&self, broker: i32) -> bool {
        !self.down.contains(&broker)
    }

    /// The hosts of brokers and clients.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        (1..=self.brokers).map(host_name).chain(self.clients.iter().cloned()).collect()
    }

    /// Steps until all clients have ended.
    pub fn run(&mut self) -> turmoil::Result {
        self.sim.run()
    }

    /// Simulated time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// The machine that the broker runs on.
    #[must_use]
    pub fn machine(&self, broker: i32) -> &Machine {
        &self.machines[&broker]
    }

    /// The broker's disk holds no more than so many bytes beyond what is on it; without a number there is room.
    pub fn limit_disk(&self, broker: i32, room: Option<u64>) {
        let capacity = match (room, vltava_host::fs::space(Path::new(&mount_point(broker as u16)))) {
            (Some(room), Ok(space)) => space.total_bytes - space.available_bytes + room,
            _ => SimDisk::UNLIMITED,
        };
        self.disk(broker).set_capacity(capacity);
    }

    /// The broker's disk.
    #[must_use]
    pub fn disk(&self, broker: i32) -> &SimDisk {
        &self.disks[&broker]
    }

    /// Has the broker's disk lose its power in the middle of the n-th change from now on. Whoever steps the cluster then
    /// has to [`Cluster::crash`] the broker.
    pub fn fail_power_at(&mut self, broker: i32, change: u64) {
        self.disk(broker).set_faults(Faults { power_fails_at: Some(change), ..Faults::default() });
    }

    /// Power loss: the broker is gone at once, and so is some of what it had not synced, or all. It says goodbye to nobody,
    /// and whoever connects waits for ever.
    pub fn crash(&mut self, broker: i32) {
        // First, so that what the dying process does on its way finds no disk.
        self.disk(broker).lose_power();
        self.end_process(broker);
    }

    /// The process is killed and the machine goes on: what was written stays, synced or not.
    pub fn kill(&mut self, broker: i32) {
        self.disk(broker).end_process();
        self.end_process(broker);
    }

    fn end_process(&mut self, broker: i32) {
        let process = &self.processes[&broker];
        process.view.take();
        process.ended.take();
        process.is_to_stop.set(false);
        self.machines[&broker].resume();
        // What the dying process would send on closing its sockets is dropped.
        self.drop_all(broker);
        // It does not close them in the same order each time, which nobody sees but a trace.
        let nobody = tracing::subscriber::NoSubscriber::default();
        tracing::subscriber::with_default(nobody, || self.sim.crash(broker_name(broker)));
        self.disconnect(broker);
        self.down.insert(broker);
    }

    /// Asks a broker to stop as SIGTERM does. Done when [`Cluster::ended`] says so; then kill it and start it again.
    pub fn ask_to_stop(&self, broker: i32) {
        let process = &self.processes[&broker];
        process.is_to_stop.set(true);
        process.stop.notify_waiters();
    }

    /// How the broker's process ended, if it did so by itself since it was started.
    #[must_use]
    pub fn ended(&self, broker: i32) -> Option<Ending> {
        self.processes[&broker].ended.borrow().clone()
    }

    /// What goes on within a broker that runs.
    #[must_use]
    pub fn view(&self, broker: i32) -> Option<NodeView> {
        self.processes[&broker].view.borrow().clone()
    }

    /// Starts a crashed broker on what is left of its disk.
    pub fn restart(&mut self, broker: i32) {
        self.disk(broker).restore_power();
        self.heal(broker, Meanwhile::Lost);
        self.down.remove(&broker);
        self.apply_network();
        self.sim.bounce(broker_name(broker));
    }
}

fn host_name(id: u16) -> String {
    format!("broker-{id}")
}

/// Where a broker finds its disk.
fn mount_point(id: u16) -> String {
    format!("/{}", host_name(id))
}

pub(crate) fn broker_name(id: i32) -> String {
    format!("broker-{id}")
}

fn properties(id: u16, options: &ClusterOptions) -> BTreeMap<String, String> {
    let voters: Vec<String> =
        (1..=options.brokers).map(|voter| format!("{voter}@{}:{CONTROLLER_PORT}", host_name(voter))).collect();
    let name = host_name(id);
    let mut properties: BTreeMap<String, String> = [
        ("node.id", id.to_string()),
        ("process.roles", "broker,controller".to_owned()),
        ("listeners", format!("PLAINTEXT://0.0.0.0:{CLIENT_PORT},CONTROLLER://0.0.0.0:{CONTROLLER_PORT}")),
        ("advertised.listeners", format!("PLAINTEXT://{name}:{CLIENT_PORT}")),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned()),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("controller.quorum.voters", voters.join(",")),
        ("log.dirs", format!("{}/data", mount_point(id))),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    properties.extend(options.properties.clone());
    properties
}

async fn run_broker(
    properties: BTreeMap<String, String>,
    host: String,
    disk: SimDisk,
    process: Rc<Process>,
) -> anyhow::Result<()> {
    let config = BrokerConfig::from_properties(&properties, &host)?.config;
    let failure = match Node::start(config).await {
        Ok(mut node) => {
            process.view.replace(Some(node.view()));
            let failure = tokio::select! {
                biased;
                () = process.asked_to_stop() => None,
                failure = node.failed() => Some(failure),
            };
            match failure {
                Some(failure) => failure,
                None => {
                    process.view.take();
                    node.stop().await;
                    return Ok(());
                }
            }
        }
        Err(failure) => failure,
    };
    if disk.is_without_power() {
        // Nor is there power for the rest of the machine: it waits for the simulator to notice.
        std::future::pending::<()>().await;
    }
    Err(failure)
}
