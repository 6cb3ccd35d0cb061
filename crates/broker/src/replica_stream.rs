//! The leading side of a replica stream: what one follower subscribed to, and what is sent to it.
//!
//! Partitions mark a subscription when it has news (records, a high watermark, the end of the leadership). The sender
//! looks at marked subscriptions only, so that idle partitions cost nothing, and sends ahead of the follower's word by
//! a limited number of bytes. Receiving and sending run side by side: neither waits for the other.
//!
//! What an operator throttles (KIP-73) waits beside the backlog, and holds up nothing else of the stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vltava_peer::replica::{
    Acknowledge, FollowerFrame, FollowerFrames, Hello, LeaderFrame, News, Subscribe, SubscriptionId, Update,
};
use vltava_replication::FetchPosition;
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, Offset, TopicPartition};

use crate::dirty_set::DirtySet;
use crate::partition::{Partition, ThrottledSides};
use crate::quota::Quota;

/// Bytes read of one partition at a time. Larger pieces fall out of the processor's caches between the socket and the
/// follower's log.
const CHUNK_BYTES: usize = 256 * 1024;

/// Bytes of records after which a frame is sent, even if more is at hand.
const FRAME_BYTES: usize = 1024 * 1024;

/// Updates after which a frame is sent.
const FRAME_UPDATES: usize = 1024;

/// Subscriptions of one stream; a follower with more is sent away.
const MAX_SUBSCRIPTIONS: usize = 1_000_000;

/// What is throttled is looked at again this often at least: its limit may be another by then, or the replica in sync.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// Bytes per second.
pub(crate) struct Rates {
    pub leader: u64,
    pub follower: u64,
}

/// What limits replication to replicas that are not in sync.
pub(crate) struct Throttle<'a> {
    /// Of all streams of this broker together.
    pub leader: &'a Quota,
    /// Of this stream. A follower of several leaders receives so much from each.
    pub follower: Quota,
    pub rates: &'a (dyn Fn() -> Rates + Sync),
}

impl Throttle<'_> {
    /// How long to wait before more is sent.
    fn pause(&self, sides: ThrottledSides) -> Duration {
        if sides == ThrottledSides::default() {
            return Duration::ZERO;
        }
        let rates = (self.rates)();
        let of = |counts: bool, quota: &Quota, rate| if counts { quota.pause(rate) } else { Duration::ZERO };
        of(sides.leader, self.leader, rates.leader).max(of(sides.follower, &self.follower, rates.follower))
    }

    fn record(&self, sides: ThrottledSides, bytes: u64) {
        if sides.leader {
            self.leader.record(bytes);
        }
        if sides.follower {
            self.follower.record(bytes);
        }
    }
}

/// Serves one follower until its stream ends. `partition` finds what is hosted here.
pub(crate) async fn serve(
    hello: &Hello,
    mut frames: FollowerFrames,
    updates: mpsc::Sender<LeaderFrame>,
    partition: impl Fn(TopicPartition) -> Option<Arc<Partition>>,
    throttle: Throttle<'_>,
) {
    let stream = FollowerStream::new(hello.follower, hello.credit_bytes);
    let receive = async {
        loop {
            match frames.next().await {
                Some(Ok(frame)) => {
                    if !stream.receive(&frame, &partition) {
                        return;
                    }
                }
                None => return,
                Some(Err(error)) => {
                    tracing::debug!(follower = %hello.follower, %error, "replica stream broke");
                    return;
                }
            }
        }
    };
    let send = async {
        let mut sender = Sender::new(&stream, throttle);
        loop {
            while let Some(frame) = sender.next_frame() {
                if updates.send(frame).await.is_err() {
                    return;
                }
            }
            match sender.pause() {
                None => stream.dirty.wait().await,
                Some(pause) => _ = timeout(pause, stream.dirty.wait()).await,
            }
        }
    };
    tokio::select! {
        biased;
        () = receive => {}
        () = send => {}
    }
    stream.close();
}

