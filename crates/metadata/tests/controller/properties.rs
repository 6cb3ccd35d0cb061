//! Whatever happens in whatever order: images keep their shape, and committed records keep a holder that can be
//! elected.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use vltava_metadata::controller::{
    AlterConfigs, AlterPartition, AlterPartitions, ConfigOperation, ControllerConfig, ControllerRequest,
    ControllerResponse, CreatePartitionsTopic, CreateTopic, CreateTopics, ElectionType, Heartbeat, Reassignment,
    TopicSelector,
};
use vltava_metadata::{ClusterImage, ConfigResource, MetadataRecord};
use vltava_types::{
    BrokerEpoch, BrokerId, DirectoryId, IncarnationId, LeaderEpoch, PartitionIndex, TopicId, TopicPartition,
};

use crate::world::{World, registration};

const BROKERS: i32 = 4;

/// One thing that happens. The numbers choose whom it happens to, as far as there is a choice.
#[derive(Clone, Copy, Debug)]
enum Event {
    Start {
        broker: i32,
        how: Restart,
    },
    Beat {
        broker: i32,
        shutdown: bool,
        fence: bool,
    },
    Down {
        broker: i32,
    },
    FailLog {
        broker: i32,
        partition: usize,
    },
    Unregister {
        broker: i32,
    },
    Wait {
        ms: i64,
    },
    NewController,
    Create {
        partitions: i32,
        replication_factor: i16,
        min_isr: i32,
    },
    Expand {
        partition: usize,
    },
    Delete {
        partition: usize,
    },
    SetMinIsr {
        partition: usize,
        min_isr: i32,
    },
    AllowUnclean {
        partition: usize,
        allowed: bool,
    },
    Elect {
        partition: usize,
        unclean: bool,
    },
    Reassign {
        partition: usize,
        first: i32,
        count: i32,
    },
    Cancel {
        partition: usize,
    },
    /// The leader appends a record.
    Append {
        partition: usize,
    },
    /// A follower takes over the leader's log.
    Replicate {
        partition: usize,
        broker: i32,
    },
    /// The leader proposes an ISR without the broker, or with it if it has caught up.
    Propose {
        partition: usize,
        broker: i32,
        stale: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    Clean,
    Unclean,
    Wiped,
}

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    /// Anything.
    Anything,
    /// Anything but what is known to lose records: wiped disks, and elections that are allowed to.
    NothingLost,
}

fn event(weather: Weather) -> impl Strategy<Value = Event> {
    let anything = weather == Weather::Anything;
    let broker = 1..=BROKERS;
    let partition = 0..64usize;
    let restart = prop_oneof![
        3 => Just(Restart::Clean),
        3 => Just(Restart::Unclean),
        1 => Just(if anything { Restart::Wiped } else { Restart::Clean }),
    ];
    prop_oneof![
        12 => (broker.clone(), restart).prop_map(|(broker, how)| Event::Start { broker, how }),
        16 => (broker.clone(), prop::bool::weighted(0.1), prop::bool::weighted(0.05))
            .prop_map(|(broker, shutdown, fence)| Event::Beat { broker, shutdown, fence }),
        6 => broker.clone().prop_map(|broker| Event::Down { broker }),
        2 => (broker.clone(), partition.clone()).prop_map(|(broker, partition)| Event::FailLog { broker, partition }),
        1 => broker.clone().prop_map(|broker| Event::Unregister { broker }),
        6 => prop_oneof![Just(100i64), Just(1400), Just(3000), Just(400_000)].prop_map(|ms| Event::Wait { ms }),
        1 => Just(Event::NewController),
        4 => (1..4i32, 1..4i16, 1..4i32).prop_map(|(partitions, replication_factor, min_isr)| {
            Event::Create { partitions, replication_factor, min_isr }
        }),
        1 => partition.clone().prop_map(|partition| Event::Expand { partition }),
        1 => partition.clone().prop_map(|partition| Event::Delete { partition }),
        2 => (partition.clone(), 1..4i32).prop_map(|(partition, min_isr)| Event::SetMinIsr { partition, min_isr }),
        1 => (partition.clone(), any::<bool>()).prop_map(move |(partition, allowed)| {
            Event::AllowUnclean { partition, allowed: allowed && anything }
        }),
        3 => (partition.clone(), any::<bool>()).prop_map(move |(partition, unclean)| {
            Event::Elect { partition, unclean: unclean && anything }
        }),
        4 => (partition.clone(), broker.clone(), broker.clone())
            .prop_map(|(partition, first, count)| Event::Reassign { partition, first, count }),
        2 => partition.clone().prop_map(|partition| Event::Cancel { partition }),
        16 => partition.clone().prop_map(|partition| Event::Append { partition }),
        30 => (partition.clone(), broker.clone())
            .prop_map(|(partition, broker)| Event::Replicate { partition, broker }),
        16 => (partition, broker, prop::bool::weighted(0.1))
            .prop_map(|(partition, broker, stale)| Event::Propose { partition, broker, stale }),
    ]
}

