//! Random histories of the logs of two directories, with crashes in the middle of operations.

mod cleaning;
mod decay;
mod late;
mod moving;
mod operations;
mod reopening;

use std::sync::Arc;

use vltava_host::disk::{Faults, SimDisk};
use vltava_host::random::Generator;
use vltava_storage::{
    CleaningPass, Flush, FutureLog, Log, LogConfig, LogDir, LogReader, PartitionName, SegmentScrub, StorageError,
};
use vltava_types::PartitionIndex;

use crate::check::check;
use crate::model::{Allowed, Cleaning, Model};

const MOUNT: &str = "/disk";

const DIRECTORIES: [&str; 2] = ["data", "more"];

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What a history goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process ends, or the power fails, in the middle of operations.
    Crashes,
    /// The disk fails writes and syncs too. A log directory is not used after that.
    FailingDisk,
    /// The disk fills up too, until something is refused.
    FullDisk,
    /// Bits change on the platter too, of what lies there.
    DecayingDisk,
    /// Syncs do nothing. For the checks' own sake: they must notice.
    LyingDisk,
}

/// One log and what it should be.
struct Driven {
    name: PartitionName,
    model: Model,
    /// `None` before it was created and after it was deleted.
    log: Option<Log>,
    topics: u8,
    /// The log directory that it is in.
    home: usize,
    /// Its copy on the way to the other directory.
    future: Option<FutureLog>,
    /// The offsets of a batch that has decayed on the platter.
    decayed: Option<(i64, i64)>,
    /// A compaction under way, and what it may do. It may outlive the log.
    pass: Option<(CleaningPass, Cleaning)>,
    /// A flush under way, likewise.
    flush: Option<Flush>,
    /// Readers, and what they saw when they began.
    readers: Vec<(LogReader, Vec<u8>)>,
    scrubs: Vec<SegmentScrub>,
    /// Set while an operation is under way, if a crash now allows more than what was before and after it.
    under_way: Option<Allowed>,
}

pub struct Run {
    random: Generator,
    trouble: Trouble,
    pub disk: SimDisk,
    log_dirs: [Arc<LogDir>; 2],
    logs: Vec<Driven>,
    config: Arc<LogConfig>,
    runtime: tokio::runtime::Runtime,
    /// Of the cleaner's clock.
    now: i64,
    /// What was done, to be shown if a check fails.
    story: Story,
    pub recoveries: usize,
    /// Since the process has ended.
    starts: usize,
}

/// Tells itself if it ends with a panic.
struct Story {
    seed: u64,
    lines: Vec<String>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() && std::env::var_os("VLTAVA_QUIET").is_none() {
            eprintln!("seed {}:\n{}\n", self.seed, self.lines.join("\n"));
        }
    }
}

type Outcome = Result<(), StorageError>;
impl Run {
    pub fn new(seed: u64, trouble: Trouble) -> Self {
        let mut random = Generator::new(seed);
        vltava_host::random::seed(random.u64());
        let disk = SimDisk::mount(MOUNT, random.u64());
        let log_dirs = DIRECTORIES.map(|name| reopening::open(name).expect("an empty disk works"));
        let config = LogConfig {
            segment_bytes: [600, 1500, 6000][random.below(3) as usize],
            index_interval_bytes: [0, 100, 1000][random.below(3) as usize],
            retention_ms: [-1, -1, 300][random.below(3) as usize],
            retention_bytes: [-1, 2500][random.below(2) as usize],
            file_delete_delay_ms: 0,
            is_compacted: random.below(3) > 0,
            delete_by_retention: random.below(2) == 0,
            delete_retention_ms: DAY_MS,
            ..LogConfig::default()
        };
        let logs = (0..1 + random.below(2)).map(|index| Driven {
            name: PartitionName::new("orders", PartitionIndex(index as i32)),
            model: Model::default(),
            log: None,
            topics: 0,
            home: index as usize % DIRECTORIES.len(),
            future: None,
            decayed: None,
            pass: None,
            flush: None,
            readers: vec![],
            scrubs: vec![],
            under_way: None,
        });
        let logs = logs.collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without a driver");
        let story = Story { seed, lines: vec![format!("{trouble:?} with {config:?}")] };
        let config = Arc::new(config);
        Self { random, trouble, disk, log_dirs, logs, config, runtime, now: DAY_MS, story, recoveries: 0, starts: 0 }
    }

