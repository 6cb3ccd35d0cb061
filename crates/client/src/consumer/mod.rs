//! A consumer: subscribes or is assigned partitions, fetches from their leaders, and commits for its group.
//!
//! Decisions are made by values that own no socket and no clock: [`positions`], [`assignor`], [`group::group_step`].
//! Like Kafka's consumer, this one works while it is polled; only heartbeats go on by themselves.

pub mod assignor;
mod config;
mod decode;
mod group;
mod news;
mod positions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vltava_host::task;
use vltava_types::{ErrorCode, Offset};

use crate::network::Network;
use crate::{ClientError, ClusterView};
use group::{Group, Joined, Membership, Signal};
use news::{Event, News};
use positions::{Asked, Positions};

pub use config::{ConsumerConfig, IsolationLevel, OffsetReset};
pub use decode::ConsumerRecord;
pub use positions::{Start, TopicPartition};

/// A consumer that cannot go on as it is.
#[derive(Debug, thiserror::Error)]
pub enum ConsumeError {
    #[error("group {group}: {cause}")]
    Group { group: String, cause: ClientError },
    #[error("{partition}: the broker answered {code}")]
    Partition { partition: TopicPartition, code: ErrorCode },
    #[error("topic {topic}: the broker answered {code}")]
    Topic { topic: String, code: ErrorCode },
    #[error("undefined offset with no reset policy for partition {0}")]
    NoOffset(TopicPartition),
    #[error("{partition}: {cause}")]
    BadData { partition: TopicPartition, cause: ClientError },
    #[error("group.id is not set")]
    NoGroup,
    #[error("{0}")]
    Client(#[from] ClientError),
}

/// Which topics a group's member wants.
#[derive(Clone)]
enum Subscription {
    None,
    Assigned,
    Topics(BTreeSet<String>),
    /// All that exist and match.
    Matching(Arc<dyn Fn(&str) -> bool + Send + Sync>),
}

/// See the module.
pub struct Consumer {
    config: Arc<ConsumerConfig>,
    network: Network,
    group: Option<Group>,
    subscription: Subscription,
    view: ClusterView,
    positions: Positions,
    buffered: VecDeque<Buffered>,
    under_way: FuturesUnordered<Event>,
    /// Brokers with a fetch under way, and since when.
    fetching: BTreeMap<i32, Instant>,
    metadata: Metadata,
    membership: Member,
    started: Instant,
    last_poll: Arc<AtomicU64>,
    signals: mpsc::Receiver<Signal>,
    signal_sender: mpsc::Sender<Signal>,
    next_commit: Option<Instant>,
    committed: BTreeMap<TopicPartition, Offset>,
    rebalance_times: Vec<Duration>,
    /// No lookup or fetch before this: the last one failed.
    not_before: Instant,
}

/// Records on their way to the application.
struct Buffered {
    asked: Asked,
    records: VecDeque<ConsumerRecord>,
    next_offset: Offset,
}

/// When to ask for metadata.
#[derive(Default)]
struct Metadata {
    is_wanted: bool,
    is_under_way: bool,
    asked_at: Option<Instant>,
    answered_at: Option<Instant>,
}

#[derive(Default)]
struct Member {
    state: MemberState,
    heartbeat: Option<task::JoinHandle<()>>,
    /// What the present assignment was made from.
    topics: Vec<String>,
    watched: Option<BTreeMap<String, i32>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum MemberState {
    #[default]
    Outside,
    Joining {
        since: Instant,
    },
    Stable(Membership),
}

impl Consumer {
    /// Nothing is asked of the cluster before the first poll.
    #[must_use]
    pub fn new(config: ConsumerConfig) -> Self {
        let network = Network::new(&config.bootstrap_servers, config.connection.clone());
        let config = Arc::new(config);
        let group = config.group_id.as_deref().map(|id| Group::new(network.clone(), Arc::clone(&config), id));
        let (signal_sender, signals) = mpsc::channel(4);
        Self {
            positions: Positions::new(config.auto_offset_reset),
            group,
            network,
            subscription: Subscription::None,
            view: ClusterView::default(),
            buffered: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            fetching: BTreeMap::new(),
            metadata: Metadata::default(),
            membership: Member::default(),
            started: Instant::now(),
            last_poll: Arc::default(),
            signals,
            signal_sender,
            next_commit: None,
            committed: BTreeMap::new(),
            rebalance_times: Vec::new(),
            not_before: Instant::now(),
            config,
        }
    }

    /// Becomes a member of the group for these topics, at the next poll.
    pub fn subscribe<T: Into<String>>(&mut self, topics: impl IntoIterator<Item = T>) -> Result<(), ConsumeError> {
        self.subscribe_to(Subscription::Topics(topics.into_iter().map(Into::into).collect()))
    }

