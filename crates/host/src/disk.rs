//! The simulator's disk: what a file system keeps in memory, what it has put on the platter, and what of the difference
//! is there after the power was lost. It promises what POSIX does and nothing that a common file system does besides.
//!
//! - A write is on the platter after the file was synced. Until then a crash loses any subset of the writes since the
//!   last sync; what it keeps of one may be torn at sectors, or be a length without the bytes.
//! - A name is on the platter after its directory was synced. Until then a crash loses any subset of the directory's
//!   changes: a file may have its new name without its contents, a later removal may outlast an earlier one. Only a rename
//!   is atomic by itself. Syncing a file does not sync its name.
//! - A failed sync drops the writes that it was to put on the platter, and the next one succeeds (as Linux does). They are
//!   seen nevertheless, until somebody has the cache dropped.
//!
//! Nothing here is random but by the disk's own seed. A path belongs to the disk that is mounted above it, and every
//! simulated broker has a mount point of its own. Mounts are per thread, as a simulation is.

mod api;
mod crash;
mod sites;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::panic::Location;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

pub use api::{
    DirEntry, File, Metadata, OpenOptions, create_dir, create_dir_all, hard_link, metadata, read, read_dir,
    read_to_string, remove_dir, remove_dir_all, remove_file, rename, sync_dir, write,
};

pub use sites::SyncSite;

pub(crate) use api::{allocate, drop_from_cache, space, sync_file_system};

use crate::random::Generator;
use sites::SyncSites;

thread_local! {
    static MOUNTS: RefCell<BTreeMap<PathBuf, SimDisk>> = const { RefCell::new(BTreeMap::new()) };
}

/// A handle on a disk, for whoever runs the simulation.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// What a disk does wrong, from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The n-th change from now on, counting from one, does not end: the power fails during it.
    pub power_fails_at: Option<u64>,
    /// The n-th write of data from now on, counting from one, fails, and puts some of its bytes into the file.
    pub write_fails_at: Option<u64>,
    /// The n-th sync of a file or a directory from now on, counting from one, fails. The later ones succeed.
    pub sync_fails_at: Option<u64>,
    /// Every sync fails.
    pub syncs_fail: bool,
    /// A sync succeeds and does nothing, as on a drive with a volatile cache that ignores flushes.
    pub syncs_lie: bool,
}

/// What was asked of a disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes, changes of directories, syncs.
    pub changes: u64,
    pub syncs: u64,
}

impl SimDisk {
    /// The capacity of a disk that never gets full. Only on smaller ones is it counted what they hold.
    pub const UNLIMITED: u64 = 1 << 40;

    /// Mounts an empty disk, in place of one that is mounted there.
    #[must_use]
    pub fn mount(at: impl Into<PathBuf>, seed: u64) -> Self {
        let disk = Self { state: Arc::new(Mutex::new(State::new(seed))) };
        MOUNTS.with_borrow_mut(|mounts| mounts.insert(at.into(), disk.clone()));
        disk
    }

    /// Forgets all disks of this thread.
    pub fn unmount_all() {
        MOUNTS.with_borrow_mut(BTreeMap::clear);
    }

    /// What the disk holds at most, in bytes of files. Writes beyond fail with [`io::ErrorKind::StorageFull`].
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Power loss: what was not synced is lost, in part or as a whole. Every use of the disk fails from here on, through
    /// paths and through files that are open. Does nothing without power.
    pub fn lose_power(&self) {
        self.lock().lose_power();
    }

    /// Whether the power was lost, by [`SimDisk::lose_power`] or by [`Faults::power_fails_at`].
    #[must_use]
    pub fn is_without_power(&self) -> bool {
        !self.lock().has_power
    }

    /// Whether a sync has failed since there was power.
    #[must_use]
    pub fn has_failed_a_sync(&self) -> bool {
        self.lock().has_failed_a_sync
    }

    /// The disk works again, without faults. Files that were open before stay dead.
    pub fn restore_power(&self) {
        let mut state = self.lock();
        if !state.has_power {
            state.has_failed_a_sync = false;
        }
        state.has_power = true;
        state.faults = Faults::default();
    }

    /// The process ends and the machine goes on: everything stays, and files that are open are dead.
    pub fn end_process(&self) {
        self.lock().boot += 1;
    }

