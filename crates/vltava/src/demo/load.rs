//! The producer and the consumer that run while brokers die, and an observer that asks who leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use vltava_client::{
    Client, ClientError, ConsumeError, Consumer, ConsumerConfig, ConsumerRecord, Options, Producer, ProducerConfig,
    ProducerRecord, Settings, Start, TopicPartition,
};
use vltava_host::task::{self, JoinHandle};
use vltava_protocol::make;
use vltava_protocol::messages::DescribeQuorumRequest;
use vltava_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use vltava_types::{ErrorCode, Offset};

use super::verdict::{Acknowledgement, History, pause_after};

/// One partition, so that there is one leader to kill.
pub const TOPIC: &str = "failover-demo";

/// A pause shorter than this is not worth looking at.
const TICK: Duration = Duration::from_millis(5);

/// A client that finds out quickly. Applications that keep the defaults see longer pauses.
fn settings(bootstrap: &str) -> Settings {
    [("bootstrap.servers", bootstrap), ("retry.backoff.ms", "20"), ("socket.connection.setup.timeout.ms", "1000")]
        .into_iter()
        .collect()
}

pub fn partition() -> TopicPartition {
    TopicPartition::new(TOPIC, 0)
}

/// The number of a record of the demo's.
pub fn number(record: &ConsumerRecord) -> anyhow::Result<u64> {
    let value = record.value.as_deref().context("a record without value is none of ours")?;
    std::str::from_utf8(value)?.parse().context("a value that is no number is none of ours")
}

pub fn assign_from_start(consumer: &mut Consumer) {
    consumer.assign([(partition(), Start::Earliest)]);
}