struct FollowerStream {
    follower: BrokerId,
    credit_bytes: u64,
    dirty: Arc<DirtySet>,
    subscriptions: Mutex<BTreeMap<SubscriptionId, Subscribed>>,
    /// Ends of subscriptions, to be sent before anything else.
    ends: Mutex<Vec<Update>>,
    /// Bytes of records that the follower has taken.
    received_bytes: AtomicU64,
}

/// A subscription whose log matched.
#[derive(Clone)]
struct Subscribed {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    next_offset: Offset,
    /// High watermark and log start as last sent.
    sent_offsets: Option<(Offset, Offset)>,
}

impl FollowerStream {
    fn new(follower: BrokerId, credit_bytes: u64) -> Self {
        Self {
            follower,
            credit_bytes,
            dirty: Arc::default(),
            subscriptions: Mutex::default(),
            ends: Mutex::default(),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// Returns whether the stream goes on.
    fn receive(&self, frame: &FollowerFrame, partition: impl Fn(TopicPartition) -> Option<Arc<Partition>>) -> bool {
        for id in &frame.unsubscribe {
            self.forget(*id);
        }
        for acknowledge in &frame.acknowledge {
            self.acknowledge(acknowledge);
        }
        for subscribe in &frame.subscribe {
            if self.subscriptions.lock().len() >= MAX_SUBSCRIPTIONS {
                tracing::warn!(follower = %self.follower, "too many subscriptions in one stream");
                return false;
            }
            self.subscribe(subscribe, &partition);
        }
        if self.received_bytes.swap(frame.received_bytes, Ordering::Relaxed) != frame.received_bytes {
            self.dirty.ring();
        }
        true
    }

    fn subscribe(&self, subscribe: &Subscribe, partition: impl Fn(TopicPartition) -> Option<Arc<Partition>>) {
        let Subscribe { id, subscription, .. } = *subscribe;
        // It may be deleted, or not be created here yet; the follower asks again as long as it is told to follow.
        let Some(partition) = partition(subscribe.partition) else {
            return self.end(id, News::Refused(ErrorCode::UnknownTopicOrPartition));
        };
        // Entered before the partition can mark it.
        let subscribed = Subscribed {
            partition: Arc::clone(&partition),
            leader_epoch: subscription.leader_epoch,
            next_offset: subscription.fetch_offset,
            sent_offsets: None,
        };
        self.subscriptions.lock().insert(id, subscribed);
        match partition.on_follower_subscribed(&subscription, &self.dirty, id) {
            Ok(FetchPosition::Matches) => self.dirty.mark(id),
            Ok(FetchPosition::Diverging(end)) => self.end(id, News::Diverging(end)),
            Ok(FetchPosition::OutOfRange { log_start_offset, log_end_offset }) => {
                self.end(id, News::OutOfRange { log_start_offset, log_end_offset });
            }
            Err(code) => self.end(id, News::Refused(code)),
        }
    }

    fn acknowledge(&self, acknowledge: &Acknowledge) {
        let id = acknowledge.id;
        let Some(subscribed) = self.subscriptions.lock().get(&id).cloned() else { return };
        let Subscribed { partition, leader_epoch, .. } = subscribed;
        let taken = partition.on_follower_acknowledged(self.follower, leader_epoch, acknowledge, &self.dirty);
        if let Err(code) = taken {
            self.end(id, News::Refused(code));
        }
    }

    /// Ends a subscription and tells the follower why.
    fn end(&self, id: SubscriptionId, news: News) {
        self.forget(id);
        let update = Update { id, high_watermark: Offset(0), log_start_offset: Offset(0), news };
        self.ends.lock().push(update);
        self.dirty.ring();
    }

    fn forget(&self, id: SubscriptionId) {
        let subscribed = self.subscriptions.lock().remove(&id);
        if let Some(subscribed) = subscribed {
            subscribed.partition.on_follower_left(self.follower, &self.dirty, id);
        }
    }

    fn close(&self) {
        let subscriptions = std::mem::take(&mut *self.subscriptions.lock());
        for (id, subscribed) in subscriptions {
            subscribed.partition.on_follower_left(self.follower, &self.dirty, id);
        }
    }
}

/// Chooses what goes into the next frame.
struct Sender<'a> {
    stream: &'a FollowerStream,
    /// Subscriptions that have, or may have, something to send.
    backlog: BTreeSet<SubscriptionId>,
    /// Where the last frame stopped: the next one goes on from there, so that all get their turn.
    turn: SubscriptionId,
    sent_bytes: u64,
    throttle: Throttle<'a>,
    /// Subscriptions that have to wait, and how long.
    throttled: BTreeSet<SubscriptionId>,
    pause: Duration,
}

impl<'a> Sender<'a> {
    const fn new(stream: &'a FollowerStream, throttle: Throttle<'a>) -> Self {
        Self {
            stream,
            backlog: BTreeSet::new(),
            turn: 0,
            sent_bytes: 0,
            throttle,
            throttled: BTreeSet::new(),
            pause: THROTTLE_PAUSE,
        }
    }

