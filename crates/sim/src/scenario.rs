//! One fault in a cluster's life, and what must hold through it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::{Cluster, ClusterOptions, Meanwhile};
use crate::history::History;
use crate::workload::{Producer, acts_as_leader, find_controller, find_leader, read_to_end, tail, wait_until_in_sync};

const TOPIC: &str = "events";

const BROKERS: i32 = 3;

/// How long a disk has for the changes that are left to it before its power fails.
const LONGEST_DYING: Duration = Duration::from_millis(50);

/// What clients wait between two values: so few that a run is short, so many that a fault finds some under way.
const PACE: Duration = Duration::from_millis(5);

/// After so long without the other brokers nobody may act as leader: its session has run out, and before it a lease of
/// the quorum if it led that.
const LONGEST_ZOMBIE: Duration = Duration::from_millis(2500);

/// Values that must be acknowledged once the fault is over.
const VALUES_AFTER_HEALING: usize = 30;

/// What happens to the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It is gone at once, with some of what it had not synced or all, and starts again later.
    PowerLoss,
    /// Other brokers do not reach it any more; clients do.
    Isolation(Meanwhile),
    /// Nobody reaches it any more.
    Disconnection(Meanwhile),
}

/// Whom it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    PartitionLeader,
    /// The leader of the metadata quorum, which may lead the partition too.
    Controller,
    /// The partition's leader and the next broker, at once.
    LeaderAndAnother,
    /// All brokers at once.
    Everyone,
}

