//! Three replicas, a controller and slow links, in any order of events: elections, fencing, crashes, broken
//! connections, late images. Whatever happens, nothing that was committed may be lost or differ between replicas.
//!
//! The model is thin on purpose: every decision is taken by the states under test, and the model only carries messages,
//! holds logs as vectors, and plays the controller by the rules of KIP-497, 841 and 903. A crash loses what the durability mode
//! allows it to lose: nothing in the page-cache mode (the process dies, the machine does not), everything not flushed
//! in the flush mode.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use vltava_replication::{
    BrokerStatus, Durability, EpochCache, EpochEndOffset, FetchPosition, FollowerAction, FollowerState,
    FollowerSubscription, IsrProposal, IsrRejection, LeaderAction, LeaderState, LogOffsets, PartitionAssignment,
    ReplicationConfig,
};
use vltava_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch};

const NODES: usize = 3;
const MIN_IN_SYNC_REPLICAS: usize = 2;

/// A record is known by its epoch and a value that no other record has.
type Record = (LeaderEpoch, u32);

#[derive(Clone)]
struct Image {
    leader: Option<usize>,
    leader_epoch: i32,
    partition_epoch: i32,
    isr: Vec<usize>,
    brokers: BTreeMap<BrokerId, BrokerStatus>,
}

enum Message {
    Subscribe(FollowerSubscription),
    Acknowledge(LeaderEpoch, Offset, Offset),
    Batches(LeaderEpoch, Offset, Vec<Record>, Offset),
    Diverging(LeaderEpoch, EpochEndOffset),
    OutOfRange(LeaderEpoch, Offset, Offset),
}

enum Role {
    None,
    /// With the next offset to send to each follower that subscribed.
    Leader(Box<LeaderState>, [Option<usize>; NODES]),
    Follower(FollowerState),
}

struct Node {
    up: bool,
    broker_epoch: BrokerEpoch,
    /// How many images it has seen.
    images: usize,
    role: Role,
    log: Vec<Record>,
    durable: usize,
    epochs: EpochCache,
    high_watermark: usize,
}

/// What the controller made of an accepted proposal.
type Accepted = (PartitionEpoch, Vec<BrokerId>);

struct World {
    durability: Durability,
    now_ms: i64,
    next_value: u32,
    images: Vec<Image>,
    nodes: Vec<Node>,
    /// By sender and receiver, in order.
    links: Vec<Vec<VecDeque<Message>>>,
    /// Proposals on their way to the controller, and answers on their way back.
    proposals: VecDeque<(usize, IsrProposal)>,
    answers: VecDeque<(usize, IsrProposal, Option<Accepted>)>,
    committed: Vec<Record>,
}

fn broker(node: usize) -> BrokerId {
    BrokerId(node as i32)
}

fn offset(index: usize) -> Offset {
    Offset(index as i64)
}

fn index(offset: Offset) -> usize {
    usize::try_from(offset.value()).expect("offsets are not negative")
}

impl World {
    fn new(durability: Durability) -> Self {
        let status = |node: usize| BrokerStatus {
            broker_epoch: BrokerEpoch(node as i64),
            fenced: false,
            in_controlled_shutdown: false,
        };
        let image = Image {
            leader: Some(0),
            leader_epoch: 0,
            partition_epoch: 0,
            isr: (0..NODES).collect(),
            brokers: (0..NODES).map(|node| (broker(node), status(node))).collect(),
        };
        let node = |node: usize| Node {
            up: true,
            broker_epoch: BrokerEpoch(node as i64),
            images: 0,
            role: Role::None,
            log: vec![],
            durable: 0,
            epochs: EpochCache::default(),
            high_watermark: 0,
        };
        let links = (0..NODES).map(|_| (0..NODES).map(|_| VecDeque::new()).collect()).collect();
        let mut world = Self {
            durability,
            now_ms: 0,
            next_value: 0,
            images: vec![image],
            nodes: (0..NODES).map(node).collect(),
            links,
            proposals: VecDeque::new(),
            answers: VecDeque::new(),
            committed: vec![],
        };
        for node in 0..NODES {
            world.take_image(node);
        }
        world
    }

