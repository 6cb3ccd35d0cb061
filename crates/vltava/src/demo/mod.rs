//! `vltava demo failover`: kills brokers while records are written and read, and proves what became of them.
//!
//! Brokers are real processes, killed with SIGKILL; the producer waits for acks=all; at the end everything is read back
//! and compared with what was acknowledged ([`verdict`]). The demo fails if anything was lost, doubled or moved.

mod display;
mod load;
mod timeline;
mod verdict;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use tokio::time::Instant;
use vltava_client::{Consumer, ConsumerConfig};
use vltava_host::{fs, random};

use crate::ClusterArguments;
use crate::cluster::{self, Broker};
use crate::signals::Signals;
use display::Display;
use load::{Load, Observed, Observer, TOPIC};
use timeline::Timeline;

/// Which broker is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The leader of the partition that is written to.
    Leader,
    /// The active controller.
    Controller,
    /// Any.
    Random,
}

#[derive(Args)]
pub struct FailoverArguments {
    /// How often a broker is killed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    kills: u32,
    /// Which broker is killed.
    #[arg(long, value_enum, default_value_t = Target::Leader)]
    target: Target,
    /// Print lines instead of drawing, for logs.
    #[arg(long)]
    plain: bool,
    /// Keep the brokers' data and logs, and say where they are.
    #[arg(long)]
    keep: bool,
    /// Where data and logs go; a temporary directory if not given.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The first of nine ports in a row; free ones are chosen if not given.
    #[arg(long)]
    base_port: Option<u16>,
    /// How many records to write in a second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

/// Three, so that one may be missing: two in-sync replicas acknowledge.
const BROKERS: u16 = 3;

/// How long anything that ends by itself may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the load runs before the first kill, and between a recovery and the next kill.
const CALM: Duration = Duration::from_secs(2);

/// How long a killed broker stays away after writes have resumed.
const AWAY: Duration = Duration::from_secs(1);

pub fn run(arguments: &FailoverArguments) -> anyhow::Result<()> {
    let is_temporary = arguments.data_dir.is_none();
    let data_dir = arguments
        .data_dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("vltava-demo-{:016x}", random::u64())));
    ensure!(
        fs::read_dir(&data_dir).is_ok_and(|mut entries| entries.next().is_none()) || !data_dir.exists(),
        "{} is not empty: the demo writes a cluster of its own there",
        data_dir.display()
    );
    // One thread: the kernel ties "the parent died" to the thread that started the child.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(failover(arguments, &data_dir));
    if arguments.keep || (outcome.is_err() && !is_temporary) {
        println!("data and logs are kept in {}", data_dir.display());
    } else if is_temporary {
        let _ = fs::remove_dir_all(&data_dir);
    }
    outcome
}

async fn failover(arguments: &FailoverArguments, data_dir: &std::path::Path) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let cluster = ClusterArguments {
        brokers: BROKERS,
        data_dir: data_dir.to_owned(),
        base_port: match arguments.base_port {
            Some(port) => port,
            None => free_ports(3 * BROKERS).context("there are no nine free ports in a row")?,
        },
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        overrides: vec![],
        start_timeout: PATIENCE.as_secs(),
    };
    let plans = cluster::plan(&cluster)?;
    cluster::check_ports(&cluster).await?;
    let mut display = Display::new(arguments.plain);
    let mut timeline = Timeline::new();
    timeline.note(format!("starting {BROKERS} brokers in {}", data_dir.display()));
    let mut brokers = Vec::new();
    for plan in plans {
        brokers.push(Broker::start(plan).await?);
    }
    let outcome = tokio::select! {
        biased;
        signal = signals.next() => Err(anyhow::anyhow!("interrupted by {signal}")),
        outcome = story(arguments, &cluster, &mut brokers, &mut timeline, &mut display) => outcome,
    };
    display.end();
    cluster::stop(&mut brokers, &mut signals).await;
    outcome
}

