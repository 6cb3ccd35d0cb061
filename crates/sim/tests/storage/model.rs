//! What a log should hold, and what may be left of it after a crash.

use bytes::Bytes;
use vltava_host::random::Generator;
use vltava_protocol::batch::{BatchBuilder, BatchHeader, Record, records};
use vltava_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// A batch as it is stored.
#[derive(Clone, Debug)]
pub struct Batch {
    pub header: BatchHeader,
    pub bytes: Bytes,
    pub records: Vec<Record>,
    /// It lay below the log's start when that was compacted, where nobody could see what became of it.
    pub may_be_cleaned: bool,
}

impl Batch {
    pub fn of(bytes: Bytes) -> Self {
        let header = BatchHeader::parse(&bytes).expect("a batch");
        let records = records(&bytes, 1 << 20).expect("a batch of ours");
        let records = records.map(|record| record.expect("a record of ours")).collect();
        Self { header, bytes, records, may_be_cleaned: false }
    }

    pub fn base(&self) -> i64 {
        self.header.base_offset.value()
    }

    /// Exclusive.
    pub fn end(&self) -> i64 {
        self.header.next_offset().value()
    }
}

/// What one log should hold.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Everything appended and not truncated, oldest first. Those below the start may be gone, and may come back.
    pub batches: Vec<Batch>,
    pub start: i64,
    pub end: i64,
    /// The log has said that everything below is on disk.
    pub durable_end: i64,
    /// The start that is in the checkpoint on disk.
    pub durable_start: i64,
    /// The largest high watermark that may be in the checkpoint.
    pub checkpointed_high_watermark: i64,
    pub epoch: i32,
    /// Records have keys, and some have no value.
    pub is_compacted: bool,
    /// A segment was put in the place of others.
    pub was_compacted: bool,
    /// By producer id minus one.
    pub next_sequences: [i32; PRODUCERS],
}

const PRODUCERS: usize = 3;

impl Model {
    /// Batches to append from `base` on, taken in.
    pub fn append(&mut self, random: &mut Generator, base: i64, count: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut base = base;
        for _ in 0..count {
            let batch = self.draw_batch(random, base);
            base = batch.end();
            bytes.extend_from_slice(&batch.bytes);
            self.end = batch.end();
            self.batches.push(batch);
        }
        bytes
    }

    fn draw_batch(&mut self, random: &mut Generator, base: i64) -> Batch {
        let mut builder = BatchBuilder::new().base_offset(Offset(base)).leader_epoch(LeaderEpoch(self.epoch));
        let records = 1 + random.below(6) as i32;
        let producer = random.below(2 * PRODUCERS as u64) as usize;
        if let Some(next) = self.next_sequences.get_mut(producer) {
            let id = ProducerId(producer as i64 + 1);
            builder = builder.producer(id, ProducerEpoch(0), Sequence(*next));
            *next += records;
        }
        for offset in base..base + i64::from(records) {
            // Mostly in order, as clocks are.
            let timestamp = 1000 + offset * 10 + random.below(60) as i64;
            let value = vec![b'a' + (offset % 26) as u8; random.below(200) as usize];
            if self.is_compacted {
                let key = [b'a' + random.below(5) as u8];
                let is_tombstone = random.below(5) == 0;
                builder.append(TimestampMs(timestamp), Some(&key), (!is_tombstone).then_some(&value), &[]);
            } else {
                builder.append(TimestampMs(timestamp), None, Some(&value), &[]);
            }
        }
        Batch::of(builder.build())
    }

    /// `first_base` is where the first segment that there is begins.
    pub fn truncate(&mut self, offset: i64, first_base: i64) {
        if offset >= self.end {
            return;
        }
        self.batches.retain(|batch| batch.end() <= offset);
        let end = self.batches.last().map_or(first_base, |batch| batch.end().max(first_base));
        self.end = end;
        self.start = self.start.min(end);
        self.durable_end = self.durable_end.min(end);
        self.durable_start = self.durable_start.min(end);
        self.checkpointed_high_watermark = self.checkpointed_high_watermark.min(end);
        self.note_sequences();
    }

    pub fn start_over(&mut self, offset: i64) {
        self.batches.clear();
        (self.start, self.end, self.durable_end, self.durable_start) = (offset, offset, offset, offset);
        self.checkpointed_high_watermark = self.checkpointed_high_watermark.min(offset);
        self.note_sequences();
    }

    /// Those of the batches that a reader from `start` on sees, below `end`.
    pub fn between(&self, start: i64, end: i64) -> impl Iterator<Item = &Batch> + Clone {
        self.batches.iter().filter(move |batch| batch.end() > start && batch.end() <= end)
    }

    /// An offset of the log, its end among them.
    pub fn draw_offset(&self, random: &mut Generator) -> i64 {
        match random.below(4) {
            0 => self.end,
            // The base of a batch, if there is one.
            1 => {
                let batches: Vec<i64> = self.between(self.start, self.end).map(Batch::base).collect();
                let drawn = batches.get(random.below(batches.len().max(1) as u64) as usize);
                drawn.copied().unwrap_or(self.end).max(self.start)
            }
            _ => self.start + random.below((self.end - self.start + 1) as u64) as i64,
        }
    }

    /// A producer goes on after its last batch that is there.
    pub fn note_sequences(&mut self) {
        self.next_sequences = [0; PRODUCERS];
        for batch in &self.batches {
            let producer = usize::try_from(batch.header.producer_id.value() - 1).ok();
            if let Some(next) = producer.and_then(|producer| self.next_sequences.get_mut(producer)) {
                *next = batch.header.last_sequence().value() + 1;
            }
        }
    }
}

/// What may be left of a log: any of these, if a crash came while an operation was under way.
#[derive(Clone, Debug)]
pub struct Allowed {
    /// What the log holds is a prefix of these, from its start on.
    pub model: Model,
    /// The log ends there at the earliest.
    pub min_end: i64,
    /// Lowest and highest start.
    pub starts: (i64, i64),
    /// It may have lost everything, at whatever offset it goes on.
    pub may_be_empty: bool,
    /// It may not exist.
    pub may_be_missing: bool,
    /// A compacted segment may be in its place, or not.
    pub cleaned_by: Option<Cleaning>,
    /// The disk may say that records are missing: they were given up on purpose.
    pub may_have_lost: bool,
}

impl Allowed {
    /// After the operations that have ended.
    pub fn after(model: &Model) -> Self {
        Self {
            min_end: model.durable_end,
            starts: (model.durable_start, model.start),
            may_be_empty: false,
            may_be_missing: false,
            cleaned_by: None,
            may_have_lost: model.checkpointed_high_watermark > model.durable_end,
            model: model.clone(),
        }
    }
}

/// A compaction, as far as it tells what may go.
#[derive(Clone, Copy, Debug)]
pub struct Cleaning {
    /// Nothing from here on is touched.
    pub end: i64,
    /// Tombstones whose horizon has passed by then may go.
    pub now: i64,
}