    /// Becomes a member of the group for all topics that match now or later.
    pub fn subscribe_matching(
        &mut self,
        matches: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Result<(), ConsumeError> {
        self.subscribe_to(Subscription::Matching(Arc::new(matches)))
    }

    fn subscribe_to(&mut self, subscription: Subscription) -> Result<(), ConsumeError> {
        self.group.as_ref().ok_or(ConsumeError::NoGroup)?;
        self.subscription = subscription;
        self.metadata.is_wanted = true;
        Ok(())
    }

    /// Reads these partitions, without a group deciding about them.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, Start)>) {
        self.subscription = Subscription::Assigned;
        self.positions.assign(partitions);
        self.buffered.clear();
        self.metadata.is_wanted = true;
    }

    /// Goes on from elsewhere in a partition that it reads.
    pub fn seek(&mut self, partition: TopicPartition, start: Start) {
        self.positions.seek(partition, start);
    }

    /// The partitions that it reads now.
    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.positions.assignment()
    }

    /// The next offset to be delivered from each partition, where it is known.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<TopicPartition, Offset> {
        self.positions.consumed()
    }

    /// The generation of the group that it is a member of, if it is.
    #[must_use]
    pub fn generation_id(&self) -> Option<i32> {
        self.generation().map(|membership| membership.generation)
    }

    /// How long each rebalance took so far.
    #[must_use]
    pub fn rebalance_times(&self) -> &[Duration] {
        &self.rebalance_times
    }

