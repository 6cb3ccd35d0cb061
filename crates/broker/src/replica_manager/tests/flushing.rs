//! What is flushed when, in the page-cache mode.

use std::time::Duration;

use vltava_types::Offset;

use super::cluster::{Cluster, partition_of, produce, until};

const PAGE_CACHE: (&str, &str) = ("vltava.durability", "page-cache");

/// Produces a record for each offset that has to be on disk afterwards.
async fn check(configs: &[(&str, &str)], flushed: &[i64]) {
    let cluster = Cluster::start(1, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1]], configs));
    let leader = cluster.leader(id).await;
    // Settings that arrive have everything flushed once.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for flushed in flushed.iter().copied().map(Offset) {
        produce(&leader, &["a"]).await.expect("it leads");
        tokio::time::sleep(Duration::from_millis(50)).await;
        until("it is flushed", || flushed <= leader.recovery_point()).await;
        assert_eq!(leader.recovery_point(), flushed, "with {configs:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_messages_counts_records() {
    check(&[PAGE_CACHE], &[0, 0, 0, 0]).await;
    check(&[PAGE_CACHE, ("flush.messages", "2")], &[0, 2, 2, 4]).await;
    check(&[PAGE_CACHE, ("flush.messages", "1")], &[1, 2, 3, 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flush_ms_flushes_leader_and_follower_when_nothing_more_comes() {
    let cluster = Cluster::start(2, &[]).await;
    let id = partition_of(cluster.create_topic("t", &[&[1, 2]], &[PAGE_CACHE, ("flush.ms", "60000")]));
    let leader = cluster.leader(id).await;
    // Settings that arrive have everything flushed once.
    tokio::time::sleep(Duration::from_millis(300)).await;
    produce(&leader, &["a"]).await.expect("both are in sync");
    let follower = cluster.broker(2).manager.partition(id).expect("it is hosted there");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!((leader.recovery_point(), follower.recovery_point()), (Offset(0), Offset(0)));

    let id = partition_of(cluster.create_topic("u", &[&[1, 2]], &[PAGE_CACHE, ("flush.ms", "300")]));
    let leader = cluster.leader(id).await;
    for end in 1..=3 {
        produce(&leader, &["a"]).await.expect("both are in sync");
        let follower = cluster.broker(2).manager.partition(id).expect("it is hosted there");
        until("both have flushed", || {
            (leader.recovery_point(), follower.recovery_point()) == (Offset(end), Offset(end))
        })
        .await;
    }
}
