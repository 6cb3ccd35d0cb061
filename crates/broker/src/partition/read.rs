//! What clients may see: reads and offset queries.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use vltava_peer::positions::Standing;
use vltava_replication::{
    ActiveProducer, EpochEndOffset, FencingError, FetchPosition, OffsetNotAvailable, check_leader_epoch, fetch_position,
};
use vltava_storage::{FileRegion, Log, LogReader, ReadLimits, StorageError, TimestampedOffset, WarmRead};
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, TimestampMs, mutation};

use super::{Damage, Partition, Role, State};

/// Shorter runs of records are copied into the response: a system call of their own would cost more.
const MIN_REGION_BYTES: usize = 16 << 10;

/// Up to where a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The high watermark.
    ReadUncommitted,
    /// The last stable offset: nothing of a transaction that is under way.
    ReadCommitted,
}

/// One partition of a Fetch.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    pub offset: Offset,
    pub max_bytes: usize,
    /// Of what has to pass through memory, at most this.
    pub max_copied_bytes: usize,
    /// Return the first batch even if it is larger than these (KIP-74).
    pub at_least_one_batch: bool,
    pub isolation: Isolation,
    /// The epoch that the reader believes in (KIP-320).
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// The epoch of the last record that the reader has, to detect truncation (KIP-320, KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Whether a follower may answer (KIP-392).
    pub allow_follower: bool,
}

/// What one partition of a Fetch gets.
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// Whole batches; the first may begin below the requested offset. Empty if there is nothing to see, or if the
    /// reader's log diverges.
    pub records: Bytes,
    /// Or whole batches in their file, and `records` is empty. Only of [`Partition::read_warm`].
    pub region: Option<FileRegion>,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// The reader has records that this log has not: it truncates to here and asks again.
    pub diverging: Option<EpochEndOffset>,
    pub leader_epoch: LeaderEpoch,
}

impl ReadResult {
    /// Bytes of records, wherever they are.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.records.len() + self.region.as_ref().map_or(0, FileRegion::len)
    }
}

impl Partition {
    /// Reads for a client into memory. May wait for the disk.
    pub fn read(&self, request: &ReadRequest) -> Result<ReadResult, ErrorCode> {
        loop {
            let (result, readable) = self.prepare_read(request)?;
            let Some((reader, limits)) = readable else { return Ok(result) };
            let limits = ReadLimits { max_bytes: limits.max_bytes.min(request.max_copied_bytes), ..limits };
            match reader.read(request.offset, limits) {
                Ok(records) => return Ok(self.counted(ReadResult { records, ..result })),
                Err(StorageError::Truncated) => {}
                Err(error) => return Err(self.on_read_error(&error)),
            }
        }
    }

    /// Reads for a client what can be read without waiting for the disk; `None` if [`Partition::read`] has to be called
    /// where that may block. Long runs of records stay in their file, to be sent from there.
    pub fn read_warm(&self, request: &ReadRequest) -> Result<Option<ReadResult>, ErrorCode> {
        loop {
            let (result, readable) = self.prepare_read(request)?;
            let Some((reader, limits)) = readable else { return Ok(Some(result)) };
            match reader.read_warm(request.offset, limits, MIN_REGION_BYTES, request.max_copied_bytes) {
                Ok(WarmRead::Bytes(records)) => return Ok(Some(self.counted(ReadResult { records, ..result }))),
                Ok(WarmRead::Region(region)) => {
                    return Ok(Some(self.counted(ReadResult { region: Some(region), ..result })));
                }
                Ok(WarmRead::Cold) => return Ok(None),
                Err(StorageError::Truncated) => {}
                Err(error) => return Err(self.on_read_error(&error)),
            }
        }
    }

    fn counted(&self, result: ReadResult) -> ReadResult {
        self.traffic.fetched_bytes.fetch_add(result.record_bytes() as u64, Ordering::Relaxed);
        result
    }

    /// The followers that could serve a consumer at `offset` as well, each with its log end; none if this replica does not
    /// lead (KIP-392).
    pub fn followers_with(&self, offset: Offset) -> Vec<(BrokerId, Offset)> {
        match &self.state.lock().role {
            Role::Leader(leader) => leader.followers_with(offset).collect(),
            Role::Follower(_) => vec![],
        }
    }

