//! The active controller: decides while this node leads, and only on what it has applied.
//!
//! One entry at a time: whatever has queued up is decided, request after request, on a scratch copy of the image, and
//! proposed as one entry. The answers wait until it is committed and applied. So every decision is made on an image
//! that contains all before it, and the scratch copy never outlives an entry that failed.
//!
//! A new leader first commits a `NoOp` of its own term. Once that is applied, so is everything that any earlier leader
//! has committed (trap 14). Entries are void in any other term than the one they were decided in.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use vltava_host::task;
use vltava_metadata::controller::{Controller, ControllerRequest, ControllerResponse};
use vltava_metadata::{ClusterImage, MetadataRecord, codec};
use vltava_types::{BrokerEpoch, BrokerId, ErrorCode};

use crate::identity::Identity;
use crate::probe::is_gone;
use crate::standing::Standing;
use crate::types::{Applied, Raft, RecordSet};

/// Requests that wait to be decided.
pub(crate) const MAX_QUEUED_REQUESTS: usize = 1024;

/// Requests that are decided into one entry.
const MAX_BATCH: usize = 256;

const TICK_INTERVAL: Duration = Duration::from_millis(100);

/// How long a broker whose session was reset is probed. After that, only the expiry of its session tells.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// A request, and where its answer goes: `None` means that this node is not the active controller, or ceased to be.
pub(crate) struct Request {
    pub request: ControllerRequest,
    pub reply: oneshot::Sender<Option<ControllerResponse>>,
}

/// What the controller should know without being asked anything.
#[derive(Debug)]
pub(crate) enum Event {
    /// The session of a node was reset: its process may have died.
    SessionReset(BrokerId),
    /// The process that registered under this epoch is gone.
    BrokerDown(BrokerId, BrokerEpoch),
}

/// When a leader of the quorum last reached this node, or a voter that has answered this node's candidacy. Every majority
/// that has acknowledged a leader shares a voter with the majority that elects the next: so the next knows for how long
/// the one before it can have gone on, also if it was cut off from this node long before.
pub(crate) struct LeaderContact(Mutex<(Option<u64>, Instant)>);

impl Default for LeaderContact {
    /// What was before the start of this process is forgotten: it may have been a moment ago.
    fn default() -> Self {
        Self(Mutex::new((None, Instant::now())))
    }
}

impl LeaderContact {
    pub fn heard_from(&self, leader_id: u64) {
        self.learn(Some(leader_id), Duration::ZERO);
    }

    /// A leader was last heard of so long ago, by this node or by a voter.
    pub fn learn(&self, leader_id: Option<u64>, silence: Duration) {
        let now = Instant::now();
        let heard_at = now.checked_sub(silence).unwrap_or(now);
        let mut last = self.0.lock();
        if heard_at >= last.1 {
            *last = (leader_id.or(last.0), heard_at);
        }
    }

    /// The last leader, and for how long it has been silent at least.
    pub fn silence(&self) -> (Option<u64>, Duration) {
        let (leader_id, heard_at) = *self.0.lock();
        (leader_id, heard_at.elapsed())
    }
}

pub(crate) struct ActiveController {
    pub identity: Arc<Identity>,
    pub leader_contact: Arc<LeaderContact>,
    pub raft: Raft,
    pub standing: watch::Receiver<Standing>,
    pub controller: Controller,
    pub images: watch::Receiver<Arc<ClusterImage>>,
    pub requests: mpsc::Receiver<Request>,
    pub events: mpsc::Receiver<Event>,
    /// For the probes that this starts.
    pub event_sender: mpsc::Sender<Event>,
    /// How long a leader that no majority has acknowledged may still answer. Shorter than the lease that followers
    /// give it, so that it has stopped before another can be elected, whatever their clocks do.
    pub lease: Duration,
    pub started_at: Instant,
}

/// How long a leader waits that Raft does not let write at the moment.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// What became of an entry.
enum Written {
    Applied,
    /// It was not appended, and will not be.
    Refused,
}

/// Why this node decides nothing any more.
enum Ended {
    /// It does not lead, or not in the same term.
    Deposed,
    /// Raft has stopped for good.
    Stopped,
}

impl ActiveController {
    pub async fn run(mut self) {
        loop {
            let Some(term) = self.wait_until_elected().await else {
                return;
            };
            tracing::info!(term, "this node is the active controller");
            let ended = self.lead(term).await;
            tracing::info!(term, "this node is no longer the active controller");
            if matches!(ended, Ended::Stopped) {
                return;
            }
        }
    }