    /// An empty disk in the place of this one, as after a replacement.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.boot += 1;
        state.unsynced.clear();
        state.nodes = BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]);
    }

    /// Changes a bit of a file, in memory and on the platter, as a medium does that decays.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let mut state = self.lock();
        let node = state.find(&relative(path)?)?;
        let file = state.file_mut(node)?;
        let position = usize::try_from(position).map_err(|_| invalid("the position lies beyond the file"))?;
        for bytes in [&mut file.contents, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Ok(())
    }

    /// Changes a bit of a file on the platter only: it is seen when the file is read from there again, because the power was
    /// lost or the cache was dropped. Returns whether there is such a bit, and none of the file waits to be written.
    pub fn decay_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<bool> {
        let mut state = self.lock();
        let node = state.find(&relative(path)?)?;
        let file = state.file_mut(node)?;
        let byte = usize::try_from(position).ok().and_then(|position| file.durable.get_mut(position));
        let Some(byte) = byte.filter(|_| file.unsynced.is_empty()) else { return Ok(false) };
        *byte ^= 1 << (bit % 8);
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no operation of the disk panics")
    }
}

type NodeId = u64;

const ROOT: NodeId = 0;

#[derive(Debug)]
struct State {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    /// Changes of directories that were not synced, in order.
    unsynced: Vec<EntryChange>,
    capacity: u64,
    has_power: bool,
    has_failed_a_sync: bool,
    /// Files that were opened in an earlier one are dead.
    boot: u64,
    faults: Faults,
    counts: Counts,
    sync_sites: SyncSites,
    random: Generator,
}

#[derive(Debug)]
enum Node {
    File(FileNode),
    Directory(Directory),
}

#[derive(Debug, Default)]
struct FileNode {
    /// What a process sees.
    contents: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// What leads from there to here, unless a sync has failed.
    unsynced: Vec<DataChange>,
    /// Since the Unix epoch.
    modified: Duration,
    names: u32,
    handles: u32,
}

impl Node {
    fn is_dirty_file(&self) -> bool {
        matches!(self, Self::File(file) if !file.unsynced.is_empty())
    }
}

impl FileNode {
    fn make_durable(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            change.apply(&mut self.durable);
        }
    }

    /// What is not waiting to be written is read from the platter again. The length stays what it was, and what the
    /// platter lacks of it reads as zeros.
    fn drop_cache(&mut self) {
        let mut contents = self.durable.clone();
        self.unsynced.iter().for_each(|change| change.apply(&mut contents));
        contents.resize(self.contents.len(), 0);
        self.contents = contents;
    }
}

#[derive(Debug)]
enum DataChange {
    Write { position: usize, bytes: Vec<u8> },
    SetLength(usize),
}

#[derive(Debug, Default)]
struct Directory {
    entries: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

/// A change of one directory, or of two.
#[derive(Clone, Debug)]
enum EntryChange {
    Link { directory: NodeId, name: String, node: NodeId },
    Unlink { directory: NodeId, name: String, node: NodeId },
    Rename { from: (NodeId, String), to: (NodeId, String), node: NodeId },
}

impl EntryChange {
    fn is_about(&self, node: NodeId) -> bool {
        let (Self::Link { node: about, .. } | Self::Unlink { node: about, .. } | Self::Rename { node: about, .. }) =
            self;
        *about == node
    }

    fn touches(&self, directory: NodeId) -> bool {
        match self {
            Self::Link { directory: changed, .. } | Self::Unlink { directory: changed, .. } => *changed == directory,
            Self::Rename { from, to, .. } => from.0 == directory || to.0 == directory,
        }
    }
}

/// What a change may do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Entry,
    Write,
    Sync,
}

