//! The end of the process, with or without power, and the next start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vltava_host::disk::Faults;
use vltava_storage::{LoadedLog, LogDir, MetaProperties, PartitionName, StorageError, is_newer};
use vltava_types::{BrokerEpoch, BrokerId, DirectoryId, TimestampMs, Uuid};

use super::{DIRECTORIES, Driven, MOUNT, Outcome, Run, Story, Trouble};
use crate::check::{check_decayed_recovery, check_recovered};
use crate::model::{Allowed, Model};

type Loaded = BTreeMap<PartitionName, LoadedLog>;

impl Run {
    /// Everything that was open is gone; what is on the disk is opened again. Power may fail meanwhile.
    pub(super) fn reopen(&mut self, clean: bool) {
        self.end_process();
        loop {
            self.disk.restore_power();
            if self.random.below(4) == 0 {
                let power_fails_at = Some(1 + self.random.below(30));
                self.disk.set_faults(Faults { power_fails_at, ..Faults::default() });
            }
            match self.try_reopen(clean) {
                Ok(()) => break,
                Err(error) => {
                    self.tell(format!("  reopening: {error}"));
                    assert!(self.disk.is_without_power(), "{error}");
                    assert!(!clean, "no power failure was asked for");
                }
            }
        }
        // The power may have failed when nobody looked.
        self.disk.restore_power();
        self.disk.set_faults(Faults { syncs_lie: self.trouble == Trouble::LyingDisk, ..Faults::default() });
    }

    pub(super) fn end_process(&mut self) {
        for driven in &mut self.logs {
            driven.log = None;
            driven.pass = None;
            driven.flush = None;
            driven.future = None;
            driven.readers.clear();
            driven.scrubs.clear();
        }
        self.starts = 0;
        self.disk.end_process();
        self.disk.set_capacity(u64::MAX >> 1);
    }

    pub(super) fn try_reopen(&mut self, clean: bool) -> Outcome {
        if clean {
            self.disk.set_faults(Faults::default());
        }
        self.starts += 1;
        let mut loaded = Loaded::new();
        let mut log_dirs = Vec::new();
        let mut clean_dirs = Vec::new();
        for name in DIRECTORIES {
            let log_dir = open(name)?;
            let marker = log_dir.take_clean_shutdown_marker()?;
            assert!(!clean || marker == Some(BrokerEpoch(7)), "the marker is {marker:?}");
            self.load(&log_dir, marker.is_some(), &mut loaded)?;
            log_dirs.push(log_dir);
            clean_dirs.push(marker.is_some());
        }
        self.take_decayed(&mut loaded)?;
        if self.disk.is_without_power() {
            return Err(StorageError::Io { path: path(""), source: std::io::Error::other("the power failed") });
        }
        self.log_dirs = log_dirs.try_into().expect("as many as before");
        for driven in &mut self.logs {
            driven.decayed = None;
            let allowed = driven
                .under_way
                .take()
                .unwrap_or_else(|| Allowed { may_be_missing: driven.topics == 0, ..Allowed::after(&driven.model) });
            let Some(loaded) = loaded.remove(&driven.name) else {
                assert!(allowed.may_be_missing, "{} is missing", driven.name);
                driven.topics = 0;
                driven.model = Model { epoch: driven.model.epoch, ..Model::default() };
                continue;
            };
            tell(&mut self.story, &loaded, &allowed);
            let LoadedLog { recovery: report, log, log_dir, .. } = loaded;
            driven.model = check_recovered(&log, &allowed);
            assert!(report.lost_below.is_none() || allowed.may_have_lost, "{report:?}");
            driven.home = self.log_dirs.iter().position(|known| Arc::ptr_eq(known, &log_dir)).expect("one of ours");
            assert!(!clean_dirs[driven.home] || report.bytes_scanned == 0, "a clean log was scanned: {report:?}");
            driven.topics = driven.topics.max(1);
            driven.log = Some(log);
        }
        assert!(loaded.is_empty(), "a deleted log has come back");
        self.recoveries += 1;
        Ok(())
    }

    /// Opens the logs of one directory. Of two logs of a partition one is the copy of the other, as the broker decides it.
    fn load(&mut self, log_dir: &Arc<LogDir>, is_clean: bool, found: &mut Loaded) -> Outcome {
        let config = Arc::clone(&self.config);
        let (loaded, failures) = self.runtime.block_on(log_dir.load(1, is_clean, move |_| Arc::clone(&config)))?;
        for failure in failures {
            let driven = self.logs.iter_mut().find(|driven| driven.name == failure.partition).expect("a log of ours");
            let is_reported = driven.decayed.is_some() && matches!(failure.error, StorageError::Corrupt { .. });
            if !is_reported {
                return Err(failure.error);
            }
            self.story.lines.push(format!("  it was found: {}", failure.error));
            allow_to_be_missing(driven);
            log_dir.set_aside(&failure.directory)?;
        }
        for log in loaded {
            let name = log.partition.clone();
            let Some(other) = found.remove(&name) else {
                found.insert(name, log);
                continue;
            };
            let (newer, older) = if is_newer(&log.rival(), &other.rival()) { (log, other) } else { (other, log) };
            assert_eq!(newer.rival().replaces, Some(older.log_dir.directory_id()), "a copy has come from nowhere");
            self.story.lines.push(format!("  the copy in {} is the log", newer.log_dir.path().display()));
            older.log_dir.delete(older.log, TimestampMs(0))?;
            newer.log_dir.forget_replaced(&name)?;
            found.insert(name, newer);
        }
        Ok(())
    }

    /// What has decayed was cut off and told, or is found when it is read. Such a replica begins anew.
    fn take_decayed(&mut self, loaded: &mut Loaded) -> Outcome {
        for driven in &mut self.logs {
            let Some(decayed) = driven.decayed else { continue };
            let Some(found) = loaded.remove(&driven.name) else { continue };
            let allowed = driven.under_way.clone().unwrap_or_else(|| Allowed::after(&driven.model));
            tell(&mut self.story, &found, &allowed);
            check_decayed_recovery(&found, &allowed, decayed, self.starts == 1)?;
            allow_to_be_missing(driven);
            found.log_dir.delete(found.log, TimestampMs(0))?;
        }
        Ok(())
    }
}

fn allow_to_be_missing(driven: &mut Driven) {
    let allowed = driven.under_way.take().unwrap_or_else(|| Allowed::after(&driven.model));
    driven.under_way = Some(Allowed { may_be_missing: true, ..allowed });
}

fn tell(story: &mut Story, loaded: &LoadedLog, allowed: &Allowed) {
    let (start, end) = (loaded.log.log_start_offset(), loaded.log.log_end_offset());
    story.lines.push(format!(
        "  {}: {start}..{end} of {}..{}, durable {}, {:?}",
        loaded.partition, allowed.model.start, allowed.model.end, allowed.min_end, loaded.recovery
    ));
}

fn path(name: &str) -> PathBuf {
    Path::new(MOUNT).join(name)
}

/// One of the directories, with an identity.
pub(super) fn open(name: &str) -> Result<Arc<LogDir>, StorageError> {
    let log_dir = LogDir::open(&path(name))?;
    if log_dir.meta_properties().is_none() {
        let directory_id = DirectoryId(Uuid::from_random([name.as_bytes()[0]; 16]));
        log_dir.write_meta_properties(&MetaProperties {
            node_id: BrokerId(1),
            cluster_id: "simulated".to_owned(),
            directory_id,
        })?;
    }
    Ok(Arc::new(log_dir))
}
