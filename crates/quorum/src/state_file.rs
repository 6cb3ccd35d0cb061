//! `quorum-state`: what Raft must remember besides its log, and who this directory belongs to.
//!
//! The file is replaced atomically and durably, by the log's writer alone, so that it never gets ahead of or behind
//! the log in a way that Raft does not allow.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use vltava_host::{fs, random};
use vltava_types::DirectoryId;

use crate::types::{LogId, Vote, log_id, term_of};

/// The file's name within the log's directory, as in Kafka.
pub(crate) const STATE_FILE: &str = "quorum-state";

const VERSION: u32 = 1;

/// The contents of `quorum-state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateFile {
    pub node_id: u64,
    /// Drawn when the file was first written. Whoever wipes the directory loses it, and with it the right to vote
    /// under the old identity (trap 13).
    pub directory_id: DirectoryId,
    /// Empty until this node has become part of a cluster.
    pub cluster_id: String,
    pub vote: Option<Vote>,
    /// At least this much is committed. Written when convenient: Raft finds out by itself how much more is.
    pub committed: Option<LogId>,
    /// Everything up to this, inclusive, has been removed from the log.
    pub purged: Option<LogId>,
}

impl StateFile {
    /// Reads the file of this directory; in a directory without one, takes a new identity and makes it durable first.
    pub fn open_or_create(directory: &Path, node_id: u64) -> io::Result<Self> {
        let text = match fs::read_to_string(path(directory)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let state = Self {
                    node_id,
                    directory_id: DirectoryId::from_random(random::bytes()),
                    cluster_id: String::new(),
                    vote: None,
                    committed: None,
                    purged: None,
                };
                state.write(directory)?;
                return Ok(state);
            }
            Err(error) => return Err(error),
        };
        Self::parse(&text).ok_or_else(|| {
            let file = path(directory);
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is not a quorum-state file", file.display()))
        })
    }

    /// Replaces the file. Durable on return.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::write_atomically(&path(directory), self.format().as_bytes())
    }

    pub(crate) fn format(&self) -> String {
        let mut text = format!(
            "version={VERSION}\nnode.id={}\ndirectory.id={}\ncluster.id={}\n",
            self.node_id, self.directory_id, self.cluster_id
        );
        if let Some(vote) = &self.vote {
            let leader = &vote.leader_id;
            let _ = writeln!(text, "vote={},{},{}", leader.term, leader.voted_for, vote.committed);
        }
        for (name, log_id) in [("committed", &self.committed), ("purged", &self.purged)] {
            if let Some(log_id) = log_id {
                let _ = writeln!(text, "{name}={},{}", term_of(log_id), log_id.index);
            }
        }
        text
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let get = |name: &str| {
            text.lines().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
        };
        if get("version")?.parse() != Ok(VERSION) {
            return None;
        }
        let vote = match get("vote") {
            None => None,
            Some(vote) => {
                let [term, node_id, committed] = fields(vote)?;
                let (term, node_id) = (parse(term)?, parse(node_id)?);
                Some(if parse(committed)? { Vote::new_committed(term, node_id) } else { Vote::new(term, node_id) })
            }
        };
        let log_id = |name| match get(name) {
            None => Some(None),
            Some(value) => {
                let [term, index] = fields(value)?;
                Some(Some(log_id(parse(term)?, parse(index)?)))
            }
        };
        Some(Self {
            node_id: parse(get("node.id")?)?,
            directory_id: DirectoryId(parse(get("directory.id")?)?),
            cluster_id: get("cluster.id")?.to_owned(),
            vote,
            committed: log_id("committed")?,
            purged: log_id("purged")?,
        })
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join(STATE_FILE)
}

fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split(',').collect::<Vec<_>>().try_into().ok()
}

fn parse<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_survive_writing_and_reading() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut state = StateFile::open_or_create(directory.path(), 3).expect("a new file");
        assert_eq!(StateFile::open_or_create(directory.path(), 3).expect("the same file"), state);
        state.cluster_id = "4L6g3nShT-eMCtK--X86sw".to_owned();
        state.vote = Some(Vote::new_committed(7, 2));
        state.committed = Some(log_id(7, 100));
        state.purged = Some(log_id(3, 12));
        state.write(directory.path()).expect("written");
        assert_eq!(StateFile::open_or_create(directory.path(), 3).expect("the same file"), state);
    }

    #[test]
    fn a_new_directory_is_a_new_identity() {
        let identities = [(); 2].map(|()| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            StateFile::open_or_create(directory.path(), 1).expect("a new file").directory_id
        });
        assert_ne!(identities[0], identities[1]);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_new_identity() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write_atomically(&path(directory.path()), b"version=1\nnode.id=x\n").expect("written");
        assert!(StateFile::open_or_create(directory.path(), 1).is_err());
    }
}