    fn step(&mut self, event: u8, choice: u8) {
        let node = usize::from(choice) % NODES;
        let other = (node + 1 + usize::from(choice / 3) % (NODES - 1)) % NODES;
        match event % 32 {
            0..=3 => self.append(),
            4..=6 => self.flush(node),
            7..=14 => self.deliver(node, other),
            15..=18 => self.send(node, other),
            19..=20 => self.subscribe(node),
            21..=23 => self.take_image(node),
            24 => self.tick(node, i64::from(choice)),
            25 => self.decide_proposal(choice),
            26 => self.answer_proposal(choice),
            27 => self.disconnect(node, other),
            28 => self.crash(node, choice),
            29 => self.restart(node),
            30 => self.fence_or_unfence(node),
            _ => self.elect(node),
        }
        self.check();
    }

    // The controller.

    fn newest(&self) -> Image {
        self.images.last().expect("there is always an image").clone()
    }

    fn change(&mut self, mut image: Image, leader: Option<usize>) {
        if image.leader != leader {
            image.leader = leader;
            image.leader_epoch += 1;
        }
        image.partition_epoch += 1;
        self.images.push(image);
    }

    fn is_unfenced(image: &Image, node: usize) -> bool {
        !image.brokers[&broker(node)].fenced
    }

    fn fence(&mut self, node: usize) {
        let mut image = self.newest();
        image.brokers.get_mut(&broker(node)).expect("three brokers").fenced = true;
        // The last member stays: it alone may know what is committed.
        if image.isr.len() > 1 {
            image.isr.retain(|member| *member != node);
        }
        let leader = image.leader.filter(|leader| *leader != node);
        let elected = leader.or_else(|| image.isr.iter().copied().find(|&member| Self::is_unfenced(&image, member)));
        self.change(image, elected);
    }

    fn fence_or_unfence(&mut self, node: usize) {
        let mut image = self.newest();
        if Self::is_unfenced(&image, node) {
            return self.fence(node);
        }
        if !self.nodes[node].up || image.brokers[&broker(node)].broker_epoch != self.nodes[node].broker_epoch {
            return;
        }
        image.brokers.get_mut(&broker(node)).expect("three brokers").fenced = false;
        let leader = image.leader.or_else(|| image.isr.contains(&node).then_some(node));
        self.change(image, leader);
    }

    fn elect(&mut self, node: usize) {
        let image = self.newest();
        if image.isr.contains(&node) && Self::is_unfenced(&image, node) && image.leader != Some(node) {
            self.change(image, Some(node));
        }
    }

    fn decide_proposal(&mut self, choice: u8) {
        let Some((node, proposal)) = self.proposals.pop_front() else { return };
        if choice.is_multiple_of(5) {
            return self.answers.push_back((node, proposal, None));
        }
        let mut image = self.newest();
        let is_current = image.leader == Some(node)
            && proposal.leader_epoch == LeaderEpoch(image.leader_epoch)
            && proposal.partition_epoch == PartitionEpoch(image.partition_epoch);
        let is_eligible = |(id, epoch): &(BrokerId, BrokerEpoch)| {
            let status = &image.brokers[id];
            !status.fenced && status.broker_epoch == *epoch
        };
        if !is_current || !proposal.new_isr.iter().all(is_eligible) {
            return self.answers.push_back((node, proposal, None));
        }
        image.isr = proposal.new_isr.iter().map(|(id, _)| id.value() as usize).collect();
        let leader = image.leader;
        self.change(image, leader);
        let image = self.newest();
        let isr = image.isr.iter().copied().map(broker).collect();
        self.answers.push_back((node, proposal, Some((PartitionEpoch(image.partition_epoch), isr))));
    }

    // The nodes.

    fn offsets(&self, node: usize) -> LogOffsets {
        let node = &self.nodes[node];
        LogOffsets {
            log_start_offset: Offset(0),
            high_watermark: offset(node.high_watermark),
            durable_offset: offset(node.durable),
            log_end_offset: offset(node.log.len()),
        }
    }

