//! What a consumer starts, and what it does with what comes back.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use vltava_protocol::make;
use vltava_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use vltava_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use vltava_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, MetadataResponse};
use vltava_types::{ErrorCode, Offset};

use super::decode::{Aborted, decode};
use super::group::Joined;
use super::positions::{Asked, Trouble};
use super::{Buffered, ConsumeError, Consumer, IsolationLevel, MemberState, Subscription, TopicPartition};
use crate::ClientError;
use crate::network::{Network, Purpose};

/// The newest versions in which topics go by name.
const FETCH_VERSION: i16 = 12;
const LIST_OFFSETS_VERSION: i16 = 7;

/// An unanswered fetch is a reason to ask who leads once it is so much later than its own time limit.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

pub(super) type Event = Pin<Box<dyn Future<Output = News> + Send>>;

type Listed = Vec<(Asked, Result<Option<Offset>, ErrorCode>)>;

pub(super) enum News {
    Metadata(Result<MetadataResponse, ClientError>),
    Joined(Result<Joined, ConsumeError>),
    Committed(Result<(), ConsumeError>),
    CommittedOffsets(Vec<Asked>, Result<BTreeMap<TopicPartition, Offset>, ConsumeError>),
    Listed(Vec<(Asked, i64)>, Result<Listed, ClientError>),
    Fetched(i32, Vec<Asked>, Result<FetchResponse, ClientError>),
}

impl Consumer {
    /// Starts whatever is to be started now.
    pub(super) fn step(&mut self) {
        let now = Instant::now();
        let max_age = self.config.metadata_max_age;
        self.metadata.is_wanted |= self.metadata.answered_at.is_some_and(|at| at + max_age <= now);
        if self.doubt_at().is_some_and(|at| at <= now) {
            self.metadata.is_wanted = true;
        }
        self.start_metadata();
        if self.is_subscribed() && self.membership.state == MemberState::Outside && self.metadata.answered_at.is_some()
        {
            self.start_join(None);
        }
        if now < self.not_before {
            return;
        }
        if let Some(group) = self.group.clone() {
            let asked = self.positions.take_committed_lookups();
            if !asked.is_empty() {
                self.under_way.push(Box::pin(async move {
                    let partitions: Vec<_> = asked.iter().map(|asked| asked.partition.clone()).collect();
                    let committed = group.committed(&partitions).await;
                    News::CommittedOffsets(asked, committed)
                }));
            }
        } else {
            // Without a group nothing is committed.
            for asked in self.positions.take_committed_lookups() {
                let _ = self.positions.on_found(&asked, None);
            }
        }
        let (lookups, lacks_leader) = self.positions.take_leader_lookups(&self.view);
        self.metadata.is_wanted |= lacks_leader;
        for (broker, asked) in lookups {
            let network = self.network.clone();
            let isolation_level = self.config.isolation_level;
            self.under_way.push(Box::pin(async move {
                let listed = list_offsets(&network, broker, &asked, isolation_level).await;
                News::Listed(asked, listed)
            }));
        }
        self.start_fetches();
    }

    /// When time alone changes what there is to do.
    pub(super) fn next_event(&self) -> Option<Instant> {
        let now = Instant::now();
        let events = [
            self.metadata.answered_at.map(|at| at + self.config.metadata_max_age),
            self.metadata_not_before().filter(|_| self.metadata.is_wanted && !self.metadata.is_under_way),
            self.doubt_at(),
            Some(self.not_before),
        ];
        events.into_iter().flatten().filter(|at| now < *at).min()
    }

    pub(super) fn start_fetches(&mut self) {
        if Instant::now() < self.not_before {
            return;
        }
        let fetching = &self.fetching;
        let (fetches, lacks_leader) = self.positions.take_fetches(&self.view, |broker| !fetching.contains_key(&broker));
        self.metadata.is_wanted |= lacks_leader;
        for (broker, asked) in fetches {
            let request = self.fetch_request(&asked);
            let patience = self.config.fetch_max_wait + self.config.connection.timeout;
            let answer = self.network.submit(broker, Purpose::Fetch, FETCH_VERSION, &request, patience);
            self.fetching.insert(broker, Instant::now());
            self.under_way.push(Box::pin(async move {
                let answer = match answer {
                    Ok(answer) => answer.receive().await,
                    Err(error) => Err(error),
                };
                News::Fetched(broker, asked, answer)
            }));
        }
    }