impl Victim {
    fn brokers(self, leader: i32, controller: i32) -> Vec<i32> {
        match self {
            Self::PartitionLeader => vec![leader],
            Self::Controller => vec![controller],
            Self::LeaderAndAnother => vec![leader, leader % BROKERS + 1],
            Self::Everyone => (1..=BROKERS).collect(),
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub fault: Fault,
    pub victim: Victim,
    /// The fault strikes so long after so many values have been acknowledged.
    pub values_before: usize,
    pub delay: Duration,
    /// And lasts so long.
    pub lasts: Duration,
    /// `vltava.durability`: `flush` or `page-cache`.
    pub durability: &'static str,
    /// The power fails in the middle of this change of the victim's disk, counted from when the fault strikes.
    pub dies_at_change: Option<u64>,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub history: History,
    /// Whether partition and metadata quorum had the same leader when the fault struck.
    pub led_both: bool,
    /// From healing until all replicas were in sync again, to the knowledge of all brokers.
    pub recovery: Duration,
}

impl Scenario {
    /// A fault after a third of a second or so that lasts until everybody must have noticed.
    #[must_use]
    pub fn new(seed: u64, fault: Fault, victim: Victim) -> Self {
        let delay = Duration::from_millis(7);
        let lasts = Duration::from_secs(8);
        Self { seed, fault, victim, values_before: 20, delay, lasts, durability: "flush", dies_at_change: None }
    }

    /// A fault whose kind, victim, moment and length follow from the seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        vltava_host::random::seed(seed);
        let draw = |below: u64| vltava_host::random::u64() % below;
        let fault = [
            Fault::PowerLoss,
            Fault::Isolation(Meanwhile::Delivered),
            Fault::Isolation(Meanwhile::Lost),
            Fault::Disconnection(Meanwhile::Delivered),
            Fault::Disconnection(Meanwhile::Lost),
        ][draw(5) as usize];
        let victim = [Victim::PartitionLeader, Victim::Controller][draw(2) as usize];
        let dies_at_change = (draw(2) == 0).then(|| 1 + draw(20));
        Self { fault, victim, dies_at_change, ..Self::at_any_moment(seed) }
    }

    /// Several brokers lose power at once, at a moment that follows from the seed: all of them in `flush` mode, or all but
    /// one in `page-cache` mode.
    #[must_use]
    pub fn power_loss_from_seed(seed: u64) -> Self {
        let moment = Self::at_any_moment(seed);
        let draw = |below: u64| vltava_host::random::u64() % below;
        let (victim, durability) =
            [(Victim::Everyone, "flush"), (Victim::LeaderAndAnother, "page-cache")][draw(2) as usize];
        let dies_at_change = (draw(2) == 0).then(|| 1 + draw(20));
        Self { fault: Fault::PowerLoss, victim, durability, dies_at_change, ..moment }
    }

    fn at_any_moment(seed: u64) -> Self {
        vltava_host::random::seed(!seed);
        let draw = |below: u64| vltava_host::random::u64() % below;
        let values_before = 5 + draw(40) as usize;
        let delay = Duration::from_millis(draw(60));
        // Some are over before anybody is sure that they happened.
        let lasts = Duration::from_millis([draw(1000), 1000 + draw(3000), 4000 + draw(4000)][draw(3) as usize]);
        Self { values_before, delay, lasts, ..Self::new(seed, Fault::None, Victim::PartitionLeader) }
    }

    /// Produces and consumes through the fault, waits until all replicas are in sync again, and reads everything back.
    /// Panics if something promised does not hold.
    #[must_use]
    pub fn run(self) -> Outcome {
        let history = Arc::new(Mutex::new(History::default()));
        let stage = Arc::new(Mutex::new(Stage::Before));
        let mut options = ClusterOptions::new(self.seed);
        options.properties.insert("vltava.durability".to_owned(), self.durability.to_owned());
        let mut cluster = Cluster::new(&options);
        cluster.client("client", client(self, cluster.bootstrap(), Arc::clone(&history), Arc::clone(&stage)));
        cluster.client("consumer", consume(cluster.bootstrap(), Arc::clone(&history), Arc::clone(&stage)));
        cluster.client("prober", probe(self, cluster.addresses(), Arc::clone(&stage)));
        let mut led_both = false;
        let mut victims = Vec::new();
        let mut recovery = Duration::ZERO;
        loop {
            let is_over = cluster.step().unwrap_or_else(|error| {
                let count = history.lock().expect("no holder panics").acknowledged.len();
                let stage = *stage.lock().expect("no holder panics");
                panic!("{self:?} is stuck at {stage:?} with {count} values acknowledged: {error}")
            });
            if is_over {
                break;
            }
            let now = cluster.elapsed();
            let mut stage = stage.lock().expect("no holder panics");
            match *stage {
                Stage::Chosen { leader, controller, at } if now >= at + self.delay => {
                    led_both = leader == controller;
                    victims = self.victim.brokers(leader, controller);
                    tracing::info!(?now, ?victims, fault = ?self.fault, led_both, "the fault strikes");
                    *stage = match self.dies_at_change {
                        Some(change) if self.fault == Fault::PowerLoss => {
                            cluster.fail_power_at(victims[0], change);
                            Stage::Dying { until: now + LONGEST_DYING }
                        }
                        _ => self.strike(&mut cluster, &victims),
                    };
                }
                Stage::Dying { until } if now >= until || cluster.disk(victims[0]).is_without_power() => {
                    *stage = self.strike(&mut cluster, &victims);
                }
                Stage::Struck { at, .. } if now >= at + self.lasts => {
                    for victim in &victims {
                        self.fault.heal(&mut cluster, *victim);
                    }
                    tracing::info!(?now, ?victims, "the fault is over");
                    *stage = Stage::Healed { at: now };
                }
                Stage::InSync { healed_at, at } => recovery = at - healed_at,
                _ => {}
            }
        }
        let history = history.lock().expect("no holder panics").clone();
        let violations = history.violations();
        let shown = &violations[..violations.len().min(5)];
        assert!(violations.is_empty(), "{self:?}: {} violations, first {shown:?}", violations.len());
        Outcome { history, led_both, recovery }
    }

    fn strike(self, cluster: &mut Cluster, victims: &[i32]) -> Stage {
        for victim in victims {
            self.fault.strike(cluster, *victim);
        }
        Stage::Struck { victim: victims[0], at: cluster.elapsed() }
    }
}

impl Fault {
    fn strike(self, cluster: &mut Cluster, victim: i32) {
        match self {
            Self::None => {}
            Self::PowerLoss => cluster.crash(victim),
            Self::Isolation(_) => cluster.isolate(victim),
            Self::Disconnection(_) => cluster.disconnect(victim),
        }
    }