    /// How long there is nothing to do unless the stream has news; `None` if nothing is throttled.
    fn pause(&self) -> Option<Duration> {
        (!self.throttled.is_empty()).then_some(self.pause)
    }

    /// `None` if there is nothing to send, or no credit to send it with.
    fn next_frame(&mut self) -> Option<LeaderFrame> {
        self.backlog.append(&mut self.stream.dirty.take());
        self.backlog.append(&mut self.throttled);
        self.pause = THROTTLE_PAUSE;
        let mut updates = std::mem::take(&mut *self.stream.ends.lock());
        let mut bytes = 0;
        let from_turn = self.backlog.range(self.turn..).chain(self.backlog.range(..self.turn));
        let ids: Vec<SubscriptionId> = from_turn.copied().collect();
        for id in ids {
            if !self.has_credit() || bytes >= FRAME_BYTES || updates.len() >= FRAME_UPDATES {
                self.turn = id;
                break;
            }
            let Some(update) = self.next_update(id) else { continue };
            if let News::Records(records) = &update.news {
                bytes += records.len();
                self.sent_bytes += records.len() as u64;
            }
            updates.push(update);
        }
        (!updates.is_empty()).then_some(LeaderFrame { updates })
    }

    fn has_credit(&self) -> bool {
        let under_way = self.sent_bytes.saturating_sub(self.stream.received_bytes.load(Ordering::Relaxed));
        under_way < self.stream.credit_bytes
    }

    /// What is new of one subscription; takes it off the backlog unless there is more.
    fn next_update(&mut self, id: SubscriptionId) -> Option<Update> {
        self.backlog.remove(&id);
        let Subscribed { partition, leader_epoch, next_offset, sent_offsets } =
            self.stream.subscriptions.lock().get(&id).cloned()?;
        let sides = partition.throttled_sides(self.stream.follower);
        let pause = self.throttle.pause(sides);
        if !pause.is_zero() {
            self.throttled.insert(id);
            self.pause = self.pause.min(pause);
            return None;
        }
        let read = match partition.read_for_follower(leader_epoch, next_offset, CHUNK_BYTES) {
            Ok(read) => read,
            Err(code) => {
                self.stream.forget(id);
                let news = News::Refused(code);
                return Some(Update { id, high_watermark: Offset(0), log_start_offset: Offset(0), news });
            }
        };
        if read.has_more {
            self.backlog.insert(id);
        }
        self.throttle.record(sides, read.records.len() as u64);
        let offsets = (read.high_watermark, read.log_start_offset);
        if read.records.is_empty() && sent_offsets == Some(offsets) {
            return None;
        }
        if let Some(subscribed) = self.stream.subscriptions.lock().get_mut(&id) {
            subscribed.next_offset = read.next_offset;
            subscribed.sent_offsets = Some(offsets);
        }
        Some(Update {
            id,
            high_watermark: read.high_watermark,
            log_start_offset: read.log_start_offset,
            news: News::Records(read.records),
        })
    }
}
