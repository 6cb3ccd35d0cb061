//! How many connections there may be, in all and from one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts open connections.
pub(super) struct ConnectionLimits {
    max: usize,
    max_per_ip: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_ip: BTreeMap<IpAddr, usize>,
}

/// The right to one connection; given back when dropped.
pub(super) struct Slot {
    limits: Arc<ConnectionLimits>,
    ip: IpAddr,
}

/// Which bound a connection would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMany {
    #[error("there are max.connections ({0}) already")]
    All(usize),
    #[error("there are max.connections.per.ip ({0}) from its address already")]
    PerIp(usize),
}

impl ConnectionLimits {
    pub(super) fn new(max: usize, max_per_ip: usize) -> Self {
        Self { max, max_per_ip, open: Mutex::default() }
    }

    /// Room for one more connection from `ip`.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Result<Slot, TooMany> {
        let mut open = self.open.lock();
        if open.all >= self.max {
            return Err(TooMany::All(self.max));
        }
        if open.by_ip.get(&ip).copied().unwrap_or(0) >= self.max_per_ip {
            return Err(TooMany::PerIp(self.max_per_ip));
        }
        open.all += 1;
        *open.by_ip.entry(ip).or_insert(0) += 1;
        Ok(Slot { limits: Arc::clone(self), ip })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.limits.open.lock();
        open.all -= 1;
        let from_ip = open.by_ip.get_mut(&self.ip).expect("an open connection is counted");
        *from_ip -= 1;
        if *from_ip == 0 {
            open.by_ip.remove(&self.ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::{ConnectionLimits, TooMany};

    #[test]
    fn both_bounds_hold_and_closing_makes_room() {
        let limits = Arc::new(ConnectionLimits::new(3, 2));
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
        let first = limits.admit(here).expect("room");
        let _second = limits.admit(here).expect("room");
        assert_eq!(limits.admit(here).err(), Some(TooMany::PerIp(2)));
        let _third = limits.admit(there).expect("room");
        assert_eq!(limits.admit(there).err(), Some(TooMany::All(3)));
        drop(first);
        limits.admit(here).expect("room again");
    }
}
