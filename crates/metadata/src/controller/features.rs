//! The first records of a cluster: its identity, and what all its members can rely on.

use super::Controller;
use crate::image::ClusterImage;
use crate::record::{ConfigResource, MetadataRecord};

/// Eligible leader replicas (KIP-966) are kept from the start.
const ELIGIBLE_LEADER_REPLICAS: (&str, i16) = ("eligible.leader.replicas.version", 1);

impl Controller {
    /// The first records of a cluster's life, if the image has none yet.
    ///
    /// `min.insync.replicas` becomes a dynamic config of the cluster, as Kafka does where it keeps ELRs: the controller
    /// and every leader must agree on it, and properties files of single brokers could differ.
    #[must_use]
    pub fn form_cluster(&self, image: &ClusterImage, cluster_id: &str) -> Vec<MetadataRecord> {
        if !image.cluster_id.is_empty() {
            return vec![];
        }
        let (feature, level) = ELIGIBLE_LEADER_REPLICAS;
        vec![
            MetadataRecord::ClusterId { cluster_id: cluster_id.to_owned() },
            MetadataRecord::FeatureLevel { name: feature.to_owned(), level },
            MetadataRecord::Config {
                resource: ConfigResource::ClusterDefault,
                name: "min.insync.replicas".to_owned(),
                value: Some(self.config.min_insync_replicas.to_string()),
            },
        ]
    }
}