    fn take_image(&mut self, id: usize) {
        let seen = self.nodes[id].images;
        if !self.nodes[id].up || seen == self.images.len() {
            return;
        }
        let image = self.images[seen].clone();
        self.nodes[id].images += 1;
        // A restarted node does nothing by images from before its registration.
        if image.brokers[&broker(id)].broker_epoch != self.nodes[id].broker_epoch {
            return;
        }
        let leader_epoch = LeaderEpoch(image.leader_epoch);
        let assignment = PartitionAssignment {
            leader_epoch,
            partition_epoch: PartitionEpoch(image.partition_epoch),
            replicas: (0..NODES).map(broker).collect(),
            isr: image.isr.iter().copied().map(broker).collect(),
        };
        if let Role::Leader(state, _) = &mut self.nodes[id].role
            && state.leader_epoch() == leader_epoch
        {
            let mut actions = state.on_brokers(image.brokers, self.now_ms);
            actions.extend(state.on_assignment(assignment, self.now_ms));
            return self.act(id, actions);
        }
        if image.leader == Some(id) {
            let log_end = offset(self.nodes[id].log.len());
            self.nodes[id].epochs.assign(leader_epoch, log_end);
            let config = ReplicationConfig {
                durability: self.durability,
                min_in_sync_replicas: MIN_IN_SYNC_REPLICAS,
                lag_time_max_ms: 100,
            };
            let offsets = self.offsets(id);
            let state = LeaderState::new(broker(id), assignment, image.brokers, offsets, config, self.now_ms);
            self.nodes[id].role = Role::Leader(Box::new(state), [None; NODES]);
        } else {
            let is_same = matches!(&self.nodes[id].role, Role::Follower(state) if state.leader_epoch() == leader_epoch);
            if !is_same {
                let leader = image.leader.map(broker);
                let state = FollowerState::new(broker(id), leader, leader_epoch, self.offsets(id));
                self.nodes[id].role = Role::Follower(state);
            }
        }
    }

    fn append(&mut self) {
        for id in 0..NODES {
            let node = &mut self.nodes[id];
            let Role::Leader(state, _) = &mut node.role else { continue };
            node.log.push((state.leader_epoch(), self.next_value));
            self.next_value += 1;
            let actions = state.on_appended(offset(node.log.len()), self.now_ms);
            self.act(id, actions);
        }
    }

    fn flush(&mut self, id: usize) {
        let node = &mut self.nodes[id];
        node.durable = node.log.len();
        let durable = offset(node.durable);
        match &mut node.role {
            Role::None => {}
            Role::Leader(state, _) => {
                let actions = state.on_flushed(durable, self.now_ms);
                self.act(id, actions);
            }
            Role::Follower(state) => {
                state.on_flushed(durable);
                self.acknowledge(id);
            }
        }
    }

    fn tick(&mut self, id: usize, wait_ms: i64) {
        self.now_ms += wait_ms;
        if let Role::Leader(state, _) = &mut self.nodes[id].role {
            let was_at_rest = state.is_at_rest();
            let actions = state.on_tick(self.now_ms);
            assert!(!was_at_rest || actions.is_empty(), "a leader at rest may not be looked at for years");
            self.act(id, actions);
        }
    }

    fn act(&mut self, id: usize, actions: Vec<LeaderAction>) {
        for action in actions {
            match action {
                LeaderAction::AdvanceHighWatermark(high_watermark) => {
                    let end = index(high_watermark);
                    self.nodes[id].high_watermark = end;
                    let records = &self.nodes[id].log[..end];
                    for (i, record) in records.iter().enumerate() {
                        match self.committed.get(i) {
                            Some(committed) => assert_eq!(committed, record, "offset {i} is committed twice"),
                            None => self.committed.push(*record),
                        }
                    }
                }
                LeaderAction::ProposeIsr(proposal) => self.proposals.push_back((id, proposal)),
            }
        }
    }

    fn answer_proposal(&mut self, choice: u8) {
        let Some((id, proposal, outcome)) = self.answers.pop_front() else { return };
        let now_ms = self.now_ms;
        let Role::Leader(state, _) = &mut self.nodes[id].role else { return };
        let actions = match outcome {
            // The answer may get lost on its way.
            Some((partition_epoch, isr)) if !choice.is_multiple_of(3) => {
                state.on_isr_accepted(proposal.leader_epoch, partition_epoch, &isr, now_ms)
            }
            Some(_) => {
                state.on_isr_rejected(proposal.leader_epoch, proposal.partition_epoch, IsrRejection::Retry, now_ms)
            }
            None => {
                state.on_isr_rejected(proposal.leader_epoch, proposal.partition_epoch, IsrRejection::NotApplied, now_ms)
            }
        };
        self.act(id, actions);
    }