/// A cluster whose brokers keep logs of record numbers, as simply as can be.
struct Cluster {
    world: World,
    runs: BTreeMap<BrokerId, u8>,
    /// The log of each replica.
    logs: BTreeMap<(TopicPartition, BrokerId), Vec<u32>>,
    /// What has once been below a high watermark.
    committed: BTreeMap<TopicPartition, Vec<u32>>,
    next_record: u32,
    next_topic: u8,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self {
            world: World::new(ControllerConfig::default()),
            runs: BTreeMap::new(),
            logs: BTreeMap::new(),
            committed: BTreeMap::new(),
            next_record: 0,
            next_topic: 0,
        };
        for broker in 1..=BROKERS {
            cluster.apply(Event::Start { broker, how: Restart::Unclean });
            cluster.apply(Event::Beat { broker, shutdown: false, fence: false });
        }
        cluster.apply(Event::Create { partitions: 2, replication_factor: 3, min_isr: 2 });
        cluster
    }

    fn pick(&self, partition: usize) -> Option<TopicPartition> {
        let all: Vec<TopicPartition> = self.world.image.partitions().map(|(partition, _)| partition).collect();
        (!all.is_empty()).then(|| all[partition % all.len()])
    }

    fn epoch(&self, broker: BrokerId) -> BrokerEpoch {
        self.world.image.broker(broker).map_or(BrokerEpoch::NONE, |broker| broker.broker_epoch)
    }

    fn leader_log(&self, partition: TopicPartition) -> Option<(BrokerId, Vec<u32>)> {
        let leader = self.world.partition(partition).leader?;
        Some((leader, self.logs.get(&(partition, leader)).cloned().unwrap_or_default()))
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Start { broker, how } => self.start(BrokerId(broker), how),
            Event::Beat { broker, shutdown, fence } => {
                let flags = [("shutdown", shutdown), ("fence", fence)];
                let flags: Vec<&str> = flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag).collect();
                self.world.heartbeat(BrokerId(broker), &flags);
            }
            Event::Down { broker } => {
                let epoch = self.epoch(BrokerId(broker));
                let records = self.world.controller.on_broker_down(&self.world.image, BrokerId(broker), epoch);
                self.world.commit(&records);
            }
            Event::FailLog { broker, partition } => {
                let Some(partition) = self.pick(partition) else { return };
                let broker_id = BrokerId(broker);
                self.world.call(&ControllerRequest::Heartbeat(Heartbeat {
                    broker_id,
                    broker_epoch: self.epoch(broker_id),
                    applied: self.world.image.offset,
                    want_fence: false,
                    want_shutdown: false,
                    offline_log_dirs: vec![],
                    offline_partitions: vec![partition],
                }));
            }
            Event::Unregister { broker } => {
                self.world.call(&ControllerRequest::UnregisterBroker { broker_id: BrokerId(broker) });
            }
            Event::Wait { ms } => {
                self.world.now_ms += ms;
                self.world.tick();
                self.world.tick();
            }
            Event::NewController => self.world.elect_controller(),
            Event::Create { partitions, replication_factor, min_isr } => {
                self.next_topic = self.next_topic.wrapping_add(1);
                let topic = CreateTopic {
                    name: format!("topic-{}", self.next_topic % 4),
                    topic_id: TopicId::from_random([self.next_topic; 16]),
                    partition_count: partitions,
                    replication_factor,
                    assignments: BTreeMap::new(),
                    configs: BTreeMap::from([("min.insync.replicas".to_owned(), min_isr.to_string())]),
                    clamp_replication_factor: false,
                };
                let request = CreateTopics { topics: vec![topic], validate_only: false };
                self.world.call(&ControllerRequest::CreateTopics(request));
            }
            Event::Expand { partition } => {
                let Some(partition) = self.pick(partition) else { return };
                let topic = self.world.image.topic(partition.topic_id).expect("it was picked");
                let count = i32::try_from(topic.partitions.len()).expect("few") + 1;
                let topics = vec![CreatePartitionsTopic { name: topic.name.clone(), count, assignments: None }];
                self.world.call(&ControllerRequest::CreatePartitions { topics, validate_only: false });
            }
            Event::Delete { partition } => {
                let Some(partition) = self.pick(partition) else { return };
                let topics = vec![TopicSelector::Id(partition.topic_id)];
                self.world.call(&ControllerRequest::DeleteTopics { topics });
            }
            Event::SetMinIsr { partition, min_isr } => {
                self.configure(partition, "min.insync.replicas", &min_isr.to_string());
            }
            Event::AllowUnclean { partition, allowed } => {
                self.configure(partition, "unclean.leader.election.enable", &allowed.to_string());
            }
            Event::Elect { partition, unclean } => {
                let Some(partition) = self.pick(partition) else { return };
                let election_type = if unclean { ElectionType::Unclean } else { ElectionType::Preferred };
                self.world.call(&ControllerRequest::ElectLeaders { election_type, partitions: Some(vec![partition]) });
            }
            Event::Reassign { partition, first, count } => {
                let replicas = (0..count).map(|step| BrokerId((first + step) % BROKERS + 1)).collect();
                self.reassign(partition, Some(replicas));
            }
            Event::Cancel { partition } => self.reassign(partition, None),
            Event::Append { partition } => {
                let Some((partition, leader)) = self
                    .pick(partition)
                    .and_then(|partition| Some((partition, self.world.partition(partition).leader?)))
                else {
                    return;
                };
                self.next_record += 1;
                self.logs.entry((partition, leader)).or_default().push(self.next_record);
                self.advance(partition);
            }
            Event::Replicate { partition, broker } => {
                let Some(partition) = self.pick(partition) else { return };
                let Some((_, log)) = self.leader_log(partition) else { return };
                let broker = BrokerId(broker);
                if self.world.partition(partition).replicas.contains(&broker) && self.world.image.is_live(broker) {
                    self.logs.insert((partition, broker), log);
                    self.advance(partition);
                }
            }
            Event::Propose { partition, broker, stale } => self.propose(partition, BrokerId(broker), stale),
        }
    }

    fn start(&mut self, broker_id: BrokerId, how: Restart) {
        let run = self.runs.get(&broker_id).map_or(1, |run| run + 1);
        let current = self.epoch(broker_id);
        let previous = if how == Restart::Clean { current } else { BrokerEpoch::NONE };
        let mut request = registration(broker_id, 0, previous);
        request.incarnation_id = IncarnationId(vltava_types::Uuid([run; 16]));
        if how == Restart::Wiped {
            request.log_dirs = vec![DirectoryId::from_random([run; 16])];
        } else if let Some(existing) = self.world.image.broker(broker_id) {
            request.log_dirs.clone_from(&existing.log_dirs);
        }
        self.world.has_lost_disks |= how == Restart::Wiped;
        let response = self.world.call(&ControllerRequest::RegisterBroker(request));
        if matches!(response, ControllerResponse::RegisterBroker(Ok(_))) {
            self.runs.insert(broker_id, run);
            if how == Restart::Wiped {
                self.logs.retain(|(_, holder), _| *holder != broker_id);
            }
        }
    }

    fn configure(&mut self, partition: usize, name: &str, value: &str) {
        let Some(partition) = self.pick(partition) else { return };
        let operation = ConfigOperation::Set { name: name.to_owned(), value: value.to_owned() };
        self.world.call(&ControllerRequest::AlterConfigs(AlterConfigs {
            resources: vec![(ConfigResource::Topic(partition.topic_id), vec![operation])],
            replace_all: false,
            validate_only: false,
        }));
    }

    fn reassign(&mut self, partition: usize, replicas: Option<Vec<BrokerId>>) {
        let Some(partition) = self.pick(partition) else { return };
        self.world.call(&ControllerRequest::AlterPartitionReassignments {
            partitions: vec![Reassignment { partition, replicas }],
            allow_replication_factor_change: true,
        });
    }

    fn propose(&mut self, partition: usize, broker: BrokerId, stale: bool) {
        let Some(partition) = self.pick(partition) else { return };
        let Some((leader, log)) = self.leader_log(partition) else { return };
        let current = self.world.partition(partition).clone();
        let mut isr = current.isr.clone();
        if isr.contains(&broker) && broker != leader {
            isr.retain(|member| *member != broker);
        } else if self.logs.get(&(partition, broker)).cloned().unwrap_or_default() == log && broker != leader {
            isr.push(broker);
        }
        let mut leader_epoch = current.leader_epoch;
        if stale {
            leader_epoch = LeaderEpoch(leader_epoch.0 - 1);
        }
        let proposal = AlterPartition {
            partition,
            leader_epoch,
            partition_epoch: current.partition_epoch,
            new_isr: isr.into_iter().map(|member| (member, self.epoch(member))).collect(),
            leader_recovered: true,
        };
        let broker_epoch = self.epoch(leader);
        let request = AlterPartitions { broker_id: leader, broker_epoch, partitions: vec![proposal] };
        self.world.call(&ControllerRequest::AlterPartitions(request));
        self.advance(partition);
    }

    /// The high watermark moves to what the whole ISR holds, if the ISR is large enough (trap 6).
    fn advance(&mut self, partition: TopicPartition) {
        let Some(image) = self.world.image.partition(partition.topic_id, partition.partition) else { return };
        let Some((_, log)) = self.leader_log(partition) else { return };
        if image.isr.len() < self.world.min_isr(partition) {
            return;
        }
        let held = |member: &BrokerId| {
            let own = self.logs.get(&(partition, *member)).cloned().unwrap_or_default();
            // A log that differs has not been truncated yet, and has acknowledged nothing to this leader.
            if log.starts_with(&own) { own.len() } else { 0 }
        };
        let high_watermark = image.isr.iter().map(held).min().unwrap_or(0);
        let committed = self.committed.entry(partition).or_default();
        if high_watermark > committed.len() {
            *committed = log[..high_watermark].to_vec();
        }
    }

    fn check_nothing_is_lost(&self) {
        for (partition, image) in self.world.image.partitions() {
            let Some(committed) = self.committed.get(&partition) else { continue };
            for candidate in image.isr.iter().chain(&image.eligible_leader_replicas) {
                let log = self.logs.get(&(partition, *candidate)).cloned().unwrap_or_default();
                assert!(
                    log.starts_with(committed),
                    "{candidate} can lead {partition}: {committed:?} {log:?} {image:?}"
                );
            }
        }
    }
}

