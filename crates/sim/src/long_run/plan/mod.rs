//! What a long run does, drawn from its seed before it starts: data, so that it can be printed, repeated and shortened.

mod display;
mod draw;
mod steps;

use std::time::Duration;

/// Everything that a run does, and when. Dropping any step leaves a plan that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seed: u64,
    pub brokers: u16,
    /// The only broker whose disk may lose or change what was on it: beyond a single one, nothing is promised.
    pub bad_disk: Option<i32>,
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
    Fault(Fault, Aim, Duration),
    Admin(AdminOp),
}

/// Whom a fault hits. If that is somebody with a part to play, it changes places with the first broker that the fault
/// names, for as long as the fault lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Those whom it names.
    Named,
    /// Who leads the partition when the fault begins.
    Leader { topic: String, partition: i32 },
    /// The first other replica.
    Follower { topic: String, partition: i32 },
    /// Whom the brokers take for the controller.
    Controller,
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
    /// The machine loses power while all others run: what no disk has is still in their memory.
    PageLoss(i32),
    /// The process is killed, and finds an empty disk when it starts again.
    WipedDisk(i32),
    /// The process is killed, and meanwhile bits of so many logs turn over.
    BitFlips(i32, usize),
    Network(NetworkFault),
}

impl Fault {
    /// Whether it takes from a disk what was safely on it.
    #[must_use]
    pub const fn is_of_a_bad_disk(&self) -> bool {
        matches!(self, Self::WipedDisk(_) | Self::BitFlips(..))
    }

    /// Whether processes end by it.
    #[must_use]
    pub const fn ends_processes(&self) -> bool {
        match self {
            Self::PowerLoss(_)
            | Self::Kill(_)
            | Self::PowerLossAtChange(..)
            | Self::RollingRestart
            | Self::SyncFails(..)
            | Self::PageLoss(_)
            | Self::WipedDisk(_)
            | Self::BitFlips(..) => true,
            Self::Pause(_) | Self::SlowDisk(..) | Self::FullDisk(..) | Self::ClockSkew(..) | Self::Network(_) => false,
        }
    }

    /// The first broker that it names.
    #[must_use]
    pub fn first_broker(&self) -> Option<i32> {
        let mut first = None;
        let _ = self.renamed(&mut |broker| *first.get_or_insert(broker));
        first
    }

    /// The same with these two in each other's place.
    #[must_use]
    pub fn swapped(&self, one: i32, other: i32) -> Self {
        self.renamed(&mut |broker| match broker {
            broker if broker == one => other,
            broker if broker == other => one,
            broker => broker,
        })
    }

    fn renamed(&self, rename: &mut impl FnMut(i32) -> i32) -> Self {
        let mut all = |brokers: &[i32]| brokers.iter().map(|broker| rename(*broker)).collect::<Vec<_>>();
        match self {
            Self::PowerLoss(brokers) => Self::PowerLoss(all(brokers)),
            Self::Kill(brokers) => Self::Kill(all(brokers)),
            Self::PowerLossAtChange(broker, change) => Self::PowerLossAtChange(rename(*broker), *change),
            Self::RollingRestart => Self::RollingRestart,
            Self::Pause(broker) => Self::Pause(rename(*broker)),
            Self::SlowDisk(broker, delay) => Self::SlowDisk(rename(*broker), *delay),
            Self::FullDisk(broker, room) => Self::FullDisk(rename(*broker), *room),
            Self::SyncFails(broker, sync) => Self::SyncFails(rename(*broker), *sync),
            Self::ClockSkew(broker, offset_ms) => Self::ClockSkew(rename(*broker), *offset_ms),
            Self::PageLoss(broker) => Self::PageLoss(rename(*broker)),
            Self::WipedDisk(broker) => Self::WipedDisk(rename(*broker)),
            Self::BitFlips(broker, logs) => Self::BitFlips(rename(*broker), *logs),
            Self::Network(network) => Self::Network(network.renamed(rename)),
        }
    }
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

impl NetworkFault {
    fn renamed(&self, rename: &mut impl FnMut(i32) -> i32) -> Self {
        match self {
            Self::Isolated(broker) => Self::Isolated(rename(*broker)),
            Self::Disconnected(broker) => Self::Disconnected(rename(*broker)),
            Self::Halves(these, those) => {
                let these = these.iter().map(|broker| rename(*broker)).collect();
                Self::Halves(these, those.iter().map(|broker| rename(*broker)).collect())
            }
            Self::OneWay(deaf, unheard) => Self::OneWay(rename(*deaf), rename(*unheard)),
            Self::Mute(broker) => Self::Mute(rename(*broker)),
            Self::MajorityRing => Self::MajorityRing,
            Self::Bridge(broker) => Self::Bridge(rename(*broker)),
            Self::ClientsCutOff(host, broker) => Self::ClientsCutOff(*host, rename(*broker)),
            Self::ControllerIsolated => Self::ControllerIsolated,
            Self::Shaky(broker) => Self::Shaky(rename(*broker)),
            Self::Slow(broker, latency) => Self::Slow(rename(*broker), *latency),
        }
    }
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

impl Plan {
    /// Whether what is acknowledged may be in memory only: then no two machines may lose power at once.
    #[must_use]
    pub fn has_page_cache(&self) -> bool {
        self.topics.iter().any(|topic| !topic.flushes())
    }

    /// The topic of this name, if the plan has it.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&TopicPlan> {
        self.topics.iter().find(|topic| topic.name == name)
    }
}
