//! How far groups are behind, in records and in time, for metrics.
//!
//! Told for whatever is committed to a coordinator here, whether a group has members or not: a consumer that has stopped
//! is the one to worry about. A group's coordinator knows its offsets, a partition's leader its log, so that the one asks
//! the other now and then. Bounded: so many offsets, one question to a leader at a time, and nothing is read from a log
//! again for an offset that has not moved.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Duration;
use vltava_coordinator::group::{CommittedOffset, CommittedOffsets};
use vltava_metadata::ClusterImage;
use vltava_peer::positions::{self, MAX_POSITIONS, Position, PositionsHandler as _, Question, Standing};
use vltava_peer::{Plane, client};
use vltava_types::{BrokerId, Offset, TimestampMs, TopicPartition};

use crate::Broker;

/// How often leaders are asked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long a leader may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Offsets that are looked at. What is committed beyond them is counted, and not told of.
const MAX_OFFSETS: usize = 5_000;

/// What was found at the last look.
#[derive(Debug, Default)]
pub struct GroupLags {
    latest: Mutex<Arc<Lags>>,
}

/// The lag of the groups whose coordinator is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lags {
    pub partitions: Vec<PartitionLag>,
    /// Committed offsets whose lag is not known: there are too many, or the partition's leader has not told.
    pub unknown: usize,
}

/// How far a group is behind in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    pub committed: CommittedOffset,
    standing: Standing,
}

impl PartitionLag {
    /// Records between the committed offset and the high watermark; offsets that compaction took count, as in Kafka.
    #[must_use]
    pub fn records(&self) -> i64 {
        (self.standing.high_watermark.value() - self.committed.offset.value()).max(0)
    }

    /// How long the oldest record that the group has not consumed has been waiting. Nothing if there is none, and `None` if
    /// it does not say when it was written.
    #[must_use]
    pub fn seconds(&self, now: TimestampMs) -> Option<f64> {
        if self.records() == 0 {
            return Some(0.0);
        }
        let written = self.standing.timestamp?;
        Some(now.value().saturating_sub(written.value()).max(0) as f64 / 1000.0)
    }
}

impl GroupLags {
    #[must_use]
    pub fn latest(&self) -> Arc<Lags> {
        Arc::clone(&self.latest.lock())
    }
}

/// Looks again and again, until the broker is gone.
pub(crate) async fn keep_looking(broker: Weak<Broker>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(broker) = broker.upgrade() else { return };
        let lags = look(&broker).await;
        *broker.group_lags.latest.lock() = Arc::new(lags);
    }
}

async fn look(broker: &Broker) -> Lags {
    let committed = broker.groups.committed_offsets(MAX_OFFSETS).await;
    let image = broker.image();
    let plan = Plan::new(committed, &image, &broker.group_lags.latest());
    let mut answers = BTreeMap::new();
    for (leader, asked) in plan.questions() {
        for asked in asked.chunks(MAX_POSITIONS) {
            let question = Question {
                cluster_id: image.cluster_id.clone(),
                leader,
                positions: asked.iter().map(|index| plan.entries[*index].position).collect(),
            };
            let found = if leader == broker.node_id {
                broker.replicas.find(question).await
            } else {
                let Some(registration) = image.broker(leader) else { continue };
                positions::find(client::connect(&registration.peer, Plane::Data), question, ANSWER_TIMEOUT).await
            };
            match found {
                Ok(found) => answers.extend(asked.iter().copied().zip(found).filter_map(|(index, found)| {
                    // Leadership is on its way elsewhere, say: the next look will tell.
                    found.ok().map(|standing| (index, standing))
                })),
                Err(error) => tracing::debug!(%leader, %error, "cannot tell how far groups are behind"),
            }
        }
    }
    plan.conclude(&answers)
}

/// What to ask about the committed offsets, and what is known of them.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    entries: Vec<Entry>,
    unknown: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    committed: CommittedOffset,
    leader: Option<BrokerId>,
    position: Position,
    /// What the leader said when the offset was the same.
    known: Option<Standing>,
}

