//! Clients that behave well, at random times, with a coordinator that fails at random times.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::{Story, config};
use vltava_coordinator::group::GroupConfig;
use vltava_coordinator::records::GroupRecord;

const CLIENTS: usize = 4;
const PARTITIONS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Action {
    Join(usize),
    Sync(usize),
    Heartbeat(usize),
    Commit(usize),
    Leave(usize),
    /// The process starts anew and has forgotten its member id.
    Restart(usize),
    Advance(u64),
    /// These clients do what the protocol asks of them, up to the assignment.
    Rebalance([bool; CLIENTS]),
    /// Records are no longer durable at once.
    Hold,
    Committed,
    NotCommitted,
    Failover,
}

fn action() -> impl Strategy<Value = Action> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => client.clone().prop_map(Action::Join),
        8 => client.clone().prop_map(Action::Sync),
        3 => client.clone().prop_map(Action::Heartbeat),
        2 => client.clone().prop_map(Action::Commit),
        1 => client.clone().prop_map(Action::Leave),
        1 => client.prop_map(Action::Restart),
        4 => prop_oneof![Just(0), 1_u64..4_000, Just(10_000), Just(60_000)].prop_map(Action::Advance),
        4 => any::<[bool; CLIENTS]>().prop_map(Action::Rebalance),
        1 => Just(Action::Hold),
        2 => Just(Action::Committed),
        1 => Just(Action::NotCommitted),
        1 => Just(Action::Failover),
    ]
}

/// What a client knows.
#[derive(Clone, Default)]
struct Client {
    member_id: String,
    generation: i32,
    /// Set by JoinGroup if it leads.
    members: Vec<String>,
    is_waiting: bool,
}

struct World {
    story: Story,
    clients: Vec<Client>,
    is_holding: bool,
    /// Who was told to own a partition in a generation.
    owners: BTreeMap<(i32, String), usize>,
    /// The newest generation that this coordinator has announced.
    announced: i32,
}

impl World {
    fn new() -> Self {
        // A group that retention has deleted begins at generation 1 again; not here.
        let config =
            GroupConfig { initial_rebalance_delay_ms: 1_000, offsets_retention_check_interval_ms: 1 << 40, ..config() };
        Self {
            story: Story::new(config),
            clients: vec![Client::default(); CLIENTS],
            is_holding: false,
            owners: BTreeMap::new(),
            announced: 0,
        }
    }

    fn perform(&mut self, action: Action) {
        let line = match action {
            Action::Advance(ms) => format!("+{ms}"),
            Action::Hold if !self.is_holding => {
                self.is_holding = true;
                "hold".to_owned()
            }
            Action::Committed if self.is_holding => {
                self.is_holding = false;
                "committed".to_owned()
            }
            Action::NotCommitted if self.is_holding => {
                self.is_holding = false;
                "fail REQUEST_TIMED_OUT".to_owned()
            }
            Action::Failover => {
                self.is_holding = false;
                self.announced = 0;
                "failover".to_owned()
            }
            Action::Rebalance(who) => return self.rebalance(who),
            Action::Hold | Action::Committed | Action::NotCommitted => return,
            Action::Join(client) => return self.request(client, join),
            Action::Sync(client) => return self.request(client, sync),
            Action::Heartbeat(client) => return self.request(client, |client| about_member("heartbeat", client)),
            Action::Commit(client) => return self.request(client, commit),
            Action::Leave(client) => return self.request(client, leave),
            Action::Restart(client) => {
                self.clients[client] = Client::default();
                return;
            }
        };
        let told = self.story.run(&line);
        self.listen(&told);
        if matches!(action, Action::Failover) {
            // Connections break; whoever waits asks again.
            self.clients.iter_mut().for_each(|client| client.is_waiting = false);
        }
    }

    fn rebalance(&mut self, who: [bool; CLIENTS]) {
        let members: Vec<usize> = (0..CLIENTS).filter(|index| who[*index]).collect();
        // The first JoinGroup may bring no more than an id.
        for _ in 0..2 {
            members.iter().for_each(|index| self.perform(Action::Join(*index)));
        }
        self.perform(Action::Advance(6_000));
        members.iter().for_each(|index| self.perform(Action::Sync(*index)));
    }