    pub(super) fn take(&mut self, news: News) -> Result<(), ConsumeError> {
        match news {
            News::Metadata(answer) => self.on_metadata(answer),
            News::Joined(Ok(joined)) => {
                self.on_joined(joined);
                Ok(())
            }
            News::Joined(Err(error)) => {
                self.membership.state = MemberState::Outside;
                Err(error)
            }
            News::Committed(outcome) => {
                if outcome.is_err() {
                    self.committed.clear();
                }
                Ok(())
            }
            News::CommittedOffsets(asked, Ok(committed)) => asked.iter().try_for_each(|asked| {
                let outcome = self.positions.on_found(asked, committed.get(&asked.partition).copied());
                self.after(&asked.partition, outcome)
            }),
            News::CommittedOffsets(asked, Err(error)) => {
                asked.iter().for_each(|asked| self.positions.on_unanswered(asked));
                // A member that lost its place finds out by its heartbeats.
                if self.generation().is_some() { Ok(()) } else { Err(error) }
            }
            News::Listed(_, Ok(listed)) => listed.into_iter().try_for_each(|(asked, result)| {
                let outcome = match result {
                    Ok(offset) => self.positions.on_found(&asked, offset),
                    Err(code) => Err(self.positions.on_refused(&asked, code)),
                };
                self.after(&asked.partition, outcome)
            }),
            News::Listed(asked, Err(_)) => {
                asked.iter().for_each(|(asked, _)| self.positions.on_unanswered(asked));
                self.ask_for_leaders();
                Ok(())
            }
            News::Fetched(broker, asked, answer) => self.on_fetched(broker, &asked, answer),
        }
    }

    fn on_fetched(
        &mut self,
        broker: i32,
        asked: &[Asked],
        answer: Result<FetchResponse, ClientError>,
    ) -> Result<(), ConsumeError> {
        self.fetching.remove(&broker);
        let response = match answer.and_then(|response| crate::error::check(response.error_code).map(|()| response)) {
            Ok(response) => response,
            Err(_) => {
                asked.iter().for_each(|asked| self.positions.on_unanswered(asked));
                self.network.ask_another();
                self.ask_for_leaders();
                return Ok(());
            }
        };
        for topic in response.responses {
            let name: Arc<str> = topic.topic.as_str().into();
            for data in topic.partitions {
                let is_it = |asked: &&Asked| {
                    asked.partition.partition == data.partition_index && *asked.partition.topic == *name
                };
                let Some(asked) = asked.iter().find(is_it) else { continue };
                if data.error_code != ErrorCode::None.code() {
                    let code = ErrorCode::from_code(data.error_code).unwrap_or(ErrorCode::UnknownServerError);
                    let trouble = self.positions.on_refused(asked, code);
                    self.after(&asked.partition, Err(trouble))?;
                    continue;
                }
                let aborted = data.aborted_transactions.unwrap_or_default().into_iter();
                let aborted =
                    aborted.map(|a| Aborted { producer_id: a.producer_id, first_offset: a.first_offset }).collect();
                let bytes = data.records.unwrap_or_default();
                let level = self.config.isolation_level;
                let decoded =
                    decode(&name, data.partition_index, &bytes, asked.offset, level, aborted).map_err(|error| {
                        ConsumeError::BadData { partition: asked.partition.clone(), cause: error.into() }
                    })?;
                let next_offset = decoded.next_offset.map_or(asked.offset, |next| next.max(asked.offset));
                if self.positions.on_fetched(asked, !decoded.records.is_empty(), next_offset)
                    && !decoded.records.is_empty()
                {
                    self.buffered.push_back(Buffered {
                        asked: asked.clone(),
                        records: decoded.records.into(),
                        next_offset,
                    });
                }
            }
        }
        // A partition that the answer leaves out is asked for again.
        asked.iter().for_each(|asked| self.positions.on_unanswered(asked));
        Ok(())
    }

    fn on_metadata(&mut self, answer: Result<MetadataResponse, ClientError>) -> Result<(), ConsumeError> {
        self.metadata.is_under_way = false;
        let Ok(response) = answer else {
            self.metadata.is_wanted = true;
            return Ok(());
        };
        self.metadata.answered_at = Some(Instant::now());
        for (topic, code) in self.view.update(&response) {
            match code {
                ErrorCode::InvalidTopicException | ErrorCode::TopicAuthorizationFailed => {
                    return Err(ConsumeError::Topic { topic, code });
                }
                _ => self.metadata.is_wanted = true,
            }
        }
        self.positions.on_metadata(&self.view);
        if matches!(self.membership.state, MemberState::Stable(_)) {
            let is_grown = self.membership.watched.as_ref().is_some_and(|watched| {
                let is_other = |(topic, count): (&String, &i32)| self.view.partition_count(topic) != Some(*count);
                watched.iter().any(is_other)
                    || self
                        .membership
                        .topics
                        .iter()
                        .any(|topic| !watched.contains_key(topic) && self.view.partition_count(topic).is_some())
            });
            if is_grown || self.wanted_topics() != self.membership.topics {
                self.rejoin();
            }
        }
        Ok(())
    }

    fn after(&mut self, partition: &TopicPartition, outcome: Result<(), Trouble>) -> Result<(), ConsumeError> {
        match outcome {
            Ok(()) | Err(Trouble::Reset) => Ok(()),
            Err(Trouble::AskForLeader) => {
                self.ask_for_leaders();
                Ok(())
            }
            Err(Trouble::NoOffset(partition)) => Err(ConsumeError::NoOffset(partition)),
            Err(Trouble::Fatal(code)) => Err(ConsumeError::Partition { partition: partition.clone(), code }),
        }
    }

