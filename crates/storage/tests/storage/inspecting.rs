//! What an inspection says of directories that were damaged in one way each.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use expect_test::{Expect, expect};
use vltava_host::fs::{self, FileExt as _, OpenOptions};
use vltava_storage::{Depth, LogConfig, LogDir, MetaProperties, PartitionName, Severity, StorageError, inspect};
use vltava_types::{BrokerEpoch, BrokerId, DirectoryId, Offset, PartitionIndex, TopicId};

use crate::batch::{append, config};

/// A log directory with one log of three segments, shut down cleanly.
fn sound() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log_dir = LogDir::open(directory.path()).expect("opened");
    log_dir
        .write_meta_properties(&MetaProperties {
            node_id: BrokerId(1),
            cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
            directory_id: DirectoryId::from_random([3; 16]),
        })
        .expect("written");
    let name = PartitionName::new("orders", PartitionIndex(0));
    let config = LogConfig { segment_bytes: 800, ..config() };
    let mut log = log_dir.create(&name, TopicId::from_random([1; 16]), Arc::new(config)).expect("created");
    for epoch in [1, 1, 1, 2, 2, 2, 2, 2] {
        append(&mut log, 10, epoch);
    }
    log.close().expect("closed");
    assert_eq!(log.segments().len(), 3);
    let point = log.recovery_checkpoint().expect("never checkpointed");
    log_dir.checkpoint_recovery_points(BTreeMap::from([(name.clone(), point)])).expect("written");
    log_dir.checkpoint_high_watermarks([(&name, log.checkpoint_at(Offset(80)))]).expect("written");
    log_dir.write_clean_shutdown_marker(BrokerEpoch(7)).expect("written");
    directory
}

fn partition(directory: &Path) -> PathBuf {
    directory.join("orders-0")
}

fn file(directory: &Path, base_offset: i64, suffix: &str) -> PathBuf {
    partition(directory).join(format!("{base_offset:020}.{suffix}"))
}

fn flip(path: &Path, position: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).expect("readable");
    file.write_all_at(&[byte[0] ^ 1], position).expect("written");
}

/// What is told of a directory after `damage` was done to it.
fn check(damage: impl FnOnce(&Path), expected: Expect) {
    let directory = sound();
    damage(directory.path());
    expected.assert_eq(&told(directory.path(), directory.path()));
}

fn told(path: &Path, root: &Path) -> String {
    let inspection = inspect(path, Depth::Everything).expect("readable");
    let told = inspection.findings.iter().map(|finding| {
        let severity = if finding.severity == Severity::Damage { "DAMAGE" } else { "note" };
        let place = finding.path.strip_prefix(root).unwrap_or(&finding.path).display().to_string();
        format!("{severity} {place}: {}\n", finding.what)
    });
    told.collect()
}