    fn request(&mut self, index: usize, line: impl FnOnce((usize, &Client)) -> Option<String>) {
        if self.clients[index].is_waiting {
            return;
        }
        let Some(line) = line((index, &self.clients[index])) else { return };
        self.clients[index].is_waiting = true;
        let told = self.story.run(&format!("{index}: {line}"));
        self.listen(&told);
    }

    fn listen(&mut self, told: &str) {
        for line in told.lines() {
            let (name, reply) = line.split_once(" <- ").expect("replies only");
            let index: usize = name.parse().expect("clients are numbered");
            // The answer to a process that has restarted reaches nobody.
            if !std::mem::take(&mut self.clients[index].is_waiting) {
                continue;
            }
            self.hear(index, reply);
        }
    }

    fn hear(&mut self, index: usize, reply: &str) {
        let words: Vec<&str> = reply.split(' ').collect();
        let client = &mut self.clients[index];
        match words[..] {
            ["joined", "generation", generation, "as", member_id, _leader, _protocol, ..] => {
                client.generation = generation.parse().expect("a number");
                client.member_id = member_id.to_owned();
                let members = reply.split_once("members=[").map(|(_, rest)| rest.split_once(']').expect("closed").0);
                client.members = members.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
                assert!(self.announced <= client.generation, "generations never go back");
                self.announced = client.generation;
            }
            ["MEMBER_ID_REQUIRED", member_id] => client.member_id = member_id.to_owned(),
            ["assigned", assignment] => {
                let generation = client.generation;
                for partition in assignment.trim_matches('"').split('+').filter(|partition| !partition.is_empty()) {
                    let owner = *self.owners.entry((generation, partition.to_owned())).or_insert(index);
                    assert_eq!(owner, index, "{partition} has two owners in generation {generation}");
                }
            }
            ["UNKNOWN_MEMBER_ID" | "FENCED_INSTANCE_ID", ..] => *client = Client::default(),
            _ => {}
        }
    }

    fn stored_generations(&self) -> Vec<i32> {
        let records = self.story.log.iter().map(|record| GroupRecord::decode(record).expect("well formed"));
        let generations = records.map(|record| match record {
            Some(GroupRecord::GroupMetadata { value: Some(value), .. }) => Some(value.generation),
            _ => None,
        });
        generations.flatten().collect()
    }
}

/// The last client is a static member.
fn instance(index: usize) -> &'static str {
    if index == CLIENTS - 1 { " instance=i" } else { "" }
}

fn join((index, client): (usize, &Client)) -> Option<String> {
    Some(format!("join c{index} id={}{} rebalance=5000", client.member_id, instance(index)))
}

fn sync((index, client): (usize, &Client)) -> Option<String> {
    let member_id = known_member(client)?;
    let assignments = client.members.iter().enumerate().map(|(place, member)| {
        let partitions = (0..PARTITIONS).filter(|partition| partition % client.members.len() == place);
        // Distinct from one assignment to the next, so that mixing two of them shows.
        let partitions = partitions.map(|partition| format!("t-{partition}")).collect::<Vec<_>>().join("+");
        format!("{member}:{partitions}")
    });
    let assignments = assignments.collect::<Vec<_>>().join(",");
    Some(format!("sync {member_id} gen={}{} assign={assignments}", client.generation, instance(index)))
}

fn about_member(verb: &str, (index, client): (usize, &Client)) -> Option<String> {
    Some(format!("{verb} {} gen={}{}", known_member(client)?, client.generation, instance(index)))
}

fn commit((index, client): (usize, &Client)) -> Option<String> {
    let member_id = known_member(client)?;
    Some(format!("commit t-{index}@{index} member={member_id} gen={}{}", client.generation, instance(index)))
}

fn leave((index, client): (usize, &Client)) -> Option<String> {
    let instance = if index == CLIENTS - 1 { "/i" } else { "" };
    Some(format!("leave {}{instance}", known_member(client)?))
}

fn known_member(client: &Client) -> Option<&str> {
    Some(client.member_id.as_str()).filter(|member_id| !member_id.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also checked at every failover: replaying the log gives the state that its leader had.
    #[test]
    fn no_partition_has_two_owners_in_a_generation(actions in prop::collection::vec(action(), 1..200)) {
        let mut world = World::new();
        for action in actions {
            world.perform(action);
        }
        world.perform(Action::Failover);
        let stored = world.stored_generations();
        prop_assert!(stored.is_sorted(), "stored generations never go back: {stored:?}");
    }
}
