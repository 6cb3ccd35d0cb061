//! Minutes of a cluster's life under everything that a plan brings, and what must hold all the while and in the end.
//!
//! A [`Plan`] is drawn from a seed. [`run`] steps the cluster: the [`nemesis`] carries out faults between two steps, clients
//! ([`workload`]) run inside and tell the [`ledger`] what they were told, the [`inspector`] looks into the brokers. Then
//! everything is healed, and within [`LIVENESS_LIMIT`] all must work again; [`verdict`] judges the history. What a failed
//! plan does not need for its failure is found by [`shorten`].

mod cuts;
mod inspector;
mod ledger;
mod liveness;
mod nemesis;
mod plan;
mod shape;
mod shorten;
mod verdict;
mod workload;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::{Cluster, ClusterOptions};
use inspector::Inspector;
use ledger::{Ledger, Operations, Stage};
use nemesis::{Nemesis, World};
use workload::{Context, Requests};

pub use ledger::Violation;
pub use plan::{Action, AdminOp, Aim, Fault, NetworkFault, Plan, Step};
pub use shorten::shorten;

/// Between two looks into the brokers while nothing happens.
const INSPECTION_INTERVAL: Duration = Duration::from_millis(100);

/// So long after a fault has begun or ended the brokers are looked into after each step.
const ALERT: Duration = Duration::from_millis(1500);

/// A new cluster has served its first client by then.
const FORMING_LIMIT: Duration = Duration::from_secs(60);

/// After everything was healed each kind of operation has succeeded by then, and all replicas are in sync; after as long
/// again everything was read.
pub const LIVENESS_LIMIT: Duration = Duration::from_secs(60);

/// Reading everything once more takes no longer.
const AUDIT_LIMIT: Duration = Duration::from_secs(300);

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Report {
    pub violations: Vec<Violation>,
    /// Equal for equal runs: of everything that clients were told, and of every fault.
    pub digest: u64,
    pub simulated: Duration,
    pub writes: usize,
    pub acknowledged: usize,
    pub operations: BTreeMap<&'static str, Operations>,
    pub notes: Vec<(Duration, String)>,
    /// From healing until everything worked again.
    pub recovery: Option<Duration>,
}

impl Report {
    /// A run that ended in a panic, of a broker or of a client.
    #[must_use]
    pub fn of_panic(text: String) -> Self {
        Self {
            violations: vec![Violation { at: Duration::ZERO, kind: "panic", detail: text }],
            digest: 0,
            simulated: Duration::ZERO,
            writes: 0,
            acknowledged: 0,
            operations: BTreeMap::new(),
            notes: vec![],
            recovery: None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, simulated, writes, acknowledged, recovery, .. } = self;
        write!(
            formatter,
            "{simulated:?}, {acknowledged} of {writes} values acknowledged, recovery {recovery:?}, digest {digest:016x}"
        )
    }
}

/// The host that some of the clients run on.
fn client_host(index: usize) -> String {
    format!("clients-{index}")
}

/// Runs a plan to its end, or to the first moment at which something does not hold.
#[must_use]
pub fn run(plan: &Plan) -> Report {
    let plan = Arc::new(plan.clone());
    let mut options = ClusterOptions::new(plan.seed);
    options.brokers = plan.brokers;
    options.tick = plan.tick;
    options.outlives_brokers = true;
    options.duration = plan.duration + FORMING_LIMIT + LIVENESS_LIMIT * 2 + AUDIT_LIMIT * 2;
    options.properties = plan.properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let mut cluster = Cluster::new(&options);
    let context = Context {
        plan: Arc::clone(&plan),
        ledger: Arc::new(Mutex::new(Ledger::default())),
        requests: Requests::default(),
        bootstrap: cluster.bootstrap(),
    };
    for host in 0..plan::CLIENT_HOSTS {
        cluster.client(&client_host(host), workload::run_host(context.clone(), host));
    }
    let mut run = Run {
        cluster,
        context,
        inspector: Inspector::default(),
        nemesis: Nemesis::default(),
        phase: Phase::Forming,
        next_step: 0,
        next_inspection: Duration::ZERO,
        alert_until: Duration::ZERO,
        recovery: None,
    };
    run.go();
    run.report()
}

struct Run {
    cluster: Cluster,
    context: Context,
    inspector: Inspector,
    nemesis: Nemesis,
    phase: Phase,
    next_step: usize,
    next_inspection: Duration,
    alert_until: Duration,
    recovery: Option<Duration>,
}

/// How far a run has come, and since when.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Forming,
    /// Faults and workloads.
    Working {
        since: Duration,
    },
    /// All is healed, and clients go on.
    Recovering {
        since: Duration,
        asked_at: Duration,
    },
    /// Producers have stopped, and readers come to the end.
    Draining {
        since: Duration,
    },
    Auditing {
        since: Duration,
    },
}

