//! Incremental fetch sessions (KIP-227): the broker remembers what a client fetches, so that a request names only what
//! changed, and a response only what has news.
//!
//! Pure state. The fetch path calls [`FetchSessions::begin`], reads, and calls [`FetchSessions::finish`] with what it
//! found. The cache is bounded twice: by sessions (`max.incremental.fetch.session.cache.slots`) and by the partitions
//! of all sessions. A client without a session is served all the same, in full each time.

use std::collections::{BTreeMap, BTreeSet};

use vltava_types::{ErrorCode, Offset, TimestampMs, TopicId};

#[cfg(test)]
mod tests;

/// A session that was not used for this long makes room for a new one.
const EVICTABLE_AFTER_MS: i64 = 120_000;

/// Partitions remembered over all sessions, at a few hundred bytes each.
const MAX_CACHED_PARTITIONS: usize = 250_000;

/// Session id and epoch of requests outside of any session.
const NO_SESSION: i32 = 0;
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// A topic as the client names it: by id from Fetch 13 on, by name before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Id(TopicId),
    Name(String),
}

/// A partition as the client names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionKey {
    pub topic: TopicKey,
    pub partition: i32,
}

/// Where in a partition the client wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub fetch_offset: i64,
    pub max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

/// The part of a Fetch request that concerns sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRequest {
    pub session_id: i32,
    pub session_epoch: i32,
    pub uses_topic_ids: bool,
    pub partitions: Vec<(PartitionKey, Position)>,
    pub forgotten: Vec<PartitionKey>,
}

/// What is to be read for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub kind: PlanKind,
    /// In the order to read in.
    pub partitions: Vec<(PartitionKey, Position)>,
}

/// How the request relates to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanKind {
    /// No session, and none wanted.
    Sessionless,
    /// The client wants a session over these partitions.
    Full { uses_topic_ids: bool },
    /// A request of a session. `epoch` is the one that the next request will carry.
    Incremental { session_id: i32, epoch: i32 },
}

/// What reading one partition gave, as far as a session remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionNews {
    pub has_records: bool,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    /// An error, a diverging epoch, or another replica to read from.
    pub must_be_told: bool,
    pub is_error: bool,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub session_id: i32,
    /// For each partition of the plan, whether it belongs into the response.
    pub included: Vec<bool>,
}

/// All sessions of one broker.
pub struct FetchSessions {
    max_sessions: usize,
    max_partitions: usize,
    sessions: BTreeMap<i32, Session>,
    /// Least recently used first.
    by_use: BTreeSet<(TimestampMs, i32)>,
    /// Invariant: the sum of all sessions' partitions.
    cached_partitions: usize,
}

struct Session {
    uses_topic_ids: bool,
    /// What the next request must carry.
    epoch: i32,
    created: TimestampMs,
    used: TimestampMs,
    /// In the order to read in: partitions that had records go to the end, so that each gets its turn.
    partitions: BTreeMap<u64, CachedPartition>,
    place_of: BTreeMap<PartitionKey, u64>,
    next_place: u64,
}

struct CachedPartition {
    key: PartitionKey,
    position: Position,
    /// As last sent; -1 where the next answer must be sent whatever it is.
    high_watermark: Offset,
    log_start_offset: Offset,
}

const NOT_SENT: Offset = Offset(-1);

impl FetchSessions {
    pub fn new(max_sessions: usize) -> Self {
        Self {
            max_sessions,
            max_partitions: MAX_CACHED_PARTITIONS,
            sessions: BTreeMap::new(),
            by_use: BTreeSet::new(),
            cached_partitions: 0,
        }
    }

