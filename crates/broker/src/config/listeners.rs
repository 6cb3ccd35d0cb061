//! `listeners`, `advertised.listeners` and what names map to which protocol and address.

use std::collections::BTreeMap;
use std::fmt;

use super::reader::Reader;

/// One listener of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: String,
    /// Where to accept connections. An empty host means all interfaces.
    pub bind: HostPort,
    /// What clients (or other nodes) are told to connect to.
    pub advertised: HostPort,
    pub security_protocol: SecurityProtocol,
}

/// A host name or address, and a port. IPv6 addresses are held without brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

/// How a listener is secured. TLS and SASL are not built yet, so only one is left for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    Plaintext,
}

impl SecurityProtocol {
    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
        }
    }
}

impl HostPort {
    /// The text to bind a socket to: an empty host becomes all interfaces.
    #[must_use]
    pub fn bind_address(&self) -> String {
        if self.host.is_empty() { format!("0.0.0.0:{}", self.port) } else { self.to_string() }
    }

    /// Whether the host stands for all interfaces, which nobody can connect to.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "" | "0.0.0.0" | "::" | "0:0:0:0:0:0:0:0")
    }

    /// Whether the host always means the machine that looks it up.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// `host:port`, `:port` or `[v6]:port`.
pub(super) fn bare_host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.trim().rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    Some(HostPort { host: host.to_owned(), port })
}

/// `NAME://host:port`, in order, each name once. Names are upper-cased as Kafka does.
pub(super) fn parse_listeners(reader: &mut Reader<'_>, property: &str, default: &str) -> Vec<(String, HostPort)> {
    let mut listeners: Vec<(String, HostPort)> = Vec::new();
    for text in reader.list(property, default) {
        let parsed = text
            .split_once("://")
            .and_then(|(name, address)| Some((name.trim().to_ascii_uppercase(), bare_host_port(address)?)))
            .filter(|(name, _)| !name.is_empty());
        match parsed {
            Some((name, _)) if listeners.iter().any(|(other, _)| *other == name) => {
                reader.problem(format!("{property} names listener {name} twice"));
            }
            Some((name, address)) => {
                let taken = listeners.iter().find(|(_, other)| other.port == address.port && address.port != 0);
                if property == "listeners"
                    && let Some((other, _)) = taken
                {
                    reader.problem(format!("listeners {other} and {name} cannot share port {}", address.port));
                }
                listeners.push((name, address));
            }
            None => reader.problem(format!("{property} has {text:?}; a listener is written NAME://host:port")),
        }
    }
    listeners
}

/// `listener.security.protocol.map`, or Kafka's default, in which a protocol's name maps to itself.
pub(super) fn security_protocols(reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let default = "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL";
    let is_default = reader.raw("listener.security.protocol.map").is_none();
    let mut protocols = BTreeMap::new();
    for pair in reader.list("listener.security.protocol.map", default) {
        match pair.split_once(':') {
            Some((name, protocol)) => {
                protocols.insert(name.trim().to_ascii_uppercase(), protocol.trim().to_ascii_uppercase());
            }
            None => reader.problem(format!("listener.security.protocol.map has {pair:?}; it is written NAME:PROTOCOL")),
        }
    }
    // As Kafka does for controller listeners when no map is given: a name of one's own is plaintext.
    if is_default {
        for name in reader.list("controller.listener.names", "") {
            protocols.entry(name).or_insert_with(|| "PLAINTEXT".to_owned());
        }
    }
    protocols
}

/// The listeners that are not controller listeners, with what is advertised for each.
pub(super) fn client_listeners(
    reader: &mut Reader<'_>,
    bound: &[(String, HostPort)],
    advertised: &[(String, HostPort)],
    controller_names: &[String],
    protocols: &BTreeMap<String, String>,
    host_name: &str,
) -> Vec<Listener> {
    for (name, _) in advertised {
        if !bound.iter().any(|(other, _)| other == name) && !controller_names.contains(name) {
            reader.problem(format!("advertised.listeners has {name}, which listeners does not have"));
        }
    }
    for (name, _) in bound {
        match protocols.get(name).map(String::as_str) {
            Some("PLAINTEXT") => {}
            Some(other @ ("SSL" | "SASL_PLAINTEXT" | "SASL_SSL")) => {
                reader.problem(format!("listener {name} is {other}, which is not built yet: only PLAINTEXT is"));
            }
            Some(other) => reader.problem(format!("listener.security.protocol.map gives {name} as {other:?}")),
            None => reader.problem(format!("listener.security.protocol.map does not say what {name} is")),
        }
    }
    bound
        .iter()
        .filter(|(name, _)| !controller_names.contains(name))
        .map(|(name, bind)| Listener {
            name: name.clone(),
            bind: bind.clone(),
            advertised: advertised_address(name, bind, advertised, host_name),
            security_protocol: SecurityProtocol::Plaintext,
        })
        .collect()
}

/// Where gRPC answers: the first controller listener that is bound, or else the inter-broker listener.
pub(super) fn peer_listener(
    reader: &mut Reader<'_>,
    bound: &[(String, HostPort)],
    advertised: &[(String, HostPort)],
    controller_names: &[String],
    inter_broker: Option<&Listener>,
    own_voter_address: Option<&HostPort>,
    host_name: &str,
) -> Option<Listener> {
    let controller = controller_names.iter().find_map(|name| bound.iter().find(|(other, _)| other == name));
    if let Some((name, bind)) = controller {
        let address = match own_voter_address {
            Some(address) if !advertised.iter().any(|(other, _)| other == name) => address.clone(),
            _ => advertised_address(name, bind, advertised, host_name),
        };
        return Some(Listener {
            name: name.clone(),
            bind: bind.clone(),
            advertised: address,
            security_protocol: SecurityProtocol::Plaintext,
        });
    }
    if inter_broker.is_none() {
        reader.problem(
            "this node has no listener for other nodes: controller.listener.names must name one of listeners"
                .to_owned(),
        );
    }
    inter_broker.cloned()
}

/// What is advertised by hand, else the bound address, with the machine's name in place of "all interfaces".
fn advertised_address(name: &str, bind: &HostPort, advertised: &[(String, HostPort)], host_name: &str) -> HostPort {
    let by_hand = advertised.iter().find(|(other, _)| other == name).map(|(_, address)| address);
    let mut address = by_hand.unwrap_or(bind).clone();
    if address.host.is_empty() || (by_hand.is_none() && address.is_wildcard()) {
        address.host = host_name.to_owned();
    }
    address
}
