//! All hosted partitions, kept in step with the cluster image.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use vltava_metadata::ClusterImage;
use vltava_storage::{LogManager, StorageError};
use vltava_types::{BrokerEpoch, DirectoryId, TopicPartition};

use crate::config::BrokerConfig;
use crate::controller::Controller;
use crate::partition::Partition;

/// All partitions that this broker hosts.
pub struct ReplicaManager {}

/// A log directory as DescribeLogDirs shows it.
pub struct LogDirStatus {
    pub path: PathBuf,
    pub directory_id: DirectoryId,
    pub online: bool,
    /// Bytes of the file system and how many are free, if it tells.
    pub total_bytes: Option<u64>,
    pub usable_bytes: Option<u64>,
    pub partitions: Vec<Arc<Partition>>,
}

impl ReplicaManager {
    /// Opens and recovers all logs. Nothing is served until [`ReplicaManager::start`].
    ///
    /// `logs` are locked directories with `meta.properties` written.
    pub async fn open(
        config: Arc<BrokerConfig>,
        controller: Arc<dyn Controller>,
        logs: LogManager,
    ) -> Result<Arc<Self>, StorageError> {
        let _ = (config, controller, logs);
        unimplemented!()
    }

    /// The epoch in the clean-shutdown markers that were found, or [`BrokerEpoch::NONE`] if any directory was not shut
    /// down cleanly or has lost data: what to register with (trap 12).
    #[must_use]
    pub fn previous_broker_epoch(&self) -> BrokerEpoch {
        unimplemented!()
    }

    /// The broker was registered (again) under this epoch. The first call starts serving: images are applied from the
    /// one on that holds the registration, since an older one may name this broker the leader of logs as they
    /// were before it restarted.
    pub fn on_registered(self: &Arc<Self>, broker_epoch: BrokerEpoch) {
        let _ = broker_epoch;
        unimplemented!()
    }

    /// The partition, if it is hosted here.
    #[must_use]
    pub fn partition(&self, id: TopicPartition) -> Option<Arc<Partition>> {
        let _ = id;
        unimplemented!()
    }

    /// All hosted partitions.
    #[must_use]
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        unimplemented!()
    }

    /// Images, each after its leaderships and followings are in force here. Coordinators follow this one, so that they find
    /// the partitions as the image says.
    #[must_use]
    pub fn applied_images(&self) -> watch::Receiver<Arc<ClusterImage>> {
        unimplemented!()
    }

    #[must_use]
    pub fn log_dirs(&self) -> Vec<LogDirStatus> {
        unimplemented!()
    }

    /// Directories that failed since start-up, for heartbeats.
    #[must_use]
    pub fn offline_log_dirs(&self) -> Vec<DirectoryId> {
        unimplemented!()
    }

    /// Heartbeats have (not) been answered for a session's length: while they are not, this broker serves neither
    /// produces nor fetches, since another one may lead (trap 15).
    pub fn set_serving(&self, serving: bool) {
        let _ = serving;
        unimplemented!()
    }

    /// Stops replication, flushes and closes all logs, writes checkpoints and then the clean-shutdown markers. Returns
    /// whether the shutdown was clean.
    pub async fn shut_down(&self) -> bool {
        unimplemented!()
    }
}