    fn subscribe(&mut self, id: usize) {
        let node = &self.nodes[id];
        let Role::Follower(state) = &node.role else { return };
        let Some(leader) = state.leader() else { return };
        let leader = leader.value() as usize;
        let subscription = state.subscription(&node.epochs, node.broker_epoch, state.offsets().log_start_offset);
        self.disconnect(id, leader);
        self.links[id][leader].push_back(Message::Subscribe(subscription));
    }

    fn send(&mut self, from: usize, to: usize) {
        let node = &mut self.nodes[from];
        let Role::Leader(state, next) = &mut node.role else { return };
        let Some(base) = next[to] else { return };
        let end = node.log.len().min(base + 2);
        next[to] = Some(end);
        let records = node.log[base..end].to_vec();
        let message = Message::Batches(state.leader_epoch(), offset(base), records, state.high_watermark());
        self.links[from][to].push_back(message);
    }

    fn disconnect(&mut self, one: usize, other: usize) {
        self.links[one][other].clear();
        self.links[other][one].clear();
        for (leader, follower) in [(one, other), (other, one)] {
            if let Role::Leader(_, next) = &mut self.nodes[leader].role {
                next[follower] = None;
            }
        }
    }

    fn crash(&mut self, id: usize, choice: u8) {
        let durability = self.durability;
        let node = &mut self.nodes[id];
        if !node.up {
            return;
        }
        node.up = false;
        node.role = Role::None;
        if durability == Durability::Flush {
            node.log.truncate(node.durable);
            node.epochs.truncate_from_end(offset(node.durable));
        }
        // The checkpoint of the high watermark is older than the high watermark.
        node.high_watermark = node.high_watermark.min(node.log.len()) * usize::from(choice % 4) / 3;
        for other in 0..NODES {
            if other != id {
                self.disconnect(id, other);
            }
        }
    }

    fn restart(&mut self, id: usize) {
        if self.nodes[id].up {
            return;
        }
        if Self::is_unfenced(&self.newest(), id) {
            self.fence(id);
        }
        let mut image = self.newest();
        let broker_epoch = BrokerEpoch(1000 + self.images.len() as i64);
        image.brokers.get_mut(&broker(id)).expect("three brokers").broker_epoch = broker_epoch;
        let leader = image.leader;
        self.change(image, leader);
        let node = &mut self.nodes[id];
        node.up = true;
        node.broker_epoch = broker_epoch;
        // Images are skipped, never reordered.
        node.images = self.images.len() - 1;
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let Some(message) = self.links[from][to].pop_front() else { return };
        let now_ms = self.now_ms;
        match message {
            Message::Subscribe(subscription) => {
                let node = &mut self.nodes[to];
                let Role::Leader(state, next) = &mut node.role else { return };
                let Ok((position, actions)) = state.on_subscribe(&subscription, &node.epochs, now_ms) else { return };
                next[from] = None;
                let leader_epoch = state.leader_epoch();
                let answer = match position {
                    FetchPosition::Matches => {
                        next[from] = Some(index(subscription.fetch_offset));
                        return self.act(to, actions);
                    }
                    FetchPosition::Diverging(end) => Message::Diverging(leader_epoch, end),
                    FetchPosition::OutOfRange { log_start_offset, log_end_offset } => {
                        Message::OutOfRange(leader_epoch, log_start_offset, log_end_offset)
                    }
                };
                self.links[to][from].push_back(answer);
            }
            Message::Acknowledge(leader_epoch, log_end, durable) => {
                let Role::Leader(state, next) = &mut self.nodes[to].role else { return };
                if state.leader_epoch() != leader_epoch || next[from].is_none() {
                    return;
                }
                let actions = state.on_acknowledged(broker(from), log_end, durable, now_ms);
                self.act(to, actions.expect("followers tell the truth"));
            }
            Message::Batches(leader_epoch, base, records, high_watermark) => {
                let node = &mut self.nodes[to];
                let Role::Follower(state) = &mut node.role else { return };
                let Ok(action) = state.on_batches(leader_epoch, base) else { return };
                assert_eq!(action, FollowerAction::Append);
                assert_eq!(index(base), node.log.len(), "no compaction, no gaps");
                for record in records {
                    node.epochs.assign(record.0, offset(node.log.len()));
                    node.log.push(record);
                }
                state.on_appended(offset(node.log.len()));
                let actions = state.on_leader_offsets(leader_epoch, high_watermark, Offset(0));
                actions.expect("the epoch was checked");
                node.high_watermark = index(state.high_watermark());
                self.acknowledge(to);
            }
            Message::Diverging(leader_epoch, end) => {
                let node = &self.nodes[to];
                let Role::Follower(state) = &node.role else { return };
                let action = state.on_diverging(leader_epoch, end, &node.epochs);
                self.truncate(to, action.ok());
            }
            Message::OutOfRange(leader_epoch, log_start, log_end) => {
                let Role::Follower(state) = &self.nodes[to].role else { return };
                let action = state.on_out_of_range(leader_epoch, log_start, log_end, &self.nodes[to].epochs);
                self.truncate(to, action.ok());
            }
        }
    }

