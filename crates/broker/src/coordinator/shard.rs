//! The shell around one coordinator: one task for one led partition.
//!
//! The task owns the coordinator, so that its decisions need no lock and their order no argument. It loads the state,
//! then takes requests, appends and replays what they decide, and answers when the high watermark has passed. It ends
//! when leadership under its epoch does; everyone who still waits is told NOT_COORDINATOR.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Duration, Instant};
use vltava_coordinator::{Coordinator, Decision, LogRecord, Now, Outcome, Reply, Token};
use vltava_host::{clock, task};
use vltava_types::{ErrorCode, LeaderEpoch, Offset, mutation};

use super::log::{CoordinatorLog, LoadError, replay_batches, to_batches};

/// Requests that wait for the task. Beyond this, clients' connections wait.
const QUEUE_LENGTH: usize = 256;

/// Requests decided in one go before timers get their turn. Requests go first, so that heartbeats which waited while
/// the process was stopped count before the sessions that they extend are taken for expired.
const REQUESTS_PER_TURN: usize = 256;

/// Decisions that wait for the high watermark. Beyond this no request is taken.
const MAX_UNCOMMITTED: usize = 10_000;

/// How long to wait before a load is tried again.
const LOAD_RETRY: Duration = Duration::from_millis(500);

/// How a shard does its work.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShardOptions {
    /// `offsets.commit.timeout.ms`
    pub commit_timeout: Duration,
    /// `offsets.load.buffer.size`
    pub load_buffer_bytes: usize,
}

/// A request to a coordinator: how to make the event of it, and where the answer goes.
pub(super) enum Request<C: Coordinator> {
    Ask {
        event: Box<dyn FnOnce(Token) -> C::Event + Send>,
        answer: oneshot::Sender<Outcome<C::Response>>,
        /// Whether to answer although another broker may coordinate by now.
        even_if_replaced: bool,
    },
    Tell(C::Event),
}

/// The way to a running shard. Dropping it ends the shard.
pub(super) struct Shard<C: Coordinator> {
    pub leader_epoch: LeaderEpoch,
    requests: mpsc::Sender<Request<C>>,
    is_loaded: Arc<AtomicBool>,
    _stop: watch::Sender<()>,
}

/// Asks a shard without holding on to it.
pub(super) struct Asker<C: Coordinator> {
    requests: mpsc::Sender<Request<C>>,
    is_loaded: Arc<AtomicBool>,
}

impl<C: Coordinator> Shard<C> {
    /// Starts loading, and serves when that is done.
    pub fn start<L: CoordinatorLog>(
        coordinator: C,
        log: Arc<L>,
        leader_epoch: LeaderEpoch,
        options: ShardOptions,
    ) -> Self {
        let (requests, incoming) = mpsc::channel(QUEUE_LENGTH);
        let (stop, stopped) = watch::channel(());
        let is_loaded = Arc::new(AtomicBool::new(false));
        task::spawn(run(coordinator, log, leader_epoch, options, incoming, stopped, Arc::clone(&is_loaded)));
        Self { leader_epoch, requests, is_loaded, _stop: stop }
    }

    /// Whether the shard has seen its leadership end before the image said so.
    pub fn has_ended(&self) -> bool {
        self.requests.is_closed()
    }

    pub fn asker(&self) -> Asker<C> {
        Asker { requests: self.requests.clone(), is_loaded: Arc::clone(&self.is_loaded) }
    }
}

impl<C: Coordinator> Asker<C> {
    /// Puts the event to the coordinator and waits for the answer. Refused while another broker may coordinate by now
    /// (trap 15): what is committed there is not known here.
    pub async fn ask(self, event: impl FnOnce(Token) -> C::Event + Send + 'static) -> Outcome<C::Response> {
        self.put(Box::new(event), false).await
    }

    /// As [`Asker::ask`], but also answered while another broker may coordinate by now: for what misleads nobody who is
    /// told the same by both, and would be missed if there is no other.
    pub async fn ask_even_if_replaced(
        self,
        event: impl FnOnce(Token) -> C::Event + Send + 'static,
    ) -> Outcome<C::Response> {
        self.put(Box::new(event), true).await
    }

