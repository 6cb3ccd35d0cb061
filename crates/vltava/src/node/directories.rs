//! A node's directories: locked against other processes, and marked with whose they are.

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use vltava_broker::config::BrokerConfig;
use vltava_host::{random, task};
use vltava_storage::{LoadProgress, LogDir, LogManager, MetaProperties};
use vltava_types::DirectoryId;

/// The locked directories of one node.
pub struct Directories {
    pub logs: LogManager,
    /// Held for its lock, where the metadata has a directory of its own.
    pub metadata: Option<LogDir>,
}

impl Directories {
    /// Locks all directories and creates those that are missing. A log directory that fails is given up if others are
    /// left; the metadata directory must work.
    pub async fn open(config: Arc<BrokerConfig>, progress: LoadProgress) -> anyhow::Result<Self> {
        task::blocking(move || {
            let paths = if config.roles.broker { config.log_dirs.as_slice() } else { &[] };
            let (logs, failed) = LogManager::open_observed(paths, &progress);
            for (path, error) in &failed {
                if *path == config.metadata_log_dir || failed.len() == paths.len() {
                    bail!("the directory {} cannot be used: {error}", path.display());
                }
                tracing::error!(path = %path.display(), %error, "going on without a log directory that failed");
            }
            let metadata = if paths.contains(&config.metadata_log_dir) {
                None
            } else {
                let path = &config.metadata_log_dir;
                Some(LogDir::open(path).with_context(|| format!("the directory {} cannot be used", path.display()))?)
            };
            Ok(Self { logs, metadata })
        })
        .await
    }

    /// Marks new log directories with node and cluster, and refuses those of others.
    pub async fn claim(self, config: Arc<BrokerConfig>, cluster_id: String) -> anyhow::Result<Self> {
        task::blocking(move || {
            for log_dir in self.logs.online() {
                let path = log_dir.path().display();
                let Some(found) = log_dir.meta_properties() else {
                    log_dir.write_meta_properties(&MetaProperties {
                        node_id: config.node_id,
                        cluster_id: cluster_id.clone(),
                        directory_id: DirectoryId::from_random(random::bytes()),
                    })?;
                    continue;
                };
                ensure!(
                    found.node_id == config.node_id,
                    "{path} holds the data of node {}, and this is node {}",
                    found.node_id,
                    config.node_id
                );
                ensure!(
                    found.cluster_id == cluster_id,
                    "{path} holds the data of cluster {}, and this node belongs to cluster {cluster_id}",
                    found.cluster_id
                );
            }
            Ok(self)
        })
        .await
    }
}
