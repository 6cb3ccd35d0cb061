//! The simulated disk with the names and meanings of `std::fs`.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::FileExt;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{
    DataChange, Directory, EntryChange, FileNode, Kind, Node, NodeId, SimDisk, State, invalid, locate, now, overwrite,
};

/// An open file.
#[derive(Debug)]
pub struct File {
    disk: SimDisk,
    node: NodeId,
    /// As it was opened, to tell whose syncs are whose.
    name: String,
    boot: u64,
    can_read: bool,
    can_write: bool,
    appends: bool,
    /// Where [`io::Read`] and [`io::Write`] go on.
    position: u64,
}

/// What is told about a file or directory.
#[derive(Clone, Debug)]
pub struct Metadata {
    length: u64,
    is_dir: bool,
    modified: Duration,
}

#[allow(clippy::len_without_is_empty, reason = "as std's")]
impl Metadata {
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.length
    }

    #[must_use]
    pub const fn is_dir(&self) -> bool {
        self.is_dir
    }

    #[must_use]
    pub const fn is_file(&self) -> bool {
        !self.is_dir
    }

    pub fn modified(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH + self.modified)
    }
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    path: PathBuf,
}

impl DirEntry {
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    #[must_use]
    pub fn file_name(&self) -> OsString {
        self.path.file_name().unwrap_or_default().to_owned()
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        metadata(&self.path)
    }
}

/// How a file is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
}

impl OpenOptions {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    pub fn append(&mut self, append: bool) -> &mut Self {
        self.append = append;
        self
    }

    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let (disk, path) = locate(path.as_ref())?;
        let mut state = disk.lock();
        state.check_power()?;
        let node = match state.find(&path) {
            Ok(_) if self.create_new => return Err(io::ErrorKind::AlreadyExists.into()),
            Ok(node) => node,
            Err(error) if error.kind() == io::ErrorKind::NotFound && (self.create || self.create_new) => {
                let (directory, name) = state.find_parent(&path)?;
                let name = name.to_owned();
                state.begin_change(Kind::Entry)?;
                let node = state.add(Node::File(FileNode { modified: now(), ..FileNode::default() }));
                state.change_entries(EntryChange::Link { directory, name, node })?;
                state.end_change()?;
                node
            }
            Err(error) => return Err(error),
        };
        let can_write = self.write || self.append;
        if can_write {
            state.file(node)?;
        }
        if self.truncate {
            set_length(&mut state, node, 0)?;
        }
        if let Ok(file) = state.file_mut(node) {
            file.handles += 1;
        }
        let boot = state.boot;
        drop(state);
        let name = path.last().cloned().unwrap_or_default();
        Ok(File { disk, node, name, boot, can_read: self.read, can_write, appends: self.append, position: 0 })
    }
}

impl File {
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        self.with(|state| describe(state, self.node))
    }

    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.check_writable()?;
        let length = usize::try_from(length).map_err(|_| invalid("the length is too large"))?;
        self.with(|state| set_length(state, self.node, length))
    }

    #[track_caller]
    pub fn sync_all(&self) -> io::Result<()> {
        let caller = Location::caller();
        self.with(|state| match state.nodes.get(&self.node) {
            Some(Node::Directory(_)) => state.sync_directory(self.node, caller),
            _ => state.sync_file(self.node, caller, &self.name),
        })
    }

    /// The length is on the platter too: without it the data could not be found.
    #[track_caller]
    pub fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.lock();
        state.check_power()?;
        if state.boot != self.boot {
            return Err(io::Error::other("the file was opened before the power was lost"));
        }
        work(&mut state)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.can_write { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = self.with(|state| {
            state.file_mut(self.node)?.handles -= 1;
            Ok(())
        });
    }
}

