//! Administration: requests that are tried again within one time limit, and sent to whom they concern.
//!
//! Answers are given as they came where each item has an outcome of its own; what failed as a whole is an error. There is
//! one file for each subject.

mod cluster;
mod groups;
mod offsets;
mod topics;

pub use cluster::{ConfigChange, ConfigResourceType, ElectionType};
pub use groups::{BrokerAddress, Committed};
pub use offsets::{
    ByPartition, EARLIEST, EARLIEST_LOCAL, EARLIEST_PENDING_UPLOAD, LATEST, LATEST_TIERED, MAX_TIMESTAMP,
};

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use vltava_protocol::messages::{RequestResponsePair, StrBytes};
use vltava_types::ErrorCode;

use crate::{Client, ClientError, Options};

/// Between the first attempts; doubled from one to the next, up to `MAX_BACKOFF`.
const MIN_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// With less time than this there is no other attempt.
const MIN_ATTEMPT: Duration = Duration::from_millis(100);

/// What a broker answered about one thing instead of doing it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ApiError {
    pub code: ErrorCode,
    /// The broker's own words.
    pub message: Option<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Some(message) if !message.is_empty() => formatter.write_str(message),
            _ => write!(formatter, "the broker answered {}", self.code),
        }
    }
}

impl ApiError {
    /// Success, or the error that stands in an answer. A code that Kafka does not define is an unknown error.
    pub fn check(code: i16, message: Option<&StrBytes>) -> Result<(), Self> {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => Ok(()),
            known => Err(Self {
                code: known.unwrap_or(ErrorCode::UnknownServerError),
                message: message.map(ToString::to_string),
            }),
        }
    }

    /// Whether the same request, sent elsewhere or a little later, is expected to be answered. An unknown topic is not
    /// waited for: whoever administrates wants to hear of it.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::NotController
                | ErrorCode::NotCoordinator
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::CoordinatorLoadInProgress
        )
    }
}

/// A request that has no answer to give on.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl AdminError {
    const fn is_transient(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retriable(),
            Self::Api(error) => error.is_transient(),
        }
    }
}

/// Whom a request concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Any,
    Broker(i32),
}

/// A client for administration. One command makes one, so its time limit is the command's: it runs from `reach`.
pub struct Admin {
    client: Client,
    limit: Duration,
    deadline: Instant,
    backoff: Duration,
}

impl Admin {
    /// An administration client of the cluster that `bootstrap` belongs to, which gives up after `limit`.
    #[must_use]
    pub fn new(bootstrap: &str, options: Options, limit: Duration) -> Self {
        let client = Client::new(bootstrap, options);
        Self { client, limit, deadline: Instant::now() + limit, backoff: MIN_BACKOFF }
    }

    /// Waits until a broker answers, and learns the addresses of all. Calls `on_wait` once if none answers at first.
    pub async fn reach(&mut self, on_wait: impl FnOnce(&ClientError)) -> Result<(), ClientError> {
        self.deadline = Instant::now() + self.limit;
        self.reach_before(self.deadline, on_wait).await
    }

    /// The same for `wait` only; what follows has the whole time limit.
    pub async fn reach_within(&mut self, wait: Duration) -> Result<(), ClientError> {
        self.deadline = Instant::now() + self.limit;
        self.reach_before(Instant::now() + wait, |_| ()).await
    }

    async fn reach_before(&mut self, deadline: Instant, on_wait: impl FnOnce(&ClientError)) -> Result<(), ClientError> {
        let mut on_wait = Some(on_wait);
        self.backoff = MIN_BACKOFF;
        loop {
            let attempt = timeout_at(deadline, self.client.metadata(Some(&[]), false)).await;
            let error = match attempt.unwrap_or(Err(ClientError::TimedOut)) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if !error.is_retriable() {
                return Err(error);
            }
            if let Some(on_wait) = on_wait.take() {
                on_wait(&error);
            }
            if !self.pause_before(deadline).await {
                return Err(error);
            }
        }
    }

    /// The client, for requests to leaders.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// The time that is left, as requests carry it.
    fn timeout_ms(&self) -> i32 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1)
    }

    /// Sends a request until its answer passes `check`, its failure is final, or the time is up.
    async fn call<R: RequestResponsePair>(
        &mut self,
        to: To,
        version: i16,
        request: &R,
        check: impl Fn(&R::Response) -> Result<(), ApiError>,
    ) -> Result<R::Response, AdminError> {
        loop {
            match self.call_once(to, version, request, &check).await {
                Err(error) if error.is_transient() => {
                    if !self.pause().await || !self.may_still_answer(to).await {
                        return Err(error);
                    }
                }
                outcome => {
                    self.backoff = MIN_BACKOFF;
                    return outcome;
                }
            }
        }
    }

    async fn call_once<R: RequestResponsePair>(
        &mut self,
        to: To,
        version: i16,
        request: &R,
        check: impl Fn(&R::Response) -> Result<(), ApiError>,
    ) -> Result<R::Response, AdminError> {
        let attempt = async {
            match to {
                To::Any => self.client.call_any(version, request).await,
                To::Broker(broker) => self.client.call_broker(broker, version, request).await,
            }
        };
        let response = timeout_at(self.deadline, attempt).await.unwrap_or(Err(ClientError::TimedOut))?;
        check(&response)?;
        Ok(response)
    }

    /// Waits before another attempt, which goes to another broker if any will do. `false` if there is no time for one.
    async fn pause(&mut self) -> bool {
        self.pause_before(self.deadline).await
    }

    async fn pause_before(&mut self, deadline: Instant) -> bool {
        self.client.ask_another();
        let left = deadline.saturating_duration_since(Instant::now());
        // What is left after the pause must be worth an attempt.
        let Some(longest) = left.checked_sub(MIN_ATTEMPT) else { return false };
        sleep(self.backoff.min(longest)).await;
        self.backoff = (self.backoff * 2).min(MAX_BACKOFF);
        true
    }

    /// Whether there is no time left for another attempt.
    fn is_late(&self) -> bool {
        Instant::now() + MIN_ATTEMPT >= self.deadline
    }

    /// A broker that the cluster knows no more is not waited for; one that has moved is found at its new address.
    async fn may_still_answer(&mut self, to: To) -> bool {
        match to {
            To::Any => true,
            To::Broker(broker) => {
                self.refresh().await;
                self.client.knows(broker)
            }
        }
    }

    /// Learns the brokers' addresses again, if one of them answers.
    async fn refresh(&mut self) {
        let _ = timeout_at(self.deadline, self.client.metadata(Some(&[]), false)).await;
    }
}

/// A partition by topic and index.
pub type Partition = (String, i32);

/// Values of partitions by topic, as requests list them.
fn by_topic<'a, T>(values: impl Iterator<Item = (&'a Partition, T)>) -> BTreeMap<&'a str, Vec<(i32, T)>> {
    let mut topics: BTreeMap<&str, Vec<(i32, T)>> = BTreeMap::new();
    for ((topic, partition), value) in values {
        topics.entry(topic.as_str()).or_default().push((*partition, value));
    }
    topics
}