    /// Finds what a request asks for. Errors concern the session, not a partition.
    pub fn begin(&mut self, request: SessionRequest, now: TimestampMs) -> Result<Plan, ErrorCode> {
        let SessionRequest { session_id, session_epoch, uses_topic_ids, partitions, forgotten } = request;
        if session_epoch == INITIAL_EPOCH || session_epoch == FINAL_EPOCH {
            // A full request ends whatever session it names.
            self.remove(session_id);
            let wants_session = session_epoch == INITIAL_EPOCH;
            let kind = if wants_session { PlanKind::Full { uses_topic_ids } } else { PlanKind::Sessionless };
            return Ok(Plan { kind, partitions });
        }

        let session = self.sessions.get_mut(&session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if session.epoch != session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        for (key, position) in partitions {
            session.set(key, position);
        }
        for key in &forgotten {
            session.forget(key);
        }
        session.epoch = next_epoch(session.epoch);
        let plan = Plan {
            kind: PlanKind::Incremental { session_id, epoch: session.epoch },
            partitions: session.partitions.values().map(|p| (p.key.clone(), p.position)).collect(),
        };
        self.by_use.remove(&(session.used, session_id));
        session.used = now;
        self.by_use.insert((now, session_id));
        self.cached_partitions = self.cached_partitions - before + session.partitions.len();

        if plan.partitions.is_empty() {
            self.remove(session_id);
            return Ok(Plan { kind: PlanKind::Sessionless, ..plan });
        }
        if self.cached_partitions > self.max_partitions {
            // The client begins again with a full request, which is answered without a session.
            self.remove(session_id);
            return Err(ErrorCode::FetchSessionIdNotFound);
        }
        Ok(plan)
    }

    /// Decides what of the news goes into the response. `fresh_id` draws random numbers.
    pub fn finish(
        &mut self,
        plan: &Plan,
        news: &[PartitionNews],
        now: TimestampMs,
        fresh_id: impl FnMut() -> u64,
    ) -> Result<Outcome, ErrorCode> {
        assert_eq!(plan.partitions.len(), news.len(), "every partition of a plan is read");
        match plan.kind {
            PlanKind::Sessionless => Ok(Outcome { session_id: NO_SESSION, included: vec![true; news.len()] }),
            PlanKind::Full { uses_topic_ids } => {
                let session_id = self.create(plan, uses_topic_ids, news, now, fresh_id).unwrap_or(NO_SESSION);
                Ok(Outcome { session_id, included: vec![true; news.len()] })
            }
            PlanKind::Incremental { session_id, epoch } => {
                let session = self.sessions.get_mut(&session_id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
                if session.epoch != epoch {
                    // Another request of the session overtook this one.
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                let keys = plan.partitions.iter().map(|(key, _)| key);
                let included = keys.zip(news).map(|(key, news)| session.tell(key, news)).collect();
                Ok(Outcome { session_id, included })
            }
        }
    }

    fn create(
        &mut self,
        plan: &Plan,
        uses_topic_ids: bool,
        news: &[PartitionNews],
        now: TimestampMs,
        mut fresh_id: impl FnMut() -> u64,
    ) -> Option<i32> {
        let size = plan.partitions.len();
        if size == 0 || !self.make_room(size, now) {
            return None;
        }
        let mut session = Session {
            uses_topic_ids,
            epoch: next_epoch(INITIAL_EPOCH),
            created: now,
            used: now,
            partitions: BTreeMap::new(),
            place_of: BTreeMap::new(),
            next_place: 0,
        };
        for (key, position) in &plan.partitions {
            session.set(key.clone(), *position);
        }
        for ((key, _), news) in plan.partitions.iter().zip(news) {
            session.tell(key, news);
        }
        let session_id = loop {
            // Positive, and hard to guess.
            let id = i32::try_from(fresh_id() >> 33).expect("31 bits are left");
            if id != NO_SESSION && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        self.cached_partitions += session.partitions.len();
        self.by_use.insert((now, session_id));
        self.sessions.insert(session_id, session);
        Some(session_id)
    }

    /// Whether there is room for a session of `size` partitions, which a stale session, or an old one that is smaller, may
    /// have had to leave.
    fn make_room(&mut self, size: usize, now: TimestampMs) -> bool {
        if self.max_sessions == 0 || size > self.max_partitions {
            return false;
        }
        while self.sessions.len() >= self.max_sessions || self.cached_partitions + size > self.max_partitions {
            let Some(&(used, stalest)) = self.by_use.first() else { return false };
            let is_stale = now.value() - used.value() > EVICTABLE_AFTER_MS;
            let victim = if is_stale { Some(stalest) } else { self.smaller_and_old(size, now) };
            match victim {
                Some(victim) => self.remove(victim),
                None => return false,
            }
        }
        true
    }

    /// The smallest session that has had its time, if smaller than `size`.
    fn smaller_and_old(&self, size: usize, now: TimestampMs) -> Option<i32> {
        let evictable = self.sessions.iter().filter(|(_, session)| {
            now.value() - session.created.value() > EVICTABLE_AFTER_MS && session.partitions.len() < size
        });
        evictable.min_by_key(|(_, session)| session.partitions.len()).map(|(id, _)| *id)
    }

    fn remove(&mut self, session_id: i32) {
        if let Some(session) = self.sessions.remove(&session_id) {
            self.by_use.remove(&(session.used, session_id));
            self.cached_partitions -= session.partitions.len();
        }
    }
}

impl Session {
    fn set(&mut self, key: PartitionKey, position: Position) {
        if let Some(place) = self.place_of.get(&key) {
            self.partitions.get_mut(place).expect("both maps have the same partitions").position = position;
            return;
        }
        self.place_of.insert(key.clone(), self.next_place);
        let partition = CachedPartition { key, position, high_watermark: NOT_SENT, log_start_offset: NOT_SENT };
        self.partitions.insert(self.next_place, partition);
        self.next_place += 1;
    }

    fn forget(&mut self, key: &PartitionKey) {
        if let Some(place) = self.place_of.remove(key) {
            self.partitions.remove(&place);
        }
    }

    /// Whether a partition has news for the client, which are then taken as told.
    fn tell(&mut self, key: &PartitionKey, news: &PartitionNews) -> bool {
        let Some(place) = self.place_of.get_mut(key) else { return false };
        let partition = self.partitions.get_mut(place).expect("both maps have the same partitions");
        let is_news = news.has_records
            || news.must_be_told
            || news.is_error
            || partition.high_watermark != news.high_watermark
            || partition.log_start_offset != news.log_start_offset;
        // When an error goes away, the client must hear of it, whatever the offsets are then.
        partition.high_watermark = if news.is_error { NOT_SENT } else { news.high_watermark };
        partition.log_start_offset = news.log_start_offset;
        if news.has_records {
            let partition = self.partitions.remove(place).expect("it was found above");
            *place = self.next_place;
            self.partitions.insert(self.next_place, partition);
            self.next_place += 1;
        }
        is_news
    }
}

/// Epochs of incremental requests go from 1 to the largest and then to 1 again: 0 and -1 mean something else.
fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}