pub async fn end_offsets(consumer: &mut Consumer) -> Result<BTreeMap<TopicPartition, Offset>, ConsumeError> {
    loop {
        match consumer.offsets(TOPIC, -1).await {
            Err(ConsumeError::Client(error)) if error.is_retriable() => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

pub async fn create_topic(bootstrap: &str, patience: Duration) -> anyhow::Result<()> {
    let mut client = Client::new(bootstrap, Options::default());
    let deadline = Instant::now() + patience;
    loop {
        match client.create_topic(TOPIC, 1, 3, &[("min.insync.replicas", "2")]).await {
            Ok(()) | Err(ClientError::Refused(ErrorCode::TopicAlreadyExists)) => return Ok(()),
            Err(error) if deadline < Instant::now() => return Err(error).context("cannot create the topic"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What the cluster tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub isr: Vec<i32>,
    pub controller: Option<i32>,
}

/// Asks all the time.
pub struct Observer {
    now: watch::Receiver<Observed>,
    task: JoinHandle<()>,
}

impl Observer {
    pub fn start(bootstrap: &str) -> Self {
        let (sender, now) = watch::channel(Observed::default());
        let options =
            Options { connect_timeout: Duration::from_secs(1), timeout: Duration::from_secs(1), ..Options::default() };
        let mut client = Client::new(bootstrap, options);
        let task = task::spawn(async move {
            while !sender.is_closed() {
                let told = observe(&mut client).await;
                sender.send_modify(|observed| {
                    // An answer of a broker that has not heard of the last election is not news.
                    if let Some((leader, leader_epoch, isr)) = told.0
                        && observed.leader_epoch <= leader_epoch
                    {
                        (observed.leader, observed.leader_epoch, observed.isr) = (leader, leader_epoch, isr);
                    }
                    observed.controller = told.1.or(observed.controller);
                });
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        });
        Self { now, task }
    }

    pub fn now(&self) -> Observed {
        self.now.borrow().clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn observe(client: &mut Client) -> (Option<(Option<i32>, i32, Vec<i32>)>, Option<i32>) {
    let metadata = client.metadata(Some(&[TOPIC]), false).await.ok();
    let partition = metadata.as_ref().and_then(|told| told.topics.first()).and_then(|topic| topic.partitions.first());
    let leadership = partition.map(|told| {
        let mut isr = told.isr_nodes.clone();
        isr.sort_unstable();
        (Some(told.leader_id).filter(|leader| *leader >= 0), told.leader_epoch, isr)
    });
    let log = make!(TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![make!(PartitionData { partition_index: 0 })],
    });
    let quorum = client.call_any(0, &make!(DescribeQuorumRequest { topics: vec![log] })).await.ok();
    let controller = quorum.and_then(|told| Some(told.topics.first()?.partitions.first()?.leader_id));
    (leadership, controller.filter(|controller| *controller >= 0))
}

/// Records on their way in and out.
pub struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: watch::Sender<bool>,
    producer: Mutex<Option<JoinHandle<()>>>,
    consumer: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Seen {
    history: History,
    acknowledgements: Vec<Acknowledgement>,
    produced: u64,
    failure: Option<String>,
}

impl Load {
    /// Writes so many records a second. Times are counted from `started`.
    pub fn start(bootstrap: &str, rate: u32, started: Instant) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (stop, stopped) = watch::channel(false);
        let producer = task::spawn(produce(settings(bootstrap), rate, started, Arc::clone(&seen), stopped.clone()));
        let consumer = task::spawn(consume(settings(bootstrap), Arc::clone(&seen), stopped));
        Self { seen, stop, producer: Mutex::new(Some(producer)), consumer: Mutex::new(Some(consumer)) }
    }

    /// How many were produced, acknowledged and consumed.
    pub fn counts(&self) -> (u64, usize, usize) {
        let seen = self.seen.lock();
        (seen.produced, seen.history.acknowledged.len(), seen.history.consumed.len())
    }

    pub fn failure(&self) -> Option<String> {
        self.seen.lock().failure.clone()
    }

    /// See [`pause_after`].
    pub fn pause_after(&self, fault_ms: u64) -> Option<u64> {
        let seen = self.seen.lock();
        // Those before the fault say nothing, and there may be many.
        let first = seen.acknowledgements.partition_point(|acknowledgement| acknowledgement.at_ms <= fault_ms);
        pause_after(fault_ms, &seen.acknowledgements[first..])
    }

    /// Acknowledgements in each of the last tenths of a second.
    pub fn recent(&self, now_ms: u64, tenths: usize) -> Vec<usize> {
        let seen = self.seen.lock();
        let begin = (now_ms / 100).saturating_sub(tenths as u64);
        let mut counts = vec![0; tenths];
        for acknowledgement in seen.acknowledgements.iter().rev() {
            let Some(index) = (acknowledgement.at_ms / 100).checked_sub(begin) else { break };
            if let Some(count) = counts.get_mut(index as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Stops producing, and waits until every record has its outcome and the consumer has seen all that were
    /// acknowledged. `None` if that takes too long.
    pub async fn finish(&self, patience: Duration) -> Option<History> {
        self.stop.send_replace(true);
        let tasks = [self.producer.lock().take(), self.consumer.lock().take()];
        let all_ended = async {
            for task in tasks.into_iter().flatten() {
                let _ = task.await;
            }
        };
        tokio::time::timeout(patience * 3, all_ended).await.ok()?;
        Some(std::mem::take(&mut self.seen.lock().history))
    }
}

async fn produce(
    mut settings: Settings,
    rate: u32,
    started: Instant,
    seen: Arc<Mutex<Seen>>,
    mut stopped: watch::Receiver<bool>,
) {
    settings.set("linger.ms", "1");
    let config = ProducerConfig::from_settings(&mut settings).expect("these settings fit together");
    let producer = Producer::new(config);
    let now_ms = move || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let begun = Instant::now();
    let mut next = 0_u64;
    while !*stopped.borrow_and_update() {
        let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // Behind a pause the records come as fast as they can.
        while next < due {
            let number = next;
            next += 1;
            seen.lock().produced = next;
            let record = ProducerRecord {
                topic: TOPIC.to_owned(),
                partition: Some(0),
                value: Some(number.to_string().into()),
                ..ProducerRecord::default()
            };
            let (produced_ms, noted) = (now_ms(), Arc::clone(&seen));
            let taken = producer.produce(record, move |outcome| {
                let mut noted = noted.lock();
                match outcome.map(|metadata| metadata.offset) {
                    Ok(offset) => {
                        noted.acknowledgements.push(Acknowledgement { at_ms: now_ms(), produced_ms });
                        // Without an offset nothing proves where it is: that counts as misplaced.
                        noted.history.acknowledged.insert(number, offset.map_or(-1, |offset| offset.0));
                    }
                    Err(_) => noted.history.refused.push(number),
                }
            });
            if taken.await.is_err() {
                seen.lock().history.refused.push(number);
            }
        }
        tokio::select! {
            biased;
            _ = stopped.changed() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
    producer.close(Duration::from_secs(150)).await;
}

async fn consume(settings: Settings, seen: Arc<Mutex<Seen>>, stopped: watch::Receiver<bool>) {
    if let Err(error) = consume_all(settings, &seen, &stopped).await {
        seen.lock().failure = Some(format!("the consumer failed: {error:#}"));
    }
}

/// Reads along, until the load has stopped and every record is settled and seen.
async fn consume_all(
    mut settings: Settings,
    seen: &Mutex<Seen>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let config = ConsumerConfig::from_settings(&mut settings)?;
    let mut consumer = Consumer::new(config);
    assign_from_start(&mut consumer);
    loop {
        let records = consumer.poll(Duration::from_millis(100)).await?;
        let mut seen = seen.lock();
        for record in records {
            let number = number(&record)?;
            seen.history.consumed.push((record.offset.0, number));
        }
        let settled = seen.history.acknowledged.len() + seen.history.refused.len();
        if *stopped.borrow() && settled as u64 == seen.produced {
            // Whatever was acknowledged last stands before the high watermark: what was not shown by now is missing.
            let last = seen.history.acknowledged.values().max().copied().unwrap_or(-1);
            drop(seen);
            if consumer.positions().get(&partition()).is_some_and(|next| last < next.0) {
                return Ok(());
            }
        }
    }
}
