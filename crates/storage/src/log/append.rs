//! Appending, as the leader and as a follower.

use std::sync::Arc;

use vltava_protocol::batch::{BatchHeader, batches};
use vltava_types::{LeaderEpoch, Offset, TimestampMs};

use super::{Log, take_back};
use crate::StorageError;

/// Positions are 32-bit signed in Kafka's index files.
const MAX_SEGMENT_BYTES: u32 = i32::MAX as u32;

/// What an append did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: Offset,
    /// Inclusive.
    pub last_offset: Offset,
    /// The largest timestamp of the appended batches.
    pub max_timestamp: TimestampMs,
    /// Whether a new segment was begun.
    pub rolled: bool,
}

/// Whose batches are appended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Leader,
    Follower,
}

impl Log {
    /// Appends batches that were checked and stamped: base offsets (exactly from the log end on, without gaps), leader
    /// epoch, timestamps, CRC. Readable at once, durable after the next flush. All of them or none; but if the file system
    /// is full ([`StorageError::Full`]) those that fit into the active segment may be in the log, as its end tells.
    pub fn append_as_leader(&mut self, batches: &[u8]) -> Result<Appended, StorageError> {
        self.append(batches, Origin::Leader)
    }

    /// Appends a leader's batches as they came, CRC checked by the caller. The first one may begin beyond the log end, and
    /// gaps between them are kept: the leader's log has the same ones, from compaction.
    pub fn append_as_follower(&mut self, batches: &[u8]) -> Result<Appended, StorageError> {
        self.append(batches, Origin::Follower)
    }

    fn append(&mut self, bytes: &[u8], origin: Origin) -> Result<Appended, StorageError> {
        let headers = self.check_append(bytes, origin)?;
        let (first, last) = (&headers[0].0, &headers[headers.len() - 1].0);
        let appended = Appended {
            base_offset: first.base_offset,
            last_offset: last.last_offset(),
            max_timestamp: headers.iter().map(|(header, _)| header.max_timestamp).max().expect("there is a batch"),
            rolled: false,
        };
        // One write for each segment that is touched, which is nearly always one.
        let mut rolled = false;
        let mut run_start = 0;
        let mut run_bytes = 0;
        for (i, (header, _)) in headers.iter().enumerate() {
            if self.must_roll(header, run_bytes, run_start < i) {
                self.append_run(bytes, &headers[run_start..i])?;
                self.roll(self.base_offset_for(header))?;
                rolled = true;
                run_start = i;
                run_bytes = 0;
            }
            run_bytes += header.size() as u64;
        }
        self.append_run(bytes, &headers[run_start..])?;
        Ok(Appended { rolled, ..appended })
    }

    /// The headers of the batches with their positions, if all of them may be appended.
    fn check_append(&self, bytes: &[u8], origin: Origin) -> Result<Vec<(BatchHeader, usize)>, StorageError> {
        let refuse = |reason: String| Err(StorageError::InvalidAppend { log_end_offset: self.log_end_offset, reason });
        let mut headers = Vec::with_capacity(1);
        let mut next_offset = self.log_end_offset;
        let mut epoch = self.epochs.epoch_of(next_offset.plus(-1)).unwrap_or(LeaderEpoch::NONE);
        for batch in batches(bytes) {
            let (header, position) = match batch {
                Ok(batch) => (batch.header, batch.position),
                Err(error) => return refuse(error.to_string()),
            };
            let continues = match origin {
                Origin::Leader => header.base_offset == next_offset,
                Origin::Follower => header.base_offset >= next_offset,
            };
            if !continues || header.last_offset_delta < 0 {
                return refuse(format!("a batch begins at {} where {next_offset} was expected", header.base_offset));
            }
            if header.size() > MAX_SEGMENT_BYTES as usize {
                return refuse(format!("a batch of {} bytes fits no segment", header.size()));
            }
            if header.partition_leader_epoch > LeaderEpoch::NONE {
                if header.partition_leader_epoch < epoch {
                    return refuse(format!(
                        "leader epoch {} follows {epoch} in the log",
                        header.partition_leader_epoch
                    ));
                }
                epoch = header.partition_leader_epoch;
            }
            next_offset = header.next_offset();
            headers.push((header, position));
        }
        if headers.is_empty() { refuse("there is no batch".to_owned()) } else { Ok(headers) }
    }

    /// Appends batches to the active segment, where they fit. All of them or none, if only the room was lacking.
    fn append_run(&mut self, bytes: &[u8], headers: &[(BatchHeader, usize)]) -> Result<(), StorageError> {
        let (Some((_, start)), Some((last, last_position))) = (headers.first(), headers.last()) else {
            return Ok(());
        };
        let active = Arc::clone(self.active_segment());
        let segment_position = active.size();
        let run = &bytes[*start..last_position + last.size()];
        let end = active.end();
        let mut bytes_since_index_entry = self.active.bytes_since_index_entry;
        let written = active.write(run).and_then(|()| {
            headers.iter().try_for_each(|(header, position)| {
                let position = segment_position + (position - start) as u64;
                let interval = self.config.index_interval_bytes;
                active.index_batch(position, header, &mut bytes_since_index_entry, interval)
            })
        });
        if let Err(error) = written {
            return Err(take_back(&active, &end, error));
        }
        // From here on nothing fails.
        self.is_complete = false;
        self.active.bytes_since_index_entry = bytes_since_index_entry;
        for (header, position) in headers {
            self.active.first_timestamp.get_or_insert(header.max_timestamp.value());
            self.replay(header, &bytes[*position..position + header.size()]);
        }
        active.set_size(segment_position + run.len() as u64);
        self.log_end_offset = last.next_offset();
        self.epochs_version += u64::from(std::mem::take(&mut self.has_empty_epoch));
        Ok(())
    }

    /// Whether a batch needs a new segment, when `run_bytes` are to be written to the active one before it.
    fn must_roll(&self, header: &BatchHeader, run_bytes: u64, has_run: bool) -> bool {
        let active = self.active_segment();
        let size = active.size() + run_bytes;
        let has_batches = size > 0 || has_run;
        let relative_end = header.last_offset().value().saturating_sub(active.base_offset.value());
        if relative_end > i64::from(i32::MAX) {
            return true;
        }
        let is_old = self.active.first_timestamp.is_some_and(|first| {
            header.max_timestamp.value().saturating_sub(first) > self.config.max_segment_ms() - self.active.jitter_ms
        });
        let limit = u64::from(self.config.segment_bytes.min(MAX_SEGMENT_BYTES));
        has_batches
            && (size + header.size() as u64 > limit || is_old || active.index_is_full(self.config.segment_index_bytes))
    }

    /// Where the segment of a batch begins: at the log end, unless a gap before the batch is too wide for that.
    fn base_offset_for(&self, header: &BatchHeader) -> Offset {
        let distance = header.last_offset().value().saturating_sub(self.log_end_offset.value());
        if distance > i64::from(i32::MAX) { header.base_offset } else { self.log_end_offset }
    }
}
