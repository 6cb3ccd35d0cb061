//! Metrics in OpenMetrics text. `docs/metrics.md` lists them all, and a test holds it against what is published.
//!
//! What the broker counts is in [`vltava_broker::metrics`]; everything else is read from the node at each scrape, so that
//! an idle partition costs nothing between scrapes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use vltava_broker::Broker;
use vltava_broker::group_lag::PartitionLag;
use vltava_host::{clock, fs};

use super::view::NodeView;

/// Everything there is to publish at this moment; of a node that is still starting, what its process tells.
#[must_use]
pub fn encode(view: Option<&NodeView>) -> String {
    let mut registry = Registry::default();
    registry.register("vltava_build", "The release that runs", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    if let Some(broker) = view.and_then(|view| view.broker.as_ref()) {
        registry.register(
            "vltava_request_duration_seconds",
            "From the last byte of a request to its answer, waiting that the client asked for included",
            broker.broker.metrics.request_duration.clone(),
        );
        registry.register(
            "vltava_log_flush_duration_seconds",
            "How long it took to have on disk what one log had appended",
            broker.broker.replicas.flush_durations().clone(),
        );
    }
    registry.register_collector(Box::new(Scrape(view.cloned())));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("a string takes everything");
    text
}

struct Scrape(Option<NodeView>);

impl fmt::Debug for Scrape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Scrape")
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut Out(&mut encoder);
        process(out)?;
        let Some(view) = &self.0 else { return Ok(()) };
        quorum(out, view)?;
        if let Some(broker) = &view.broker {
            partitions(out, view, &broker.broker)?;
            traffic(out, &broker.broker)?;
            log_directories(out, &broker.broker)?;
            cleaner(out, &broker.broker)?;
            group_lags(out, &broker.broker)?;
        }
        Ok(())
    }
}

/// Memory, processor time and files of this process, as Linux tells them.
fn process(out: &mut Out<'_, '_>) -> fmt::Result {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return Ok(()) };
    // The command's name, in parentheses, may contain blanks; fields are counted from behind it (proc(5)).
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let resident_bytes = field(24) * rustix::param::page_size() as u64;
    out.gauge("process_resident_memory_bytes", "Resident memory", resident_bytes)?;
    out.counter(
        "process_cpu_seconds",
        "Processor time of user and system",
        (field(14) + field(15)) as f64 / ticks_per_second,
    )?;
    let open_files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    out.gauge("process_open_fds", "Open files and sockets", open_files as u64)
}

fn quorum(out: &mut Out<'_, '_>, view: &NodeView) -> fmt::Result {
    let status = view.quorum.status();
    let image = view.quorum.images().borrow().clone();
    let is_controller = status.leader == Some(view.node_id);
    out.gauge("vltava_active_controller", "1 on the leader of the metadata quorum", u64::from(is_controller))?;
    let leader = status.leader.map_or(-1, |leader| i64::from(leader.value()));
    out.gauge_signed(
        "vltava_raft_leader_id",
        "The leader of the metadata quorum as this node knows it, or -1",
        leader,
    )?;
    out.gauge_signed("vltava_raft_term", "The term of the metadata quorum", status.term)?;
    out.gauge_signed(
        "vltava_raft_committed_offset",
        "The committed end of the metadata log",
        status.high_watermark.value(),
    )?;
    out.gauge_signed(
        "vltava_metadata_applied_offset",
        "The metadata that this node has applied",
        image.offset.value(),
    )?;
    let live = image.live_brokers().count() as u64;
    out.gauge("vltava_live_brokers", "Brokers that are registered and not fenced", live)?;
    out.gauge("vltava_fenced_brokers", "Brokers that are registered and fenced", image.brokers.len() as u64 - live)?;
    out.gauge("vltava_topics", "Topics of the cluster", image.topics.len() as u64)?;
    let offline = image.partitions().filter(|(_, partition)| partition.leader.is_none()).count();
    out.gauge("vltava_offline_partitions", "Partitions of the cluster without a leader", offline as u64)
}

