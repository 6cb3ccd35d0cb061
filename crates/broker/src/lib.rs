//! The broker: request paths, partition owners, coordinator shells.

pub mod config;
pub mod controller;
