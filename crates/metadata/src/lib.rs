//! Cluster metadata: what the quorum agrees on, and what the controller decides.
//!
//! [`MetadataRecord`]s are the only thing the quorum replicates. Replaying them in order over a [`ClusterImage`] gives
//! the next image; nothing else changes one. [`controller`] holds the controller's decisions as pure functions from an
//! image and a request to records and a response. This crate never awaits, reads a clock or draws a random number.

pub mod codec;
pub mod configs;
pub mod controller;
mod image;
mod record;

pub use image::{BrokerImage, ClusterImage, ConfigImage, PartitionImage, TopicImage};
pub use record::{BrokerRegistration, ConfigResource, Endpoint, MetadataRecord, PartitionChange, PartitionRecord};
