//! `partition.metadata`: which topic a partition's directory belongs to, by id.

use std::path::Path;

use vltava_host::fs;
use vltava_types::TopicId;

use crate::StorageError;
use crate::error::AtPath;

const FILE_NAME: &str = "partition.metadata";

/// Durable on return.
pub(crate) fn write(directory: &Path, topic_id: TopicId) -> Result<(), StorageError> {
    let path = directory.join(FILE_NAME);
    fs::write_atomically(&path, format!("version: 0\ntopic_id: {topic_id}\n").as_bytes()).unless_full(&path)
}

/// `None` if there is no such file.
pub(crate) fn read(directory: &Path) -> Result<Option<TopicId>, StorageError> {
    let path = directory.join(FILE_NAME);
    match fs::read(&path) {
        Ok(contents) => match parse(&contents) {
            Some(topic_id) => Ok(Some(topic_id)),
            None => Err(StorageError::corrupt(&path, 0, "version 0 and a topic id are expected")),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at(&path),
    }
}

fn parse(contents: &[u8]) -> Option<TopicId> {
    let mut lines = std::str::from_utf8(contents).ok()?.lines();
    let version = lines.next()?.strip_prefix("version:")?.trim();
    let topic_id = lines.next()?.strip_prefix("topic_id:")?.trim();
    if version != "0" {
        return None;
    }
    topic_id.parse().ok().map(TopicId)
}

#[cfg(test)]
mod tests {
    use vltava_types::TopicId;

    use super::{parse, read, write};

    #[test]
    fn trap_31_the_topic_id_is_kept_with_the_log() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(read(directory.path()).expect("readable"), None);
        let topic_id = TopicId::from_random([9; 16]);
        write(directory.path(), topic_id).expect("written");
        assert_eq!(read(directory.path()).expect("readable"), Some(topic_id));
        assert_eq!(parse(b"version: 1\ntopic_id: CQkJCQkJSQmJCQkJCQkJCQ\n"), None);
    }
}