impl FileExt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if !self.can_read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.with(|state| {
            let contents = &state.file(self.node)?.contents;
            let start = usize::try_from(offset).map_or(contents.len(), |offset| offset.min(contents.len()));
            let count = buffer.len().min(contents.len() - start);
            buffer[..count].copy_from_slice(&contents[start..start + count]);
            Ok(count)
        })
    }

    /// Writes less than asked if the disk is nearly full.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.check_writable()?;
        let position = usize::try_from(offset).map_err(|_| invalid("the offset is too large"))?;
        self.with(|state| {
            let length = state.file(self.node)?.contents.len();
            let grows = (position + bytes.len()).saturating_sub(length) as u64;
            let room = state.room();
            let fits = bytes.len() - usize::try_from(grows.saturating_sub(room)).unwrap_or(usize::MAX).min(bytes.len());
            if fits == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let outcome = state.begin_change(Kind::Write);
            let written = match outcome {
                Ok(()) => fits,
                Err(_) => state.random.below(fits as u64 + 1) as usize,
            };
            let file = state.file_mut(self.node)?;
            overwrite(&mut file.contents, position, &bytes[..written]);
            file.unsynced.push(DataChange::Write { position, bytes: bytes[..written].to_vec() });
            file.modified = now();
            outcome?;
            state.end_change()?;
            Ok(written)
        })
    }
}

impl io::Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl io::Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.appends {
            self.position = self.metadata()?.len();
        }
        let count = self.write_at(bytes, self.position)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for File {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let position = match to {
            io::SeekFrom::Start(position) => Some(position),
            io::SeekFrom::End(distance) => self.metadata()?.len().checked_add_signed(distance),
            io::SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or_else(|| invalid("the position is negative"))?;
        Ok(self.position)
    }
}

fn set_length(state: &mut State, node: NodeId, length: usize) -> io::Result<()> {
    state.begin_change(Kind::Write)?;
    let file = state.file_mut(node)?;
    file.contents.resize(length, 0);
    file.unsynced.push(DataChange::SetLength(length));
    file.modified = now();
    state.end_change()
}

fn describe(state: &State, node: NodeId) -> io::Result<Metadata> {
    match state.nodes.get(&node) {
        Some(Node::File(file)) => {
            Ok(Metadata { length: file.contents.len() as u64, is_dir: false, modified: file.modified })
        }
        Some(Node::Directory(_)) => Ok(Metadata { length: 0, is_dir: true, modified: Duration::ZERO }),
        None => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Finds the path's disk and does the work there.
fn at<T>(path: &Path, work: impl FnOnce(&mut State, &[String]) -> io::Result<T>) -> io::Result<T> {
    let (disk, path) = locate(path)?;
    let mut state = disk.lock();
    state.check_power()?;
    work(&mut state, &path)
}

pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    at(path.as_ref(), |state, path| describe(state, state.find(path)?))
}

pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    at(path.as_ref(), |state, path| Ok(state.file(state.find(path)?)?.contents.clone()))
}

pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Creates or replaces a file. Not durable, and not atomic.
pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all_at(contents.as_ref(), 0)
}

/// The entries of a directory, in the order of their names.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    let directory = path.as_ref();
    let names: Vec<String> =
        at(directory, |state, path| Ok(state.directory(state.find(path)?)?.entries.keys().cloned().collect()))?;
    let entries: Vec<_> = names.into_iter().map(|name| Ok(DirEntry { path: directory.join(name) })).collect();
    Ok(entries.into_iter())
}

pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    at(path.as_ref(), |state, path| {
        let (directory, name) = state.find_parent(path)?;
        if state.directory(directory)?.entries.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.begin_change(Kind::Entry)?;
        let node = state.add(Node::Directory(Directory::default()));
        state.change_entries(EntryChange::Link { directory, name: name.to_owned(), node })?;
        state.end_change()
    })
}

pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    match metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    create_dir(path)
}