    async fn put(
        self,
        event: Box<dyn FnOnce(Token) -> C::Event + Send>,
        even_if_replaced: bool,
    ) -> Outcome<C::Response> {
        if !self.is_loaded.load(Ordering::Acquire) {
            return Err(ErrorCode::CoordinatorLoadInProgress);
        }
        let (answer, answered) = oneshot::channel();
        let request = Request::Ask { event, answer, even_if_replaced };
        if self.requests.send(request).await.is_err() {
            return Err(ErrorCode::NotCoordinator);
        }
        // The shard drops what it cannot answer any more.
        answered.await.unwrap_or(Err(ErrorCode::NotCoordinator))
    }

    /// Tells the coordinator some news, after it has loaded.
    pub async fn tell(self, event: C::Event) {
        // A shard that has ended needs no news.
        let _ = self.requests.send(Request::Tell(event)).await;
    }
}

async fn run<C: Coordinator, L: CoordinatorLog>(
    coordinator: C,
    log: Arc<L>,
    leader_epoch: LeaderEpoch,
    options: ShardOptions,
    requests: mpsc::Receiver<Request<C>>,
    mut stopped: watch::Receiver<()>,
    is_loaded: Arc<AtomicBool>,
) {
    let changed = Arc::new(Notify::new());
    let _subscription = log.subscribe(&changed);
    let mut running = Running {
        coordinator,
        log,
        leader_epoch,
        options,
        started: Instant::now(),
        waiting: BTreeMap::new(),
        next_token: 0,
        uncommitted: BTreeMap::new(),
        next_sequence: 0,
        timeouts: VecDeque::new(),
        last_written: BTreeMap::new(),
    };
    let serve = async {
        if running.load(&changed).await.is_continue() {
            is_loaded.store(true, Ordering::Release);
            running.serve(requests, &changed).await;
        }
    };
    tokio::select! {
        biased;
        // Nothing is ever sent: the channel closes when the handle is dropped.
        _ = stopped.changed() => {}
        () = serve => {}
    }
    running.unload();
}

/// A decision that waits for the high watermark.
struct Uncommitted<C: Coordinator> {
    key: Option<String>,
    /// Taken when the wait takes too long; the records may still commit.
    completion: Option<C::Completion>,
}

struct Running<C: Coordinator, L: CoordinatorLog> {
    coordinator: C,
    log: Arc<L>,
    leader_epoch: LeaderEpoch,
    options: ShardOptions,
    started: Instant,
    waiting: BTreeMap<Token, oneshot::Sender<Outcome<C::Response>>>,
    next_token: u64,
    /// By the last offset that must be committed, then in the order of the decisions.
    uncommitted: BTreeMap<(Offset, u64), Uncommitted<C>>,
    next_sequence: u64,
    /// When each uncommitted decision has waited long enough, earliest first. May name some that are done.
    timeouts: VecDeque<(Instant, (Offset, u64))>,
    /// The last uncommitted offset that was written under a key.
    last_written: BTreeMap<String, Offset>,
}

