//! Which partition of an internal topic holds a group or a transactional id.

use vltava_types::PartitionIndex;

/// The partition that holds `key`: Java's `String.hashCode` over UTF-16 units, made positive as Kafka does, modulo
/// the partition count. Clients never compute it, but tools read the topic with this rule in mind, and data written
/// under it must be found again.
///
/// # Panics
/// If `partition_count` is not positive; a topic has at least one partition.
#[must_use]
pub fn partition_for(key: &str, partition_count: i32) -> PartitionIndex {
    assert!(partition_count > 0, "a topic has at least one partition");
    let hash = key.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's Utils.abs: the one value without a positive counterpart becomes 0.
    let hash = if hash == i32::MIN { 0 } else { hash.abs() };
    PartitionIndex(hash % partition_count)
}

#[cfg(test)]
mod tests {
    use super::partition_for;
    use vltava_types::PartitionIndex;

    #[test]
    fn hashes_as_java_does() {
        let hash = |key| partition_for(key, i32::MAX).value();
        assert_eq!(hash(""), 0);
        assert_eq!(hash("a"), 97);
        assert_eq!(hash("hello"), 99_162_322);
        // "my-group".hashCode() in Java.
        assert_eq!(partition_for("my-group", 50), PartitionIndex(12));
        // Negative in Java: "polygenelubricants".hashCode() is Integer.MIN_VALUE.
        assert_eq!(hash("polygenelubricants"), 0);
        // Outside the basic plane: two UTF-16 units, 0xD83D and 0xDE00.
        assert_eq!(hash("\u{1f600}"), 0xD83D * 31 + 0xDE00);
    }
}
