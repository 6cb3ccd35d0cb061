//! Which syncs there are, and switching one of them off: whoever tests what a disk may lose wants to know that each of them
//! would be missed.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::Location;

use super::SimDisk;

/// A place in the code that syncs, and what it syncs there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SyncSite {
    file: &'static str,
    pub line: u32,
    /// A file's name; what follows the offset in a segment's or the position in a snapshot's; or `directory`.
    pub what: String,
}

/// The syncs of a disk that is watched.
#[derive(Debug, Default)]
pub(super) struct SyncSites {
    is_watched: bool,
    seen: BTreeSet<SyncSite>,
    left_out: Option<SyncSite>,
}

impl SimDisk {
    /// Has the disk take down who syncs.
    pub fn watch_syncs(&self) {
        self.lock().sync_sites.is_watched = true;
    }

    /// Who has synced since, as far as callers up to there are `#[track_caller]`.
    #[must_use]
    pub fn sync_sites(&self) -> BTreeSet<SyncSite> {
        self.lock().sync_sites.seen.clone()
    }

    /// The syncs of this place do nothing from now on.
    pub fn leave_out_syncs_of(&self, site: SyncSite) {
        self.lock().sync_sites.left_out = Some(site);
    }
}

impl SyncSites {
    /// Whether the sync does nothing.
    pub fn leaves_out(&mut self, caller: &'static Location<'static>, name: &str) -> bool {
        if !self.is_watched && self.left_out.is_none() {
            return false;
        }
        let what = match name.split_once('.') {
            Some((offset, suffix)) if offset.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => suffix,
            _ => name,
        };
        let site = SyncSite { file: caller.file(), line: caller.line(), what: what.to_owned() };
        let is_left_out = self.left_out.as_ref() == Some(&site);
        self.seen.insert(site);
        is_left_out
    }
}

impl SyncSite {
    /// The source file, below the directory of the crates.
    #[must_use]
    pub fn path(&self) -> &'static str {
        let file = self.file.rsplit_once("crates/").map_or(self.file, |(_, file)| file);
        file.trim_start_matches("../")
    }
}

impl fmt::Display for SyncSite {
    /// As `storage/src/log.rs:7 index`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.path(), self.line, self.what)
    }
}
