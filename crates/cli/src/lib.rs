//! The command line: everything of the `vltava` program that talks to brokers instead of being one.
//!
//! There are two faces. [`kafka`] holds the tools under Kafka's names (`kafka-topics`, ...), with Kafka's options, output
//! and exit codes, for scripts and habits. [`people`] holds `vltava topics` and its like, with tables, colours and
//! `--output json`. Each tool and each command has one file, which reads top to bottom: options, requests, text. What
//! is printed is made by functions from rows to text, tested as data; the suite in `tests/cli` compares them with
//! Apache Kafka's own tools on the same cluster.
//!
//! Requests go through `vltava_client`. Everything printed goes through a [`console::Console`], so that tests can read it.

pub mod connect;
pub mod console;
mod input;
pub mod install_links;
pub mod kafka;
pub mod people;
mod performance;
mod progress;
pub mod properties;
