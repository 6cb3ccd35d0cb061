//! What passes between hosts, and what does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use turmoil::{Protocol, Segment};

use super::{Cluster, broker_name, host_name};
use crate::network::{NetworkState, ordered};

/// What becomes of that which was sent through a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// It arrives late, as TCP's retransmission has it; connections from before go on.
    Delivered,
    /// It is gone, and connections from before never work again, though nobody says so.
    Lost,
}

impl Cluster {
    /// From now on the network is in this state, between all hosts that run. What was sent through a link that opens
    /// again arrives late, but for links in `lost`: what was sent through them is gone, and their connections are dead.
    pub fn set_network(&mut self, state: NetworkState, lost: &BTreeSet<(String, String)>) {
        let connecting = self.connecting();
        // To lose somebody's first segment is to refuse the connection, and that would say that the process is dead.
        for (one, other) in lost.difference(&connecting) {
            self.sim.partition(one.as_str(), other.as_str());
            self.held.insert((one.clone(), other.clone()));
        }
        self.network = state;
        self.apply_network();
    }

    /// The pairs of hosts between which somebody waits for a connection.
    fn connecting(&self) -> BTreeSet<(String, String)> {
        let names = &self.names;
        let mut connecting = BTreeSet::new();
        self.sim.links(|links| {
            for link in links {
                let (one, other) = link.pair();
                let (Some(one), Some(other)) = (names.get(&one), names.get(&other)) else { continue };
                if link.into_iter().any(|message| matches!(message.protocol(), Protocol::Tcp(Segment::Syn(_)))) {
                    connecting.insert(ordered(one, other));
                }
            }
        });
        connecting
    }

    pub(super) fn apply_network(&mut self) {
        let hosts = self.hosts();
        let is_down = |host: &str| self.down.iter().any(|broker| broker_name(*broker) == host);
        for (index, one) in hosts.iter().enumerate() {
            for other in hosts[index + 1..].iter().filter(|other| !is_down(one) && !is_down(other)) {
                let pair = ordered(one, other);
                if self.network.is_disturbed(one, other) {
                    self.sim.hold(one.as_str(), other.as_str());
                    self.held.insert(pair);
                } else if self.held.remove(&pair) {
                    self.sim.release(one.as_str(), other.as_str());
                }
                let latency = self.network.latency(one, other).unwrap_or(self.max_latency);
                self.sim.set_link_max_message_latency(one.as_str(), other.as_str(), latency);
            }
        }
        let addresses: BTreeMap<&str, IpAddr> = self.names.iter().map(|(ip, name)| (name.as_str(), *ip)).collect();
        let held = self.held.iter().flat_map(|(one, other)| [(one, other), (other, one)]);
        self.passages = held
            .map(|(one, other)| {
                let ends = (addresses[one.as_str()], addresses[other.as_str()]);
                (ends, (self.network.passage(one, other), self.network.passage(other, one)))
            })
            .collect();
    }

    /// On a disturbed link every message waits until it is let through.
    pub(super) fn deliver_some(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let (passages, random) = (&self.passages, &mut self.random);
        self.sim.links(|links| {
            for link in links {
                let ends = link.pair();
                let Some((there, back)) = passages.get(&ends) else { continue };
                for message in link {
                    let (from, _) = message.pair();
                    let passage = if from.ip() == ends.0 { there } else { back };
                    if passage.lets_through(random) {
                        message.deliver();
                    }
                }
            }
        });
    }

    /// Cuts a broker off from the other brokers; clients still reach it. Nothing tells of a cut: what is sent just does
    /// not arrive, and connecting takes for ever. (A partition in turmoil's sense refuses connections at once, as if the
    /// process were dead.)
    pub fn isolate(&mut self, broker: i32) {
        for other in self.others(&broker_name(broker)) {
            self.sim.hold(broker_name(broker), other.as_str());
        }
    }

    /// Cuts a broker off from everybody.
    pub fn disconnect(&mut self, broker: i32) {
        self.isolate(broker);
        for client in &self.clients {
            self.sim.hold(broker_name(broker), client.as_str());
        }
    }

    /// Undoes [`Cluster::isolate`] and [`Cluster::disconnect`].
    pub fn heal(&mut self, broker: i32, meanwhile: Meanwhile) {
        if meanwhile == Meanwhile::Lost {
            self.drop_all(broker);
        }
        let broker = broker_name(broker);
        for other in self.others(&broker).iter().chain(&self.clients) {
            self.sim.release(broker.as_str(), other.as_str());
        }
    }

    pub(super) fn drop_all(&self, broker: i32) {
        let broker = broker_name(broker);
        for other in self.others(&broker).iter().chain(&self.clients) {
            self.sim.partition(broker.as_str(), other.as_str());
        }
    }

    fn others(&self, broker: &str) -> Vec<String> {
        (1..=self.brokers).map(host_name).filter(|other| other != broker).collect()
    }
}
