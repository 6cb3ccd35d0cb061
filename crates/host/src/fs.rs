//! Files, with the names and meanings of `std::fs`, and what durability needs on top. In the simulator's build, what syncs
//! tells the disk for whom (`track_caller`).

#[cfg(not(vltava_sim))]
pub use seam::{read, remove_file, rename, write};
#[cfg(not(vltava_sim))]
pub use std::fs::{
    DirEntry, File, Metadata, OpenOptions, create_dir, create_dir_all, hard_link, metadata, read_dir, read_to_string,
    remove_dir, remove_dir_all,
};
// The simulated files implement the real trait.
pub use std::os::unix::fs::FileExt;

#[cfg(vltava_sim)]
pub use crate::disk::{
    DirEntry, File, Metadata, OpenOptions, create_dir, create_dir_all, hard_link, metadata, read, read_dir,
    read_to_string, remove_dir, remove_dir_all, remove_file, rename, write,
};

use std::io;
use std::io::Write as _;
use std::path::Path;

/// Makes the entries of a directory durable: a created, renamed or removed file survives power loss only after this.
#[cfg_attr(vltava_sim, track_caller)]
pub fn sync_dir(path: &Path) -> io::Result<()> {
    #[cfg(not(vltava_sim))]
    return OpenOptions::new().read(true).open(path)?.sync_all();
    #[cfg(vltava_sim)]
    return crate::disk::sync_dir(path);
}

/// Creates a directory and those above it that are missing, all durable on return. What is there already is left as it is.
#[cfg_attr(vltava_sim, track_caller)]
pub fn create_dir_all_durably(path: &Path) -> io::Result<()> {
    if metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_all_durably(parent)?;
    }
    create_dir_all(path)?;
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Replaces a file's contents so that a crash at any point leaves either the old or the new contents, and the new
/// ones are durable on return: temporary file, fsync, rename, directory fsync. An error of the kinds
/// [`io::ErrorKind::StorageFull`] and [`io::ErrorKind::QuotaExceeded`] means that the old contents stand.
#[cfg_attr(vltava_sim, track_caller)]
pub fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file to replace must have a directory"))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    if let Err(error) = write_durably(temporary, contents).and_then(|()| rename(temporary, path)) {
        // What is left of it would take the room that others need; the next attempt does without it, too.
        let _ = remove_file(temporary);
        return Err(error);
    }
    // The new contents stand already, durable or not: never an error that says the opposite.
    sync_dir(directory).map_err(|error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => io::Error::other(error),
        _ => error,
    })
}

#[cfg_attr(vltava_sim, track_caller)]
fn write_durably(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

/// Has the operating system forget what it keeps of a part of a file in memory, except what is not on disk yet.
pub fn drop_from_cache(file: &File, position: u64, bytes: u64) -> io::Result<()> {
    #[cfg(not(vltava_sim))]
    if let Some(bytes) = std::num::NonZeroU64::new(bytes) {
        rustix::fs::fadvise(file, position, Some(bytes), rustix::fs::Advice::DontNeed)?;
    }
    #[cfg(vltava_sim)]
    crate::disk::drop_from_cache(file, position, bytes)?;
    Ok(())
}

/// Creates or replaces a file of so many bytes whose contents do not matter, with room on the disk for all of them.
pub fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    #[cfg(not(vltava_sim))]
    {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        Ok(())
    }
    #[cfg(vltava_sim)]
    {
        crate::disk::allocate(path, bytes)
    }
}

/// Makes everything on the file system that holds `path` durable, whoever wrote it, which for many files is far quicker
/// than one after the other. Returns false where that is not to be had.
#[cfg_attr(vltava_sim, track_caller)]
pub fn sync_file_system(path: &Path) -> io::Result<bool> {
    #[cfg(not(vltava_sim))]
    {
        rustix::fs::syncfs(OpenOptions::new().read(true).open(path)?)?;
        Ok(true)
    }
    #[cfg(vltava_sim)]
    {
        crate::disk::sync_file_system(path)?;
        Ok(true)
    }
}

/// How large a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    /// What this process may still write.
    pub available_bytes: u64,
}

/// The space of the file system that holds `path`.
pub fn space(path: &Path) -> io::Result<Space> {
    #[cfg(not(vltava_sim))]
    {
        let status = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(status.f_frsize);
        Ok(Space { total_bytes: bytes(status.f_blocks), available_bytes: bytes(status.f_bavail) })
    }
    #[cfg(vltava_sim)]
    {
        let (total_bytes, available_bytes) = crate::disk::space(path)?;
        Ok(Space { total_bytes, available_bytes })
    }
}

/// Whether a region of a file can probably be read without waiting for the disk: the system is asked about some of its
/// bytes. Simulated files always can.
#[must_use]
pub fn is_in_memory(file: &File, position: u64, length: usize) -> bool {
    /// As far as Linux reads ahead by default.
    #[cfg(not(vltava_sim))]
    const STRIDE: usize = 128 << 10;
    #[cfg(not(vltava_sim))]
    {
        let is_cached = |offset: usize| {
            let mut byte = [0];
            let buffers = &mut [io::IoSliceMut::new(&mut byte)];
            let flags = rustix::io::ReadWriteFlags::NOWAIT;
            // A file system that cannot tell is read as if it could.
            rustix::io::preadv2(file, buffers, position + offset as u64, flags) != Err(rustix::io::Errno::AGAIN)
        };
        (0..length).step_by(STRIDE).all(is_cached) && (length == 0 || is_cached(length - 1))
    }
    #[cfg(vltava_sim)]
    {
        let _ = (file, position, length);
        true
    }
}

/// How many files this process may have open. The simulated machine sets no limit.
#[must_use]
pub fn max_open_files() -> usize {
    #[cfg(not(vltava_sim))]
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(vltava_sim)]
    let limit: Option<u64> = None;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Asks for as many open files as the system lets this process have. Returns how many that are.
#[cfg(not(vltava_sim))]
pub fn raise_max_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where this is refused, the limit stays what it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    max_open_files()
}

/// The functions that clippy forbids elsewhere. It looks through re-exports, so that they need bodies here.
#[cfg(not(vltava_sim))]
#[expect(clippy::disallowed_methods, reason = "this is the way to them")]
mod seam {
    use std::io;
    use std::path::Path;

    /// The whole contents of a file.
    pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    /// Creates or replaces a file. Not durable, and not atomic: see [`super::write_atomically`].
    pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
        std::fs::write(path, contents)
    }

    /// Renames a file or directory, replacing a file of the new name. Durable after [`super::sync_dir`].
    pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    /// Removes a file. Durable after [`super::sync_dir`].
    pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}