/// From the first record to the report.
async fn story(
    arguments: &FailoverArguments,
    cluster: &ClusterArguments,
    brokers: &mut [Broker],
    timeline: &mut Timeline,
    display: &mut Display,
) -> anyhow::Result<()> {
    let bootstrap = cluster::bootstrap(cluster, brokers);
    cluster::wait_until_ready(brokers, &bootstrap, Instant::now() + PATIENCE).await?;
    timeline.note("all brokers serve");
    let bootstrap = bootstrap.join(",");
    load::create_topic(&bootstrap, PATIENCE).await?;
    let observer = Observer::start(&bootstrap);
    let load = Load::start(&bootstrap, arguments.rate, timeline.started());
    let mut scene = Scene { brokers, timeline, display, load: &load, observer: &observer };
    scene.wait("all replicas in sync", |now, _| now.isr.len() == usize::from(BROKERS)).await?;
    scene.rest(CALM).await;
    let mut pauses = Vec::new();
    for _ in 0..arguments.kills {
        pauses.push(scene.kill_one(arguments.target).await?);
        scene.rest(CALM).await;
    }
    scene.timeline.note("no more records; waiting for the last acknowledgements");
    let history = load.finish(PATIENCE).await;
    timeline.note("reading everything back");
    display.show(brokers, &observer.now(), &load, timeline);
    let mut history = history.context("the load did not end")?;
    history.log =
        tokio::time::timeout(PATIENCE * 5, read_back(&bootstrap)).await.context("reading back takes too long")??;
    let verdict = verdict::judge(&history);
    display.end();
    print!("{}", report(&verdict, &pauses, &history));
    ensure!(verdict.is_good(), "the cluster did not keep its promises");
    ensure!(verdict.acknowledged > 0, "nothing was acknowledged, so that nothing was proved");
    Ok(())
}

/// What is on stage while brokers die.
struct Scene<'a> {
    brokers: &'a mut [Broker],
    timeline: &'a mut Timeline,
    display: &'a mut Display,
    load: &'a Load,
    observer: &'a Observer,
}

