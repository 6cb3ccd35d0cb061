//! A plan as a reader of a failed run wants to see it.

use std::fmt;

use super::{Action, GroupPlan, Plan, ProducerPlan, TopicPlan};

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, brokers, tick, duration, .. } = self;
        writeln!(formatter, "seed {seed}: {brokers} brokers, {duration:?} in steps of {tick:?}")?;
        if let Some(broker) = self.bad_disk {
            writeln!(formatter, "  broker {broker} has a bad disk")?;
        }
        let properties: Vec<_> = self.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        writeln!(formatter, "  brokers: {}", properties.join(" "))?;
        for topic in &self.topics {
            let configs: Vec<_> = topic.configs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let TopicPlan { name, partitions, replication_factor, .. } = topic;
            let configs = configs.join(" ");
            writeln!(formatter, "  topic {name}: {partitions} partitions, {replication_factor} replicas, {configs}")?;
        }
        let name = |topic: usize| &self.topics[topic].name;
        for (index, producer) in self.producers.iter().enumerate() {
            let ProducerPlan { topic, acks, is_idempotent, pace, linger, compression } = producer;
            let idempotent = if *is_idempotent { " idempotent" } else { "" };
            let topic = name(*topic);
            writeln!(
                formatter,
                "  producer {index}: {topic} acks={acks}{idempotent} every {pace:?} linger {linger:?} {compression}"
            )?;
        }
        for reader in &self.readers {
            writeln!(formatter, "  reader: {}", name(reader.topic))?;
        }
        for (index, GroupPlan { topics, members, assignor, stay }) in self.groups.iter().enumerate() {
            let topics: Vec<_> = topics.iter().map(|topic| name(*topic).as_str()).collect();
            let topics = topics.join(",");
            writeln!(formatter, "  group {index}: {topics} by {members} members, {assignor}, each stays {stay:?}")?;
        }
        if self.recreates {
            writeln!(formatter, "  one topic is deleted and created again all the while")?;
        }
        for step in &self.steps {
            match &step.action {
                Action::Fault(fault, aim, lasts) => {
                    writeln!(formatter, "  {:>9.3?} {fault:?} at {aim:?} for {lasts:?}", step.at)?;
                }
                Action::Admin(op) => writeln!(formatter, "  {:>9.3?} {op:?}", step.at)?,
            }
        }
        Ok(())
    }
}