    fn heal(self, cluster: &mut Cluster, victim: i32) {
        match self {
            Self::None => {}
            Self::PowerLoss => cluster.restart(victim),
            Self::Isolation(meanwhile) | Self::Disconnection(meanwhile) => cluster.heal(victim, meanwhile),
        }
    }
}

/// How far a run has come. Times are simulated ones since the start.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Before,
    Chosen {
        leader: i32,
        controller: i32,
        at: Duration,
    },
    /// The power of the first victim's disk is about to fail.
    Dying {
        until: Duration,
    },
    /// The first victim.
    Struck {
        victim: i32,
        at: Duration,
    },
    Healed {
        at: Duration,
    },
    InSync {
        healed_at: Duration,
        at: Duration,
    },
    Over,
}

async fn client(
    scenario: Scenario,
    bootstrap: String,
    history: Arc<Mutex<History>>,
    stage: Arc<Mutex<Stage>>,
) -> turmoil::Result {
    let set = |next| *stage.lock().expect("no holder panics") = next;
    let get = || *stage.lock().expect("no holder panics");
    let mut producer = Producer::open(&bootstrap, TOPIC, Arc::clone(&history)).await?;
    wait_until_in_sync(&bootstrap, TOPIC).await?;
    for _ in 0..scenario.values_before {
        producer.send().await?;
        tokio::time::sleep(PACE).await;
    }
    let leader = find_leader(&bootstrap, TOPIC).await?;
    let controller = find_controller(&bootstrap).await?;
    set(Stage::Chosen { leader, controller, at: now() });
    let healed_at = loop {
        producer.send().await?;
        tokio::time::sleep(PACE).await;
        if let Stage::Healed { at } = get() {
            break at;
        }
    };
    for _ in 0..VALUES_AFTER_HEALING {
        producer.send().await?;
        tokio::time::sleep(PACE).await;
    }
    wait_until_in_sync(&bootstrap, TOPIC).await?;
    set(Stage::InSync { healed_at, at: now() });
    producer.send().await?;
    let read = read_to_end(&bootstrap, TOPIC).await?;
    history.lock().expect("no holder panics").read = read;
    set(Stage::Over);
    Ok(())
}

async fn consume(bootstrap: String, history: Arc<Mutex<History>>, stage: Arc<Mutex<Stage>>) -> turmoil::Result {
    let is_over = async {
        while !matches!(*stage.lock().expect("no holder panics"), Stage::Over) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        () = is_over => Ok(()),
        consumed = tail(&bootstrap, TOPIC, history) => consumed,
    }
}

/// Asks a broker that is cut off from the others whether it still leads (trap 15).
async fn probe(scenario: Scenario, addresses: Vec<String>, stage: Arc<Mutex<Stage>>) -> turmoil::Result {
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let current = *stage.lock().expect("no holder panics");
        match current {
            Stage::Over => return Ok(()),
            Stage::Struck { victim, at } if matches!(scenario.fault, Fault::Isolation(_)) => {
                if now() < at + LONGEST_ZOMBIE || now() + Duration::from_millis(100) > at + scenario.lasts {
                    continue;
                }
                let address = &addresses[usize::try_from(victim - 1).expect("brokers count from one")];
                if acts_as_leader(address, TOPIC).await? {
                    return Err(format!("broker {victim} acts as leader {:?} after it was cut off", now() - at).into());
                }
            }
            _ => {}
        }
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().expect("clients run on simulated hosts")
}
