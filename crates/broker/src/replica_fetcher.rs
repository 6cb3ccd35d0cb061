//! The following side of replica streams: one stream to each broker that leads partitions replicated here.
//!
//! A stream is opened when there is something to follow, and opened again after a short pause when it breaks. All
//! partitions subscribe anew in a new stream, each from where its log stands, so that nothing has to be remembered
//! across streams.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use vltava_host::task::{self, JoinHandle};
use vltava_metadata::Endpoint;
use vltava_peer::replica::{
    FollowerFrame, Hello, LeaderFrame, LeaderFrames, News, Subscribe, SubscriptionId, Update, follow,
};
use vltava_peer::{Plane, client};
use vltava_types::{BrokerEpoch, BrokerId, ErrorCode, LeaderEpoch, TopicPartition};

use crate::dirty_set::DirtySet;
use crate::partition::{LeaderNewsError, Partition};

/// The pause after a stream broke; it doubles up to [`MAX_BACKOFF`] as long as no stream can be opened.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(500);

/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause before a partition asks again that was refused because one side has yet to hear of an election.
const ELECTION_PAUSE: Duration = Duration::from_millis(20);

/// The pause before a partition asks again that was refused for another reason, or could not store what it got.
const REFUSAL_PAUSE: Duration = Duration::from_millis(200);

/// The pause before a partition asks again whose disk had no room for more.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// What fetchers need to know of their broker.
pub(crate) trait FetcherContext: Send + Sync + 'static {
    fn node_id(&self) -> BrokerId;
    fn cluster_id(&self) -> String;
    /// This broker's registration (trap 10).
    fn broker_epoch(&self) -> BrokerEpoch;
    /// Where another broker's gRPC answers, as of the newest image.
    fn peer(&self, broker: BrokerId) -> Option<Endpoint>;
    /// Bytes of records that may be under way in one stream.
    fn credit_bytes(&self) -> u64;
}

/// The fetchers of one broker, one for each leader.
pub(crate) struct Fetchers {
    context: Arc<dyn FetcherContext>,
    by_leader: Mutex<BTreeMap<BrokerId, Fetcher>>,
}

struct Fetcher {
    wanted: Arc<Wanted>,
    task: JoinHandle<()>,
}

/// What a fetcher should follow.
#[derive(Default)]
struct Wanted {
    lists: Mutex<Lists>,
    changed: Notify,
}

#[derive(Default)]
struct Lists {
    partitions: BTreeMap<TopicPartition, Arc<Partition>>,
    /// What was added, changed or removed since the stream last looked: an image costs what it changes.
    news: BTreeSet<TopicPartition>,
}

impl Fetchers {
    pub(crate) fn new(context: Arc<dyn FetcherContext>) -> Self {
        Self { context, by_leader: Mutex::default() }
    }

    /// Follows `leader` from now on, and nobody else.
    pub(crate) fn follow(&self, leader: BrokerId, partition: &Arc<Partition>) {
        let mut by_leader = self.by_leader.lock();
        for (_, fetcher) in by_leader.iter().filter(|(other, _)| **other != leader) {
            fetcher.wanted.remove(partition.id());
        }
        let fetcher = by_leader.entry(leader).or_insert_with(|| {
            let wanted = Arc::<Wanted>::default();
            let task = task::spawn(run(Arc::clone(&self.context), leader, Arc::clone(&wanted)));
            Fetcher { wanted, task }
        });
        fetcher.wanted.add(partition);
    }

    /// Follows nobody.
    pub(crate) fn unfollow(&self, partition: TopicPartition) {
        for fetcher in self.by_leader.lock().values() {
            fetcher.wanted.remove(partition);
        }
    }

    /// This broker was registered anew: streams are opened again under the new epoch.
    pub(crate) fn on_registered(&self) {
        for fetcher in self.by_leader.lock().values() {
            fetcher.wanted.changed.notify_one();
        }
    }

    /// Ends all streams.
    pub(crate) fn stop(&self) {
        for fetcher in std::mem::take(&mut *self.by_leader.lock()).into_values() {
            fetcher.task.abort();
        }
    }
}

impl Drop for Fetchers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Wanted {
    fn add(&self, partition: &Arc<Partition>) {
        let mut lists = self.lists.lock();
        lists.partitions.insert(partition.id(), Arc::clone(partition));
        lists.news.insert(partition.id());
        self.changed.notify_one();
    }

    fn remove(&self, partition: TopicPartition) {
        let mut lists = self.lists.lock();
        if lists.partitions.remove(&partition).is_some() {
            lists.news.insert(partition);
            self.changed.notify_one();
        }
    }

    fn get(&self, partition: TopicPartition) -> Option<Arc<Partition>> {
        self.lists.lock().partitions.get(&partition).cloned()
    }

    fn take_news(&self) -> BTreeSet<TopicPartition> {
        std::mem::take(&mut self.lists.lock().news)
    }

    /// Everything, as news to a new stream.
    fn take_all(&self) -> BTreeSet<TopicPartition> {
        let mut lists = self.lists.lock();
        lists.news.clear();
        lists.partitions.keys().copied().collect()
    }

