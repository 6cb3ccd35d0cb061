//! A producer: records in, batches out to the partitions' leaders, outcomes back.
//!
//! Decisions are made by values that own no socket and no clock: [`partitioner`], [`step`], [`queue`], [`accumulator`].
//! [`sender`] is the task that carries them out. Order within a partition is always kept, also where Kafka's producer
//! would give it up (retries without idempotence).

mod accumulator;
mod config;
pub mod partitioner;
mod queue;
mod sender;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;
use vltava_host::{clock, random, task};
use vltava_protocol::batch::RecordHeader;
use vltava_protocol::compression::Compression;
use vltava_types::{ErrorCode, Offset, TimestampMs};

use crate::ClusterView;
use crate::network::Network;
use accumulator::Accumulator;
use partitioner::{StickyPartitions, partition_of_key};
use queue::{Completed, Millis, RecordFields};

pub use config::ProducerConfig;

/// A record to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerRecord {
    pub topic: String,
    /// Chosen by the key, or at will if there is none.
    pub partition: Option<i32>,
    /// Now, if not given.
    pub timestamp: Option<TimestampMs>,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<RecordHeader>,
}

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    pub partition: i32,
    /// `None` where the broker does not tell.
    pub offset: Option<Offset>,
    pub timestamp: TimestampMs,
}

/// A record that was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    #[error("topic {topic} not present in metadata after {after_ms} ms{}", why.map(|code| format!(" ({code})")).unwrap_or_default())]
    NoMetadata { topic: String, after_ms: u64, why: Option<ErrorCode> },
    #[error("invalid partition {partition} of topic {topic}, which has {count}")]
    NoSuchPartition { topic: String, partition: i32, count: i32 },
    #[error("the record is {size} bytes, which is more than max.request.size or buffer.memory, {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("failed to allocate {size} bytes within max.block.ms, {after_ms} ms")]
    BufferFull { size: usize, after_ms: u64 },
    /// It may have been written.
    #[error("{after_ms} ms have passed without an acknowledgement{}", last_refusal.map(|code| format!(" (last: {code})")).unwrap_or_default())]
    TimedOut { after_ms: u64, last_refusal: Option<ErrorCode> },
    /// It may have been written.
    #[error("no answer from the broker, and no retries are left")]
    NoAnswer,
    #[error("the broker answered {0}")]
    Refused(ErrorCode),
    #[error("the producer is closed")]
    Closed,
}

/// What the pure parts need of the settings.
#[derive(Clone, Debug)]
pub struct Rules {
    pub is_idempotent: bool,
    pub batch_size: usize,
    pub linger_ms: u64,
    pub delivery_timeout_ms: u64,
    pub retries: u32,
    pub retry_backoff_ms: u64,
    pub retry_backoff_max_ms: u64,
    /// Batches of one partition that may be without an answer.
    pub batches_in_flight: usize,
    /// Requests to one broker that may be without an answer.
    pub requests_in_flight: usize,
    pub max_request_size: usize,
    pub compression: Compression,
    pub compression_level: Option<i32>,
}

impl Rules {
    fn new(config: &ProducerConfig) -> Self {
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4);
        Self {
            is_idempotent: config.enable_idempotence,
            batch_size: config.batch_size,
            linger_ms: millis(config.linger),
            delivery_timeout_ms: millis(config.delivery_timeout),
            retries: config.retries,
            retry_backoff_ms: millis(config.retry_backoff),
            retry_backoff_max_ms: millis(config.retry_backoff_max),
            batches_in_flight: config.batches_in_flight_per_partition(),
            requests_in_flight: config.max_in_flight,
            max_request_size: config.max_request_size,
            compression: config.compression_type,
            compression_level: config.compression_level,
        }
    }
}

type Report = Box<dyn FnOnce(Result<RecordMetadata, ProduceError>) + Send>;

/// A record's way back to whoever sent it. Holds its share of the buffer memory.
struct Waiting {
    report: Report,
    partition: i32,
    timestamp: TimestampMs,
    generation: u64,
    _memory: OwnedSemaphorePermit,
}

/// Sends records. Clones share everything.
#[derive(Clone)]
pub struct Producer {
    shared: Arc<Shared>,
    /// The sender ends when the last clone is gone.
    _alive: watch::Receiver<()>,
}

struct Shared {
    config: ProducerConfig,
    network: Network,
    started: Instant,
    pending: Mutex<Pending>,
    topics: Mutex<Topics>,
    /// Raised whenever something about topics was learnt.
    topics_learnt: watch::Sender<u64>,
    /// Wakes the sender.
    wake: Notify,
    memory: Arc<Semaphore>,
    /// Callers that wait for memory: batches do not linger while there are any.
    starved: AtomicUsize,
    /// Raised whenever the records of some generation are all done.
    finished: watch::Sender<u64>,
}

struct Pending {
    accumulator: Accumulator<Waiting>,
    generations: Generations,
    is_closed: bool,
}