impl<C: Coordinator, L: CoordinatorLog> Running<C, L> {
    /// Reads the whole log. Breaks if leadership ends first.
    ///
    /// The high watermark must have reached the log end (trap 5): what is below is committed and cannot be taken back,
    /// and as only this shard appends under its epoch, there is nothing else to load.
    async fn load(&mut self, changed: &Arc<Notify>) -> ControlFlow<()> {
        loop {
            match self.leadership() {
                // The image names us; the partition has yet to hear of it.
                None => {}
                Some(ControlFlow::Break(())) => return ControlFlow::Break(()),
                Some(ControlFlow::Continue(())) if self.log.high_watermark() >= self.log.log_end_offset() => break,
                Some(ControlFlow::Continue(())) => {}
            }
            // The pause catches what a wake-up may miss: that leadership begins at all.
            let _ = tokio::time::timeout(LOAD_RETRY, changed.notified()).await;
        }
        let began = Instant::now();
        let mut next_offset = self.log.log_start_offset();
        let end = self.log.high_watermark();
        while next_offset < end {
            let log = Arc::clone(&self.log);
            let max_bytes = self.options.load_buffer_bytes;
            let read = task::blocking(move || log.read(next_offset, max_bytes)).await;
            let replayed = match read {
                Ok(batches) if batches.is_empty() => Ok(end),
                Ok(batches) => replay_batches(&mut self.coordinator, &batches, next_offset),
                Err(error) => Err(LoadError::Log(error)),
            };
            match replayed {
                Ok(offset) => next_offset = offset,
                Err(error) => {
                    if self.leadership() == Some(ControlFlow::Break(())) {
                        return ControlFlow::Break(());
                    }
                    let partition = self.log.name();
                    tracing::error!(partition, %next_offset, "cannot load a coordinator's state yet: {error}");
                    tokio::time::sleep(LOAD_RETRY).await;
                }
            }
        }
        let decision = self.coordinator.loaded(self.now());
        self.execute(decision);
        let (partition, leader_epoch) = (self.log.name(), self.leader_epoch);
        if end > self.log.log_start_offset() {
            tracing::info!(partition, %leader_epoch, %end, took = ?began.elapsed(), "loaded a coordinator");
        } else {
            tracing::debug!(partition, %leader_epoch, "a coordinator begins with nothing");
        }
        ControlFlow::Continue(())
    }

    async fn serve(&mut self, mut requests: mpsc::Receiver<Request<C>>, changed: &Arc<Notify>) {
        loop {
            if self.leadership() != Some(ControlFlow::Continue(())) {
                return;
            }
            self.complete_committed();
            self.expire_waits();
            let mut taken = 0;
            while taken < REQUESTS_PER_TURN && self.uncommitted.len() < MAX_UNCOMMITTED {
                let Ok(request) = requests.try_recv() else { break };
                self.take(request);
                taken += 1;
            }
            if taken > 0 {
                // Whatever is committed already is answered before more is taken.
                self.complete_committed();
            }
            while let Some(decision) = self.coordinator.expire(self.now()) {
                self.execute(decision);
            }
            if taken == REQUESTS_PER_TURN {
                tokio::task::yield_now().await;
                continue;
            }
            let has_room = self.uncommitted.len() < MAX_UNCOMMITTED;
            let deadline = self.next_deadline();
            tokio::select! {
                biased;
                () = changed.notified() => {}
                request = requests.recv(), if has_room => match request {
                    Some(request) => self.take(request),
                    None => return,
                },
                () = sleep_until(deadline) => {}
            }
        }
    }

    /// `None` while the partition does not lead yet, `Break` once leadership under our epoch has ended.
    fn leadership(&self) -> Option<ControlFlow<()>> {
        match self.log.leader_epoch() {
            Some(epoch) if epoch == self.leader_epoch => Some(ControlFlow::Continue(())),
            Some(epoch) if epoch > self.leader_epoch => Some(ControlFlow::Break(())),
            Some(_) | None => None,
        }
    }

    fn take(&mut self, request: Request<C>) {
        let event = match request {
            Request::Tell(event) => event,
            Request::Ask { answer, even_if_replaced: false, .. } if !self.log.is_serving() => {
                // Whoever asked may be gone.
                let _ = answer.send(Err(ErrorCode::NotCoordinator));
                return;
            }
            Request::Ask { event, answer, .. } => {
                let token = Token(self.next_token);
                self.next_token += 1;
                self.waiting.insert(token, answer);
                event(token)
            }
        };
        let decision = self.coordinator.handle(event, self.now());
        self.execute(decision);
    }

    /// Does what a decision says, and what follows from that.
    fn execute(&mut self, decision: Decision<C>) {
        let mut work = VecDeque::from([decision]);
        while let Some(Decision { records, replies, completion, key }) = work.pop_front() {
            self.send(replies);
            let wait_for = if records.is_empty() {
                Ok(self.last_uncommitted(key.as_deref()))
            } else {
                self.append(&records).map(Some)
            };
            let result = match wait_for {
                Ok(Some(last_offset)) => {
                    let has_written = !records.is_empty();
                    self.wait_for_commit(last_offset, key.filter(|_| has_written), completion);
                    continue;
                }
                Ok(None) => Ok(()),
                Err(error) => {
                    let (partition, count) = (self.log.name(), records.len());
                    tracing::warn!(partition, %error, count, "a coordinator's records were not written");
                    Err(error)
                }
            };
            work.extend(completion.map(|completion| self.coordinator.complete(completion, result, self.now())));
        }
    }

