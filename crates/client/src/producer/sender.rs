//! The task that carries out what the accumulator decides: requests out, answers in, metadata kept fresh.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_protocol::make;
use vltava_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use vltava_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, MetadataResponse, ProduceRequest, ProduceResponse,
};
use vltava_types::{ErrorCode, Offset, ProducerEpoch, ProducerId, TimestampMs};

use super::accumulator::{Request, TopicPartition, Work};
use super::queue::{Attempt, Identity};
use super::step::{Outcome, Written};
use super::{ProduceError, Shared};
use crate::ClientError;
use crate::error::check;
use crate::network::Purpose;

/// The newest versions in which topics go by name, and without transactions.
const PRODUCE_VERSION: i16 = 9;
const INIT_PRODUCER_ID_VERSION: i16 = 4;

/// A request without an answer for so long is a reason to ask whether its broker is still the leader. It may be cut off
/// without knowing.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

type Event = Pin<Box<dyn Future<Output = News> + Send>>;

enum News {
    Produced { broker: i32, sent: Vec<(TopicPartition, Attempt)>, answer: Result<ProduceResponse, ClientError> },
    Metadata(Result<MetadataResponse, ClientError>),
    Identity(Result<InitProducerIdResponse, ClientError>),
}

/// Runs until the last producer handle is gone.
pub(super) async fn run(shared: Arc<Shared>, owners: watch::Sender<()>) {
    let mut sender = Sender {
        metadata: Errand::new(shared.config.retry_backoff),
        identity: Errand::new(shared.config.retry_backoff),
        metadata_at: None,
        unanswered: BTreeMap::new(),
        doubted_at: None,
        under_way: FuturesUnordered::new(),
        shared,
    };
    loop {
        let next = sender.step();
        tokio::select! {
            biased;
            () = owners.closed() => break,
            Some(news) = sender.under_way.next() => sender.take(news),
            () = sender.shared.wake.notified() => {}
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
    let completed = sender.shared.pending.lock().accumulator.abort(&ProduceError::Closed);
    sender.shared.report(completed);
}

struct Sender {
    shared: Arc<Shared>,
    under_way: FuturesUnordered<Event>,
    metadata: Errand,
    identity: Errand,
    /// When the last answer about topics came.
    metadata_at: Option<Instant>,
    /// When each broker was sent the requests that it has not answered, oldest first.
    unanswered: BTreeMap<i32, VecDeque<Instant>>,
    /// When the leaders were last asked for because of one of these.
    doubted_at: Option<Instant>,
}

/// A question to any broker: one at a time, and not again at once.
struct Errand {
    is_under_way: bool,
    is_wanted: bool,
    not_before: Instant,
    backoff: Duration,
}

impl Errand {
    fn new(backoff: Duration) -> Self {
        Self { is_under_way: false, is_wanted: false, not_before: Instant::now(), backoff }
    }

    /// Whether to ask now.
    fn begin(&mut self) -> bool {
        let begin = self.is_wanted && !self.is_under_way && self.not_before <= Instant::now();
        if begin {
            self.is_wanted = false;
            self.is_under_way = true;
        }
        begin
    }

    fn end(&mut self) {
        self.is_under_way = false;
        self.not_before = Instant::now() + self.backoff;
    }

    fn next_event(&self) -> Option<Instant> {
        (self.is_wanted && !self.is_under_way).then_some(self.not_before)
    }
}

impl Sender {
    /// Does what is to be done now; returns when to look again.
    fn step(&mut self) -> Option<Instant> {
        let shared = Arc::clone(&self.shared);
        let hurry = shared.starved.load(Ordering::Relaxed) > 0;
        let now = shared.now();
        let (Work { requests, needs_metadata, needs_identity, next_event }, completed) = {
            let topics = shared.topics.lock();
            let mut pending = shared.pending.lock();
            let hurry = hurry || pending.is_closed;
            pending.accumulator.work(&topics.view, hurry, now)
        };
        shared.report(completed);
        for request in requests {
            self.dispatch(request);
        }
        let has_unknown_topics = {
            let topics = shared.topics.lock();
            topics.used.iter().any(|topic| topics.view.topic(topic).is_none_or(|view| view.partitions.is_empty()))
        };
        let is_stale = self.metadata_at.is_some_and(|at| at + shared.config.metadata_max_age <= Instant::now());
        if self.doubt_at().is_some_and(|at| at <= Instant::now()) {
            self.doubted_at = Some(Instant::now());
            self.metadata.is_wanted = true;
        }
        self.metadata.is_wanted |= needs_metadata || has_unknown_topics || is_stale;
        let stale_at = self.metadata_at.map(|at| at + shared.config.metadata_max_age);
        self.identity.is_wanted |= needs_identity;
        self.run_errands();
        let events = [
            next_event.map(|at| shared.started + Duration::from_millis(at)),
            self.metadata.next_event(),
            self.identity.next_event(),
            self.doubt_at(),
            // Once it has passed, what matters is when the question may be asked again.
            stale_at.filter(|_| !is_stale),
        ];
        events.into_iter().flatten().min()
    }

    /// When the oldest unanswered request is a reason to ask who leads.
    fn doubt_at(&self) -> Option<Instant> {
        let oldest = self.unanswered.values().filter_map(VecDeque::front).min()?;
        let since = self.doubted_at.map_or(*oldest, |doubted| doubted.max(*oldest));
        Some(since + DOUBT_AFTER)
    }

    fn run_errands(&mut self) {
        if self.metadata.begin() {
            let network = self.shared.network.clone();
            let topics: Vec<String> = self.shared.topics.lock().used.iter().cloned().collect();
            self.under_way.push(Box::pin(async move { News::Metadata(network.metadata(Some(&topics), true).await) }));
        }
        if self.identity.begin() {
            let network = self.shared.network.clone();
            let request = make!(InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: 60_000,
                producer_id: -1,
                producer_epoch: -1,
            });
            self.under_way.push(Box::pin(async move {
                News::Identity(network.call_any(INIT_PRODUCER_ID_VERSION, &request).await)
            }));
        }
    }

    fn dispatch(&mut self, request: Request) {
        let Request { broker, batches } = request;
        let mut topic_data: Vec<TopicProduceData> = Vec::new();
        let mut sent = Vec::with_capacity(batches.len());
        for ((topic, partition), to_send) in batches {
            let data = make!(PartitionProduceData { index: partition, records: Some(to_send.bytes) });
            match topic_data.iter_mut().find(|data| data.name.as_str() == topic) {
                Some(of_topic) => of_topic.partition_data.push(data),
                None => {
                    topic_data
                        .push(make!(TopicProduceData { name: topic.as_str().into(), partition_data: vec![data] }));
                }
            }
            sent.push(((topic, partition), to_send.attempt));
        }
        let config = &self.shared.config;
        let timeout = config.connection.timeout;
        let request = make!(ProduceRequest {
            acks: config.acks,
            timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data,
        });
        let network = &self.shared.network;
        if config.acks == 0 {
            let answer = network.submit_unanswered(broker, PRODUCE_VERSION, &request);
            self.under_way.push(Box::pin(async move {
                // What went out is written as far as anybody will ever know.
                let answer = match answer {
                    Ok(went_out) => went_out.await.map_err(|_| ClientError::Closed),
                    Err(error) => Err(error),
                };
                News::Produced { broker, sent, answer: answer.map(|()| ProduceResponse::default()) }
            }));
            return;
        }
        let answer = network.submit(broker, Purpose::Data, PRODUCE_VERSION, &request, timeout);
        self.unanswered.entry(broker).or_default().push_back(Instant::now());
        self.under_way.push(Box::pin(async move {
            let answer = match answer {
                Ok(answer) => answer.receive().await,
                Err(error) => Err(error),
            };
            News::Produced { broker, sent, answer }
        }));
    }

    fn take(&mut self, news: News) {
        match news {
            News::Produced { broker, sent, answer } => self.on_produced(broker, sent, answer),
            News::Metadata(answer) => self.on_metadata(answer),
            News::Identity(answer) => {
                self.identity.end();
                let answer = answer.and_then(|response| check(response.error_code).map(|()| response));
                match answer {
                    Ok(response) => {
                        let id = ProducerId(response.producer_id);
                        let epoch = ProducerEpoch(response.producer_epoch);
                        self.shared.pending.lock().accumulator.set_identity(Identity { id, epoch });
                    }
                    Err(error) => {
                        self.shared.network.ask_another();
                        if let ClientError::Refused(code) = error
                            && !error.is_retriable()
                        {
                            let refused = ProduceError::Refused(code);
                            let completed = self.shared.pending.lock().accumulator.abort(&refused);
                            self.shared.report(completed);
                        }
                    }
                }
            }
        }
    }

    fn on_produced(
        &mut self,
        broker: i32,
        sent: Vec<(TopicPartition, Attempt)>,
        answer: Result<ProduceResponse, ClientError>,
    ) {
        let acks = self.shared.config.acks;
        let now = self.shared.now();
        let mut completed = Vec::new();
        {
            let mut pending = self.shared.pending.lock();
            pending.accumulator.request_ended(broker);
            for (partition, attempt) in sent {
                let outcome = match &answer {
                    Ok(_) if acks == 0 => {
                        Outcome::Written(Written { base_offset: None, log_append_time: TimestampMs::NONE })
                    }
                    Ok(response) => outcome_of(response, &partition),
                    Err(_) => Outcome::Unanswered,
                };
                self.metadata.is_wanted |= !matches!(outcome, Outcome::Written(_));
                completed.extend(pending.accumulator.on_outcome(&partition, attempt, outcome, now));
            }
        }
        // Answers come in the order of the requests.
        self.unanswered.get_mut(&broker).and_then(VecDeque::pop_front);
        if answer.is_err() {
            self.shared.network.ask_another();
        }
        self.shared.report(completed);
    }

    fn on_metadata(&mut self, answer: Result<MetadataResponse, ClientError>) {
        self.metadata.end();
        match answer {
            Ok(response) => {
                self.metadata_at = Some(Instant::now());
                let mut topics = self.shared.topics.lock();
                let before = topics.view.clone();
                topics.refused = topics.view.update(&response);
                if !topics.refused.is_empty() {
                    self.shared.network.ask_another();
                }
                self.shared.pending.lock().accumulator.on_metadata(&before, &topics.view);
            }
            // The next question goes to another broker.
            Err(_) => self.metadata.is_wanted = true,
        }
        self.shared.topics_learnt.send_modify(|count| *count += 1);
    }
}

fn outcome_of(response: &ProduceResponse, partition: &TopicPartition) -> Outcome {
    let of_topic = response.responses.iter().filter(|topic| topic.name.as_str() == partition.0);
    let told = of_topic.flat_map(|topic| &topic.partition_responses).find(|told| told.index == partition.1);
    let Some(told) = told else { return Outcome::Unanswered };
    match ErrorCode::from_code(told.error_code) {
        Some(ErrorCode::None) => Outcome::Written(Written {
            base_offset: (told.base_offset >= 0).then_some(Offset(told.base_offset)),
            log_append_time: TimestampMs(told.log_append_time_ms),
        }),
        Some(code) => Outcome::Refused(code),
        None => Outcome::Refused(ErrorCode::UnknownServerError),
    }
}
