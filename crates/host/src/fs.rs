//! Files, with the names and meanings of `std::fs`, and what durability needs on top.

#[cfg(not(vltava_sim))]
pub use std::fs::{
    DirEntry, File, Metadata, OpenOptions, ReadDir, create_dir, create_dir_all, hard_link, metadata, read, read_dir,
    read_to_string, remove_dir, remove_dir_all, remove_file, rename, write,
};
// Turmoil implements the real trait for its own files.
pub use std::os::unix::fs::FileExt;

#[cfg(vltava_sim)]
pub use turmoil::fs::shim::std::fs::{
    DirEntry, File, Metadata, OpenOptions, ReadDir, create_dir, create_dir_all, hard_link, metadata, read, read_dir,
    read_to_string, remove_dir, remove_dir_all, remove_file, rename, write,
};

use std::io;
use std::io::Write as _;
use std::path::Path;

/// Makes the entries of a directory durable: a created, renamed or removed file survives power loss only after this.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    #[cfg(not(vltava_sim))]
    return File::open(path)?.sync_all();
    #[cfg(vltava_sim)]
    return turmoil::fs::shim::std::fs::sync_dir(path);
}

/// Replaces a file's contents so that a crash at any point leaves either the old or the new contents, and the new
/// ones are durable on return: temporary file, fsync, rename, directory fsync.
pub fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::other("a file to replace must have a directory"))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let mut file = File::create(temporary)?;
    file.write_all(contents)?;
    file.sync_all()?;
    drop(file);
    rename(temporary, path)?;
    sync_dir(directory)
}
