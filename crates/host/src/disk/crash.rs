//! What is left after the power was lost.

use std::collections::BTreeSet;

use super::{DataChange, Node, NodeId, ROOT, State, overwrite};

/// What survives of that which was not synced. Drawn anew for each crash.
#[derive(Clone, Copy, Debug)]
struct Survival {
    /// Of 100 changes.
    percent: u64,
    /// Of 100 writes that do not survive as they were, and not at all either.
    torn_percent: u64,
    sector: usize,
}

impl State {
    pub(super) fn lose_power(&mut self) {
        if !self.has_power {
            return;
        }
        self.has_power = false;
        self.boot += 1;
        let survival = self.draw_survival();
        let unsynced = std::mem::take(&mut self.unsynced);
        for change in &unsynced {
            if self.random.below(100) < survival.percent {
                self.make_durable(change);
            }
        }
        let reachable = self.reachable_from_platter();
        self.nodes.retain(|node, _| reachable.contains(node));
        for node in reachable {
            self.restart_node(node, survival);
        }
        self.count_names();
    }

    /// What a failed sync does: some of the writes are on the platter, and the file system has forgotten the others. The
    /// process still sees them.
    pub(super) fn drop_unsynced(&mut self, node: NodeId) -> std::io::Result<()> {
        let survival = self.draw_survival();
        let file = self.file_mut(node)?;
        let (unsynced, mut durable) = (std::mem::take(&mut file.unsynced), std::mem::take(&mut file.durable));
        self.apply_some(&unsynced, &mut durable, survival);
        self.file_mut(node)?.durable = durable;
        Ok(())
    }

    fn draw_survival(&mut self) -> Survival {
        let percent = match self.random.below(8) {
            0 | 1 => 0,
            2 => 100,
            _ => self.random.below(101),
        };
        let torn_percent = [0, 30, 100][self.random.below(3) as usize];
        let sector = [512, 4096][self.random.below(2) as usize];
        Survival { percent, torn_percent, sector }
    }

    fn reachable_from_platter(&self) -> BTreeSet<NodeId> {
        let mut reachable = BTreeSet::from([ROOT]);
        let mut rest = vec![ROOT];
        while let Some(node) = rest.pop() {
            if let Some(Node::Directory(directory)) = self.nodes.get(&node) {
                rest.extend(directory.durable.values().filter(|child| reachable.insert(**child)));
            }
        }
        reachable
    }

    fn restart_node(&mut self, node: NodeId, survival: Survival) {
        let (unsynced, mut durable) = match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => {
                directory.entries = directory.durable.clone();
                return;
            }
            Some(Node::File(file)) => (std::mem::take(&mut file.unsynced), std::mem::take(&mut file.durable)),
            None => return,
        };
        self.apply_some(&unsynced, &mut durable, survival);
        if let Ok(file) = self.file_mut(node) {
            file.contents = durable.clone();
            file.durable = durable;
            file.handles = 0;
        }
    }

    fn count_names(&mut self) {
        let named: Vec<NodeId> = self
            .nodes
            .values()
            .filter_map(|node| match node {
                Node::Directory(directory) => Some(directory.entries.values().copied()),
                Node::File(_) => None,
            })
            .flatten()
            .collect();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.names = 0;
            }
        }
        named.into_iter().for_each(|node| self.change_names(node, |names| names + 1));
    }

    fn apply_some(&mut self, changes: &[DataChange], bytes: &mut Vec<u8>, survival: Survival) {
        for change in changes {
            if self.random.below(100) < survival.percent {
                change.apply(bytes);
            } else if let DataChange::Write { position, bytes: written } = change
                && self.random.below(100) < survival.torn_percent
            {
                self.tear(*position, written, bytes, survival.sector);
            }
        }
    }

    /// Some sectors of a write, and perhaps a length that covers all of them.
    fn tear(&mut self, position: usize, written: &[u8], bytes: &mut Vec<u8>, sector: usize) {
        let end = position + written.len();
        if self.random.below(2) == 0 && bytes.len() < end {
            bytes.resize(end, 0);
        }
        let mut start = position;
        while start < end {
            let sector_end = (start / sector + 1) * sector;
            let stop = sector_end.min(end);
            if self.random.below(2) == 0 {
                overwrite(bytes, start, &written[start - position..stop - position]);
            }
            start = stop;
        }
    }
}