    /// The next records, at most `max.poll.records`; none if none come in time. What was delivered before counts as
    /// processed from now on: auto commit includes it. Nothing is lost if the future is dropped.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Vec<ConsumerRecord>, ConsumeError> {
        let deadline = Instant::now() + timeout;
        let since_start = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_poll.store(since_start, Ordering::Relaxed);
        self.auto_commit();
        loop {
            self.step();
            let records = self.take_records();
            if !records.is_empty() {
                // The next fetch is under way while the application works.
                self.start_fetches();
                return Ok(records);
            }
            let wake = self.next_event().map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                biased;
                Some(news) = self.under_way.next() => self.take(news)?,
                Some(signal) = self.signals.recv() => self.on_signal(signal)?,
                () = tokio::time::sleep_until(wake) => {
                    if deadline <= Instant::now() {
                        return Ok(vec![]);
                    }
                }
            }
        }
    }

    /// Commits what was delivered, and waits for it.
    pub async fn commit(&mut self) -> Result<(), ConsumeError> {
        let group = self.group.clone().ok_or(ConsumeError::NoGroup)?;
        let offsets = self.positions.consumed();
        if offsets.is_empty() {
            return Ok(());
        }
        group.commit(self.generation(), offsets.clone(), self.config.connection.timeout).await?;
        self.committed = offsets;
        Ok(())
    }

    /// The number of partitions of a topic; `None` if it does not exist.
    pub async fn partition_count(&mut self, topic: &str) -> Result<Option<i32>, ConsumeError> {
        let response = self.network.metadata(Some(&[topic.to_owned()]), false).await?;
        if let Some((topic, code)) = self.view.update(&response).into_iter().next()
            && code != ErrorCode::UnknownTopicOrPartition
        {
            return Err(ConsumeError::Topic { topic, code });
        }
        Ok(self.view.partition_count(topic))
    }

    /// The offsets for a time in milliseconds, or for Kafka's -1 (latest), -2 (earliest) and so on, of all partitions of a
    /// topic; -1 where there is none. Asks once.
    pub async fn offsets(
        &mut self,
        topic: &str,
        timestamp: i64,
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConsumeError> {
        self.partition_count(topic).await?;
        let mut by_leader: BTreeMap<i32, Vec<(Asked, i64)>> = BTreeMap::new();
        let partitions = self.view.topic(topic).map(|view| view.partitions.clone()).unwrap_or_default();
        for (partition, told) in partitions {
            let leader = told.leader.ok_or(ClientError::Refused(ErrorCode::LeaderNotAvailable))?;
            let partition = TopicPartition::new(topic, partition);
            let asked = Asked { partition, serial: 0, offset: Offset(-1) };
            by_leader.entry(leader).or_default().push((asked, timestamp));
        }
        let mut found = BTreeMap::new();
        for (leader, asked) in by_leader {
            let listed = news::list_offsets(&self.network, leader, &asked, self.config.isolation_level).await?;
            for (asked, result) in listed {
                let offset = result.map_err(ClientError::Refused)?;
                found.insert(asked.partition, offset.unwrap_or(Offset(-1)));
            }
        }
        Ok(found)
    }

    /// Commits if it commits by itself, and leaves the group.
    pub async fn close(mut self) -> Result<(), ConsumeError> {
        let mut outcome = Ok(());
        if let Some(group) = self.group.clone() {
            if self.config.enable_auto_commit && self.positions.consumed() != self.committed {
                outcome = self.commit().await;
            }
            self.stop_heartbeat();
            group.leave().await;
        }
        outcome
    }

    fn generation(&self) -> Option<Membership> {
        match &self.membership.state {
            MemberState::Stable(membership) => Some(membership.clone()),
            MemberState::Outside | MemberState::Joining { .. } => None,
        }
    }

    /// Starts a commit of what was delivered, if it is time to.
    fn auto_commit(&mut self) {
        let Some(group) = self.group.clone().filter(|_| self.config.enable_auto_commit) else { return };
        let now = Instant::now();
        if *self.next_commit.get_or_insert(now + self.config.auto_commit_interval) > now {
            return;
        }
        self.next_commit = Some(now + self.config.auto_commit_interval);
        let is_member_or_assigned = self.generation().is_some() || matches!(self.subscription, Subscription::Assigned);
        let offsets = self.positions.consumed();
        if !is_member_or_assigned || offsets.is_empty() || offsets == self.committed {
            return;
        }
        self.committed = offsets.clone();
        let (generation, patience) = (self.generation(), self.config.auto_commit_interval);
        self.under_way.push(Box::pin(async move {
            // If it fails the next one includes it; if the group rebalances, that finds out by itself.
            News::Committed(group.commit(generation, offsets, patience).await)
        }));
    }

    /// Up to `max.poll.records` of what is buffered. What was revoked or sought away from is dropped.
    fn take_records(&mut self) -> Vec<ConsumerRecord> {
        let mut taken = Vec::new();
        while taken.len() < self.config.max_poll_records {
            let Some(front) = self.buffered.front_mut() else { break };
            if !self.positions.is_current(&front.asked) {
                self.buffered.pop_front();
                continue;
            }
            let count = front.records.len().min(self.config.max_poll_records - taken.len());
            taken.extend(front.records.drain(..count));
            let is_all = front.records.is_empty();
            let next_offset = front.records.front().map_or(front.next_offset, |record| record.offset);
            self.positions.on_delivered(&front.asked, next_offset, is_all);
            if is_all {
                self.buffered.pop_front();
            }
        }
        taken
    }

    fn on_signal(&mut self, signal: Signal) -> Result<(), ConsumeError> {
        match (signal, &self.membership.state) {
            (Signal::Fatal(code), _) => {
                let group = self.config.group_id.clone().unwrap_or_default();
                self.membership.state = MemberState::Outside;
                return Err(ConsumeError::Group { group, cause: ClientError::Refused(code) });
            }
            (Signal::Rejoin, MemberState::Stable(_)) => self.rejoin(),
            (Signal::JoinAnew, MemberState::Stable(_)) => {
                self.group.as_ref().expect("it joined by it").forget_member();
                self.membership.state = MemberState::Outside;
                self.stop_heartbeat();
                self.positions.assign([]);
            }
            // From before the join that is under way.
            (_, MemberState::Outside | MemberState::Joining { .. }) => {}
        }
        Ok(())
    }

    /// Commits, gives up all partitions, and joins again; the member goes on as whom it was.
    fn rejoin(&mut self) {
        let commit = self
            .generation()
            .filter(|_| self.config.enable_auto_commit)
            .map(|generation| (generation, self.positions.consumed()));
        self.start_join(commit.filter(|(_, offsets)| !offsets.is_empty()));
    }

    fn start_join(&mut self, commit: Option<(Membership, BTreeMap<TopicPartition, Offset>)>) {
        let group = self.group.clone().expect("checked when it subscribed");
        self.stop_heartbeat();
        self.positions.assign([]);
        self.buffered.clear();
        self.committed.clear();
        self.membership.state = MemberState::Joining { since: Instant::now() };
        let topics = self.wanted_topics();
        self.membership.topics.clone_from(&topics);
        let patience = self.config.max_poll_interval.min(self.config.connection.timeout);
        self.under_way.push(Box::pin(async move {
            if let Some((generation, offsets)) = commit {
                // Refused only if another member has the partitions already.
                let _ = group.commit(Some(generation), offsets, patience).await;
            }
            News::Joined(group.join(topics).await)
        }));
    }

    fn on_joined(&mut self, joined: Joined) {
        let MemberState::Joining { since } = self.membership.state else { return };
        self.rebalance_times.push(since.elapsed());
        let Joined { membership, assignment, watched } = joined;
        self.membership.state = MemberState::Stable(membership.clone());
        self.membership.watched = watched;
        self.positions.assign(assignment.into_iter().map(|partition| (partition, Start::Committed)));
        self.metadata.is_wanted = true;
        let group = self.group.clone().expect("it joined by it");
        let heartbeat =
            group.heartbeat(membership, self.started, Arc::clone(&self.last_poll), self.signal_sender.clone());
        self.membership.heartbeat = Some(task::spawn(heartbeat));
    }

    fn stop_heartbeat(&mut self) {
        if let Some(heartbeat) = self.membership.heartbeat.take() {
            heartbeat.abort();
        }
        // What it said is about a generation that is over.
        while self.signals.try_recv().is_ok() {}
    }

    /// The topics of the subscription that exist, as far as a pattern is concerned.
    fn wanted_topics(&self) -> Vec<String> {
        match &self.subscription {
            Subscription::None | Subscription::Assigned => vec![],
            Subscription::Topics(topics) => topics.iter().cloned().collect(),
            Subscription::Matching(matches) => {
                let is_hidden = |is_internal: bool| is_internal && self.config.exclude_internal_topics;
                let all = self.view.topics().filter(|(name, view)| matches(name) && !is_hidden(view.is_internal));
                all.map(|(name, _)| name.to_owned()).collect()
            }
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop_heartbeat();
    }
}
