//! The log cleaner: compacts the dirtiest log first, a few at a time, and pauses when there is nothing to do.
//!
//! What is cleanable and what becomes of it is decided in `vltava_storage`; this is the loop around it.

mod status;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use vltava_host::task::JoinHandle;
use vltava_host::{clock, task};
use vltava_metadata::configs::Configs;
use vltava_storage::{CleaningError, CleaningPass, CleaningStats, CleaningStep, Throttle, dirtiest};
use vltava_types::TopicPartition;

use super::ReplicaManager;
use crate::cleaner_config::CleanerConfig;
use crate::partition::{AfterFailure, Partition};

pub use status::CleanerStatus;

/// How a pass ended.
enum Outcome {
    Cleaned(CleaningStats),
    TryLater,
    Uncleanable,
}

/// What all passes together may read and write.
struct Budget {
    throttle: Mutex<Throttle>,
    /// Where its clock starts.
    started: Instant,
}

/// What the loop remembers. Dropping it ends the passes under way.
struct Cleaner {
    in_progress: BTreeMap<TopicPartition, JoinHandle<()>>,
    /// Logs that cannot be cleaned, with their truncation counts: nothing else makes a log cleanable that was not.
    uncleanable: BTreeMap<TopicPartition, u64>,
    budget: Arc<Budget>,
    config: Option<CleanerConfig>,
    status: Arc<Mutex<CleanerStatus>>,
}

/// Runs until the manager is gone.
pub(super) async fn run(manager: Weak<ReplicaManager>, status: Arc<Mutex<CleanerStatus>>) {
    // Bounded all the same: each pass sends once, and there are no more than threads.
    let (ended, mut endings) = mpsc::unbounded_channel::<(Arc<Partition>, Outcome)>();
    let mut cleaner = Cleaner {
        in_progress: BTreeMap::new(),
        uncleanable: BTreeMap::new(),
        budget: Arc::new(Budget { throttle: Mutex::default(), started: Instant::now() }),
        config: None,
        status,
    };
    loop {
        let Some(backoff) = manager.upgrade().map(|manager| cleaner_config(&manager).backoff) else { return };
        tokio::select! {
            biased;
            // The sender lives here too.
            Some((partition, outcome)) = endings.recv() => cleaner.on_end(&partition, &outcome),
            () = tokio::time::sleep(backoff) => {
                let Some(manager) = manager.upgrade() else { return };
                task::blocking(move || remove_deleted_files(&manager)).await;
            }
        }
        let Some(manager) = manager.upgrade() else { return };
        while let Some((partition, pass, config)) = cleaner.next(&manager).await {
            let (id, ended, budget) = (partition.id(), ended.clone(), Arc::clone(&cleaner.budget));
            let task = task::spawn(async move {
                let cleaning = AssertUnwindSafe(clean(&partition, pass, &config, &budget)).catch_unwind().await;
                let outcome = cleaning.unwrap_or_else(|_| {
                    // It would keep its thread for ever otherwise.
                    tracing::error!(partition = %partition.name(), "the log cannot be compacted: the cleaner panicked");
                    Outcome::Uncleanable
                });
                // Nobody listens any more at shutdown.
                let _ = ended.send((partition, outcome));
            });
            cleaner.in_progress.insert(id, task);
        }
    }
}

