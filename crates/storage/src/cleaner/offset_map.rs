//! The latest offset of each key, in memory whose size is given.

use std::hash::Hasher;

use vltava_types::Offset;

/// Bytes of a slot: 128 bits of hash and the offset. Kafka's map has slots of this size too.
const SLOT_BYTES: usize = 24;

/// How much a map may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OffsetMapLimits {
    /// This cleaner's share of `log.cleaner.dedupe.buffer.size`.
    pub bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`: how full the map becomes.
    pub load_factor: f64,
}

impl OffsetMapLimits {
    /// How many keys a map holds at most.
    #[must_use]
    pub fn max_keys(&self) -> usize {
        self.capacity(self.bytes / SLOT_BYTES)
    }

    /// How many of the slots may be used. One is always free.
    fn capacity(&self, slots: usize) -> usize {
        ((slots as f64 * self.load_factor()) as usize).min(slots.saturating_sub(1))
    }

    fn load_factor(&self) -> f64 {
        self.load_factor.clamp(0.01, 1.0)
    }
}

/// A hash table with open addressing. Keys are represented by 128 bits of a keyed hash, so that the table's size does not
/// depend on theirs. The hash's seeds are random: a client that could find two keys of the same hash could have
/// compaction take one for the other.
#[derive(Debug)]
pub struct OffsetMap {
    /// Two halves of the hash, and the offset plus one; zero is a free slot. Of a type that is allocated as zeroed pages,
    /// so that memory which is not used is not taken.
    slots: Vec<[u64; 3]>,
    seeds: [u64; 2],
    used: usize,
    capacity: usize,
}

/// There is no room for another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapIsFull;

impl OffsetMap {
    /// A map for at most `keys` keys, or for fewer if the limits have it so.
    #[must_use]
    pub fn new(limits: OffsetMapLimits, keys: u64, seeds: [u64; 2]) -> Self {
        let wanted = (keys as f64 / limits.load_factor()).ceil() as u64;
        let slots = usize::try_from(wanted.saturating_add(1)).unwrap_or(usize::MAX).min(limits.bytes / SLOT_BYTES);
        Self { slots: vec![[0; 3]; slots], seeds, used: 0, capacity: limits.capacity(slots) }
    }

    /// Notes that the key has a record at `offset`. Offsets of one key come in increasing order.
    pub fn put(&mut self, key: &[u8], offset: Offset) -> Result<(), MapIsFull> {
        if self.slots.is_empty() {
            return Err(MapIsFull);
        }
        let hash = self.hash(key);
        let slot = self.find(hash);
        if self.slots[slot][2] == 0 {
            if self.used == self.capacity {
                return Err(MapIsFull);
            }
            self.used += 1;
        }
        self.slots[slot] = [hash[0], hash[1], offset.value().cast_unsigned() + 1];
        Ok(())
    }

    /// The latest offset of the key, if it was noted.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Offset> {
        if self.used == 0 {
            return None;
        }
        let slot = self.slots[self.find(self.hash(key))];
        slot[2].checked_sub(1).map(|offset| Offset(offset.cast_signed()))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill([0; 3]);
        self.used = 0;
    }

    /// How many keys there are.
    #[must_use]
    pub const fn key_count(&self) -> usize {
        self.used
    }

    /// How many keys there can be.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The key's slot, or the free one where it would go. One slot at least is always free.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mut slot = (hash[0] % self.slots.len() as u64) as usize;
        loop {
            let [first, second, offset] = self.slots[slot];
            if offset == 0 || [first, second] == hash {
                return slot;
            }
            slot = if slot + 1 == self.slots.len() { 0 } else { slot + 1 };
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.seeds.map(|seed| {
            // SipHash. The seed is what it reads first, so that all of its state depends on it.
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            hasher.write_u64(self.seeds[0] ^ self.seeds[1].rotate_left(32));
            hasher.write_u64(seed);
            hasher.write(key);
            hasher.finish()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use vltava_types::Offset;

    use super::{MapIsFull, OffsetMap, OffsetMapLimits};

    const LIMITS: OffsetMapLimits = OffsetMapLimits { bytes: 1 << 20, load_factor: 0.9 };

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_a_map(keys in prop::collection::vec(prop::collection::vec(0..4u8, 0..4), 0..300), seed in any::<u64>()) {
            let mut map = OffsetMap::new(LIMITS, keys.len() as u64, [seed, !seed]);
            let mut model = BTreeMap::new();
            for (offset, key) in keys.iter().enumerate() {
                map.put(key, Offset(offset as i64)).expect("room for all of them");
                model.insert(key.clone(), Offset(offset as i64));
            }
            prop_assert_eq!(map.key_count(), model.len());
            for key in keys.iter().chain([&vec![9]]) {
                prop_assert_eq!(map.get(key), model.get(key).copied());
            }
        }
    }

    #[test]
    fn a_full_map_still_knows_its_keys() {
        let mut map = OffsetMap::new(OffsetMapLimits { bytes: 240, load_factor: 0.5 }, u64::MAX, [1, 2]);
        assert_eq!(map.capacity(), 5);
        for key in 0..5u8 {
            map.put(&[key], Offset(i64::from(key))).expect("room");
        }
        assert_eq!(map.put(&[5], Offset(5)), Err(MapIsFull));
        map.put(&[3], Offset(6)).expect("a known key needs no room");
        assert_eq!((map.get(&[3]), map.get(&[4]), map.get(&[5])), (Some(Offset(6)), Some(Offset(4)), None));
    }

    #[test]
    fn memory_follows_the_number_of_keys_and_its_bound() {
        assert_eq!(OffsetMap::new(LIMITS, 9, [1, 2]).slots.len(), 11);
        assert_eq!(OffsetMap::new(LIMITS, u64::MAX, [1, 2]).slots.len(), (1 << 20) / 24);
        let mut none = OffsetMap::new(OffsetMapLimits { bytes: 0, load_factor: 0.9 }, 9, [1, 2]);
        assert_eq!((none.put(b"key", Offset(0)), none.get(b"key")), (Err(MapIsFull), None));
        let mut full = OffsetMap::new(OffsetMapLimits { bytes: 72, load_factor: 1.0 }, 9, [1, 2]);
        assert_eq!(full.capacity(), 2, "one slot ends every search");
        for key in 0..3u8 {
            let _ = full.put(&[key], Offset(0));
        }
        assert_eq!(full.get(b"another"), None);
    }
}