impl State {
    fn new(seed: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Directory(Directory::default()))]),
            next_node: ROOT + 1,
            unsynced: Vec::new(),
            capacity: SimDisk::UNLIMITED,
            has_power: true,
            has_failed_a_sync: false,
            boot: 0,
            faults: Faults::default(),
            counts: Counts::default(),
            sync_sites: SyncSites::default(),
            random: Generator::new(seed),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if self.has_power { Ok(()) } else { Err(io_error("the disk has no power")) }
    }

    /// Counts a change, and makes it fail if it is to. A power failure comes when the change has been made in memory:
    /// see [`State::end_change`].
    fn begin_change(&mut self, kind: Kind) -> io::Result<()> {
        self.check_power()?;
        self.counts.changes += 1;
        let fails = match kind {
            Kind::Entry => false,
            Kind::Write => is_due(&mut self.faults.write_fails_at),
            Kind::Sync => {
                self.counts.syncs += 1;
                is_due(&mut self.faults.sync_fails_at) || self.faults.syncs_fail
            }
        };
        self.has_failed_a_sync |= fails && kind == Kind::Sync;
        if fails { Err(io_error("the disk failed")) } else { Ok(()) }
    }

    /// Whether the power fails before the change is on the platter.
    fn end_change(&mut self) -> io::Result<()> {
        if is_due(&mut self.faults.power_fails_at) {
            self.lose_power();
            return Err(io_error("the power failed"));
        }
        Ok(())
    }

    /// Bytes that may still be written.
    fn room(&self) -> u64 {
        if self.capacity >= SimDisk::UNLIMITED {
            self.capacity
        } else {
            self.capacity.saturating_sub(self.used_bytes())
        }
    }

    fn used_bytes(&self) -> u64 {
        let sizes = self.nodes.values().map(|node| match node {
            Node::File(file) if file.names > 0 || file.handles > 0 => file.contents.len() as u64,
            _ => 0,
        });
        sizes.sum()
    }

    fn find(&self, path: &[String]) -> io::Result<NodeId> {
        path.iter().try_fold(ROOT, |node, name| {
            let found = self.directory(node)?.entries.get(name).copied();
            found.ok_or_else(|| io::ErrorKind::NotFound.into())
        })
    }

    /// The directory that holds the path's last name, and that name.
    fn find_parent<'a>(&self, path: &'a [String]) -> io::Result<(NodeId, &'a str)> {
        let (name, parent) = path.split_last().ok_or_else(|| invalid("a disk's root has no name"))?;
        let parent = self.find(parent)?;
        self.directory(parent)?;
        Ok((parent, name))
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        id
    }

    fn directory(&self, node: NodeId) -> io::Result<&Directory> {
        match self.nodes.get(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn directory_mut(&mut self, node: NodeId) -> io::Result<&mut Directory> {
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file(&self, node: NodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn file_mut(&mut self, node: NodeId) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn change_names(&mut self, node: NodeId, change: impl FnOnce(u32) -> u32) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&node) {
            file.names = change(file.names);
        }
    }

    /// Makes a change of directories visible, and remembers that it is not on the platter.
    fn change_entries(&mut self, change: EntryChange) -> io::Result<()> {
        match &change {
            EntryChange::Link { directory, name, node } => {
                self.directory_mut(*directory)?.entries.insert(name.clone(), *node);
                self.change_names(*node, |names| names + 1);
            }
            EntryChange::Unlink { directory, name, node } => {
                self.directory_mut(*directory)?.entries.remove(name);
                self.change_names(*node, |names| names - 1);
            }
            EntryChange::Rename { from, to, node } => {
                self.directory_mut(from.0)?.entries.remove(&from.1);
                if let Some(replaced) = self.directory_mut(to.0)?.entries.insert(to.1.clone(), *node) {
                    self.change_names(replaced, |names| names - 1);
                }
            }
        }
        self.unsynced.push(change);
        Ok(())
    }

    /// Puts a file's contents on the platter. `caller` and `name` tell which sync it is.
    fn sync_file(&mut self, node: NodeId, caller: &'static Location<'static>, name: &str) -> io::Result<()> {
        if let Err(error) = self.begin_change(Kind::Sync) {
            if self.has_power {
                self.drop_unsynced(node)?;
            }
            return Err(error);
        }
        self.end_change()?;
        if !self.sync_sites.leaves_out(caller, name) && !self.faults.syncs_lie {
            self.file_mut(node)?.make_durable();
        }
        Ok(())
    }

    /// Puts everything on the platter. If it fails, that may be any file's fault.
    fn sync_everything(&mut self, caller: &'static Location<'static>) -> io::Result<()> {
        let files: Vec<NodeId> =
            self.nodes.iter().filter_map(|(id, node)| node.is_dirty_file().then_some(*id)).collect();
        if let Err(error) = self.begin_change(Kind::Sync) {
            if self.has_power {
                files.into_iter().try_for_each(|file| self.drop_unsynced(file))?;
            }
            return Err(error);
        }
        self.end_change()?;
        if !self.sync_sites.leaves_out(caller, "everything") && !self.faults.syncs_lie {
            for file in files {
                self.file_mut(file)?.make_durable();
            }
            let changes = std::mem::take(&mut self.unsynced);
            let gone: Vec<NodeId> = changes.iter().filter_map(|change| self.make_durable(change)).collect();
            gone.into_iter().for_each(|node| self.forget_if_gone(node));
        }
        Ok(())
    }

    /// Puts a directory's entries on the platter.
    fn sync_directory(&mut self, node: NodeId, caller: &'static Location<'static>) -> io::Result<()> {
        self.begin_change(Kind::Sync)?;
        self.end_change()?;
        if !self.sync_sites.leaves_out(caller, "directory") && !self.faults.syncs_lie {
            let (synced, rest) =
                std::mem::take(&mut self.unsynced).into_iter().partition(|change| change.touches(node));
            self.unsynced = rest;
            let synced: Vec<EntryChange> = synced;
            let gone: Vec<NodeId> = synced.iter().filter_map(|change| self.make_durable(change)).collect();
            gone.into_iter().for_each(|node| self.forget_if_gone(node));
        }
        Ok(())
    }

    /// Frees a file that nobody has open, and that has no name and will have none after a crash.
    fn forget_if_gone(&mut self, node: NodeId) {
        let is_gone = matches!(self.nodes.get(&node), Some(Node::File(file)) if file.names == 0 && file.handles == 0);
        // A name that it had elsewhere may still be on the platter.
        if is_gone && !self.unsynced.iter().any(|change| change.is_about(node)) {
            self.nodes.remove(&node);
        }
    }

    /// Returns the file that has lost a name by it, if any.
    fn make_durable(&mut self, change: &EntryChange) -> Option<NodeId> {
        let mut remove = |directory: NodeId, name: &str, node: NodeId| {
            if let Ok(directory) = self.directory_mut(directory)
                && directory.durable.get(name) == Some(&node)
            {
                directory.durable.remove(name);
            }
        };
        match change {
            EntryChange::Link { .. } => {}
            EntryChange::Unlink { directory, name, node } => remove(*directory, name, *node),
            EntryChange::Rename { from, node, .. } => remove(from.0, &from.1, *node),
        }
        let (EntryChange::Link { directory, name, node } | EntryChange::Rename { to: (directory, name), node, .. }) =
            change
        else {
            let EntryChange::Unlink { node, .. } = change else { return None };
            return Some(*node);
        };
        let replaced = self.directory_mut(*directory).ok()?.durable.insert(name.clone(), *node);
        replaced.filter(|replaced| replaced != node)
    }
}

impl DataChange {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { position, bytes: written } => overwrite(bytes, *position, written),
            Self::SetLength(length) => bytes.resize(*length, 0),
        }
    }
}