impl Run {
    fn go(&mut self) {
        loop {
            let is_over = match self.cluster.step() {
                Ok(is_over) => is_over,
                Err(error) => {
                    let now = self.cluster.elapsed();
                    self.context.ledger().violate(now, "host-failed", error.to_string());
                    return;
                }
            };
            let now = self.cluster.elapsed();
            if is_over {
                break;
            }
            if self.with_world(now, |nemesis, world| nemesis.tick(world)) {
                self.alert_until = now + ALERT;
            }
            if self.next_inspection <= now || now < self.alert_until {
                self.next_inspection = now + INSPECTION_INTERVAL;
                let violations = self.inspector.check(&self.cluster, &self.context.plan, now);
                self.context.ledger().violations.extend(violations);
                self.advance(now);
            }
            if !self.context.ledger().violations.is_empty() {
                return;
            }
        }
        let plan = Arc::clone(&self.context.plan);
        let mut ledger = self.context.ledger();
        let verdict = verdict::judge(&plan, &ledger);
        ledger.violations.extend(verdict);
    }

    fn with_world<T>(&mut self, now: Duration, act: impl FnOnce(&mut Nemesis, &mut World<'_>) -> T) -> T {
        let mut ledger = self.context.ledger.lock().expect("no holder panics");
        let brokers = self.context.plan.brokers;
        let mut world =
            World { cluster: &mut self.cluster, inspector: &mut self.inspector, ledger: &mut ledger, brokers, now };
        act(&mut self.nemesis, &mut world)
    }

    /// Begins the plan's steps that are due, and goes on to the next phase when it is time.
    fn advance(&mut self, now: Duration) {
        match self.phase {
            Phase::Forming => {
                if self.context.ledger().stage == Stage::Working {
                    self.phase = Phase::Working { since: now };
                } else if FORMING_LIMIT <= now {
                    let detail = format!("no topics after {FORMING_LIMIT:?}");
                    self.context.ledger().violate(now, "not-live", detail);
                }
            }
            Phase::Working { since } => {
                let plan = Arc::clone(&self.context.plan);
                while let Some(step) = plan.steps.get(self.next_step).filter(|step| since + step.at <= now) {
                    self.next_step += 1;
                    match &step.action {
                        Action::Fault(fault, aim, lasts) => {
                            self.alert_until = now + ALERT;
                            self.with_world(now, |nemesis, world| nemesis.begin(world, fault, aim, *lasts));
                        }
                        Action::Admin(op) => self.context.request(op.clone()),
                    }
                }
                if since + plan.duration <= now {
                    self.with_world(now, |nemesis, world| nemesis.heal(world));
                    let mut ledger = self.context.ledger();
                    ledger.note(now, "everything is healed".to_owned());
                    ledger.healed_at = Some(now);
                    drop(ledger);
                    self.phase = Phase::Recovering { since: now, asked_at: Duration::ZERO };
                }
            }
            Phase::Recovering { since, asked_at } => {
                let missing = self.missing_after_healing();
                if missing.is_empty() {
                    self.recovery = Some(now - since);
                    self.enter(Stage::Draining, Phase::Draining { since: now });
                } else if since + LIVENESS_LIMIT <= now {
                    self.context.ledger().violate(now, "not-live", missing.join("; "));
                } else if asked_at + liveness::ASK_AGAIN <= now {
                    liveness::ask(&self.context);
                    self.phase = Phase::Recovering { since, asked_at: now };
                }
            }
            Phase::Draining { since } => {
                let ledger = self.context.ledger();
                let missing = liveness::unread(&self.cluster, &self.inspector, &self.context.plan, &ledger);
                drop(ledger);
                if missing.is_empty() {
                    self.enter(Stage::Auditing, Phase::Auditing { since: now });
                } else if since + LIVENESS_LIMIT <= now {
                    self.context.ledger().violate(now, "lag-remains", missing.join("; "));
                }
            }
            Phase::Auditing { since } => {
                if since + AUDIT_LIMIT <= now {
                    self.context.ledger().violate(now, "not-live", "the audit does not end".to_owned());
                }
            }
        }
    }

    fn enter(&mut self, stage: Stage, phase: Phase) {
        self.context.ledger().stage = stage;
        self.phase = phase;
    }

    fn missing_after_healing(&self) -> Vec<String> {
        let ledger = self.context.ledger();
        liveness::missing(&self.cluster, &self.inspector, &self.context.plan, &ledger)
    }

    fn report(self) -> Report {
        let ledger = self.context.ledger();
        let is_acknowledged = |write: &&ledger::Write| matches!(write.outcome, ledger::Outcome::Acknowledged { .. });
        Report {
            violations: ledger.violations.clone(),
            digest: ledger.digest.0,
            simulated: self.cluster.elapsed(),
            writes: ledger.writes.len(),
            acknowledged: ledger.writes.iter().filter(is_acknowledged).count(),
            operations: ledger.operations.clone(),
            notes: ledger.notes.clone(),
            recovery: self.recovery,
        }
    }
}
