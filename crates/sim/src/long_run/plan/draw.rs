//! Draws a plan from its seed.

use std::collections::BTreeSet;
use std::time::Duration;

use vltava_host::random::Generator;

use super::{GroupPlan, Plan, ProducerPlan, RETENTION, ReaderPlan, TopicKind, TopicPlan, steps};

/// Choices from a seed.
pub(super) struct Draw(Generator);

impl Draw {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    pub fn broker(&mut self, brokers: u16) -> i32 {
        1 + self.below(u64::from(brokers)) as i32
    }

    /// So many different brokers, in any order.
    pub fn brokers(&mut self, brokers: u16, count: usize) -> Vec<i32> {
        let mut left: Vec<i32> = (1..=i32::from(brokers)).collect();
        (0..count.min(left.len())).map(|_| left.remove(self.below(left.len() as u64) as usize)).collect()
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn draw(seed: u64, duration: Duration) -> Self {
        let mut draw = Draw(Generator::new(seed ^ 0x5eed_0f10_6e55_a11d));
        let brokers = draw.choose(&[3, 3, 3, 3, 4, 5]);
        let bad_disk = draw.one_in(3).then(|| draw.broker(brokers));
        let page_cache = draw.one_in(5);
        let topics = topics(&mut draw, brokers, bad_disk.is_some(), page_cache);
        let producers = producers(&mut draw, &topics);
        let readers = (0..topics.len()).filter(|_| !draw.one_in(4)).map(|topic| ReaderPlan { topic }).collect();
        let groups = groups(&mut draw, &topics);
        let mut plan = Self {
            seed,
            brokers,
            bad_disk,
            tick: Duration::from_millis(draw.choose(&[2, 5, 5, 10])),
            duration,
            properties: properties(&mut draw),
            recreates: draw.one_in(3),
            topics,
            producers,
            readers,
            groups,
            steps: vec![],
        };
        plan.steps = steps::draw(&mut draw, &plan);
        plan
    }
}

fn properties(draw: &mut Draw) -> Vec<(&'static str, String)> {
    let millis = |draw: &mut Draw, choices: &[u64]| draw.choose(choices).to_string();
    // A broker that is slower to say that it lives is given longer.
    let (heartbeat, session) = draw.choose(&[("500", "2000"), ("1000", "3000"), ("1500", "6000")]);
    vec![
        ("auto.create.topics.enable", "false".to_owned()),
        ("broker.heartbeat.interval.ms", heartbeat.to_owned()),
        ("broker.session.timeout.ms", session.to_owned()),
        ("controller.quorum.election.timeout.ms", millis(draw, &[500, 1_000, 2_000])),
        ("offsets.topic.num.partitions", draw.choose(&[1, 3]).to_string()),
        ("offsets.topic.segment.bytes", draw.choose(&[1_048_576, 104_857_600]).to_string()),
        ("group.initial.rebalance.delay.ms", "500".to_owned()),
        ("replica.lag.time.max.ms", millis(draw, &[1_000, 1_500, 5_000, 30_000])),
        ("vltava.disk.reserve.bytes", "65536".to_owned()),
        ("vltava.metadata.reserve.bytes", "262144".to_owned()),
        ("vltava.scrub.interval.ms", millis(draw, &[10_000, 60_000, 604_800_000])),
        ("log.retention.check.interval.ms", millis(draw, &[2_000, 10_000])),
        ("log.cleaner.backoff.ms", millis(draw, &[1_000, 5_000])),
        ("log.cleaner.min.cleanable.ratio", draw.choose(&["0.01", "0.5"]).to_owned()),
        ("log.flush.offset.checkpoint.interval.ms", millis(draw, &[3_000, 60_000])),
        ("log.flush.start.offset.checkpoint.interval.ms", millis(draw, &[3_000, 60_000])),
        ("replica.high.watermark.checkpoint.interval.ms", millis(draw, &[1_000, 5_000])),
        ("leader.imbalance.check.interval.seconds", draw.choose(&["5", "300"]).to_owned()),
    ]
}

/// Where a disk is bad, or only the page cache has it, what one broker alone has may be lost: no promise is made of it.
fn topics(draw: &mut Draw, brokers: u16, has_bad_disk: bool, page_cache: bool) -> Vec<TopicPlan> {
    let count = 2 + draw.below(3);
    (0..count)
        .map(|index| {
            let kind = match index {
                0 => TopicKind::Kept,
                _ => draw.choose(&[TopicKind::Kept, TopicKind::Trimmed, TopicKind::Retained, TopicKind::Compacted]),
            };
            let replication_factor = match index {
                0 => 3,
                _ if has_bad_disk || page_cache => 3,
                _ => draw.choose(&[1, 2, 3, 3, if brokers >= 5 { 5 } else { 3 }]),
            };
            let min_insync_replicas = match replication_factor {
                1 => 1,
                _ if has_bad_disk || page_cache => 2,
                _ => draw.choose(&[1, 2, 2]),
            };
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
            if page_cache && !draw.one_in(3) {
                configs.push(("vltava.durability", "page-cache".to_owned()));
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
            let acks = if first { -1 } else { draw.choose(&[-1, 1, 1, 0]) };
            producers.push(ProducerPlan {
                topic,
                acks,
                is_idempotent: acks == -1 && !draw.one_in(4),
                pace: draw.choose(&[80, 250, 600].map(Duration::from_millis)),
                linger: draw.choose(&[0, 5, 50].map(Duration::from_millis)),
                compression: draw.choose(&["none", "none", "none", "lz4", "lz4", "zstd"]),
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
                members: draw.choose(&[1, 2, 2, 3]),
                assignor: draw.choose(&["range", "roundrobin"]),
                stay: draw.choose(&[20, 60, 100_000].map(Duration::from_secs)),
            }
        })
        .collect()
}