    /// Appends and replays, and returns the last offset.
    fn append(&mut self, records: &[LogRecord]) -> Result<Offset, ErrorCode> {
        let mut last_offset = Offset(-1);
        for (batch, records) in to_batches(records, clock::now()) {
            last_offset = self.log.append(&batch, self.leader_epoch)?;
            for record in records {
                self.coordinator.replay(record).expect("a coordinator understands the records that it has just made");
            }
        }
        Ok(last_offset)
    }

    /// The last offset written under this key, if it is not committed yet.
    fn last_uncommitted(&self, key: Option<&str>) -> Option<Offset> {
        let last_offset = *self.last_written.get(key?)?;
        (last_offset >= self.log.high_watermark()).then_some(last_offset)
    }

    fn wait_for_commit(&mut self, last_offset: Offset, key: Option<String>, completion: Option<C::Completion>) {
        if let Some(key) = &key {
            self.last_written.insert(key.clone(), last_offset);
        }
        let id = (last_offset, self.next_sequence);
        self.next_sequence += 1;
        self.uncommitted.insert(id, Uncommitted { key, completion });
        self.timeouts.push_back((Instant::now() + self.options.commit_timeout, id));
    }

    /// Answers everything that the high watermark has passed.
    fn complete_committed(&mut self) {
        let high_watermark = self.log.high_watermark();
        // Asked afterwards: a later leader's high watermark says nothing about our records.
        if self.leadership() != Some(ControlFlow::Continue(())) {
            return;
        }
        while let Some(entry) = self.uncommitted.first_entry() {
            let (last_offset, _) = *entry.key();
            if last_offset >= high_watermark && !mutation::is_off("trap-24") {
                break;
            }
            let Uncommitted { key, completion } = entry.remove();
            if let Some(key) = key
                && self.last_written.get(&key) == Some(&last_offset)
            {
                self.last_written.remove(&key);
            }
            if let Some(completion) = completion {
                let decision = self.coordinator.complete(completion, Ok(()), self.now());
                self.execute(decision);
            }
        }
        while self.timeouts.front().is_some_and(|(_, id)| !self.uncommitted.contains_key(id)) {
            self.timeouts.pop_front();
        }
    }

    /// Stops waiting for what has waited too long. Its records are in the log and may still commit: the client does
    /// not know, and asks again.
    fn expire_waits(&mut self) {
        while let Some((deadline, id)) = self.timeouts.front().copied() {
            if deadline > Instant::now() {
                break;
            }
            self.timeouts.pop_front();
            let completion = self.uncommitted.get_mut(&id).and_then(|uncommitted| uncommitted.completion.take());
            if let Some(completion) = completion {
                let decision = self.coordinator.complete(completion, Err(ErrorCode::RequestTimedOut), self.now());
                self.execute(decision);
            }
        }
    }

    fn send(&mut self, replies: Vec<Reply<C::Response>>) {
        for Reply { token, outcome } in replies {
            if let Some(answer) = self.waiting.remove(&token) {
                // A client that has gone needs no answer.
                let _ = answer.send(outcome);
            }
        }
    }

    fn unload(mut self) {
        let replies = self.coordinator.unload();
        self.send(replies);
        // Whoever waits for a commit learns from the dropped sender that this is no longer the coordinator.
        tracing::debug!(partition = self.log.name(), leader_epoch = %self.leader_epoch, "a coordinator has ended");
    }

    fn now(&self) -> Now {
        let monotonic = self.started.elapsed().as_millis();
        Now {
            monotonic_ms: u64::try_from(monotonic).expect("no process runs for half a thousand million years"),
            wall_clock: clock::now(),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let timer = self.coordinator.next_deadline_ms().map(|ms| self.started + Duration::from_millis(ms));
        let wait = self.timeouts.front().map(|(deadline, _)| *deadline);
        timer.into_iter().chain(wait).min()
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
