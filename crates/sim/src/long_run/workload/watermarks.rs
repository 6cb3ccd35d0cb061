//! Asks leaders where partitions begin and end: neither may ever go back.

use std::time::Duration;

use super::{Context, now};
use crate::long_run::ledger::{Key, Stage};

pub async fn run(context: Context) {
    let mut random = context.random(4, 0);
    let mut client = context.client("surveyor");
    while context.stage() < Stage::Auditing {
        tokio::time::sleep(Duration::from_millis(50 + random.below(400))).await;
        let topic = &context.plan.topics[random.below(context.plan.topics.len() as u64) as usize].name;
        let partitions = context.ledger().partitions.get(topic).copied().unwrap_or(1);
        let key: Key = (topic.clone(), random.below(partitions as u64) as i32);
        let is_latest = random.below(2) == 0;
        let began = now();
        let floor = {
            let ledger = context.ledger();
            if is_latest { ledger.latest_floor(&key) } else { ledger.earliest.get(&key).copied().unwrap_or(0) }
        };
        let listed = client.list_offset(&key.0, key.1, if is_latest { -1 } else { -2 }).await;
        let mut ledger = context.ledger();
        ledger.operation("ListOffsets", began, listed.is_ok());
        match listed {
            Ok(offset) if is_latest => ledger.listed_latest(&key, offset.value(), floor, now()),
            Ok(offset) => ledger.listed_earliest(&key, offset.value(), floor, now()),
            Err(_) => {}
        }
    }
}