impl Plan {
    fn new(committed: CommittedOffsets, image: &ClusterImage, previous: &Lags) -> Self {
        let known: BTreeMap<&CommittedOffset, Standing> =
            previous.partitions.iter().map(|lag| (&lag.committed, lag.standing)).collect();
        let entries = committed.offsets.into_iter().filter_map(|committed| {
            let topic = image.topic_by_name(&committed.topic)?;
            // An offset of a deleted topic says nothing about a new one of the same name.
            if !committed.topic_id.is_zero() && committed.topic_id != topic.topic_id {
                return None;
            }
            let index = usize::try_from(committed.partition.value()).ok()?;
            let leader = topic.partitions.get(index)?.leader;
            let known = known.get(&committed).copied();
            let position = Position {
                partition: TopicPartition { topic_id: topic.topic_id, partition: committed.partition },
                offset: committed.offset.max(Offset(0)),
                with_timestamp: known.is_none_or(|known| known.timestamp.is_none()),
            };
            Some(Entry { committed, leader, position, known })
        });
        Self { entries: entries.collect(), unknown: committed.untold }
    }

    /// The indexes of the entries that each leader is asked about.
    fn questions(&self) -> BTreeMap<BrokerId, Vec<usize>> {
        let mut questions: BTreeMap<BrokerId, Vec<usize>> = BTreeMap::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if let Some(leader) = entry.leader {
                questions.entry(leader).or_default().push(index);
            }
        }
        questions
    }

    /// Without an answer, what was known before holds: time goes on for a group that waits for a leader.
    fn conclude(self, answers: &BTreeMap<usize, Standing>) -> Lags {
        let mut lags = Lags { partitions: Vec::with_capacity(self.entries.len()), unknown: self.unknown };
        for (index, Entry { committed, known, .. }) in self.entries.into_iter().enumerate() {
            let known_timestamp = known.and_then(|known| known.timestamp);
            let told =
                answers.get(&index).map(|told| Standing { timestamp: told.timestamp.or(known_timestamp), ..*told });
            match told.or(known) {
                Some(standing) => lags.partitions.push(PartitionLag { committed, standing }),
                None => lags.unknown += 1,
            }
        }
        lags
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vltava_coordinator::group::{CommittedOffset, CommittedOffsets};
    use vltava_metadata::{ClusterImage, MetadataRecord, PartitionRecord};
    use vltava_peer::positions::Standing;
    use vltava_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, TimestampMs, TopicId};

    use super::{Lags, PartitionLag, Plan};

    const TOPIC: TopicId = TopicId(vltava_types::Uuid([1; 16]));

    /// Topic `t`, whose partition 0 broker 1 leads, and partition 1 nobody.
    fn image() -> ClusterImage {
        let mut image = ClusterImage::default();
        image.replay(&MetadataRecord::Topic { topic_id: TOPIC, name: "t".to_owned() });
        for (partition, leader) in [(0, Some(BrokerId(1))), (1, None)] {
            image.replay(&MetadataRecord::Partition(PartitionRecord {
                topic_id: TOPIC,
                partition: PartitionIndex(partition),
                replicas: vec![BrokerId(1)],
                isr: vec![BrokerId(1)],
                eligible_leader_replicas: vec![],
                last_known_leader: None,
                adding_replicas: vec![],
                removing_replicas: vec![],
                leader,
                leader_recovering: false,
                leader_epoch: LeaderEpoch(0),
                partition_epoch: PartitionEpoch(0),
            }));
        }
        image
    }

    fn committed(topic_id: TopicId, partition: i32, offset: i64) -> CommittedOffset {
        CommittedOffset {
            group_id: "g".to_owned(),
            topic: "t".to_owned(),
            topic_id,
            partition: PartitionIndex(partition),
            offset: Offset(offset),
        }
    }

    fn standing(high_watermark: i64, timestamp: Option<i64>) -> Standing {
        Standing { high_watermark: Offset(high_watermark), timestamp: timestamp.map(TimestampMs) }
    }

    fn lag(offset: i64, standing: Standing) -> PartitionLag {
        PartitionLag { committed: committed(TOPIC, 0, offset), standing }
    }

    /// One offset in partition 0, what was known of it, and what its leader says if it does. Returns whether the leader is
    /// asked for a time, and what is known then.
    fn look(offset: i64, previous: Option<PartitionLag>, answer: Option<Standing>) -> (bool, Lags) {
        let offsets = CommittedOffsets { offsets: vec![committed(TOPIC, 0, offset)], untold: 0 };
        let previous = Lags { partitions: previous.into_iter().collect(), unknown: 0 };
        let plan = Plan::new(offsets, &image(), &previous);
        assert_eq!(plan.questions(), BTreeMap::from([(BrokerId(1), vec![0])]));
        let with_timestamp = plan.entries[0].position.with_timestamp;
        (with_timestamp, plan.conclude(&answer.map(|answer| (0, answer)).into_iter().collect()))
    }

    #[test]
    fn a_lag_is_counted_from_the_committed_offset_and_lasts_since_the_oldest_record_behind_it() {
        let now = TimestampMs(10_000);
        for (offset, standing, records, seconds) in [
            (7, standing(10, Some(4_000)), 3, Some(6.0)),
            (10, standing(10, None), 0, Some(0.0)),
            // A time of a record before, which has been consumed meanwhile.
            (10, standing(10, Some(4_000)), 0, Some(0.0)),
            // A leader that lost records, or a group that was set ahead of the log.
            (11, standing(10, None), 0, Some(0.0)),
            (7, standing(10, None), 3, None),
            // A producer whose clock is ahead.
            (7, standing(10, Some(11_000)), 3, Some(0.0)),
        ] {
            let lag = lag(offset, standing);
            assert_eq!((lag.records(), lag.seconds(now)), (records, seconds), "{lag:?}");
        }
    }

    #[test]
    fn a_time_is_looked_up_once_for_an_offset_that_does_not_move() {
        let (with_timestamp, lags) = look(7, None, Some(standing(10, Some(4_000))));
        assert!(with_timestamp);
        assert_eq!(lags.partitions, [lag(7, standing(10, Some(4_000)))]);
        let (with_timestamp, lags) = look(7, lags.partitions.into_iter().next(), Some(standing(12, None)));
        assert!(!with_timestamp);
        assert_eq!(lags.partitions, [lag(7, standing(12, Some(4_000)))]);
        let (with_timestamp, lags) = look(8, lags.partitions.into_iter().next(), Some(standing(12, Some(5_000))));
        assert!(with_timestamp);
        assert_eq!(lags.partitions, [lag(8, standing(12, Some(5_000)))]);
    }

    #[test]
    fn without_an_answer_what_was_known_of_the_same_offset_holds() {
        let before = lag(7, standing(10, Some(4_000)));
        assert_eq!(look(7, Some(before.clone()), None).1, Lags { partitions: vec![before.clone()], unknown: 0 });
        assert_eq!(look(8, Some(before), None).1, Lags { partitions: vec![], unknown: 1 });
    }

    #[test]
    fn offsets_of_other_topics_are_passed_over_and_those_without_a_leader_are_unknown() {
        let other = TopicId(vltava_types::Uuid([2; 16]));
        let offsets = vec![committed(other, 0, 7), committed(TopicId::ZERO, 0, 7), committed(TOPIC, 1, 7), {
            let mut gone = committed(TOPIC, 0, 7);
            gone.topic = "gone".to_owned();
            gone
        }];
        let plan = Plan::new(CommittedOffsets { offsets, untold: 40 }, &image(), &Lags::default());
        assert_eq!(plan.questions(), BTreeMap::from([(BrokerId(1), vec![0])]));
        let lags = plan.conclude(&BTreeMap::from([(0, standing(9, None))]));
        assert_eq!((lags.partitions.len(), lags.unknown), (1, 41));
    }
}