/// Records without an outcome, counted by the flush that they came before.
#[derive(Debug, Default)]
struct Generations {
    current: u64,
    unfinished: BTreeMap<u64, usize>,
}

impl Generations {
    fn begin_record(&mut self) -> u64 {
        *self.unfinished.entry(self.current).or_default() += 1;
        self.current
    }

    /// Returns whether this was the generation's last record.
    fn end_record(&mut self, generation: u64) -> bool {
        let count = self.unfinished.get_mut(&generation).expect("a record ends once");
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.unfinished.remove(&generation);
        }
        is_last
    }

    fn is_finished(&self, up_to: u64) -> bool {
        self.unfinished.range(..=up_to).next().is_none()
    }
}

#[derive(Default)]
struct Topics {
    view: ClusterView,
    refused: BTreeMap<String, ErrorCode>,
    /// Those that records were sent to, and so to be kept up to date.
    used: BTreeSet<String>,
    sticky: StickyPartitions,
}

impl Producer {
    /// Starts a producer. Nothing is asked of the cluster before the first record.
    #[must_use]
    pub fn new(config: ProducerConfig) -> Self {
        let memory = config.buffer_memory.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let shared = Arc::new(Shared {
            network: Network::new(&config.bootstrap_servers, config.connection.clone()),
            started: Instant::now(),
            pending: Mutex::new(Pending {
                accumulator: Accumulator::new(Rules::new(&config)),
                generations: Generations::default(),
                is_closed: false,
            }),
            topics: Mutex::default(),
            topics_learnt: watch::Sender::new(0),
            wake: Notify::new(),
            memory: Arc::new(Semaphore::new(memory)),
            starved: AtomicUsize::new(0),
            finished: watch::Sender::new(0),
            config,
        });
        let (owner, alive) = watch::channel(());
        task::spawn(sender::run(Arc::clone(&shared), owner));
        Self { shared, _alive: alive }
    }

    /// Takes a record in, as soon as its topic is known and there is memory for it; `report` is called once, when its
    /// outcome is known. An error means that the record was not taken in, and then `report` is not called.
    pub async fn produce(
        &self,
        record: ProducerRecord,
        report: impl FnOnce(Result<RecordMetadata, ProduceError>) + Send + 'static,
    ) -> Result<(), ProduceError> {
        let shared = &self.shared;
        let timestamp = record.timestamp.unwrap_or_else(clock::now);
        let ProducerRecord { topic, partition, key, value, headers, .. } = record;
        let fields = RecordFields { timestamp, key: key.as_deref(), value: value.as_deref(), headers: &headers };
        let size = fields.size_bound();
        let limit = shared.config.max_request_size.min(shared.config.buffer_memory);
        if size > limit {
            return Err(ProduceError::TooLarge { size, limit });
        }
        let deadline = Instant::now() + shared.config.max_block;
        let partition = self.choose_partition(&topic, partition, key.as_deref(), size, deadline).await?;
        let memory = self.reserve(size, deadline).await?;
        let news = {
            let mut pending = shared.pending.lock();
            if pending.is_closed {
                return Err(ProduceError::Closed);
            }
            let generation = pending.generations.begin_record();
            let waiting = Waiting { report: Box::new(report), partition, timestamp, generation, _memory: memory };
            pending.accumulator.append((topic, partition), &fields, waiting, shared.now())
        };
        if news {
            shared.wake.notify_one();
        }
        Ok(())
    }

    /// As [`Producer::produce`], with the outcome as a future.
    pub async fn send(
        &self,
        record: ProducerRecord,
    ) -> Result<impl Future<Output = Result<RecordMetadata, ProduceError>> + use<>, ProduceError> {
        let (report, outcome) = oneshot::channel();
        self.produce(record, move |result| {
            // Who does not care has dropped the future.
            let _ = report.send(result);
        })
        .await?;
        Ok(async move { outcome.await.unwrap_or(Err(ProduceError::Closed)) })
    }