    fn is_empty(&self) -> bool {
        self.lists.lock().partitions.is_empty()
    }
}

/// Keeps a stream to `leader` open as long as anything is wanted of it.
async fn run(context: Arc<dyn FetcherContext>, leader: BrokerId, wanted: Arc<Wanted>) {
    let mut backoff = MIN_BACKOFF;
    loop {
        while wanted.is_empty() {
            wanted.changed.notified().await;
        }
        if let Some(peer) = context.peer(leader) {
            let hello = Hello {
                cluster_id: context.cluster_id(),
                follower: context.node_id(),
                leader,
                credit_bytes: context.credit_bytes(),
            };
            match follow(client::connect(&peer, Plane::Data), hello, OPEN_TIMEOUT).await {
                Ok((frames, updates)) => {
                    tracing::debug!(%leader, "following");
                    let was_useful = Stream::new(&*context, leader, &wanted, frames).run(updates).await;
                    if was_useful {
                        backoff = MIN_BACKOFF;
                    }
                }
                Err(error) => tracing::debug!(%leader, %error, "cannot follow"),
            }
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

/// One open stream.
struct Stream<'a> {
    context: &'a dyn FetcherContext,
    leader: BrokerId,
    wanted: &'a Wanted,
    frames: mpsc::Sender<FollowerFrame>,
    /// The registration under which everything in this stream subscribes.
    broker_epoch: BrokerEpoch,
    /// Marked by partitions that have something to acknowledge, or whose leadership changed.
    dirty: Arc<DirtySet>,
    subscriptions: BTreeMap<SubscriptionId, Following>,
    /// Partitions that are subscribed.
    subscribed: BTreeMap<TopicPartition, SubscriptionId>,
    /// Partitions that were refused, and when they ask again.
    paused: BTreeMap<TopicPartition, Instant>,
    /// Partitions whose disk had no room for what the leader sent.
    refused_for_room: BTreeSet<TopicPartition>,
    next_id: SubscriptionId,
    received_bytes: u64,
    reported_bytes: u64,
    outgoing: FollowerFrame,
}

struct Following {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
}

impl<'a> Stream<'a> {
    fn new(
        context: &'a dyn FetcherContext,
        leader: BrokerId,
        wanted: &'a Wanted,
        frames: mpsc::Sender<FollowerFrame>,
    ) -> Self {
        Self {
            context,
            leader,
            wanted,
            frames,
            broker_epoch: context.broker_epoch(),
            dirty: Arc::default(),
            subscriptions: BTreeMap::new(),
            subscribed: BTreeMap::new(),
            paused: BTreeMap::new(),
            refused_for_room: BTreeSet::new(),
            next_id: 1,
            received_bytes: 0,
            reported_bytes: 0,
            outgoing: FollowerFrame::default(),
        }
    }

    /// Runs until the stream breaks or is no longer needed. Returns whether anything ever came over it.
    async fn run(mut self, mut updates: LeaderFrames) -> bool {
        let mut was_useful = false;
        self.look_at(self.wanted.take_all());
        loop {
            if self.send().await.is_break() {
                return was_useful;
            }
            let next_retry = self.paused.values().min().copied();
            tokio::select! {
                biased;
                () = self.dirty.wait() => self.acknowledge(),
                () = self.wanted.changed.notified() => {
                    if self.wanted.is_empty() || self.context.broker_epoch() != self.broker_epoch {
                        return true;
                    }
                    self.look_at(self.wanted.take_news());
                }
                frame = updates.next() => match frame {
                    Some(Ok(frame)) => {
                        was_useful = true;
                        self.receive(frame);
                    }
                    Some(Err(error)) => {
                        tracing::debug!(leader = %self.leader, %error, "replica stream broke");
                        return was_useful;
                    }
                    None => return was_useful,
                },
                () = sleep_until(next_retry) => {
                    let now = Instant::now();
                    let is_due = |(_, until): &(&TopicPartition, &Instant)| **until <= now;
                    self.look_at(self.paused.iter().filter(is_due).map(|(partition, _)| *partition).collect());
                }
            }
        }
    }

    /// Brings the subscriptions of these partitions in step with what is wanted.
    fn look_at(&mut self, partitions: BTreeSet<TopicPartition>) {
        for partition in partitions {
            self.paused.remove(&partition);
            let subscribed = self.subscribed.get(&partition).copied();
            match (self.wanted.get(partition), subscribed) {
                (Some(partition), None) if self.is_without_room(&partition) => {
                    self.paused.insert(partition.id(), Instant::now() + FULL_DISK_PAUSE);
                }
                (Some(partition), None) => self.subscribe(partition),
                (None, Some(id)) => {
                    self.forget(id);
                    self.outgoing.unsubscribe.push(id);
                }
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
    }

    /// Whether the partition had no room for what it was sent, and has none yet. One that has not tried subscribes: it may
    /// have everything already, and is then in sync.
    fn is_without_room(&mut self, partition: &Partition) -> bool {
        if partition.has_room() {
            self.refused_for_room.remove(&partition.id());
        }
        self.refused_for_room.contains(&partition.id())
    }

    fn subscribe(&mut self, partition: Arc<Partition>) {
        let id = self.next_id;
        // If the image has moved on, so does the list of what is wanted.
        let Some(subscription) = partition.subscription_to(self.leader, self.broker_epoch, &self.dirty, id) else {
            return;
        };
        self.next_id += 1;
        self.outgoing.subscribe.push(Subscribe { id, partition: partition.id(), subscription });
        self.subscribed.insert(partition.id(), id);
        self.subscriptions.insert(id, Following { partition, leader_epoch: subscription.leader_epoch });
    }

    fn forget(&mut self, id: SubscriptionId) -> Option<Following> {
        let following = self.subscriptions.remove(&id)?;
        self.subscribed.remove(&following.partition.id());
        Some(following)
    }

    /// Collects what partitions have to say. Those whose leadership has changed subscribe again.
    fn acknowledge(&mut self) {
        for id in self.dirty.take() {
            let Some(following) = self.subscriptions.get(&id) else { continue };
            match following.partition.acknowledgement(following.leader_epoch, &self.dirty, id) {
                Some(acknowledge) => self.outgoing.acknowledge.push(acknowledge),
                None => {
                    let following = self.forget(id).expect("it was found above");
                    self.outgoing.unsubscribe.push(id);
                    self.look_at(BTreeSet::from([following.partition.id()]));
                }
            }
        }
    }

    fn receive(&mut self, frame: LeaderFrame) {
        for update in frame.updates {
            // Bytes count even if nobody wants them any more: the leader's credit is over all that it sent.
            if let News::Records(records) = &update.news {
                self.received_bytes += records.len() as u64;
            }
            if let ControlFlow::Break((following, pause)) = self.take(&update) {
                self.again(&following, pause);
            }
        }
    }

    /// Takes one update. Breaks with the subscription if it is over, and with the pause before the next one.
    fn take(&mut self, update: &Update) -> ControlFlow<(Following, Duration)> {
        let Some(Following { partition, leader_epoch }) = self.subscriptions.get(&update.id) else {
            return ControlFlow::Continue(());
        };
        let (outcome, is_over, mut pause) = match &update.news {
            News::Records(records) => {
                let outcome =
                    partition.on_leader_records(*leader_epoch, records, update.high_watermark, update.log_start_offset);
                (outcome, false, Duration::ZERO)
            }
            News::Diverging(end) => (partition.on_leader_diverging(*leader_epoch, *end), true, Duration::ZERO),
            News::OutOfRange { log_start_offset, log_end_offset } => {
                let outcome = partition.on_leader_out_of_range(*leader_epoch, *log_start_offset, *log_end_offset);
                (outcome, true, Duration::ZERO)
            }
            News::Refused(code) => {
                tracing::debug!(partition = %partition.name(), leader = %self.leader, %code, "subscription refused");
                (Ok(()), true, refusal_pause(*code))
            }
        };
        if matches!(outcome, Err(LeaderNewsError::Full)) {
            tracing::debug!(partition = %partition.name(), leader = %self.leader, "no room for the leader's records");
            self.refused_for_room.insert(partition.id());
            pause = FULL_DISK_PAUSE;
            self.outgoing.unsubscribe.push(update.id);
        } else if let Err(error) = outcome {
            tracing::warn!(partition = %partition.name(), leader = %self.leader, %error, "news of the leader refused");
            pause = REFUSAL_PAUSE;
            // The leader must not go on sending.
            self.outgoing.unsubscribe.push(update.id);
        } else if !is_over {
            return ControlFlow::Continue(());
        }
        match self.forget(update.id) {
            Some(following) => ControlFlow::Break((following, pause)),
            None => ControlFlow::Continue(()),
        }
    }

    fn again(&mut self, following: &Following, pause: Duration) {
        let id = following.partition.id();
        if pause > Duration::ZERO {
            self.paused.insert(id, Instant::now() + pause);
        } else {
            self.look_at(BTreeSet::from([id]));
        }
    }

    /// Sends what has been collected, if it is worth a frame.
    async fn send(&mut self) -> ControlFlow<()> {
        let unreported = self.received_bytes - self.reported_bytes;
        let outgoing = &mut self.outgoing;
        let is_worth_it = !outgoing.subscribe.is_empty()
            || !outgoing.unsubscribe.is_empty()
            || !outgoing.acknowledge.is_empty()
            || unreported * 4 >= self.context.credit_bytes();
        if !is_worth_it {
            return ControlFlow::Continue(());
        }
        self.reported_bytes = self.received_bytes;
        let frame = FollowerFrame { received_bytes: self.received_bytes, ..std::mem::take(outgoing) };
        match self.frames.send(frame).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

fn refusal_pause(code: ErrorCode) -> Duration {
    match code {
        // The leader's retention was quicker. Ask where its log starts now.
        ErrorCode::OffsetOutOfRange => Duration::ZERO,
        ErrorCode::UnknownLeaderEpoch
        | ErrorCode::NotLeaderOrFollower
        | ErrorCode::FencedLeaderEpoch
        | ErrorCode::UnknownTopicOrPartition => ELECTION_PAUSE,
        _ => REFUSAL_PAUSE,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