fn partitions(out: &mut Out<'_, '_>, view: &NodeView, broker: &Broker) -> fmt::Result {
    let image = view.quorum.images().borrow().clone();
    let node_id = view.node_id;
    let (mut led, mut under_replicated, mut reassigning, mut not_in_sync) = (0, 0, 0, 0);
    for (_, partition) in image.partitions() {
        if partition.leader == Some(node_id) {
            led += 1;
            under_replicated += u64::from(partition.isr.len() < partition.replicas.len());
            reassigning += u64::from(partition.is_reassigning());
        }
        not_in_sync += u64::from(partition.replicas.contains(&node_id) && !partition.isr.contains(&node_id));
    }
    let hosted = broker.replicas.partitions();
    out.gauge("vltava_partitions", "Replicas on this broker", hosted.len() as u64)?;
    out.gauge("vltava_leader_partitions", "Partitions that this broker leads", led)?;
    out.gauge(
        "vltava_under_replicated_partitions",
        "Partitions led here with a replica out of sync",
        under_replicated,
    )?;
    let led_here: Vec<_> = hosted.iter().filter_map(|partition| Some((partition, partition.replication()?))).collect();
    let with_spare = |is_wanted: fn(isize) -> bool| {
        led_here.iter().filter(|(_, replication)| is_wanted(replication.spare_in_sync_replicas)).count() as u64
    };
    out.gauge(
        "vltava_under_min_isr_partitions",
        "Partitions led here whose ISR is too small for acks=all",
        with_spare(|spare| spare < 0),
    )?;
    out.gauge(
        "vltava_at_min_isr_partitions",
        "Partitions led here that refuse acks=all if one more replica goes",
        with_spare(|spare| spare == 0),
    )?;
    out.gauge("vltava_reassigning_partitions", "Partitions led here whose replicas are being moved", reassigning)?;
    out.gauge("vltava_replicas_out_of_sync", "Replicas on this broker that are not in sync", not_in_sync)?;
    let changes = broker.replicas.isr_changes();
    out.counter("vltava_isr_shrinks", "Replicas that this broker took out of an ISR", changes.shrinks)?;
    out.counter("vltava_isr_expansions", "Replicas that this broker took into an ISR", changes.expansions)?;

    let of = |partition: &vltava_broker::partition::Partition| PartitionLabels {
        topic: partition.name().topic.clone(),
        partition: partition.name().partition.value(),
    };
    out.family("vltava_log_size_bytes", "Bytes of a replica's segments", &hosted, |p| (of(p), p.size_bytes() as i64))?;
    out.family("vltava_log_start_offset", "The first offset of a replica", &hosted, |p| {
        (of(p), p.log_start_offset().value())
    })?;
    out.family("vltava_log_end_offset", "The next offset of a replica", &hosted, |p| {
        (of(p), p.log_end_offset().value())
    })?;
    out.family("vltava_high_watermark", "Up to where a replica is committed", &hosted, |p| {
        (of(p), p.high_watermark().value())
    })?;
    let follower_lags: Vec<_> = led_here
        .iter()
        .flat_map(|(partition, replication)| {
            replication.follower_lags.iter().map(|(follower, lag)| {
                let PartitionLabels { topic, partition } = of(partition);
                (FollowerLabels { topic, partition, follower: follower.value() }, *lag)
            })
        })
        .collect();
    out.family("vltava_follower_lag_offsets", "What a follower has yet to store", &follower_lags, Clone::clone)
}

/// How far the groups whose coordinator is here are behind, as of the last look; time goes on in between.
fn group_lags(out: &mut Out<'_, '_>, broker: &Broker) -> fmt::Result {
    let lags = broker.group_lags.latest();
    let now = clock::now();
    let of = |lag: &PartitionLag| GroupLabels {
        group: lag.committed.group_id.clone(),
        topic: lag.committed.topic.clone(),
        partition: lag.committed.partition.value(),
    };
    out.family("vltava_group_committed_offset", "Where a group goes on", &lags.partitions, |lag| {
        (of(lag), lag.committed.offset.value())
    })?;
    out.family("vltava_group_lag_records", "Records that a group has yet to consume", &lags.partitions, |lag| {
        (of(lag), lag.records())
    })?;
    let seconds: Vec<_> = lags.partitions.iter().filter_map(|lag| Some((of(lag), lag.seconds(now)?))).collect();
    out.family(
        "vltava_group_lag_seconds",
        "How long the oldest record that a group has yet to consume has been waiting",
        &seconds,
        Clone::clone,
    )?;
    out.gauge(
        "vltava_group_lag_unknown_partitions",
        "Committed offsets of groups coordinated here whose lag is not known",
        lags.unknown as u64,
    )
}