    /// Waits until every record taken in before has its outcome. Batches do not linger meanwhile.
    pub async fn flush(&self) {
        let mut finished = self.shared.finished.subscribe();
        let generation = {
            let mut pending = self.shared.pending.lock();
            pending.accumulator.make_urgent();
            pending.generations.current += 1;
            pending.generations.current - 1
        };
        self.shared.wake.notify_one();
        while !self.shared.pending.lock().generations.is_finished(generation) {
            if finished.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes in no more records, and waits until those taken in have their outcome or `timeout` is over; what is left
    /// then fails.
    pub async fn close(&self, timeout: std::time::Duration) {
        self.shared.pending.lock().is_closed = true;
        if tokio::time::timeout(timeout, self.flush()).await.is_err() {
            let completed = self.shared.pending.lock().accumulator.abort(&ProduceError::Closed);
            self.shared.report(completed);
        }
    }

    /// The number of the topic's partitions; asks the cluster if needed, at most `max.block.ms` long.
    pub async fn partition_count(&self, topic: &str) -> Result<i32, ProduceError> {
        let deadline = Instant::now() + self.shared.config.max_block;
        self.with_topic(topic, deadline, |view, _| view.partitions.len() as i32).await
    }

    async fn choose_partition(
        &self,
        topic: &str,
        asked_for: Option<i32>,
        key: Option<&[u8]>,
        size: usize,
        deadline: Instant,
    ) -> Result<i32, ProduceError> {
        let config = &self.shared.config;
        self.with_topic(topic, deadline, |view, sticky| {
            let count = view.partitions.len() as i32;
            match (asked_for, key) {
                (Some(partition), _) if (0..count).contains(&partition) => Ok(partition),
                (Some(partition), _) => {
                    Err(ProduceError::NoSuchPartition { topic: topic.to_owned(), partition, count })
                }
                (None, Some(key)) if !config.partitioner_ignore_keys => Ok(partition_of_key(key, count)),
                (None, _) => {
                    let chosen = sticky.next(topic, view, size, config.batch_size, random::u64);
                    Ok(chosen.expect("a known topic has partitions"))
                }
            }
        })
        .await?
    }

    /// Looks at a topic once it is known.
    async fn with_topic<R>(
        &self,
        topic: &str,
        deadline: Instant,
        look: impl Fn(&crate::TopicView, &mut StickyPartitions) -> R,
    ) -> Result<R, ProduceError> {
        let shared = &self.shared;
        let mut learnt = None;
        loop {
            let why = {
                let mut topics = shared.topics.lock();
                let topics = &mut *topics;
                if let Some(view) = topics.view.topic(topic).filter(|view| !view.partitions.is_empty()) {
                    return Ok(look(view, &mut topics.sticky));
                }
                topics.used.insert(topic.to_owned());
                let why = topics.refused.get(topic).copied();
                if let Some(code) = why.filter(|code| !crate::error::is_retriable(*code)) {
                    return Err(ProduceError::Refused(code));
                }
                why
            };
            // Subscribed before the second look, so that no news falls between.
            let Some(news) = &mut learnt else {
                learnt = Some(shared.topics_learnt.subscribe());
                shared.wake.notify_one();
                continue;
            };
            let waited = tokio::time::timeout_at(deadline, news.changed()).await;
            if !matches!(waited, Ok(Ok(()))) {
                let after_ms = u64::try_from(shared.config.max_block.as_millis()).unwrap_or(u64::MAX);
                return Err(ProduceError::NoMetadata { topic: topic.to_owned(), after_ms, why });
            }
        }
    }

    async fn reserve(&self, size: usize, deadline: Instant) -> Result<OwnedSemaphorePermit, ProduceError> {
        let shared = &self.shared;
        let permits = u32::try_from(size).expect("compared with buffer.memory before");
        if let Ok(memory) = Arc::clone(&shared.memory).try_acquire_many_owned(permits) {
            return Ok(memory);
        }
        let _starving = Starving::new(shared);
        let acquired = tokio::time::timeout_at(deadline, Arc::clone(&shared.memory).acquire_many_owned(permits)).await;
        match acquired {
            Ok(memory) => Ok(memory.expect("the semaphore is never closed")),
            Err(_) => {
                let after_ms = u64::try_from(shared.config.max_block.as_millis()).unwrap_or(u64::MAX);
                Err(ProduceError::BufferFull { size, after_ms })
            }
        }
    }
}

/// Counts a caller that waits for memory, also one that gives up waiting.
struct Starving<'a>(&'a Shared);

impl<'a> Starving<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.starved.fetch_add(1, Ordering::Relaxed);
        shared.wake.notify_one();
        Self(shared)
    }
}

impl Drop for Starving<'_> {
    fn drop(&mut self) {
        self.0.starved.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).expect("a process ends before its milliseconds do")
    }

    /// Tells outcomes to those who wait for them. Not to be called with a lock held: reports are foreign code.
    fn report(&self, completed: impl IntoIterator<Item = Completed<Waiting>>) {
        let mut generations = Vec::new();
        for Completed { waiting, result } in completed {
            for (index, waiting) in waiting.into_iter().enumerate() {
                let result = result.clone().map(|written| RecordMetadata {
                    partition: waiting.partition,
                    offset: written.base_offset.map(|base| Offset(base.0 + index as i64)),
                    timestamp: if written.log_append_time == TimestampMs::NONE {
                        waiting.timestamp
                    } else {
                        written.log_append_time
                    },
                });
                (waiting.report)(result);
                generations.push(waiting.generation);
            }
        }
        if generations.is_empty() {
            return;
        }
        let mut is_some_finished = false;
        {
            let mut pending = self.pending.lock();
            for generation in generations {
                is_some_finished |= pending.generations.end_record(generation);
            }
        }
        if is_some_finished {
            self.finished.send_modify(|count| *count += 1);
        }
    }
}
