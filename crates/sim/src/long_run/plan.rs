//! What a long run does, drawn from its seed before it starts: data, so that it can be printed, repeated and shortened.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use vltava_host::random::Generator;

/// Everything that a run does, and when. Dropping any step leaves a plan that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seed: u64,
    pub brokers: u16,
    /// One step of the simulation.
    pub tick: Duration,
    /// Steps and workloads go on for so long; then everything is healed.
    pub duration: Duration,
    /// Over the simulation's defaults, for every broker.
    pub properties: Vec<(&'static str, String)>,
    pub topics: Vec<TopicPlan>,
    pub producers: Vec<ProducerPlan>,
    pub readers: Vec<ReaderPlan>,
    pub groups: Vec<GroupPlan>,
    /// One topic is deleted and created again all the while.
    pub recreates: bool,
    /// In order of their beginning.
    pub steps: Vec<Step>,
}

/// What may happen to a topic's records by design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKind {
    /// All stay.
    Kept,
    /// DeleteRecords takes the oldest away.
    Trimmed,
    /// Age takes the oldest away.
    Retained,
    /// A later record with the same key takes an earlier one away.
    Compacted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    pub name: String,
    pub kind: TopicKind,
    pub partitions: i32,
    pub replication_factor: i16,
    pub min_insync_replicas: i16,
    pub configs: Vec<(&'static str, String)>,
}

impl TopicPlan {
    /// Whether what is acknowledged is on disk.
    #[must_use]
    pub fn flushes(&self) -> bool {
        !self.configs.iter().any(|(name, value)| *name == "vltava.durability" && value == "page-cache")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerPlan {
    pub topic: usize,
    pub acks: i16,
    pub is_idempotent: bool,
    /// Between two records, on average.
    pub pace: Duration,
    pub linger: Duration,
    pub compression: &'static str,
}

/// Reads all partitions of a topic, from the first record to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderPlan {
    pub topic: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPlan {
    pub topics: Vec<usize>,
    pub members: usize,
    pub assignor: &'static str,
    /// How long a member stays, on average.
    pub stay: Duration,
}

/// Something that is done to the cluster at a time after it has formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: Duration,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Over after the time given. Faults may overlap.
    Fault(Fault, Duration),
    Admin(AdminOp),
}

/// Brokers by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machines lose power, with some of what they had not synced, or all.
    PowerLoss(Vec<i32>),
    /// The power fails in the middle of the disk's n-th change from now on.
    PowerLossAtChange(i32, u64),
    /// The processes are killed; the machines go on.
    Kill(Vec<i32>),
    /// Every broker is stopped in order and started again, one after another.
    RollingRestart,
    /// The process stands still, as after SIGSTOP.
    Pause(i32),
    /// Every flush takes up to so long.
    SlowDisk(i32, Duration),
    /// The disk has room for so many bytes more.
    FullDisk(i32, u64),
    /// The n-th flush from now on fails, and what it was to put on the platter is lost with the next power loss.
    SyncFails(i32, u64),
    /// The wall clock is off by so many milliseconds.
    ClockSkew(i32, i64),
    Network(NetworkFault),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkFault {
    /// The broker reaches no other broker; clients reach it.
    Isolated(i32),
    /// Nobody reaches the broker.
    Disconnected(i32),
    /// Brokers reach only those of their own half; clients reach all.
    Halves(Vec<i32>, Vec<i32>),
    /// The first hears the second no more.
    OneWay(i32, i32),
    /// No broker hears this one; it hears all.
    Mute(i32),
    /// Each broker sees a majority, and no two the same.
    MajorityRing,
    /// The two halves see each other only through one broker.
    Bridge(i32),
    /// These clients do not reach the broker.
    ClientsCutOff(usize, i32),
    /// The controller of that moment reaches no other broker.
    ControllerIsolated,
    /// Loss and reordering around the broker.
    Shaky(i32),
    /// Every message to and from the broker takes up to so long.
    Slow(i32, Duration),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminOp {
    CreatePartitions { topic: usize, total: i32 },
    Reassign { topic: usize, partition: i32, replicas: Vec<i32> },
    ElectPreferred,
    DeleteRecords { topic: usize },
    AlterConfig { topic: usize, name: &'static str, value: String },
}

impl AdminOp {
    /// What kind of operation it is, for liveness.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CreatePartitions { .. } => "CreatePartitions",
            Self::Reassign { .. } => "AlterPartitionReassignments",
            Self::ElectPreferred => "ElectLeaders",
            Self::DeleteRecords { .. } => "DeleteRecords",
            Self::AlterConfig { .. } => "IncrementalAlterConfigs",
        }
    }
}

/// How long `TopicKind::Retained` keeps a record at least.
pub const RETENTION: Duration = Duration::from_secs(60);

/// Hosts that clients run on.
pub const CLIENT_HOSTS: usize = 2;

struct Draw(Generator);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    fn broker(&mut self, brokers: u16) -> i32 {
        1 + self.below(u64::from(brokers)) as i32
    }