    /// Everything about a read but the records, and where to get those, if there are any to see.
    fn prepare_read(&self, request: &ReadRequest) -> Result<(ReadResult, Option<(LogReader, ReadLimits)>), ErrorCode> {
        let state = self.state.lock();
        let log = self.readable(&state, request.current_leader_epoch, request.allow_follower)?;
        let offsets = state.role.offsets();
        let last_stable_offset = last_stable_offset(log, offsets.high_watermark);
        let result = ReadResult {
            records: Bytes::new(),
            region: None,
            high_watermark: offsets.high_watermark,
            last_stable_offset,
            log_start_offset: offsets.log_start_offset,
            diverging: None,
            leader_epoch: current_epoch(&state),
        };
        let last_fetched_epoch = request.last_fetched_epoch.unwrap_or(LeaderEpoch::NONE);
        match fetch_position(log.epochs(), offsets, request.offset, last_fetched_epoch) {
            FetchPosition::Diverging(end) => return Ok((ReadResult { diverging: Some(end), ..result }, None)),
            // A follower lags: what it lacks may exist on the leader, so that nobody may reset (trap 18).
            FetchPosition::OutOfRange { log_end_offset, .. }
                if is_follower(&state) && log_end_offset < request.offset =>
            {
                return Err(ErrorCode::OffsetNotAvailable);
            }
            FetchPosition::OutOfRange { .. } => return Err(ErrorCode::OffsetOutOfRange),
            FetchPosition::Matches => {}
        }
        if is_follower(&state) && offsets.high_watermark < request.offset {
            return Err(ErrorCode::OffsetNotAvailable);
        }
        let end_offset = match request.isolation {
            _ if mutation::is_off("high-watermark") => offsets.log_end_offset,
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => last_stable_offset,
        };
        let (max_bytes, at_least_one_batch) = (request.max_bytes, request.at_least_one_batch);
        let has_any = request.offset < end_offset && (max_bytes > 0 || at_least_one_batch);
        let limits = ReadLimits { max_bytes, end_offset, at_least_one_batch };
        Ok((result, has_any.then(|| (log.reader(), limits))))
    }

    /// The first offset that may be read (ListOffsets with timestamp -2).
    pub fn earliest_offset(
        &self,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let state = self.state.lock();
        let log = self.readable(&state, current_leader_epoch, false)?;
        let offset = state.role.offsets().log_start_offset;
        // Kafka answers with the epoch of the record there.
        Ok((offset, log.epochs().epoch_of(offset).unwrap_or(LeaderEpoch::NONE)))
    }