fn replayed(records: &[MetadataRecord]) -> ClusterImage {
    let mut image = ClusterImage::default();
    image.replay_all(records);
    image
}

fn events(weather: Weather) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(weather), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// [`World::commit`] checks the image after each event. At the end: batching does not matter, and snapshots are
    /// true.
    #[test]
    fn images_keep_their_shape(events in events(Weather::Anything), cut in any::<prop::sample::Index>()) {
        let mut cluster = Cluster::new();
        for event in events {
            cluster.apply(event);
        }
        let mut image = cluster.world.image.clone();
        (image.offset, image.term) = Default::default();

        let (first, second) = cluster.world.log.split_at(cut.index(cluster.world.log.len() + 1));
        let published = Arc::new(replayed(first));
        let mut continued = ClusterImage::clone(&published);
        continued.replay_all(second);
        prop_assert_eq!(&continued, &image);
        prop_assert_eq!(&*published, &replayed(first), "a published image does not change");

        let mut restored = replayed(&published.to_records());
        prop_assert_eq!(&restored, &*published);
        restored.replay_all(second);
        prop_assert_eq!(&restored, &image);
    }

    /// LeaderCandidateCompleteness: while no disk is lost, every member of ISR and ELR holds every committed record.
    #[test]
    fn whoever_can_lead_holds_all_that_was_committed(events in events(Weather::NothingLost)) {
        let mut cluster = Cluster::new();
        for event in events {
            cluster.apply(event);
            cluster.check_nothing_is_lost();
        }
    }

    /// A batch decided on a scratch image is as good as one request after another.
    #[test]
    fn decisions_build_on_each_other_within_a_batch(counts in prop::collection::vec(1..4i32, 1..20)) {
        let mut cluster = Cluster::new();
        let mut scratch = cluster.world.image.clone();
        let mut batch = vec![];
        for (count, id) in counts.into_iter().zip(100u8..) {
            let topic = CreateTopic {
                name: format!("batched-{}", count),
                topic_id: TopicId::from_random([id; 16]),
                partition_count: count,
                replication_factor: 2,
                assignments: BTreeMap::new(),
                configs: BTreeMap::new(),
                clamp_replication_factor: false,
            };
            let request = ControllerRequest::CreateTopics(CreateTopics { topics: vec![topic], validate_only: false });
            let decision = cluster.world.controller.handle(&scratch, &request, 0);
            scratch.replay_all(&decision.records);
            batch.extend(decision.records);
        }
        cluster.world.commit(&batch);
        for count in 1..4 {
            if let Some(topic) = cluster.world.image.topic_by_name(&format!("batched-{count}")) {
                prop_assert_eq!(topic.partitions.len(), usize::try_from(count).expect("small"));
                prop_assert!(topic.partition(PartitionIndex(0)).is_some());
            }
        }
    }
}