fn overwrite(bytes: &mut Vec<u8>, position: usize, written: &[u8]) {
    let end = position + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[position..end].copy_from_slice(written);
}

/// Counts down to a fault.
fn is_due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        None => false,
        Some(left) => {
            *left = left.saturating_sub(1);
            let is_due = *left == 0;
            if is_due {
                *countdown = None;
            }
            is_due
        }
    }
}

/// The disk that a path belongs to, and the path's names below its mount point.
fn locate(path: &Path) -> io::Result<(SimDisk, Vec<String>)> {
    let disk = MOUNTS.with_borrow(|mounts| {
        let mount = path.ancestors().find_map(|ancestor| mounts.get(ancestor));
        mount.cloned().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no simulated disk is mounted there"))
    })?;
    Ok((disk, relative(path)?))
}

/// The names of a path below its mount point, or below the root if there is none.
fn relative(path: &Path) -> io::Result<Vec<String>> {
    let mount = MOUNTS.with_borrow(|mounts| {
        path.ancestors().find(|ancestor| mounts.contains_key(*ancestor)).map(Path::to_owned).unwrap_or_default()
    });
    let below = path.strip_prefix(&mount).unwrap_or(path);
    below
        .components()
        .filter(|component| !matches!(component, Component::RootDir | Component::CurDir))
        .map(|component| match component {
            Component::Normal(name) => name.to_str().map(ToOwned::to_owned).ok_or_else(|| invalid("a name is no text")),
            _ => Err(invalid("a path leads upwards")),
        })
        .collect()
}

fn now() -> Duration {
    turmoil::since_epoch().unwrap_or_default()
}

fn io_error(reason: &'static str) -> io::Error {
    // EIO has no kind of its own.
    io::Error::other(reason)
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, reason)
}