    /// Runs `steps` operations, and ends with a loss of power.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.random.below(6) == 0 {
                self.arm();
            }
            let index = self.random.below(self.logs.len() as u64) as usize;
            let outcome = self.step(index);
            self.finish(outcome);
        }
        self.tell("the power fails");
        self.disk.lose_power();
        self.reopen(false);
    }

    /// Has one of the next changes of the disk fail.
    fn arm(&mut self) {
        let within = [3, 12, 40][self.random.below(3) as usize];
        let soon = Some(1 + self.random.below(within));
        let mut faults = Faults { syncs_lie: self.trouble == Trouble::LyingDisk, ..Faults::default() };
        match (self.trouble, self.random.below(3)) {
            (Trouble::FailingDisk, 0) => faults.write_fails_at = soon,
            (Trouble::FailingDisk, 1) => faults.sync_fails_at = soon,
            _ => faults.power_fails_at = soon,
        }
        self.tell(format!("{faults:?}"));
        self.disk.set_faults(faults);
        if self.trouble == Trouble::FullDisk {
            self.disk.set_capacity(2000 + self.random.below(20_000));
        }
    }

    /// After an operation: the log is as the model says, or the directory has failed and is opened anew.
    fn finish(&mut self, outcome: Outcome) {
        match outcome {
            Ok(()) if !self.disk.is_without_power() => {
                for driven in &mut self.logs {
                    driven.under_way = None;
                    if let Some(log) = driven.log.as_ref().filter(|_| driven.decayed.is_none()) {
                        check(log, &driven.model);
                    }
                }
            }
            // An operation that has nothing to say about the disk may have come to its end.
            Ok(()) => self.reopen(false),
            Err(error) if error.is_full() && !self.disk.is_without_power() => {
                self.tell(format!("  {error}"));
                assert!(self.trouble == Trouble::FullDisk, "{error}");
                self.finish_refused();
            }
            Err(error) => {
                self.tell(format!("  {error}"));
                let is_expected = self.disk.is_without_power() || error.is_io() && self.trouble != Trouble::Crashes;
                assert!(is_expected, "{error}");
                // As the broker does. After a failed sync the page cache holds what the disk does not, and calls it clean.
                self.log_dirs.iter().for_each(|log_dir| log_dir.mark_failed());
                if self.random.below(2) == 0 {
                    self.tell("  and the power fails");
                    self.disk.lose_power();
                }
                self.reopen(false);
            }
        }
    }

    /// What a full disk refuses has not begun, or is taken back. A crash may bring taken back batches to light again, as it
    /// may any that were not acknowledged; so that the model need not know them, the process ends first.
    fn finish_refused(&mut self) {
        self.disk.set_faults(Faults::default());
        self.end_process();
        self.try_reopen(false).expect("the disk works");
    }

    fn tell(&mut self, line: impl Into<String>) {
        self.story.lines.push(line.into());
    }

    /// One operation on one log, or on all of them.
    fn step(&mut self, index: usize) -> Outcome {
        if self.logs[index].log.is_none() {
            return self.create(index);
        }
        match self.random.below(100) {
            0..28 => self.append(index),
            28..31 => self.append_after_gap(index),
            31..36 if self.config.is_compacted => self.compact(index),
            31..36 => self.append(index),
            36..40 => self.move_on(index),
            48..50 if self.trouble == Trouble::DecayingDisk => self.decay(index),
            40..50 => self.flush(index),
            50..52 => self.hold_on(index),
            52..54 => self.come_late(index),
            54..58 => self.flush_while_appending(index),
            58..66 => self.truncate(index),
            66..72 => self.advance_start(index),
            72..78 => self.delete_old_segments(index),
            78..80 => self.start_over(index),
            80..88 => self.checkpoint(),
            88..90 => self.roll(index),
            90..94 => self.restart(),
            94..96 => self.recreate(index),
            96..98 => {
                self.tell("the process is killed");
                self.reopen(false);
                Ok(())
            }
            _ => {
                self.tell("the power fails");
                self.disk.lose_power();
                self.reopen(false);
                Ok(())
            }
        }
    }
}
