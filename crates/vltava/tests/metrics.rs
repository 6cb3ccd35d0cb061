//! What a node publishes is what `docs/metrics.md` lists.
#![allow(clippy::disallowed_methods, reason = "a test on the real machine")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use vltava::node::{Node, metrics};
use vltava_broker::config::BrokerConfig;
use vltava_client::{Client, Options};

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_metric_is_published() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let properties = BTreeMap::from([
        ("listeners".to_owned(), format!("PLAINTEXT://127.0.0.1:{port}")),
        ("log.dirs".to_owned(), directory.path().display().to_string()),
        ("offsets.topic.num.partitions".to_owned(), "1".to_owned()),
    ]);
    let config = BrokerConfig::from_properties(&properties, "localhost").expect("valid settings").config;
    let node = Node::start(config).await.expect("the node starts");
    let view = node.view();
    let give_up = Instant::now() + Duration::from_secs(30);
    while let Err(unready) = view.readiness() {
        assert!(Instant::now() < give_up, "still not ready: {unready}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut client = Client::new(&format!("127.0.0.1:{port}"), Options::default());
    client.metadata(Some(&["measured"]), true).await.expect("an answer");

    let text = metrics::encode(Some(&view));
    let published: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(series_name).collect();
    let page = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| !name.starts_with('/'))
        .collect();
    let difference: Vec<_> = published.symmetric_difference(&documented).collect();
    assert!(difference.is_empty(), "published or documented only: {difference:?}\n{text}");

    assert!(text.contains(r#"vltava_request_duration_seconds_count{api="Metadata"} 1"#), "{text}");
    assert!(text.contains("vltava_active_controller 1\n"), "{text}");
    drop(view);
    node.stop().await;
}

/// The name as it is written in queries: counters end in `_total`.
fn series_name(description: &str) -> String {
    match description.split_once(' ') {
        Some((name, "counter")) => format!("{name}_total"),
        Some((name, "info")) => format!("{name}_info"),
        Some((name, _)) => name.to_owned(),
        None => description.to_owned(),
    }
}
