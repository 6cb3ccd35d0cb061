//! Compaction while replicas come, go and change roles.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::batch::{BatchBuilder, batches, records};
use vltava_types::{BrokerId, Offset, TimestampMs};

use super::cluster::{Cluster, append, partition_of, until};
use super::{MIN_ISR_2, from_offset};
use crate::partition::{Acks, Partition, ReadRequest};

/// Each of these rounds writes all keys, 100 KB.
const ROUNDS: i64 = 60;
const KEYS: i64 = 10;

fn round_of_keys(round: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for key in 0..KEYS {
        let value = format!("{round} {}", "x".repeat(10_000));
        let now = TimestampMs(vltava_host::clock::now().value());
        builder.append(now, Some(&key.to_be_bytes()), Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// The last round of each key, as a consumer of this replica has it, and the number of records it read.
fn consume(partition: &Partition) -> (BTreeMap<Bytes, String>, usize) {
    let mut latest = BTreeMap::new();
    let mut count = 0;
    let mut offset = 0;
    while offset < partition.high_watermark().value() {
        let request = ReadRequest { max_bytes: 1 << 20, allow_follower: true, ..from_offset(offset) };
        let read = partition.read(&request).expect("readable");
        for batch in batches(&read.records) {
            let batch = batch.expect("whole batches");
            for record in records(&Bytes::copy_from_slice(batch.bytes), 1 << 20).expect("readable") {
                let record = record.expect("readable");
                let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
                let round = value.split(' ').next().expect("a round").to_owned();
                latest.insert(record.key.expect("a key"), round);
                count += 1;
            }
            offset = batch.header.next_offset().value();
        }
    }
    (latest, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_compact_by_themselves_through_elections_and_absences() {
    let mut cluster = Cluster::start(3, &["log.cleaner.backoff.ms=10", "log.segment.delete.delay.ms=0"]).await;
    let configs =
        [MIN_ISR_2, ("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0.01")];
    let id = partition_of(cluster.create_topic("t", &[&[1, 2, 3]], &configs));
    for round in 0..ROUNDS {
        match round {
            15 => cluster.kill_and_fence(3).await,
            // It has missed what was compacted meanwhile, and gets what is left.
            35 => {
                cluster.start_broker(3).await;
                cluster.until_isr(id, &[1, 2, 3]).await;
            }
            42 => cluster.kill_and_fence(1).await,
            50 => {
                cluster.start_broker(1).await;
                cluster.until_isr(id, &[1, 2, 3]).await;
            }
            _ => {}
        }
        let leader = cluster.leader(id).await;
        let appended = append(&leader, Acks::All, &round_of_keys(round)).expect("it leads");
        assert_eq!(appended.base_offset, Offset(round * KEYS), "no offset is used twice");
        leader.wait_for_acks(Acks::All, &appended).await.expect("committed");
    }
    assert_ne!(cluster.image_of(id).leader, Some(BrokerId(1)), "leadership has moved");
    let last_round = (ROUNDS - 1).to_string();
    let expected: BTreeMap<_, _> =
        (0..KEYS).map(|key| (Bytes::copy_from_slice(&key.to_be_bytes()), last_round.clone())).collect();
    for broker in 1..=3 {
        let replica = cluster.replica(broker, id).await;
        until("the replica has everything and is compacted", || {
            replica.high_watermark() == Offset(ROUNDS * KEYS) && replica.size_bytes() < 2 << 20
        })
        .await;
        let (latest, count) = consume(&replica);
        assert_eq!(latest, expected, "broker {broker}");
        assert!(count < 250, "{count} records of {}", ROUNDS * KEYS);
    }
}
