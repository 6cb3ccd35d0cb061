//! The broker: request paths, partition owners, coordinator shells.
//!
//! Everything that a client touches. [`server`] accepts connections and [`api`] answers requests, one file per API. A
//! request takes one cluster image at its start and uses it to the end. The quorum is reached through
//! [`controller::Controller`] only.

pub mod api;
mod cleaner_config;
mod cold_reads;
pub mod config;
mod connection;
pub mod controller;
pub mod coordinator;
mod dirty_set;
pub mod disk;
mod fenced_lately;
mod fetch_sessions;
pub mod group_lag;
mod isr;
pub mod lifecycle;
pub mod metrics;
pub mod partition;
mod partition_config;
mod producer_ids;
mod quota;
mod read_replica;
mod replica_fetcher;
pub mod replica_manager;
mod replica_stream;
pub mod server;
pub mod topic_creation;

pub use connection::ConnectionInfo;

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use vltava_host::task;
use vltava_metadata::ClusterImage;
use vltava_metadata::controller::{ControllerRequest, ControllerResponse};
use vltava_types::{BrokerId, ErrorCode};

use crate::cold_reads::ColdReads;
use crate::config::BrokerConfig;
use crate::connection::LargeFrames;
use crate::controller::Controller;
use crate::coordinator::GroupCoordinators;
use crate::fenced_lately::FencedLately;
use crate::fetch_sessions::FetchSessions;
use crate::group_lag::GroupLags;
use crate::metrics::Metrics;
use crate::producer_ids::ProducerIds;
use crate::replica_manager::ReplicaManager;
use crate::topic_creation::TopicCreation;

/// One running broker: what its request handlers share.
pub struct Broker {
    pub node_id: BrokerId,
    pub config: Arc<BrokerConfig>,
    pub controller: Arc<dyn Controller>,
    pub replicas: Arc<ReplicaManager>,
    pub groups: Arc<GroupCoordinators>,
    pub group_lags: GroupLags,
    pub topic_creation: TopicCreation,
    pub metrics: Metrics,
    fenced_lately: FencedLately,
    fetch_sessions: Mutex<FetchSessions>,
    producer_ids: ProducerIds,
    large_frames: LargeFrames,
    cold_reads: ColdReads,
    images: watch::Receiver<Arc<ClusterImage>>,
}

impl Broker {
    /// A broker over replicas that are open; [`server::Server::open`] lets clients in. Must be called on a runtime.
    #[must_use]
    pub fn new(config: Arc<BrokerConfig>, controller: Arc<dyn Controller>, replicas: Arc<ReplicaManager>) -> Arc<Self> {
        let broker = Arc::new(Self {
            node_id: config.node_id,
            groups: GroupCoordinators::start(&config, &replicas),
            group_lags: GroupLags::default(),
            images: controller.images(),
            fenced_lately: FencedLately::start(controller.images()),
            cold_reads: ColdReads::default(),
            large_frames: LargeFrames::new(config.network.socket_request_max_bytes),
            fetch_sessions: Mutex::new(FetchSessions::new(config.replication.fetch_session_slots)),
            config,
            controller,
            replicas,
            topic_creation: TopicCreation::default(),
            metrics: Metrics::default(),
            producer_ids: ProducerIds::default(),
        });
        task::spawn(group_lag::keep_looking(Arc::downgrade(&broker)));
        broker
    }

    /// The newest committed image.
    #[must_use]
    pub fn image(&self) -> Arc<ClusterImage> {
        self.images.borrow().clone()
    }

    /// Asks the active controller; no answer in `timeout` is REQUEST_TIMED_OUT, and the outcome is then unknown.
    pub async fn ask_controller(
        &self,
        request: ControllerRequest,
        timeout: Duration,
    ) -> Result<ControllerResponse, ErrorCode> {
        let deadline = Instant::now() + timeout;
        self.controller.call(request, deadline).await.map_err(|_unavailable| ErrorCode::RequestTimedOut)
    }

    /// Waits until this broker has applied an image that satisfies `condition`, or until `deadline`: a client that was
    /// told of a change finds it in the next Metadata answer of the same broker, and can produce to what this broker
    /// leads of it.
    pub async fn wait_for_image(
        &self,
        deadline: Instant,
        mut condition: impl FnMut(&ClusterImage) -> bool,
    ) -> Option<Arc<ClusterImage>> {
        let mut images = self.replicas.applied_images();
        let found = tokio::time::timeout_at(deadline, images.wait_for(|image| condition(image))).await;
        found.ok()?.ok().map(|image| Arc::clone(&image))
    }
}
