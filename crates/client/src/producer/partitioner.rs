//! Which partition a record goes to: as Kafka's own producer chooses since KIP-794.

use std::collections::BTreeMap;

use crate::TopicView;

/// Austin Appleby's MurmurHash2 in 32 bits, with Kafka's seed. Every client of Kafka's agrees on it.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).expect("keys are shorter than 2 GiB");
    let mut hash = SEED ^ length;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

/// Records with this key, as long as the topic has `partitions` partitions.
#[must_use]
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff).cast_signed() % partitions
}

/// Where records without a key go: to one partition until a batch's worth went there, then to another one at random.
/// Whole batches cost less than the same records spread thin.
#[derive(Clone, Debug, Default)]
pub struct StickyPartitions {
    topics: BTreeMap<String, Sticky>,
}

#[derive(Clone, Copy, Debug)]
struct Sticky {
    partition: i32,
    bytes: usize,
}

impl StickyPartitions {
    /// The partition for a record of `size` bytes: one that has a leader, if any has.
    pub fn next(
        &mut self,
        name: &str,
        topic: &TopicView,
        size: usize,
        batch_size: usize,
        random: impl FnOnce() -> u64,
    ) -> Option<i32> {
        let has_leader = |partition: i32| topic.partitions.get(&partition).is_some_and(|told| told.leader.is_some());
        if let Some(sticky) = self.topics.get_mut(name)
            && sticky.bytes < batch_size
            && has_leader(sticky.partition)
        {
            sticky.bytes += size;
            return Some(sticky.partition);
        }
        let mut choices: Vec<i32> =
            topic.partitions.keys().copied().filter(|partition| has_leader(*partition)).collect();
        if choices.is_empty() {
            choices.extend(topic.partitions.keys());
        }
        let partition = *choices.get((random() % choices.len().max(1) as u64) as usize)?;
        self.topics.insert(name.to_owned(), Sticky { partition, bytes: size });
        Some(partition)
    }
}

#[cfg(test)]
mod tests {
    use vltava_types::LeaderEpoch;

    use super::*;
    use crate::PartitionView;

    /// Values that Kafka's own clients compute.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let cases: [(&str, i32); 7] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
            ("", 275_646_681),
        ];
        for (key, expected) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    /// Three partitions, of which these have a leader.
    fn topic(with_leader: &[i32]) -> TopicView {
        let partition = |index: i32| {
            let leader = with_leader.contains(&index).then_some(1);
            (index, PartitionView { leader, leader_epoch: LeaderEpoch(0) })
        };
        TopicView { partitions: (0..3).map(partition).collect(), ..TopicView::default() }
    }

    #[test]
    fn keyless_records_stay_until_a_batch_is_full() {
        let mut sticky = StickyPartitions::default();
        let topic = topic(&[0, 1, 2]);
        let mut next = |random| sticky.next("t", &topic, 40, 100, || random);
        let chosen: Vec<_> = [0, 1, 1, 1, 2, 2, 2].into_iter().filter_map(&mut next).collect();
        assert_eq!(chosen, [0, 0, 0, 1, 1, 1, 2]);
    }

    #[test]
    fn partitions_without_a_leader_are_left_alone() {
        let mut sticky = StickyPartitions::default();
        assert_eq!(sticky.next("t", &topic(&[0, 1, 2]), 1, 100, || 0), Some(0));
        assert_eq!(sticky.next("t", &topic(&[1, 2]), 1, 100, || 1), Some(2));
        assert_eq!(sticky.next("t", &topic(&[]), 1, 100, || 0), Some(0));
        assert_eq!(sticky.next("empty", &TopicView::default(), 1, 100, || 0), None);
    }
}
