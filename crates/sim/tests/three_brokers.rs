//! Three whole brokers in one process, on a simulated clock and network.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vltava_sim::{Cluster, ClusterOptions, History, find_leader, produce_values, read_to_end};

const TOPIC: &str = "events";
const VALUES: u32 = 200;

/// What happens to the leader once a third of the values are acknowledged, until two thirds are.
#[derive(Clone, Copy)]
enum Fault {
    None,
    PowerLoss,
    Isolation,
}

impl Fault {
    fn strike(self, cluster: &mut Cluster, victim: i32) {
        match self {
            Self::None => {}
            Self::PowerLoss => cluster.crash(victim),
            Self::Isolation => cluster.isolate(victim),
        }
    }

    fn heal(self, cluster: &mut Cluster, victim: i32) {
        match self {
            Self::None => {}
            Self::PowerLoss => cluster.restart(victim),
            Self::Isolation => cluster.heal(victim),
        }
    }
}

/// Produces through the fault, heals, reads everything back.
fn run(seed: u64, fault: Fault) -> History {
    let history = Arc::new(Mutex::new(History::default()));
    let leader = Arc::new(Mutex::new(None));
    let mut cluster = Cluster::new(&ClusterOptions::new(seed));
    let bootstrap = cluster.bootstrap();
    cluster.client("client", {
        let (history, leader) = (history.clone(), leader.clone());
        async move {
            produce_values(bootstrap.clone(), TOPIC, 0..VALUES / 3, history.clone()).await?;
            *leader.lock().expect("no holder panics") = Some(find_leader(bootstrap.clone(), TOPIC).await?);
            produce_values(bootstrap.clone(), TOPIC, VALUES / 3..VALUES, history.clone()).await?;
            read_to_end(bootstrap, TOPIC, history).await
        }
    });
    let mut struck = None;
    let mut healed = false;
    while !cluster.step().expect("the simulation goes on") {
        let acknowledged = history.lock().expect("no holder panics").acknowledged.len();
        let victim = *leader.lock().expect("no holder panics");
        match (struck, victim) {
            (None, Some(victim)) => {
                fault.strike(&mut cluster, victim);
                struck = Some(victim);
            }
            (Some(victim), _) if !healed && acknowledged >= VALUES as usize * 2 / 3 => {
                fault.heal(&mut cluster, victim);
                healed = true;
            }
            _ => {}
        }
    }
    let history = history.lock().expect("no holder panics").clone();
    assert_eq!(history.acknowledged.len(), VALUES as usize, "every value is acknowledged in the end");
    assert_eq!(history.violations(), [], "seed {seed}");
    history
}

#[test]
fn a_healthy_cluster_acknowledges_and_keeps_everything() {
    let history = run(1, Fault::None);
    assert!(history.longest_pause() < Duration::from_secs(1), "{:?}", history.longest_pause());
}

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_loses_power() {
    for seed in 1..=3 {
        run(seed, Fault::PowerLoss);
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_is_cut_off() {
    for seed in 1..=3 {
        run(seed, Fault::Isolation);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    assert_eq!(run(7, Fault::PowerLoss), run(7, Fault::PowerLoss));
}