    fn truncate(&mut self, id: usize, action: Option<FollowerAction>) {
        let cut = match action {
            None => return,
            Some(FollowerAction::TruncateTo(cut)) => cut,
            Some(action) => panic!("{action:?} without a log start"),
        };
        let node = &mut self.nodes[id];
        let Role::Follower(state) = &mut node.role else { return };
        let lost_committed = state.on_truncated(cut);
        assert!(!lost_committed, "a follower cut below its high watermark");
        node.log.truncate(index(cut));
        node.durable = node.durable.min(index(cut));
        node.epochs.truncate_from_end(cut);
        self.subscribe(id);
    }

    fn acknowledge(&mut self, id: usize) {
        let Role::Follower(state) = &self.nodes[id].role else { return };
        let Some(leader) = state.leader() else { return };
        let LogOffsets { log_end_offset, durable_offset, .. } = state.offsets();
        let message = Message::Acknowledge(state.leader_epoch(), log_end_offset, durable_offset);
        self.links[id][leader.value() as usize].push_back(message);
    }

    // What must hold after every event.

    fn check(&self) {
        let newest = self.newest();
        for (id, node) in self.nodes.iter().enumerate() {
            assert!(node.high_watermark <= self.committed.len(), "node {id} takes too much for committed");
            assert_eq!(
                node.log[..node.high_watermark],
                self.committed[..node.high_watermark],
                "node {id} differs below its high watermark"
            );
            // Whoever may be elected holds everything.
            if newest.isr.contains(&id) {
                assert!(self.committed.len() <= node.log.len(), "node {id} is in the isr and lacks committed records");
                assert_eq!(node.log[..self.committed.len()], self.committed[..], "node {id} in the isr differs");
            }
            if self.durability == Durability::Flush && newest.isr.contains(&id) {
                assert!(self.committed.len() <= node.durable, "node {id} is in the isr and could lose records");
            }
        }
    }

    /// Everything heals: after that, a record is committed again.
    fn heal(&mut self) {
        for id in 0..NODES {
            self.restart(id);
        }
        for _ in 0..NODES {
            for id in 0..NODES {
                if !Self::is_unfenced(&self.newest(), id) {
                    self.fence_or_unfence(id);
                }
            }
        }
        self.append();
        for round in 0..40 {
            for id in 0..NODES {
                while self.nodes[id].images < self.images.len() {
                    self.take_image(id);
                }
                if round % 10 == 0 {
                    self.subscribe(id);
                }
                self.tick(id, 1);
                self.flush(id);
            }
            self.append();
            for from in 0..NODES {
                for to in 0..NODES {
                    for _ in 0..20 {
                        self.send(from, to);
                        self.deliver(from, to);
                    }
                }
            }
            self.decide_proposal(1);
            self.answer_proposal(1);
            self.check();
        }
    }
}

fn play(durability: Durability, events: &[(u8, u8)]) {
    let mut world = World::new(durability);
    for &(event, choice) in events {
        world.step(event, choice);
    }
    let before = world.committed.len();
    world.heal();
    assert!(before < world.committed.len(), "nothing gets committed any more");
    assert_eq!(world.newest().isr.len(), NODES, "not everybody came back into the isr");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_committed_is_lost_when_processes_crash(events in prop::collection::vec(any::<(u8, u8)>(), 0..1500)) {
        play(Durability::PageCache, &events);
    }

    #[test]
    fn nothing_committed_is_lost_when_power_fails(events in prop::collection::vec(any::<(u8, u8)>(), 0..1500)) {
        play(Durability::Flush, &events);
    }
}
