//! What clients do: each kind in a file of its own. They run as tasks on simulated hosts, tell the [`Ledger`] everything,
//! and go on until it says otherwise.

mod admin;
mod audit;
mod groups;
mod producers;
mod readers;
mod recreation;
mod watermarks;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use vltava_client::{Client, Options, Settings};
use vltava_host::random::Generator;
use vltava_host::task;

use super::ledger::{Ledger, Stage};
use super::plan::{AdminOp, CLIENT_HOSTS, Plan};

pub use admin::Requests;

/// What every client holds.
#[derive(Clone)]
pub struct Context {
    pub plan: Arc<Plan>,
    pub ledger: Arc<Mutex<Ledger>>,
    /// Administration that was asked for and not begun.
    pub requests: Requests,
    pub bootstrap: String,
}

impl Context {
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no holder panics")
    }

    fn stage(&self) -> Stage {
        self.ledger().stage
    }

    /// Waits until the run has come to this stage or beyond.
    async fn wait_for(&self, stage: Stage) {
        while self.stage() < stage {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Settings of a client as a test wants them: it gives up soon and tries again.
    fn settings(&self, name: &str) -> Settings {
        [
            ("bootstrap.servers", self.bootstrap.as_str()),
            ("client.id", name),
            ("socket.connection.setup.timeout.ms", "1000"),
            ("request.timeout.ms", "4000"),
            ("metadata.max.age.ms", "10000"),
        ]
        .into_iter()
        .collect()
    }

    fn options(&self, name: &str) -> Options {
        Options {
            client_id: name.to_owned(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(4),
            ..Options::default()
        }
    }

    fn client(&self, name: &str) -> Client {
        Client::new(&self.bootstrap, self.options(name))
    }

    /// Choices of one client, which do not depend on what others do.
    fn random(&self, kind: u64, index: usize) -> Generator {
        let mut generator = Generator::new(self.plan.seed ^ (kind << 48) ^ ((index as u64) << 32));
        Generator::new(generator.u64())
    }

    fn topic_name(&self, topic: usize) -> String {
        self.plan.topics[topic].name.clone()
    }
}

/// Simulated time since the start.
pub fn now() -> Duration {
    turmoil::sim_elapsed().expect("clients run on simulated hosts")
}

/// Everything that runs on one of the hosts of clients; ends when the run does.
pub async fn run_host(context: Context, host: usize) -> turmoil::Result {
    if host == 0 {
        admin::form(&context).await?;
        context.ledger().stage = Stage::Working;
    }
    context.wait_for(Stage::Working).await;
    let mut next = 0;
    let mut is_mine = || {
        next += 1;
        next % CLIENT_HOSTS == host
    };
    let plan = Arc::clone(&context.plan);
    for index in (0..plan.producers.len()).filter(|_| is_mine()) {
        task::spawn(producers::run(context.clone(), index));
    }
    for index in (0..plan.readers.len()).filter(|_| is_mine()) {
        task::spawn(readers::run(context.clone(), index));
    }
    for (index, group) in plan.groups.iter().enumerate() {
        for member in (0..group.members).filter(|_| is_mine()) {
            task::spawn(groups::run_member(context.clone(), index, member));
        }
        if is_mine() {
            task::spawn(groups::watch_commits(context.clone(), index));
        }
    }
    if is_mine() {
        task::spawn(watermarks::run(context.clone()));
    }
    if is_mine() {
        tokio::task::spawn_local(audit::reread(context.clone()));
    }
    if plan.recreates && is_mine() {
        task::spawn(recreation::run(context.clone()));
    }
    if host == 0 {
        task::spawn(admin::serve(context.clone()));
        context.wait_for(Stage::Auditing).await;
        audit::run(&context).await;
        context.ledger().stage = Stage::Over;
    }
    context.wait_for(Stage::Over).await;
    Ok(())
}

impl Context {
    /// Asks for an operation; it is begun soon.
    pub fn request(&self, op: AdminOp) {
        self.requests.lock().expect("no holder panics").push_back(op);
    }
}