    /// The leaders may be others, and whoever was asked is left in peace for a moment.
    fn ask_for_leaders(&mut self) {
        self.metadata.is_wanted = true;
        self.not_before = Instant::now() + self.config.retry_backoff;
    }

    fn is_subscribed(&self) -> bool {
        matches!(self.subscription, Subscription::Topics(_) | Subscription::Matching(_))
    }

    fn metadata_not_before(&self) -> Option<Instant> {
        self.metadata.asked_at.map(|at| at + self.config.retry_backoff)
    }

    fn start_metadata(&mut self) {
        let is_early = self.metadata_not_before().is_some_and(|at| Instant::now() < at);
        if !self.metadata.is_wanted || self.metadata.is_under_way || is_early {
            return;
        }
        let topics: Option<Vec<String>> = match &self.subscription {
            Subscription::Matching(_) => None,
            Subscription::None | Subscription::Assigned | Subscription::Topics(_) => {
                let mut topics = self.wanted_topics();
                topics.extend(self.positions.assignment().map(|partition| partition.topic.clone()));
                topics.extend(self.membership.watched.iter().flat_map(|watched| watched.keys().cloned()));
                topics.sort();
                topics.dedup();
                Some(topics)
            }
        };
        self.metadata.is_wanted = false;
        self.metadata.is_under_way = true;
        self.metadata.asked_at = Some(Instant::now());
        let network = self.network.clone();
        let create = self.config.allow_auto_create_topics;
        self.under_way.push(Box::pin(async move { News::Metadata(network.metadata(topics.as_deref(), create).await) }));
    }

    /// When the oldest fetch is late enough to ask whether its broker still leads.
    fn doubt_at(&self) -> Option<Instant> {
        let late = self.config.fetch_max_wait + DOUBT_AFTER;
        let oldest = self.fetching.values().min().map(|since| *since + late)?;
        Some(self.metadata.asked_at.map_or(oldest, |asked| oldest.max(asked + DOUBT_AFTER)))
    }

    fn fetch_request(&self, asked: &[Asked]) -> FetchRequest {
        let mut topics: Vec<FetchTopic> = Vec::new();
        for Asked { partition: TopicPartition { topic, partition }, offset, .. } in asked {
            let epoch = self.view.partition(topic, *partition).map_or(-1, |view| view.leader_epoch.0);
            let wanted = make!(FetchPartition {
                partition: *partition,
                current_leader_epoch: epoch,
                fetch_offset: offset.0,
                partition_max_bytes: self.config.max_partition_fetch_bytes,
            });
            match topics.last_mut().filter(|of_topic| of_topic.topic.as_str() == topic) {
                Some(of_topic) => of_topic.partitions.push(wanted),
                None => topics.push(make!(FetchTopic { topic: topic.as_str().into(), partitions: vec![wanted] })),
            }
        }
        make!(FetchRequest {
            replica_id: -1,
            max_wait_ms: i32::try_from(self.config.fetch_max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: self.config.fetch_min_bytes,
            max_bytes: self.config.fetch_max_bytes,
            isolation_level: isolation_code(self.config.isolation_level),
            session_epoch: -1,
            topics,
        })
    }
}

/// Asks a leader; `None` where it knows no such offset.
pub(super) async fn list_offsets(
    network: &Network,
    leader: i32,
    asked: &[(Asked, i64)],
    isolation_level: IsolationLevel,
) -> Result<Listed, ClientError> {
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for (asked, timestamp) in asked {
        let TopicPartition { topic, partition } = &asked.partition;
        let wanted = make!(ListOffsetsPartition { partition_index: *partition, timestamp: *timestamp });
        match topics.last_mut().filter(|of_topic| of_topic.name.as_str() == topic) {
            Some(of_topic) => of_topic.partitions.push(wanted),
            None => topics.push(make!(ListOffsetsTopic { name: topic.as_str().into(), partitions: vec![wanted] })),
        }
    }
    let request =
        make!(ListOffsetsRequest { replica_id: -1, isolation_level: isolation_code(isolation_level), topics });
    let response = network.call(leader, Purpose::Data, LIST_OFFSETS_VERSION, &request).await?;
    let mut listed = Vec::new();
    for (asked, _) in asked {
        let TopicPartition { topic, partition } = &asked.partition;
        let of_topic = response.topics.iter().filter(|told| told.name.as_str() == topic);
        let told = of_topic.flat_map(|told| &told.partitions).find(|told| told.partition_index == *partition);
        let told = told.ok_or(ClientError::Incomplete)?;
        let result = match ErrorCode::from_code(told.error_code) {
            Some(ErrorCode::None) => Ok((told.offset >= 0).then_some(Offset(told.offset))),
            code => Err(code.unwrap_or(ErrorCode::UnknownServerError)),
        };
        listed.push((asked.clone(), result));
    }
    Ok(listed)
}

const fn isolation_code(level: IsolationLevel) -> i8 {
    match level {
        IsolationLevel::ReadUncommitted => 0,
        IsolationLevel::ReadCommitted => 1,
    }
}