    /// Refuses requests until this node leads. `None` once Raft has stopped.
    async fn wait_until_elected(&mut self) -> Option<u64> {
        let mut standing = self.standing.clone();
        loop {
            let led_term = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                (metrics.state == ServerState::Leader).then_some(metrics.current_term)
            };
            if led_term.is_some() {
                return led_term;
            }
            tokio::select! {
                biased;
                changed = standing.changed() => changed.ok()?,
                request = self.requests.recv() => refuse(request?),
                event = self.events.recv() => {
                    event?;
                }
            }
        }
    }

    async fn lead(&mut self, term: u64) -> Ended {
        // Formed in an entry of its own: until the NoOp is applied, the image may not tell of a cluster that exists.
        let mut image = match self.propose(term, vec![MetadataRecord::NoOp]).await {
            Ok(image) => image,
            Err(ended) => return ended,
        };
        let formation = self.controller.form_cluster(&image, &self.identity.cluster_id());
        if !formation.is_empty() {
            image = match self.propose(term, formation).await {
                Ok(image) => image,
                Err(ended) => return ended,
            };
        }
        for broker_id in self.controller.on_elected(&image, self.now_ms()) {
            self.probe(&image, broker_id);
        }
        if let (Some(leader_id), silence) = self.leader_contact.silence()
            && leader_id != self.identity.node_id
            && let Ok(predecessor) = i32::try_from(leader_id)
        {
            // It may have answered its own broker for another lease, which went on serving then: its session begins
            // with that, so that the broker has stopped before it is fenced (trap 15).
            let silence = silence.saturating_sub(self.lease);
            let silent_ms = i64::try_from(silence.as_millis()).unwrap_or(i64::MAX);
            self.controller.on_predecessor_silent(BrokerId(predecessor), silent_ms);
        }
        let mut ticks = interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standing = self.standing.clone();
        let mut batch = Vec::new();
        loop {
            if !self.leads(term) {
                return Ended::Deposed;
            }
            image = self.images.borrow().clone();
            tokio::select! {
                biased;
                changed = standing.changed() => {
                    if changed.is_err() {
                        return Ended::Stopped;
                    }
                }
                event = self.events.recv() => {
                    let Some(event) = event else { return Ended::Stopped };
                    let records = self.on_event(&image, &event);
                    if let Err(ended) = self.propose_if_any(term, records).await {
                        return ended;
                    }
                }
                _ = ticks.tick() => {
                    let records = self.controller.tick(&image, self.now_ms());
                    if let Err(ended) = self.propose_if_any(term, records).await {
                        return ended;
                    }
                }
                count = self.requests.recv_many(&mut batch, MAX_BATCH) => {
                    if count == 0 {
                        return Ended::Stopped;
                    }
                    if let Err(ended) = self.decide(term, &image, &mut batch).await {
                        return ended;
                    }
                }
            }
        }
    }

    /// Decides a batch of requests as one entry.
    async fn decide(&mut self, term: u64, image: &ClusterImage, batch: &mut Vec<Request>) -> Result<(), Ended> {
        let now_ms = self.now_ms();
        let mut scratch = image.clone();
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        for Request { request, reply } in batch.drain(..) {
            if reply.is_closed() {
                // Whoever asked has given up, and will not learn what happened.
                continue;
            }
            let decision = self.controller.handle(&scratch, &request, now_ms);
            scratch.replay_all(&decision.records);
            if let Some(broker_id) = duplicate(&request, &decision.response) {
                self.probe(image, broker_id);
            }
            records.extend(decision.records);
            answers.push((reply, decision.response));
        }
        let outcome = if records.is_empty() && !self.has_lease() {
            // Nothing to commit, so nothing has proved that this node still leads.
            Ok(false)
        } else {
            self.propose_if_any(term, records).await.map(|()| true)
        };
        let is_answered = matches!(outcome, Ok(true));
        for (reply, response) in answers {
            // An error means that nobody waits any more.
            let _ = reply.send(is_answered.then_some(response));
        }
        outcome.map(|_| ())
    }

    fn on_event(&mut self, image: &ClusterImage, event: &Event) -> Vec<MetadataRecord> {
        match event {
            Event::SessionReset(broker_id) => {
                self.probe(image, *broker_id);
                vec![]
            }
            Event::BrokerDown(broker_id, broker_epoch) => {
                tracing::warn!(%broker_id, %broker_epoch, "the broker's process is dead");
                self.controller.on_broker_down(image, *broker_id, *broker_epoch)
            }
        }
    }

    /// Finds out whether a broker's process is alive. The epoch is taken before the probe: a process that has started
    /// meanwhile registers with another.
    fn probe(&self, image: &ClusterImage, broker_id: BrokerId) {
        let Some(broker) = image.broker(broker_id).filter(|broker| !broker.fenced).cloned() else {
            return;
        };
        let Ok(node_id) = u64::try_from(broker_id.value()) else { return };
        let events = self.event_sender.clone();
        task::spawn(async move {
            if is_gone(&broker.peer, node_id, Some(broker.incarnation_id), PROBE_PATIENCE).await {
                // If the queue is full, expiry of the session fences the broker a little later.
                let _ = events.try_send(Event::BrokerDown(broker_id, broker.broker_epoch));
            }
        });
    }

    async fn propose_if_any(&mut self, term: u64, records: Vec<MetadataRecord>) -> Result<(), Ended> {
        if records.is_empty() {
            return Ok(());
        }
        self.propose(term, records).await.map(|_| ())
    }

    /// Commits and applies records, and returns an image that contains them. An error leaves open whether they
    /// will be.
    async fn propose(&mut self, term: u64, records: Vec<MetadataRecord>) -> Result<Arc<ClusterImage>, Ended> {
        let set = RecordSet { term, records: Bytes::from(codec::encode_records(&records)) };
        loop {
            match self.write(term, set.clone()).await? {
                Written::Applied => return Ok(self.images.borrow().clone()),
                Written::Refused => sleep(REFUSED_PAUSE).await,
            }
        }
    }

    /// Writes one entry, or learns that Raft would not even append it, and waits as long as this node leads.
    async fn write(&mut self, term: u64, set: RecordSet) -> Result<Written, Ended> {
        let raft = self.raft.clone();
        let mut standing = self.standing.clone();
        let write = raft.client_write(set);
        tokio::pin!(write);
        loop {
            tokio::select! {
                biased;
                written = &mut write => {
                    let error = match written {
                        Ok(response) if response.data == Applied::Replayed => return Ok(Written::Applied),
                        Ok(_) => return Err(Ended::Deposed),
                        Err(error) => error,
                    };
                    // A leader whose majority has not answered for a while, or not yet, takes no entries.
                    let is_refused = matches!(&error, RaftError::APIError(ClientWriteError::ForwardToLeader(_)));
                    if is_refused && self.leads(term) {
                        return Ok(Written::Refused);
                    }
                    tracing::info!(term, %error, "an entry was not committed");
                    let is_fatal = matches!(error, RaftError::Fatal(_));
                    return Err(if is_fatal { Ended::Stopped } else { Ended::Deposed });
                }
                changed = standing.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Stopped);
                    }
                    if !self.leads(term) {
                        return Err(Ended::Deposed);
                    }
                }
            }
        }
    }

    fn leads(&self, term: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.state == ServerState::Leader && metrics.current_term == term
    }

    /// Whether a majority has acknowledged this leader so recently that no other can have been elected.
    fn has_lease(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let is_alone = metrics.membership_config.voter_ids().count() == 1;
        is_alone || metrics.last_quorum_acked.is_some_and(|acked| acked.elapsed() < self.lease)
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.started_at.elapsed().as_millis()).expect("a process does not run that long")
    }
}