    /// So many different brokers, in any order.
    fn brokers(&mut self, brokers: u16, count: usize) -> Vec<i32> {
        let mut left: Vec<i32> = (1..=i32::from(brokers)).collect();
        (0..count.min(left.len())).map(|_| left.remove(self.below(left.len() as u64) as usize)).collect()
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64, duration: Duration) -> Self {
        let mut draw = Draw(Generator::new(seed ^ 0x5eed_0f10_6e55_a11d));
        let brokers = draw.choose(&[3, 3, 3, 4, 5]);
        let topics = topics(&mut draw, brokers);
        let producers = producers(&mut draw, &topics);
        let readers = (0..topics.len()).filter(|_| !draw.one_in(4)).map(|topic| ReaderPlan { topic }).collect();
        let groups = groups(&mut draw, &topics);
        let mut plan = Self {
            seed,
            brokers,
            tick: Duration::from_millis(draw.choose(&[1, 2, 2, 4])),
            duration,
            properties: properties(&mut draw),
            recreates: draw.one_in(2),
            topics,
            producers,
            readers,
            groups,
            steps: vec![],
        };
        plan.steps = steps(&mut draw, &plan);
        plan
    }

    /// The topic of this name, if the plan has it.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicPlan> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}

fn properties(draw: &mut Draw) -> Vec<(&'static str, String)> {
    let millis = |draw: &mut Draw, choices: &[u64]| draw.choose(choices).to_string();
    vec![
        ("auto.create.topics.enable", "false".to_owned()),
        ("offsets.topic.num.partitions", draw.choose(&[1, 3]).to_string()),
        ("offsets.topic.segment.bytes", draw.choose(&[1_048_576, 104_857_600]).to_string()),
        ("group.initial.rebalance.delay.ms", "500".to_owned()),
        ("replica.lag.time.max.ms", millis(draw, &[1_500, 5_000, 30_000])),
        ("vltava.disk.reserve.bytes", "65536".to_owned()),
        ("vltava.metadata.reserve.bytes", "1048576".to_owned()),
        ("log.retention.check.interval.ms", millis(draw, &[2_000, 10_000])),
        ("log.cleaner.backoff.ms", millis(draw, &[1_000, 5_000])),
        ("log.cleaner.min.cleanable.ratio", draw.choose(&["0.01", "0.5"]).to_owned()),
        ("log.flush.offset.checkpoint.interval.ms", millis(draw, &[3_000, 60_000])),
        ("log.flush.start.offset.checkpoint.interval.ms", millis(draw, &[3_000, 60_000])),
        ("replica.high.watermark.checkpoint.interval.ms", millis(draw, &[1_000, 5_000])),
        ("leader.imbalance.check.interval.seconds", draw.choose(&["5", "300"]).to_owned()),
    ]
}

fn topics(draw: &mut Draw, brokers: u16) -> Vec<TopicPlan> {
    let count = 2 + draw.below(3);
    (0..count)
        .map(|index| {
            let kind = match index {
                0 => TopicKind::Kept,
                _ => draw.choose(&[TopicKind::Kept, TopicKind::Trimmed, TopicKind::Retained, TopicKind::Compacted]),
            };
            let replication_factor = match index {
                0 => 3,
                _ => draw.choose(&[1, 2, 3, 3, if brokers >= 5 { 5 } else { 3 }]),
            };
            let min_insync_replicas = if replication_factor == 1 { 1 } else { draw.choose(&[1, 2, 2]) };
            let mut configs = vec![
                ("min.insync.replicas", min_insync_replicas.to_string()),
                ("segment.ms", draw.choose(&[3_000, 15_000, 604_800_000]).to_string()),
            ];
            match kind {
                TopicKind::Kept | TopicKind::Trimmed => configs.push(("retention.ms", "-1".to_owned())),
                TopicKind::Retained => {
                    configs.push(("retention.ms", RETENTION.as_millis().to_string()));
                }
                TopicKind::Compacted => {
                    configs.push(("cleanup.policy", "compact".to_owned()));
                    configs.push(("delete.retention.ms", "600000".to_owned()));
                }
            }
            if draw.one_in(5) {
                configs.push(("compression.type", draw.choose(&["zstd", "lz4", "uncompressed"]).to_owned()));
            }
            if draw.one_in(6) {
                configs.push(("message.timestamp.type", "LogAppendTime".to_owned()));
            }
            TopicPlan {
                name: format!("{}-{index}", format!("{kind:?}").to_lowercase()),
                kind,
                partitions: 1 + draw.below(3) as i32,
                replication_factor,
                min_insync_replicas,
                configs,
            }
        })
        .collect()
}

fn producers(draw: &mut Draw, topics: &[TopicPlan]) -> Vec<ProducerPlan> {
    let mut producers = vec![];
    for topic in 0..topics.len() {
        // What is acknowledged by all is what the promise is about.
        for first in [true, false] {
            if !first && draw.one_in(2) {
                continue;
            }
            let acks = if first { -1 } else { draw.choose(&[-1, -1, 0, 1]) };
            producers.push(ProducerPlan {
                topic,
                acks,
                is_idempotent: acks == -1 && !draw.one_in(4),
                pace: draw.choose(&[60, 150, 400].map(Duration::from_millis)),
                linger: draw.choose(&[0, 5, 50].map(Duration::from_millis)),
                compression: draw.choose(&["none", "none", "lz4", "zstd"]),
            });
        }
    }
    producers
}

fn groups(draw: &mut Draw, topics: &[TopicPlan]) -> Vec<GroupPlan> {
    (0..1 + draw.below(2))
        .map(|_| {
            let mut read: BTreeSet<usize> = (0..topics.len()).filter(|_| draw.one_in(2)).collect();
            read.insert(0);
            GroupPlan {
                topics: read.into_iter().collect(),
                members: 1 + draw.below(3) as usize,
                assignor: draw.choose(&["range", "roundrobin"]),
                stay: draw.choose(&[20, 60, 100_000].map(Duration::from_secs)),
            }
        })
        .collect()
}

/// Subsets of all faults, one after another, each for a while, and about a quarter of the time none; administration
/// goes on throughout.
fn steps(draw: &mut Draw, plan: &Plan) -> Vec<Step> {
    let mut steps = vec![];
    let mut at = draw.millis(0, 5_000);
    while at < plan.duration {
        let end = (at + draw.millis(10_000, 60_000)).min(plan.duration);
        if draw.one_in(4) {
            at = end;
            continue;
        }
        let kinds: Vec<u64> = (0..1 + draw.below(3)).map(|_| draw.below(FAULT_KINDS)).collect();
        let gap = draw.choose(&[1_000, 4_000, 10_000]);
        let longest = draw.choose(&[600, 4_000, 15_000]);
        let mut next = at + draw.millis(0, gap);
        while next < end {
            let kind = draw.choose(&kinds);
            let lasts = draw.millis(20, longest).min(plan.duration - next);
            steps.push(Step { at: next, action: Action::Fault(fault(draw, kind, plan.brokers), lasts) });
            next += draw.millis(gap / 4, gap * 2);
        }
        at = end;
    }
    let mut at = draw.millis(2_000, 10_000);
    while at < plan.duration {
        steps.push(Step { at, action: Action::Admin(admin_op(draw, plan)) });
        at += draw.millis(2_000, 20_000);
    }
    steps.sort_by_key(|step| step.at);
    steps
}

const FAULT_KINDS: u64 = 22;

fn fault(draw: &mut Draw, kind: u64, brokers: u16) -> Fault {
    let one = draw.broker(brokers);
    let network = |fault| Fault::Network(fault);
    match kind {
        0 => Fault::PowerLoss(vec![one]),
        1 => Fault::PowerLoss(draw.brokers(brokers, 2)),
        2 => Fault::PowerLoss((1..=i32::from(brokers)).collect()),
        3 => Fault::PowerLossAtChange(one, 1 + draw.below(40)),
        4 => Fault::Kill(vec![one]),
        5 => {
            let count = 1 + draw.below(u64::from(brokers)) as usize;
            Fault::Kill(draw.brokers(brokers, count))
        }
        6 => Fault::RollingRestart,
        7 => network(NetworkFault::Isolated(one)),
        8 => network(NetworkFault::Disconnected(one)),
        9 => {
            let half = draw.brokers(brokers, usize::from(brokers) / 2);
            let rest = (1..=i32::from(brokers)).filter(|broker| !half.contains(broker)).collect();
            network(NetworkFault::Halves(half, rest))
        }
        10 => {
            let pair = draw.brokers(brokers, 2);
            network(NetworkFault::OneWay(pair[0], pair[1]))
        }
        11 => network(NetworkFault::Mute(one)),
        12 if brokers >= 4 => network(NetworkFault::MajorityRing),
        12 | 13 => network(NetworkFault::Bridge(one)),
        14 => network(NetworkFault::ClientsCutOff(draw.below(CLIENT_HOSTS as u64) as usize, one)),
        15 => network(NetworkFault::ControllerIsolated),
        16 => Fault::Pause(one),
        17 => Fault::SlowDisk(one, Duration::from_millis(draw.choose(&[30, 300, 1_500]))),
        18 => Fault::FullDisk(one, draw.below(200_000)),
        19 => Fault::SyncFails(one, 1 + draw.below(30)),
        20 => Fault::ClockSkew(one, draw.below(40_000) as i64 - 20_000),
        _ if draw.one_in(2) => network(NetworkFault::Shaky(one)),
        _ => network(NetworkFault::Slow(one, Duration::from_millis(draw.choose(&[20, 200, 1_000])))),
    }
}

fn admin_op(draw: &mut Draw, plan: &Plan) -> AdminOp {
    let topic = draw.below(plan.topics.len() as u64) as usize;
    let TopicPlan { kind, partitions, replication_factor, .. } = plan.topics[topic];
    match draw.below(6) {
        0 => AdminOp::CreatePartitions { topic, total: partitions + 1 + draw.below(2) as i32 },
        1 | 2 => AdminOp::Reassign {
            topic,
            partition: draw.below(partitions as u64) as i32,
            replicas: draw.brokers(plan.brokers, replication_factor as usize),
        },
        3 => AdminOp::ElectPreferred,
        4 if kind == TopicKind::Trimmed => AdminOp::DeleteRecords { topic },
        _ => {
            let (name, choices) = draw.choose(&[
                ("segment.ms", ["2000", "60000"]),
                ("max.message.bytes", ["1048588", "200000"]),
                ("index.interval.bytes", ["64", "4096"]),
            ]);
            AdminOp::AlterConfig { topic, name, value: draw.choose(&choices).to_owned() }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, brokers, tick, duration, .. } = self;
        writeln!(formatter, "seed {seed}: {brokers} brokers, {duration:?} in steps of {tick:?}")?;
        let properties: Vec<_> = self.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(formatter, "  brokers: {}", properties.join(" "))?;
        for topic in &self.topics {
            let configs: Vec<_> = topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let TopicPlan { name, partitions, replication_factor, .. } = topic;
            let configs = configs.join(" ");
            writeln!(formatter, "  topic {name}: {partitions} partitions, {replication_factor} replicas, {configs}")?;
        }
        let name = |topic: usize| &self.topics[topic].name;
        for (index, producer) in self.producers.iter().enumerate() {
            let ProducerPlan { topic, acks, is_idempotent, pace, linger, compression } = producer;
            let idempotent = if *is_idempotent { " idempotent" } else { "" };
            let topic = name(*topic);
            writeln!(
                formatter,
                "  producer {index}: {topic} acks={acks}{idempotent} every {pace:?} linger {linger:?} {compression}"
            )?;
        }
        for reader in &self.readers {
            writeln!(formatter, "  reader: {}", name(reader.topic))?;
        }
        for (index, GroupPlan { topics, members, assignor, stay }) in self.groups.iter().enumerate() {
            let topics: Vec<_> = topics.iter().map(|topic| name(*topic).as_str()).collect();
            let topics = topics.join(",");
            writeln!(formatter, "  group {index}: {topics} by {members} members, {assignor}, each stays {stay:?}")?;
        }
        if self.recreates {
            writeln!(formatter, "  one topic is deleted and created again all the while")?;
        }
        for step in &self.steps {
            match &step.action {
                Action::Fault(fault, lasts) => writeln!(formatter, "  {:>9.3?} {fault:?} for {lasts:?}", step.at)?,
                Action::Admin(op) => writeln!(formatter, "  {:>9.3?} {op:?}", step.at)?,
            }
        }
        Ok(())
    }
}