impl Scene<'_> {
    /// Kills a broker, waits until all is well again, and tells how long writes paused, in milliseconds.
    async fn kill_one(&mut self, target: Target) -> anyhow::Result<u64> {
        let before = self.observer.now();
        let leader = before.leader.context("the partition has no leader")?;
        let victim = match target {
            Target::Leader => leader,
            Target::Controller => before.controller.context("there is no active controller")?,
            Target::Random => i32::try_from(random::u64() % u64::from(BROKERS)).expect("a small number") + 1,
        };
        let mut roles = vec![];
        roles.extend((before.leader == Some(victim)).then_some("leader of the partition"));
        roles.extend((before.controller == Some(victim)).then_some("controller"));
        let roles = if roles.is_empty() { String::new() } else { format!(" ({})", roles.join(", ")) };
        let index = self.brokers.iter().position(|b| i32::from(b.node_id()) == victim).context("an unknown broker")?;
        let fault_ms = self.timeline.now_ms();
        let pid = self.brokers[index].kill().await?;
        self.timeline.note(format!("killed broker {victim}{roles}, process {pid}, with SIGKILL"));
        if victim == leader {
            let elected = |now: &Observed, _: &Load| now.leader.is_some_and(|now| now != victim);
            self.wait("a new leader", elected).await?;
            let now = self.observer.now();
            let elected = now.leader.map_or("none".to_owned(), |leader| leader.to_string());
            self.timeline.note(format!("broker {elected} is elected leader, epoch {}", now.leader_epoch));
        }
        self.wait("writes to resume", |_, load| load.pause_after(fault_ms).is_some()).await?;
        let pause_ms = self.load.pause_after(fault_ms).context("just seen")?;
        self.timeline.note(format!("writes are acknowledged again; they paused for {pause_ms} ms"));
        self.wait("the ISR to shrink", |now, _| !now.isr.contains(&victim)).await?;
        self.timeline.note(format!("in-sync replicas: {:?}", self.observer.now().isr));
        self.rest(AWAY).await;
        self.brokers[index].restart().await?;
        self.timeline.note(format!("broker {victim} is started again"));
        self.wait("the ISR to be whole again", |now, _| now.isr.len() == usize::from(BROKERS)).await?;
        self.timeline.note(format!("broker {victim} has caught up; in-sync replicas: {:?}", self.observer.now().isr));
        Ok(pause_ms)
    }

    /// Lets the load run.
    async fn rest(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.beat().await;
        }
    }

    async fn wait(&mut self, what: &str, is_so: impl Fn(&Observed, &Load) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.observer.now(), self.load) {
            if let Some(failure) = self.load.failure() {
                bail!("{failure}");
            }
            if deadline < Instant::now() {
                self.display.show(self.brokers, &self.observer.now(), self.load, self.timeline);
                bail!("waited {} s for {what}", PATIENCE.as_secs());
            }
            self.beat().await;
        }
        Ok(())
    }

    async fn beat(&mut self) {
        self.display.show(self.brokers, &self.observer.now(), self.load, self.timeline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The whole partition, by a consumer that has nothing to do with the one that ran along.
async fn read_back(bootstrap: &str) -> anyhow::Result<Vec<(i64, u64)>> {
    let mut consumer = Consumer::new(ConsumerConfig::new(bootstrap));
    let ends = load::end_offsets(&mut consumer).await?;
    let end = ends.values().next().map_or(0, |end| end.0);
    load::assign_from_start(&mut consumer);
    let mut log = Vec::new();
    let partition = load::partition();
    while consumer.positions().get(&partition).is_none_or(|next| next.0 < end) {
        for record in consumer.poll(Duration::from_millis(200)).await? {
            log.push((record.offset.0, load::number(&record)?));
        }
    }
    Ok(log)
}

fn report(verdict: &verdict::Verdict, pauses: &[u64], history: &verdict::History) -> String {
    let mut sorted = pauses.to_vec();
    sorted.sort_unstable();
    let middle =
        [sorted.len().saturating_sub(1) / 2, sorted.len() / 2].map(|index| sorted.get(index).copied().unwrap_or(0));
    let median = (middle[0] + middle[1]) / 2;
    let longest = sorted.last().copied().unwrap_or(0);
    let mut text = format!(
        "\nRecords are written to {TOPIC} with acks=all by an idempotent producer, to 3 replicas of which 2 must be in sync.\n\n"
    );
    text.push_str(&format!("  {:<42} {}\n", "kills", pauses.len()));
    text.push_str(&format!("  {:<42} median {median} ms, longest {longest} ms\n", "writes paused"));
    text.push_str(&format!("  {:<42} {}\n", "acknowledged", verdict.acknowledged));
    text.push_str(&format!("  {:<42} {}\n", "refused by the producer", verdict.refused));
    text.push_str(&format!("  {:<42} {}\n", "read back", history.log.len()));
    for (problem, numbers) in verdict.problems() {
        let examples: Vec<String> = numbers.iter().take(5).map(ToString::to_string).collect();
        let examples =
            if examples.is_empty() { String::new() } else { format!("  (records {} ...)", examples.join(", ")) };
        text.push_str(&format!("  {problem:<42} {}{examples}\n", numbers.len()));
    }
    text.push_str(if verdict.is_good() {
        "\nNothing acknowledged was lost.\n"
    } else {
        "\nTHE CLUSTER DID NOT KEEP ITS PROMISES.\n"
    });
    text
}

/// The first of so many free ports in a row, below those that the kernel gives to outgoing connections.
fn free_ports(count: u16) -> Option<u16> {
    let begin = 20_000 + (random::u64() % 10_000) as u16;
    (begin..32_000)
        .step_by(usize::from(count))
        .find(|port| (*port..*port + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()))
}
