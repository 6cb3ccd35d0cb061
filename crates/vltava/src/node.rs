//! One node's parts, wired together.

use vltava_broker::config::BrokerConfig;

pub struct Node {}

impl Node {
    pub async fn start(_config: BrokerConfig) -> anyhow::Result<Self> {
        anyhow::bail!("the broker is not wired in yet")
    }

    /// Waits until a part of the node failed for good.
    pub async fn failed(&mut self) -> anyhow::Error {
        std::future::pending().await
    }

    /// Moves leadership away, then closes everything in order.
    pub async fn stop(self) {}
}
