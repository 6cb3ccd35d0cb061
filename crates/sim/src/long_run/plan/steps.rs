//! Faults and administration, one after another.

use std::time::Duration;

use super::draw::Draw;
use super::{Action, AdminOp, Aim, CLIENT_HOSTS, Fault, NetworkFault, Plan, Step, TopicKind, TopicPlan};

/// Subsets of all faults, one after another, each for a while, and about a quarter of the time none; administration
/// goes on throughout.
pub(super) fn draw(draw: &mut Draw, plan: &Plan) -> Vec<Step> {
    let mut steps = vec![];
    let mut at = draw.millis(0, 5_000);
    while at < plan.duration {
        let end = (at + draw.millis(10_000, 40_000)).min(plan.duration);
        if !draw.one_in(4) {
            period(draw, plan, at, end, &mut steps);
        }
        at = end;
    }
    administration(draw, plan, &mut steps);
    steps.sort_by_key(|step| step.at);
    steps
}

/// A few kinds of faults again and again, most of them around one partition.
fn period(draw: &mut Draw, plan: &Plan, from: Duration, end: Duration, steps: &mut Vec<Step>) {
    let mut kinds: Vec<u64> = (0..1 + draw.below(3)).map(|_| draw.below(FAULT_KINDS)).collect();
    if plan.bad_disk.is_some() && draw.one_in(2) {
        kinds.push(BAD_DISK);
    }
    let gap = draw.choose(&[600, 2_000, 6_000]);
    let longest = draw.choose(&[600, 4_000, 10_000]);
    let (topic, partition) = anywhere(draw, plan);
    let mut at = from + draw.millis(0, gap);
    while at < end {
        let kind = draw.choose(&kinds);
        let lasts = draw.millis(20, longest).min(plan.duration - at);
        let fault = fault(draw, kind, plan);
        let aim = match draw.below(8) {
            0..3 => Aim::Leader { topic: topic.clone(), partition },
            3 | 4 => Aim::Follower { topic: topic.clone(), partition },
            5 => Aim::Controller,
            _ => Aim::Named,
        };
        let aim = if fault.is_of_a_bad_disk() { Aim::Named } else { aim };
        steps.push(Step { at, action: Action::Fault(fault, aim, lasts) });
        at += draw.millis(gap / 4, gap * 2);
    }
    // Leaderships that change places while brokers come and go.
    if draw.one_in(3) {
        let mut at = from;
        while at < end {
            let op = if draw.one_in(3) { reassignment(draw, plan) } else { AdminOp::ElectPreferred };
            steps.push(Step { at, action: Action::Admin(op) });
            at += draw.millis(300, 3_000);
        }
    }
}

/// A partition of a topic of the plan, or of the groups' commits.
fn anywhere(draw: &mut Draw, plan: &Plan) -> (String, i32) {
    if draw.one_in(5) {
        return ("__consumer_offsets".to_owned(), draw.below(3) as i32);
    }
    let topic = draw.choose(&plan.topics);
    (topic.name, draw.below(topic.partitions as u64) as i32)
}

const FAULT_KINDS: u64 = 26;
const BAD_DISK: u64 = 23;

fn fault(draw: &mut Draw, kind: u64, plan: &Plan) -> Fault {
    let brokers = plan.brokers;
    let one = draw.broker(brokers);
    let network = |fault| Fault::Network(fault);
    match kind {
        0..=3 | 19 if plan.has_page_cache() => Fault::PageLoss(one),
        0 => Fault::PowerLoss(vec![one]),
        1 => Fault::PowerLoss(draw.brokers(brokers, 2)),
        2 => Fault::PowerLoss((1..=i32::from(brokers)).collect()),
        3 => Fault::PowerLossAtChange(one, 1 + draw.below(40)),
        4 => Fault::Kill(vec![one]),
        5 => {
            let count = 1 + draw.below(u64::from(brokers)) as usize;
            Fault::Kill(draw.brokers(brokers, count))
        }
        6 => Fault::RollingRestart,
        7 | 22 => network(NetworkFault::Isolated(one)),
        8 => network(NetworkFault::Disconnected(one)),
        9 => {
            let mut half = draw.brokers(brokers, usize::from(brokers) / 2);
            half.retain(|broker| *broker != one);
            half.insert(0, one);
            half.truncate(usize::from(brokers) / 2);
            let rest = (1..=i32::from(brokers)).filter(|broker| !half.contains(broker)).collect();
            network(NetworkFault::Halves(half, rest))
        }
        10 => {
            let pair = draw.brokers(brokers, 2);
            network(NetworkFault::OneWay(pair[0], pair[1]))
        }
        11 => network(NetworkFault::Mute(one)),
        12 if brokers >= 4 => network(NetworkFault::MajorityRing),
        12 | 13 => network(NetworkFault::Bridge(one)),
        14 => network(NetworkFault::ClientsCutOff(draw.below(CLIENT_HOSTS as u64) as usize, one)),
        15 => network(NetworkFault::ControllerIsolated),
        16 => Fault::Pause(one),
        17 => Fault::SlowDisk(one, Duration::from_millis(draw.choose(&[30, 300, 1_500]))),
        18 => Fault::FullDisk(one, draw.below(200_000)),
        19 => Fault::SyncFails(one, 1 + draw.below(30)),
        20 => Fault::ClockSkew(one, draw.below(40_000) as i64 - 20_000),
        21 => network(NetworkFault::Shaky(one)),
        BAD_DISK | 24 => match plan.bad_disk {
            Some(broker) if draw.one_in(2) => Fault::WipedDisk(broker),
            Some(broker) => Fault::BitFlips(broker, 1 + draw.below(4) as usize),
            None => Fault::Kill(vec![one]),
        },
        _ => network(NetworkFault::Slow(one, Duration::from_millis(draw.choose(&[20, 200, 1_000])))),
    }
}

fn administration(draw: &mut Draw, plan: &Plan, steps: &mut Vec<Step>) {
    let mut at = draw.millis(2_000, 10_000);
    while at < plan.duration {
        steps.push(Step { at, action: Action::Admin(admin_op(draw, plan)) });
        at += draw.millis(2_000, 20_000);
    }
}

fn reassignment(draw: &mut Draw, plan: &Plan) -> AdminOp {
    let topic = draw.below(plan.topics.len() as u64) as usize;
    let TopicPlan { partitions, replication_factor, .. } = plan.topics[topic];
    AdminOp::Reassign {
        topic,
        partition: draw.below(partitions as u64) as i32,
        replicas: draw.brokers(plan.brokers, replication_factor as usize),
    }
}

fn admin_op(draw: &mut Draw, plan: &Plan) -> AdminOp {
    let topic = draw.below(plan.topics.len() as u64) as usize;
    let TopicPlan { kind, partitions, .. } = plan.topics[topic];
    match draw.below(6) {
        0 => AdminOp::CreatePartitions { topic, total: partitions + 1 + draw.below(2) as i32 },
        1 | 2 => reassignment(draw, plan),
        3 => AdminOp::ElectPreferred,
        4 if kind == TopicKind::Trimmed => AdminOp::DeleteRecords { topic },
        _ => {
            let (name, choices) = draw.choose(&[
                ("segment.ms", ["2000", "60000"]),
                ("max.message.bytes", ["1048588", "200000"]),
                ("index.interval.bytes", ["64", "4096"]),
            ]);
            AdminOp::AlterConfig { topic, name, value: draw.choose(&choices).to_owned() }
        }
    }
}