/// Summed by topic over the partitions that are led here.
fn traffic(out: &mut Out<'_, '_>, broker: &Broker) -> fmt::Result {
    let mut topics: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for partition in broker.replicas.partitions() {
        let traffic = partition.traffic();
        let sums = topics.entry(partition.name().topic.clone()).or_default();
        for (sum, count) in
            sums.iter_mut().zip([&traffic.produced_records, &traffic.produced_bytes, &traffic.fetched_bytes])
        {
            *sum += count.load(Ordering::Relaxed);
        }
    }
    let columns = [
        ("vltava_produced_records", "Records that clients wrote"),
        ("vltava_produced_bytes", "Bytes of batches that clients wrote, as stored"),
        ("vltava_fetched_bytes", "Bytes of batches that clients read"),
    ];
    for (index, (name, help)) in columns.into_iter().enumerate() {
        out.counters(
            name,
            help,
            topics.iter().map(|(topic, sums)| (TopicLabel { topic: topic.clone() }, sums[index])),
        )?;
    }
    Ok(())
}

fn log_directories(out: &mut Out<'_, '_>, broker: &Broker) -> fmt::Result {
    let directories: Vec<_> = broker.replicas.log_dirs();
    let of = |path: &std::path::Path| DirectoryLabel { log_dir: path.display().to_string() };
    out.family("vltava_log_dir_online", "0 once a log directory has failed", &directories, |d| {
        (of(&d.path), i64::from(d.online))
    })?;
    out.family("vltava_log_dir_usable_bytes", "What may still be written to its file system", &directories, |d| {
        (of(&d.path), d.usable_bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or(-1))
    })
}

fn cleaner(out: &mut Out<'_, '_>, broker: &Broker) -> fmt::Result {
    let status = broker.replicas.cleaner_status();
    out.gauge(
        "vltava_cleaner_uncleanable_partitions",
        "Logs that cannot be compacted",
        status.uncleanable_partitions as u64,
    )?;
    out.gauge("vltava_cleaner_uncleanable_bytes", "Bytes of logs that cannot be compacted", status.uncleanable_bytes)?;
    out.gauge_of(
        "vltava_cleaner_max_dirty_ratio",
        "The largest share of a compacted log that was never cleaned",
        status.max_dirty_ratio,
    )?;
    out.gauge_of(
        "vltava_cleaner_time_since_last_run_seconds",
        "Since the cleaner last looked for a log to clean",
        status.last_run.elapsed().as_secs_f64(),
    )?;
    out.gauge_of(
        "vltava_cleaner_buffer_utilization_ratio",
        "How much of its share of the buffer the last pass used",
        status.buffer_utilization,
    )?;
    out.counter("vltava_cleaner_passes", "Logs that were cleaned", status.passes)?;
    out.counter("vltava_cleaner_read_bytes", "What these passes read", status.bytes_read)?;
    out.counter("vltava_cleaner_written_bytes", "What these passes wrote", status.bytes_written)
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TopicLabel {
    topic: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FollowerLabels {
    topic: String,
    partition: i32,
    follower: i32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GroupLabels {
    group: String,
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectoryLabel {
    log_dir: String,
}

/// Writes one metric at a time.
struct Out<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Out<'_, '_> {
    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauge_signed(name, help, i64::try_from(value).unwrap_or(i64::MAX))
    }

    fn gauge_signed(&mut self, name: &str, help: &str, value: i64) -> fmt::Result {
        self.gauge_of(name, help, value)
    }

    fn gauge_of<N>(&mut self, name: &str, help: &str, value: N) -> fmt::Result
    where
        ConstGauge<N>: EncodeMetric,
    {
        let gauge = ConstGauge::new(value);
        gauge.encode(self.0.encode_descriptor(name, help, None, gauge.metric_type())?)
    }

    fn counter<N>(&mut self, name: &str, help: &str, value: N) -> fmt::Result
    where
        ConstCounter<N>: EncodeMetric,
    {
        let counter = ConstCounter::new(value);
        counter.encode(self.0.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    fn family<T, L: EncodeLabelSet, N>(
        &mut self,
        name: &str,
        help: &str,
        of: &[T],
        read: impl Fn(&T) -> (L, N),
    ) -> fmt::Result
    where
        ConstGauge<N>: EncodeMetric,
    {
        let mut metric = self.0.encode_descriptor(name, help, None, ConstGauge::new(0).metric_type())?;
        for item in of {
            let (labels, value) = read(item);
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl Iterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, ConstCounter::new(0_u64).metric_type())?;
        for (labels, value) in values {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
