//! Groups: members come and go, read and commit; somebody asks what is committed.

use std::collections::BTreeMap;
use std::time::Duration;

use vltava_client::{Admin, Consumer, ConsumerConfig};

use super::readers::{key_of, seen};
use super::{Context, now};
use crate::long_run::ledger::{Key, Stage};

pub fn group_id(group: usize) -> String {
    format!("group-{group}")
}

pub async fn run_member(context: Context, group: usize, member: usize) {
    let plan = context.plan.groups[group].clone();
    let mut random = context.random(2, group * 16 + member);
    let mut life = 0;
    while context.stage() < Stage::Auditing {
        let stay_ms = plan.stay.as_millis() as u64;
        let until = now() + Duration::from_millis(stay_ms / 2 + random.below(stay_ms));
        let mut settings = context.settings(&format!("member-{group}-{member}"));
        settings.set("group.id", group_id(group));
        settings.set("enable.auto.commit", "false");
        settings.set("auto.offset.reset", "earliest");
        settings.set("session.timeout.ms", "6000");
        settings.set("heartbeat.interval.ms", "1500");
        settings.set("max.poll.interval.ms", "20000");
        settings.set("partition.assignment.strategy", plan.assignor);
        let config = ConsumerConfig::from_settings(&mut settings).expect("the settings fit together");
        life += 1;
        let mut consumer = Consumer::new(config);
        let topics = plan.topics.iter().map(|topic| context.topic_name(*topic));
        consumer.subscribe(topics).expect("the group has an id");
        while now() < until && context.stage() < Stage::Auditing {
            if !poll_and_commit(&context, group, &mut consumer, random.below(4) == 0).await {
                break;
            }
            if let Some(generation) = consumer.generation_id() {
                let owned = consumer.assignment().map(|owned| (owned.topic.clone(), owned.partition));
                context.ledger().own(group, generation, (member, life), owned, now());
            }
        }
        // Some members vanish without a word.
        if random.below(3) > 0 {
            let _ = tokio::time::timeout(Duration::from_secs(5), consumer.close()).await;
        }
        tokio::time::sleep(Duration::from_millis(200 + random.below(2_000))).await;
    }
}

/// Whether the member can go on.
async fn poll_and_commit(context: &Context, group: usize, consumer: &mut Consumer, commits: bool) -> bool {
    let records = match consumer.poll(Duration::from_millis(500)).await {
        Ok(records) => records,
        Err(error) => {
            context.ledger().note(now(), format!("a member of group {group}: {error}"));
            tokio::time::sleep(Duration::from_millis(300)).await;
            return false;
        }
    };
    for record in &records {
        context.ledger().read_in_group(group, &key_of(record), &seen(record), now());
    }
    let is_draining = context.stage() >= Stage::Draining;
    if !commits && !is_draining {
        return true;
    }
    let began = now();
    let positions: BTreeMap<Key, i64> =
        consumer.positions().into_iter().map(|(p, offset)| ((p.topic, p.partition), offset.value())).collect();
    let generation = consumer.generation_id();
    let (floors, newest): (BTreeMap<Key, Option<i64>>, _) = {
        let ledger = context.ledger();
        let floors =
            positions.keys().map(|key| (key.clone(), ledger.committed.get(&(group, key.clone())).copied())).collect();
        (floors, ledger.newest_generation(group))
    };
    match consumer.commit().await {
        Ok(()) => {
            let mut ledger = context.ledger();
            if !positions.is_empty() {
                ledger.operation("OffsetCommit", began, true);
                ledger.committed_in(group, generation, newest, now());
            }
            for (key, offset) in positions {
                ledger.commit(group, &key, offset, floors[&key], now());
            }
        }
        // The group goes on with another generation, or the coordinator is away.
        Err(error) => {
            let mut ledger = context.ledger();
            ledger.operation("OffsetCommit", began, false);
            ledger.note(now(), format!("a member of group {group}: commit: {error}"));
        }
    }
    true
}

/// Asks again and again what the group has committed.
pub async fn watch_commits(context: Context, group: usize) {
    let mut random = context.random(3, group);
    while context.stage() < Stage::Auditing {
        tokio::time::sleep(Duration::from_millis(500 + random.below(2_000))).await;
        let began = now();
        let floors: BTreeMap<Key, i64> = {
            let ledger = context.ledger();
            let mine = ledger.committed.iter().filter(|((committed_by, _), _)| *committed_by == group);
            mine.map(|((_, key), offset)| (key.clone(), *offset)).collect()
        };
        let mut admin = Admin::new(&context.bootstrap, context.options("watcher"), Duration::from_secs(8));
        if let Err(error) = admin.reach(|_| ()).await {
            context.ledger().note(now(), format!("no broker to ask for the commits of group {group}: {error}"));
            continue;
        }
        match admin.committed_offsets(&group_id(group)).await {
            Ok(told) => {
                let mut ledger = context.ledger();
                ledger.operation("OffsetFetch", began, true);
                for (key, floor) in floors {
                    let offset = told.get(&key).map(|committed| committed.offset);
                    ledger.fetched_commit(group, &key, offset, floor, now());
                }
            }
            Err(error) => {
                let mut ledger = context.ledger();
                ledger.operation("OffsetFetch", began, false);
                ledger.note(now(), format!("group {group} cannot be asked for its commits: {error}"));
            }
        }
    }
}