/// Renames a file or directory, replacing a file of the new name. Atomic; durable after [`sync_dir`].
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (target_disk, to) = locate(to.as_ref())?;
    let (disk, from) = locate(from.as_ref())?;
    if !std::sync::Arc::ptr_eq(&disk.state, &target_disk.state) {
        return Err(io::ErrorKind::CrossesDevices.into());
    }
    let mut state = disk.lock();
    state.check_power()?;
    let node = state.find(&from)?;
    let (from_directory, from_name) = state.find_parent(&from)?;
    let (to_directory, to_name) = state.find_parent(&to)?;
    if let Some(Node::Directory(replaced)) = state.find(&to).ok().and_then(|node| state.nodes.get(&node))
        && !replaced.entries.is_empty()
    {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    state.begin_change(Kind::Entry)?;
    let (from, to) = ((from_directory, from_name.to_owned()), (to_directory, to_name.to_owned()));
    state.change_entries(EntryChange::Rename { from, to, node })?;
    state.end_change()
}

pub fn hard_link(original: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    let (target_disk, link) = locate(link.as_ref())?;
    let (disk, original) = locate(original.as_ref())?;
    if !std::sync::Arc::ptr_eq(&disk.state, &target_disk.state) {
        return Err(io::ErrorKind::CrossesDevices.into());
    }
    let mut state = disk.lock();
    state.check_power()?;
    let node = state.find(&original)?;
    state.file(node)?;
    let (directory, name) = state.find_parent(&link)?;
    if state.find(&link).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    state.begin_change(Kind::Entry)?;
    state.change_entries(EntryChange::Link { directory, name: name.to_owned(), node })?;
    state.end_change()
}

pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    at(path.as_ref(), |state, path| {
        let node = state.find(path)?;
        state.file(node)?;
        unlink(state, path, node)
    })
}

pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    at(path.as_ref(), |state, path| {
        let node = state.find(path)?;
        if !state.directory(node)?.entries.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        unlink(state, path, node)
    })
}

pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    for entry in read_dir(path)? {
        let entry = entry?;
        if entry.metadata()?.is_dir() {
            remove_dir_all(entry.path())?;
        } else {
            remove_file(entry.path())?;
        }
    }
    remove_dir(path)
}

/// Makes the entries of a directory durable.
#[track_caller]
pub fn sync_dir(path: &Path) -> io::Result<()> {
    let caller = Location::caller();
    at(path, |state, path| {
        let node = state.find(path)?;
        state.directory(node)?;
        state.sync_directory(node, caller)
    })
}

/// Makes everything on the disk durable that holds the path.
#[track_caller]
pub(crate) fn sync_file_system(path: &Path) -> io::Result<()> {
    let caller = Location::caller();
    at(path, |state, _| state.sync_everything(caller))
}

/// Forgets what is in memory of a file, all of it whatever was asked, except what is not on the platter yet.
pub(crate) fn drop_from_cache(file: &File, _position: u64, _bytes: u64) -> io::Result<()> {
    file.with(|state| {
        state.file_mut(file.node)?.drop_cache();
        Ok(())
    })
}

/// Creates or replaces a file of so many bytes, or fails and has created an empty one.
pub(crate) fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    let length = usize::try_from(bytes).map_err(|_| invalid("the length is too large"))?;
    file.with(|state| match state.room() < bytes {
        true => Err(io::ErrorKind::StorageFull.into()),
        false => set_length(state, file.node, length),
    })
}

/// Bytes in all, and bytes that may still be written.
pub(crate) fn space(path: &Path) -> io::Result<(u64, u64)> {
    at(path, |state, _| Ok((state.capacity, state.capacity.saturating_sub(state.used_bytes()))))
}

fn unlink(state: &mut State, path: &[String], node: NodeId) -> io::Result<()> {
    let (directory, name) = state.find_parent(path)?;
    state.begin_change(Kind::Entry)?;
    state.change_entries(EntryChange::Unlink { directory, name: name.to_owned(), node })?;
    state.end_change()
}