    /// The end of what may be read (ListOffsets with timestamp -1). OFFSET_NOT_AVAILABLE while a new leader's high
    /// watermark may lie behind what was committed (trap 5).
    pub fn latest_offset(
        &self,
        isolation: Isolation,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<(Offset, LeaderEpoch), ErrorCode> {
        let state = self.state.lock();
        let log = self.readable(&state, current_leader_epoch, false)?;
        let high_watermark = certain_high_watermark(&state)?;
        let offset = match isolation {
            Isolation::ReadUncommitted => high_watermark,
            Isolation::ReadCommitted => last_stable_offset(log, high_watermark),
        };
        Ok((offset, current_epoch(&state)))
    }

    /// The first readable record at or after a time (ListOffsets).
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        isolation: Isolation,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<TimestampedOffset>, ErrorCode> {
        self.look_up(isolation, current_leader_epoch, |reader, end| reader.offset_for_timestamp(timestamp, end))
    }

    /// The record with the largest timestamp (ListOffsets with timestamp -3, KIP-734).
    pub fn max_timestamp(
        &self,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<TimestampedOffset>, ErrorCode> {
        self.look_up(Isolation::ReadUncommitted, current_leader_epoch, |reader, _| reader.max_timestamp())
    }

    /// The largest epoch not above `requested` and its end (OffsetsForLeaderEpoch). `None` is "undefined".
    pub fn end_offset_for_epoch(
        &self,
        requested: LeaderEpoch,
        current_leader_epoch: Option<LeaderEpoch>,
    ) -> Result<Option<EpochEndOffset>, ErrorCode> {
        let state = self.state.lock();
        let log = self.readable(&state, current_leader_epoch, false)?;
        Ok(log.epochs().end_offset_for(requested, log.log_end_offset()))
    }

    /// DeleteRecords: moves the log start to `offset`, or to the high watermark if `None`. Returns the new log start, which
    /// is that of all live replicas, and survives crashes, once [`Partition::low_watermark`] has reached it.
    pub fn delete_records_before(&self, offset: Option<Offset>) -> Result<Offset, ErrorCode> {
        let mut state = self.state.lock();
        self.readable(&state, None, false)?;
        let offsets = state.role.offsets();
        let offset = offset.unwrap_or(offsets.high_watermark);
        if offset < Offset(0) || offsets.high_watermark < offset {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let log = state.log.as_mut().expect("it is readable");
        if let Err(error) = log.advance_log_start_offset(offset) {
            return Err(self.on_read_error(&error));
        }
        let log_start_offset = log.log_start_offset();
        self.on_log_start_moved(&mut state, log_start_offset);
        self.checkpoint_log_start_if_moved(&state);
        Ok(log_start_offset)
    }

    /// The least durable log start among the live replicas, which DeleteRecords waits for and answers with. `None` as long
    /// as one of them has not told its own.
    pub fn low_watermark(&self) -> Result<Option<Offset>, ErrorCode> {
        let state = self.state.lock();
        self.readable(&state, None, false)?;
        Ok(match &state.role {
            Role::Leader(leader) => leader.low_watermark(state.durable_log_start()),
            Role::Follower(_) => unreachable!("it would not be readable"),
        })
    }

    /// For DescribeProducers.
    pub fn active_producers(&self) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let state = self.state.lock();
        let log = self.readable(&state, None, false)?;
        Ok(log.producers().active_producers().collect())
    }

    /// What a failed read means for the reader. Corrupt data are never served (trap 26).
    pub(crate) fn on_read_error(&self, error: &StorageError) -> ErrorCode {
        self.disk.read().on_error(error);
        match error {
            StorageError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            StorageError::Corrupt { .. } => match self.on_corrupt(error) {
                // Retriable: another replica is about to lead.
                Damage::GiveUp => ErrorCode::KafkaStorageError,
                // It will not get better: the reader has to know.
                Damage::Refuse => ErrorCode::CorruptMessage,
            },
            StorageError::Io { .. }
            | StorageError::Full { .. }
            | StorageError::InvalidAppend { .. }
            | StorageError::Truncated
            | StorageError::Locked { .. }
            | StorageError::Foreign { .. }
            | StorageError::Exists { .. } => {
                tracing::error!(partition = %self.name, %error, "read failed");
                ErrorCode::KafkaStorageError
            }
        }
    }

    /// How far the leader's log goes beyond `offset`, and if asked for, since when it does. May wait for the disk.
    pub fn standing(&self, offset: Offset, with_timestamp: bool) -> Result<Standing, ErrorCode> {
        loop {
            let (reader, high_watermark) = {
                let state = self.state.lock();
                (self.readable(&state, None, false)?.reader(), certain_high_watermark(&state)?)
            };
            if !with_timestamp || high_watermark <= offset {
                return Ok(Standing { high_watermark, timestamp: None });
            }
            match reader.timestamp_at(offset, high_watermark) {
                Ok(timestamp) => return Ok(Standing { high_watermark, timestamp }),
                Err(StorageError::Truncated) => {}
                Err(error) => return Err(self.on_read_error(&error)),
            }
        }
    }

    fn look_up(
        &self,
        isolation: Isolation,
        current_leader_epoch: Option<LeaderEpoch>,
        find: impl Fn(&LogReader, Offset) -> Result<Option<TimestampedOffset>, StorageError>,
    ) -> Result<Option<TimestampedOffset>, ErrorCode> {
        loop {
            let (reader, visible_end) = {
                let state = self.state.lock();
                let log = self.readable(&state, current_leader_epoch, false)?;
                let high_watermark = certain_high_watermark(&state)?;
                let visible_end = match isolation {
                    Isolation::ReadUncommitted => high_watermark,
                    Isolation::ReadCommitted => last_stable_offset(log, high_watermark),
                };
                (log.reader(), visible_end)
            };
            match find(&reader, visible_end) {
                Ok(found) => return Ok(found.filter(|found| found.offset < visible_end)),
                Err(StorageError::Truncated) => {}
                Err(error) => return Err(self.on_read_error(&error)),
            }
        }
    }

    /// Routing and fencing of reads (trap 3).
    fn readable<'a>(
        &self,
        state: &'a State,
        current_leader_epoch: Option<LeaderEpoch>,
        allow_follower: bool,
    ) -> Result<&'a Log, ErrorCode> {
        if self.is_unusable() {
            return Err(ErrorCode::KafkaStorageError);
        }
        let log = state.log.as_ref().ok_or(ErrorCode::KafkaStorageError)?;
        check_leader_epoch(current_leader_epoch, current_epoch(state)).map_err(FencingError::code)?;
        // Who may have been replaced must not answer with what may be stale (trap 15).
        if !self.is_serving() || (is_follower(state) && !allow_follower) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(log)
    }
}

fn is_follower(state: &State) -> bool {
    matches!(state.role, Role::Follower(_))
}

fn current_epoch(state: &State) -> LeaderEpoch {
    match &state.role {
        Role::Leader(leader) => leader.leader_epoch(),
        Role::Follower(follower) => follower.leader_epoch(),
    }
}

pub(super) fn last_stable_offset(log: &Log, high_watermark: Offset) -> Offset {
    log.producers().first_unstable_offset().map_or(high_watermark, |unstable| unstable.min(high_watermark))
}

fn certain_high_watermark(state: &State) -> Result<Offset, ErrorCode> {
    match &state.role {
        Role::Leader(leader) => leader.latest_offset().map_err(|OffsetNotAvailable| ErrorCode::OffsetNotAvailable),
        Role::Follower(follower) => Ok(follower.high_watermark()),
    }
}