#[test]
fn a_sound_directory() {
    check(
        |_| {},
        expect![[r#"
        note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
    "#]],
    );
    let directory = sound();
    let inspection = inspect(directory.path(), Depth::Headers).expect("readable");
    assert!(inspection.is_sound());
    let mut segments: Vec<_> = inspection.segments.iter().map(|s| (s.base_offset, s.end_offset, s.records)).collect();
    segments.sort();
    assert_eq!(segments.first().map(|first| first.0), Some(Offset(0)));
    assert_eq!(segments.last().map(|last| last.1), Some(Offset(80)));
    assert_eq!(segments.iter().map(|s| s.2).sum::<u64>(), 80);
}

#[test]
fn a_flipped_bit_is_named_by_its_offsets() {
    check(
        |directory| flip(&file(directory, 0, "log"), 100),
        expect![[r#"
        note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
        DAMAGE orders-0/00000000000000000000.log: the batch of offsets 0 to 9 at position 0 is not what its CRC says
    "#]],
    );
}

#[test]
fn a_torn_tail_is_damage_below_the_recovery_point_and_lawful_after_a_crash() {
    let tear = |directory: &Path| {
        let last = OpenOptions::new().write(true).open(last_segment(directory)).expect("there");
        let length = last.metadata().expect("there").len();
        last.set_len(length - 10).expect("cut");
    };
    check(
        tear,
        expect![[r#"
        note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
        DAMAGE orders-0/00000000000000000060.log: after offset 69 no whole batch follows at position 211, where 201 bytes are left (the batch needs 211 bytes and 201 are there)
        note orders-0/00000000000000000060.index: the index disagrees with its segment and will be built anew: its entry for offset 79 lies beyond the last batch
        note orders-0/00000000000000000060.timeindex: the index disagrees with its segment and will be built anew: its entry for timestamp 1079 lies beyond the last batch
        note orders-0/00000000000000000080.snapshot: the producer snapshot lies beyond the log's end 70
        DAMAGE recovery-point-offset-checkpoint: orders-0 ends at offset 70, and everything below 80 was on disk: records are lost
        DAMAGE replication-offset-checkpoint: orders-0 ends at offset 70, and everything below 80 was committed: records are lost
    "#]],
    );
    check(
        |directory| {
            tear(directory);
            for name in [".kafka_cleanshutdown", "recovery-point-offset-checkpoint", "replication-offset-checkpoint"] {
                fs::remove_file(directory.join(name)).expect("there");
            }
        },
        expect![[r#"
            note : not shut down cleanly: the next start recovers the logs
            note orders-0/00000000000000000060.log: after offset 69 no whole batch follows at position 211, where 201 bytes are left (the batch needs 211 bytes and 201 are there)
            note orders-0/00000000000000000060.index: the index disagrees with its segment and will be built anew: its entry for offset 79 lies beyond the last batch
            note orders-0/00000000000000000060.timeindex: the index disagrees with its segment and will be built anew: its entry for timestamp 1079 lies beyond the last batch
            note orders-0/00000000000000000080.snapshot: the producer snapshot lies beyond the log's end 70
        "#]],
    );
}

fn last_segment(directory: &Path) -> PathBuf {
    let names = crate::batch::list(&partition(directory));
    partition(directory).join(names.iter().rfind(|name| name.ends_with(".log")).expect("there are segments"))
}

#[test]
fn a_missing_segment_is_a_hole() {
    check(
        |directory| {
            let names = crate::batch::list(&partition(directory));
            let second = names.iter().filter(|name| name.ends_with(".log")).nth(1).expect("three segments");
            for suffix in ["log", "index", "timeindex"] {
                let name = second.replace(".log", &format!(".{suffix}"));
                fs::remove_file(partition(directory).join(name)).expect("there");
            }
        },
        expect![[r#"
            note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
            DAMAGE orders-0/00000000000000000060.log: there is a hole: offsets 30 to 59 are in no segment
        "#]],
    );
}

#[test]
fn indexes_that_disagree() {
    check(
        |directory| flip(&file(directory, 0, "index"), 3),
        expect![[r#"
        note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
        DAMAGE orders-0/00000000000000000000.index: the index disagrees with its segment: its entry for offset 18 leads to position 201, where no batch ends with it
    "#]],
    );
    check(
        |directory| flip(&file(directory, 0, "timeindex"), 7),
        expect![[r#"
        note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
        DAMAGE orders-0/00000000000000000000.timeindex: the index disagrees with its segment: it says that nothing up to offset 19 is younger than 1018, and 1019 is
    "#]],
    );
    check(
        |directory| fs::remove_file(file(directory, 0, "index")).expect("there"),
        expect![[r#"
        note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
        note orders-0/00000000000000000000.index: the index is missing, and will be built anew
    "#]],
    );
}

#[test]
fn what_stands_beside_the_segments() {
    check(
        |directory| {
            fs::write(partition(directory).join("leader-epoch-checkpoint"), "0\n1\n1 0\n").expect("written");
            fs::remove_file(partition(directory).join("partition.metadata")).expect("there");
            fs::write(file(directory, 0, "log.cleaned"), "").expect("written");
            let names = crate::batch::list(&partition(directory));
            for snapshot in names.iter().filter(|name| name.ends_with(".snapshot")).take(1) {
                flip(&partition(directory).join(snapshot), 4);
            }
        },
        expect![[r#"
            note .kafka_cleanshutdown: shut down cleanly, under broker epoch 7
            note orders-0/00000000000000000000.log.cleaned: left from a deletion, a write or a compaction; the next start removes it
            DAMAGE orders-0: partition.metadata is missing: nobody knows which topic this is
            DAMAGE orders-0/leader-epoch-checkpoint: it says epoch 1 for offset 30, whose batch has epoch 2
            DAMAGE orders-0/00000000000000000030.snapshot: the producer snapshot is torn or damaged; it will be passed over
        "#]],
    );
}

#[test]
fn what_stands_in_the_log_directory() {
    check(
        |directory| {
            fs::write(directory.join("meta.properties"), "version=9\n").expect("written");
            fs::write(directory.join("vltava-failed"), "").expect("written");
            fs::write(directory.join("recovery-point-offset-checkpoint"), "0\n2\norders 0 90\nlost 3 5\n")
                .expect("written");
            fs::write(directory.join("cleaner-offset-checkpoint"), "x").expect("written");
            fs::remove_file(directory.join(".kafka_cleanshutdown")).expect("there");
            fs::create_dir_all(directory.join("old-1.0123456789abcdef0123456789abcdef-delete")).expect("created");
        },
        expect![[r#"
            DAMAGE meta.properties: it cannot be read: unknown version
            DAMAGE vltava-failed: a write or flush has failed here; what is in memory may not be on the disk
            note cleaner-offset-checkpoint: the checkpoint cannot be read: unknown version
            note : not shut down cleanly: the next start recovers the logs
            note old-1.0123456789abcdef0123456789abcdef-delete: deleted; the next start removes it
            DAMAGE recovery-point-offset-checkpoint: orders-0 ends at offset 80, and everything below 90 was on disk: records are lost
            DAMAGE recovery-point-offset-checkpoint: it names lost-3, whose directory is not here
        "#]],
    );
}

#[test]
fn a_partition_or_a_segment_alone() {
    let directory = sound();
    flip(&file(directory.path(), 0, "log"), 100);
    expect![[r#"
        DAMAGE orders-0/00000000000000000000.log: the batch of offsets 0 to 9 at position 0 is not what its CRC says
    "#]]
    .assert_eq(&told(&partition(directory.path()), directory.path()));
    expect![[r#"
        DAMAGE orders-0/00000000000000000000.log: the batch of offsets 0 to 9 at position 0 is not what its CRC says
    "#]]
    .assert_eq(&told(&file(directory.path(), 0, "log"), directory.path()));
}

#[test]
fn a_directory_in_use_is_left_alone() {
    let directory = sound();
    let _log_dir = LogDir::open(directory.path()).expect("opened");
    for path in [directory.path().to_owned(), partition(directory.path()), file(directory.path(), 0, "log")] {
        let refused = inspect(&path, Depth::Headers);
        assert!(matches!(refused, Err(StorageError::Locked { .. })), "{refused:?}");
    }
}