/// The broker whose registration was refused because an earlier run of it counts as alive. If it is not, the next
/// attempt should succeed.
fn duplicate(request: &ControllerRequest, response: &ControllerResponse) -> Option<BrokerId> {
    match (request, response) {
        (ControllerRequest::RegisterBroker(request), ControllerResponse::RegisterBroker(Err(error)))
            if error.code == ErrorCode::DuplicateBrokerRegistration =>
        {
            Some(request.broker_id)
        }
        _ => None,
    }
}

fn refuse(request: Request) {
    // An error means that nobody waits any more.
    let _ = request.reply.send(None);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::LeaderContact;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Node 1 leads, and reaches node 3 for longer than this one: a majority all the while.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_has_gone_on_for_others_was_silent_for_less() {
        let contact = LeaderContact::default();
        contact.heard_from(1);
        advance(ms(10_000)).await;
        assert_eq!(contact.silence(), (Some(1), ms(10_000)));
        contact.learn(Some(1), ms(700));
        assert_eq!(contact.silence(), (Some(1), ms(700)));
        contact.learn(Some(2), ms(9_000));
        assert_eq!(contact.silence(), (Some(1), ms(700)), "an earlier one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_restarted_voter_has_forgotten_may_have_been_just_before() {
        let contact = LeaderContact::default();
        contact.heard_from(1);
        advance(ms(900)).await;
        contact.learn(None, ms(20));
        assert_eq!(contact.silence(), (Some(1), ms(20)));
    }
}
