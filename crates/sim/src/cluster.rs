//! Simulated brokers, and the hands that crash and cut them off.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, SystemTime};

use vltava::node::Node;
use vltava_broker::config::BrokerConfig;
use vltava_host::disk::{Faults, SimDisk};

/// Where simulated time begins: 2026-01-01T00:00:00Z.
const EPOCH_SECONDS: u64 = 1_767_225_600;

/// One turmoil step. Smaller steps cost more and show nothing new: messages take at least one.
const TICK: Duration = Duration::from_millis(1);

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
}

impl ClusterOptions {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, brokers: 3, duration: Duration::from_secs(120), properties: BTreeMap::new() }
    }
}

/// A cluster on a simulated network, with one disk and one clock per broker.
pub struct Cluster {
    sim: turmoil::Sim<'static>,
    brokers: u16,
    clients: Vec<String>,
    /// By broker.
    disks: BTreeMap<i32, SimDisk>,
}

impl Cluster {
    /// Creates the hosts. Nothing runs before the first step.
    #[must_use]
    pub fn new(options: &ClusterOptions) -> Self {
        vltava_host::random::seed(options.seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(options.seed)
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS))
            .simulation_duration(options.duration)
            .tick_duration(TICK)
            .min_message_latency(TICK)
            .max_message_latency(Duration::from_millis(5))
            // A segment is one write of a sender: HTTP/2 sends many small ones before it reads.
            .tcp_capacity(65_536)
            .build();
        let mut disks = BTreeMap::new();
        SimDisk::unmount_all();
        for id in 1..=options.brokers {
            let disk_seed = vltava_host::random::u64();
            let disk = SimDisk::mount(mount_point(id), disk_seed);
            disks.insert(i32::from(id), disk.clone());
            let properties = properties(id, options);
            sim.host(host_name(id), move || run_broker(properties.clone(), host_name(id), disk.clone()));
        }
        Self { sim, brokers: options.brokers, clients: Vec::new(), disks }
    }

    /// Adds a client. The simulation ends when all clients have.
    pub fn client(&mut self, name: &str, client: impl Future<Output = turmoil::Result> + 'static) {
        self.clients.push(name.to_owned());
        self.sim.client(name, client);
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
        self.sim.step()
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
        // What the dying process would send on closing its sockets is dropped.
        self.drop_all(broker);
        // It does not close them in the same order each time, which nobody sees but a trace.
        let nobody = tracing::subscriber::NoSubscriber::default();
        tracing::subscriber::with_default(nobody, || self.sim.crash(broker_name(broker)));
        self.disconnect(broker);
    }

    /// Starts a crashed broker on what is left of its disk.
    pub fn restart(&mut self, broker: i32) {
        self.disk(broker).restore_power();
        self.heal(broker, Meanwhile::Lost);
        self.sim.bounce(broker_name(broker));
    }

    /// Cuts a broker off from the other brokers; clients still reach it. Nothing tells of a cut: what is sent just does
    /// not arrive, and connecting takes for ever. (A partition in turmoil's sense refuses connections at once, as if the
    /// process were dead.)
    pub fn isolate(&mut self, broker: i32) {
        for other in self.others(&broker_name(broker)) {
            self.sim.hold(broker_name(broker), other.as_str());
        }
    }

    /// Cuts a broker off from everybody.
    pub fn disconnect(&mut self, broker: i32) {
        self.isolate(broker);
        for client in &self.clients {
            self.sim.hold(broker_name(broker), client.as_str());
        }
    }

    /// Undoes [`Cluster::isolate`] and [`Cluster::disconnect`].
    pub fn heal(&mut self, broker: i32, meanwhile: Meanwhile) {
        if meanwhile == Meanwhile::Lost {
            self.drop_all(broker);
        }
        let broker = broker_name(broker);
        for other in self.others(&broker).iter().chain(&self.clients) {
            self.sim.release(broker.as_str(), other.as_str());
        }
    }

    fn drop_all(&self, broker: i32) {
        let broker = broker_name(broker);
        for other in self.others(&broker).iter().chain(&self.clients) {
            self.sim.partition(broker.as_str(), other.as_str());
        }
    }

    fn others(&self, broker: &str) -> Vec<String> {
        (1..=self.brokers).map(host_name).filter(|other| other != broker).collect()
    }
}

/// What becomes of that which was sent through a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// It arrives late, as TCP's retransmission has it; connections from before go on.
    Delivered,
    /// It is gone, and connections from before never work again, though nobody says so.
    Lost,
}

fn host_name(id: u16) -> String {
    format!("broker-{id}")
}

/// Where a broker finds its disk.
fn mount_point(id: u16) -> String {
    format!("/{}", host_name(id))
}

fn broker_name(id: i32) -> String {
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

async fn run_broker(properties: BTreeMap<String, String>, host: String, disk: SimDisk) -> turmoil::Result {
    let config = BrokerConfig::from_properties(&properties, &host)?.config;
    let failure = match Node::start(config).await {
        Ok(mut node) => node.failed().await,
        Err(failure) => failure,
    };
    if disk.is_without_power() {
        // Nor is there power for the rest of the machine: it waits for the simulator to notice.
        std::future::pending::<()>().await;
    }
    Err(failure.into())
}