impl Cleaner {
    /// The dirtiest log, if one is due and there is a thread for it.
    async fn next(&mut self, manager: &Arc<ReplicaManager>) -> Option<(Arc<Partition>, CleaningPass, CleanerConfig)> {
        let config = cleaner_config(manager);
        if self.config.replace(config) != Some(config) {
            // A larger buffer may be what a log has waited for.
            self.uncleanable.clear();
        }
        if config.is_enabled && self.in_progress.len() >= config.threads {
            return None;
        }
        self.status.lock().last_run = Instant::now();
        if !config.is_enabled {
            return None;
        }
        let partitions = manager.partitions();
        let (uncleanable, mut partitions): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|partition| self.is_uncleanable(partition));
        self.uncleanable.retain(|id, _| uncleanable.iter().any(|partition| partition.id() == *id));
        partitions.retain(|partition| !self.in_progress.contains_key(&partition.id()));
        let status = Arc::clone(&self.status);
        task::blocking(move || {
            let now = clock::now();
            let candidates: Vec<_> = partitions
                .into_iter()
                .filter_map(|partition| {
                    let (range, min_ratio) = partition.cleanable_range(now)?;
                    Some((partition, range, min_ratio))
                })
                .collect();
            let dirty_ratios = candidates.iter().map(|(_, range, _)| range.dirty_ratio());
            let max_dirty_ratio = dirty_ratios.fold(0.0, f64::max);
            let uncleanable: Vec<_> = uncleanable.iter().filter(|partition| partition.is_compacted()).collect();
            let uncleanable_bytes = uncleanable.iter().map(|partition| partition.size_bytes()).sum();
            {
                let mut status = status.lock();
                status.uncleanable_partitions = uncleanable.len();
                status.uncleanable_bytes = uncleanable_bytes;
                status.max_dirty_ratio = max_dirty_ratio;
            }
            let (partition, _) = dirtiest(candidates)?;
            let pass = partition.begin_cleaning(config.options, now)?;
            Some((partition, pass, config))
        })
        .await
    }

    fn is_uncleanable(&self, partition: &Partition) -> bool {
        self.uncleanable.get(&partition.id()).is_some_and(|truncations| *truncations == partition.truncation_count())
    }

    fn on_end(&mut self, partition: &Partition, outcome: &Outcome) {
        self.in_progress.remove(&partition.id());
        if let (Outcome::Cleaned(stats), Some(config)) = (outcome, self.config) {
            self.status.lock().on_cleaned(stats, config.options.map.max_keys());
        }
        match outcome {
            Outcome::Cleaned(_) | Outcome::TryLater => self.uncleanable.remove(&partition.id()),
            Outcome::Uncleanable => self.uncleanable.insert(partition.id(), partition.truncation_count()),
        };
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        for task in self.in_progress.values() {
            task.abort();
        }
    }
}

/// The settings as the newest applied image has them.
fn cleaner_config(manager: &ReplicaManager) -> CleanerConfig {
    let image = manager.applied.borrow().clone();
    let (broker_id, properties) = (manager.config.node_id, &manager.config.properties);
    CleanerConfig::new(&Configs { image: &image, broker_id, properties })
}

/// The sources of cleaned segments need not wait for retention's turn to be removed.
fn remove_deleted_files(manager: &ReplicaManager) {
    let now = clock::now();
    for partition in manager.partitions() {
        partition.remove_deleted_files(now);
    }
}

/// Runs a pass to its end.
async fn clean(partition: &Arc<Partition>, mut pass: CleaningPass, config: &CleanerConfig, budget: &Budget) -> Outcome {
    let started = Instant::now();
    loop {
        let owner = Arc::clone(partition);
        let (returned, progress) = task::blocking(move || {
            let progress = step(&owner, &mut pass);
            (pass, progress)
        })
        .await;
        pass = returned;
        match progress {
            Ok(Progress::Worked(bytes)) => {
                let now_ms = i64::try_from(budget.started.elapsed().as_millis()).unwrap_or(i64::MAX);
                let pause = budget.throttle.lock().pause_after(bytes, config.max_bytes_per_second, now_ms);
                if pause.is_zero() {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(pause).await;
                }
            }
            Ok(Progress::Done) => {
                let stats = pass.stats();
                tracing::info!(
                    partition = %partition.name(), keys = stats.keys, bytes_before = stats.bytes_before,
                    bytes_after = stats.bytes_after, elapsed = ?started.elapsed(), "compacted the log"
                );
                return Outcome::Cleaned(stats);
            }
            Ok(Progress::LogChanged) => return give_up(pass, Outcome::TryLater).await,
            Err(error) => {
                let after = partition.on_cleaning_failed(&error);
                if after == AfterFailure::Uncleanable {
                    tracing::error!(
                        partition = %partition.name(), %error,
                        "the log cannot be compacted and grows until this is resolved"
                    );
                    return give_up(pass, Outcome::Uncleanable).await;
                }
                return give_up(pass, Outcome::TryLater).await;
            }
        }
    }
}

enum Progress {
    /// Bytes read and written.
    Worked(u64),
    /// A source is gone: the rest is not worth finishing.
    LogChanged,
    Done,
}

fn step(partition: &Partition, pass: &mut CleaningPass) -> Result<Progress, CleaningError> {
    Ok(match pass.step()? {
        CleaningStep::Worked { bytes } => Progress::Worked(bytes),
        CleaningStep::Replace(cleaned) => {
            if partition.replace_segments(&cleaned, clock::now())? {
                Progress::Worked(0)
            } else {
                Progress::LogChanged
            }
        }
        CleaningStep::Done(cleaned) => {
            partition.on_cleaned(&cleaned);
            Progress::Done
        }
    })
}

async fn give_up(pass: CleaningPass, outcome: Outcome) -> Outcome {
    // What it leaves behind is removed at the next opening at the latest.
    if let Err(error) = task::blocking(move || pass.abandon()).await {
        tracing::debug!(%error, "removing what an abandoned compaction has written failed");
    }
    outcome
}
