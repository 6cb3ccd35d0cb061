//! A controller with a metadata log of its own, driven by one-line commands.
//!
//! Every commit passes through the codec, and afterwards the invariants hold that every image must have.

use std::collections::BTreeMap;
use std::fmt::Write;

use expect_test::Expect;
use vltava_metadata::codec::{
    decode_records, decode_request, decode_response, encode_records, encode_request, encode_response,
};
use vltava_metadata::controller::{
    AlterConfigs, AlterPartition, AlterPartitions, ConfigOperation, Controller, ControllerConfig, ControllerError,
    ControllerRequest, ControllerResponse, CreatePartitionsTopic, CreateTopic, CreateTopics, ElectionType, Heartbeat,
    Reassignment, RegisterBroker, TopicSelector,
};
use vltava_metadata::{ClusterImage, ConfigResource, Endpoint, MetadataRecord, PartitionImage};
use vltava_types::{
    BrokerEpoch, BrokerId, DirectoryId, ErrorCode, IncarnationId, LeaderEpoch, MetadataOffset, PartitionEpoch,
    PartitionIndex, TopicId, TopicPartition,
};

/// Runs a story and compares what it says with what is expected.
pub fn check(story: &str, expected: Expect) {
    let mut world = World::new(ControllerConfig::default());
    let mut told = String::new();
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let before = world.image.clone();
        let said = world.told(line);
        writeln!(told, "{line}{}{said}", if said.is_empty() { "" } else { " -> " }).expect("strings can be written");
        for change in changes(&before, &world.image) {
            writeln!(told, "    {change}").expect("strings can be written");
        }
    }
    expected.assert_eq(&told);
}

pub struct World {
    pub controller: Controller,
    pub image: ClusterImage,
    pub now_ms: i64,
    /// Every record ever committed.
    pub log: Vec<MetadataRecord>,
    /// Set once a copy was given up for good, after which ISR and ELR may both be empty.
    pub has_lost_disks: bool,
    config: ControllerConfig,
    largest_broker_epochs: BTreeMap<BrokerId, BrokerEpoch>,
    next_topic_id: u8,
}

impl World {
    /// Stories are told with sessions of three seconds.
    pub fn new(config: ControllerConfig) -> Self {
        let config = ControllerConfig { session_timeout_ms: 3000, ..config };
        let mut world = Self {
            controller: Controller::new(config.clone()),
            image: ClusterImage::default(),
            now_ms: 0,
            log: vec![],
            has_lost_disks: false,
            config,
            largest_broker_epochs: BTreeMap::new(),
            next_topic_id: 1,
        };
        let formed = world.controller.form_cluster(&world.image, "cluster");
        world.commit(&formed);
        world.controller.on_elected(&world.image, 0);
        world
    }

    /// Decides and commits one request.
    pub fn call(&mut self, request: &ControllerRequest) -> ControllerResponse {
        let request = decode_request(&encode_request(request)).expect("our own request");
        let decision = self.controller.handle(&self.image, &request, self.now_ms);
        self.commit(&decision.records);
        decode_response(&encode_response(&decision.response)).expect("our own response")
    }

    pub fn commit(&mut self, records: &[MetadataRecord]) {
        if records.is_empty() {
            return;
        }
        let records = decode_records(&encode_records(records)).expect("our own records");
        let before = self.image.clone();
        for record in &records {
            if let MetadataRecord::RegisterBroker(broker) = record {
                let current = before.broker(broker.broker_id);
                if current.is_none_or(|current| current.incarnation_id != broker.incarnation_id) {
                    let earlier = self.largest_broker_epochs.insert(broker.broker_id, broker.broker_epoch);
                    assert!(earlier < Some(broker.broker_epoch), "broker epochs strictly increase");
                }
            }
            self.image.replay(record);
        }
        self.log.extend(records);
        self.image.offset.0 += 1;
        self.check_invariants(&before);
    }

    pub fn tick(&mut self) {
        let records = self.controller.tick(&self.image, self.now_ms);
        self.commit(&records);
    }

    pub fn elect_controller(&mut self) {
        self.controller = Controller::new(self.config.clone());
        self.controller.on_elected(&self.image, self.now_ms);
    }

    pub fn partition(&self, partition: TopicPartition) -> &PartitionImage {
        self.image.partition(partition.topic_id, partition.partition).expect("the partition exists")
    }

    pub fn min_isr(&self, partition: TopicPartition) -> usize {
        let name = "min.insync.replicas";
        let own = self.image.config(&ConfigResource::Topic(partition.topic_id), name);
        let value = own.or_else(|| self.image.config(&ConfigResource::ClusterDefault, name)).expect("set at formation");
        value.parse::<usize>().expect("valid").min(self.partition(partition).replicas.len())
    }

    fn check_invariants(&self, before: &ClusterImage) {
        for (partition, image) in self.image.partitions() {
            let is_subset = |members: &[BrokerId]| members.iter().all(|member| image.replicas.contains(member));
            let told = describe(&self.image, partition);
            assert!(is_subset(&image.isr), "the isr is a subset of the replicas: {told}");
            assert!(is_subset(&image.eligible_leader_replicas), "the elr is a subset of the replicas: {told}");
            assert!(is_subset(&image.adding_replicas) && is_subset(&image.removing_replicas), "moves: {told}");
            for members in [&image.replicas, &image.isr, &image.eligible_leader_replicas] {
                assert!((1..members.len()).all(|end| !members[..end].contains(&members[end])), "no duplicates: {told}");
            }
            let is_disjoint = image.isr.iter().all(|member| !image.eligible_leader_replicas.contains(member));
            assert!(is_disjoint, "isr and elr are disjoint: {told}");
            if image.isr.len() >= self.min_isr(partition) {
                assert!(image.eligible_leader_replicas.is_empty(), "a full isr needs no elr: {told}");
            }
            assert!(image.isr.iter().all(|member| self.image.is_active(*member)), "the isr is active: {told}");
            match image.leader {
                Some(leader) => assert!(image.isr.contains(&leader), "the leader is in the isr: {told}"),
                None => assert!(image.isr.is_empty(), "an isr elects a leader: {told}"),
            }
            if !self.has_lost_disks {
                let copies = image.isr.len() + image.eligible_leader_replicas.len();
                assert!(copies > 0, "a last copy is not given up: {told}");
            }
            if let Some(old) = before.partition(partition.topic_id, partition.partition) {
                assert!(old.leader_epoch <= image.leader_epoch, "leader epochs never go back: {told}");
                if old.leader != image.leader {
                    assert!(old.leader_epoch < image.leader_epoch, "each leader has its epoch: {told}");
                }
                if old != image {
                    assert!(old.partition_epoch < image.partition_epoch, "each change has its epoch: {told}");
                }
            }
        }
    }

    /// Runs one command and says what came of it. See the stories for the language.
    pub fn told(&mut self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let command = words.next().expect("a command");
        let words: Vec<&str> = words.collect();
        let option =
            |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
        let flag = |name: &str| words.contains(&name);
        match command {
            "up" => {
                for word in &words {
                    let (id, rack) = word.split_once('@').map_or((*word, None), |(id, rack)| (id, Some(rack)));
                    let id = broker(id);
                    let run = self.image.broker(id).map_or(1, |broker| broker.incarnation_id.0.0[0] + 1);
                    let previous = self.image.broker(id).map_or(BrokerEpoch::NONE, |broker| broker.broker_epoch);
                    let mut request = registration(id, run, previous);
                    request.rack = rack.map(str::to_owned);
                    let response = self.call(&ControllerRequest::RegisterBroker(request));
                    assert!(matches!(response, ControllerResponse::RegisterBroker(Ok(_))), "{response:?}");
                    self.heartbeat(id, &[]);
                }
                String::new()
            }
            "register" => {
                let id = broker(words[0]);
                let run = option("run").map_or(1, |run| run.parse().expect("a number"));
                let previous = match option("previous").as_deref() {
                    None | Some("none") => BrokerEpoch::NONE,
                    Some("clean") => self.image.broker(id).expect("it was there before").broker_epoch,
                    Some(epoch) => BrokerEpoch(epoch.parse().expect("a number")),
                };
                let mut request = registration(id, run, previous);
                if let Some(cluster_id) = option("cluster") {
                    request.cluster_id = cluster_id;
                }
                if let Some(disks) = option("disks") {
                    let disk = |number: &str| DirectoryId::from_random([number.parse().expect("a number"); 16]);
                    request.log_dirs = disks.split(',').map(disk).collect();
                }
                if flag("wiped") {
                    self.has_lost_disks = true;
                    request.log_dirs = vec![DirectoryId::from_random([200 + run; 16])];
                }
                match self.call(&ControllerRequest::RegisterBroker(request)) {
                    ControllerResponse::RegisterBroker(Ok(epoch)) => format!("epoch {epoch}"),
                    ControllerResponse::RegisterBroker(Err(refused)) => refused.code.to_string(),
                    other => unreachable!("{other:?}"),
                }
            }
            "heartbeat" => {
                let flags: Vec<&str> = words[1..].to_vec();
                self.heartbeat(broker(words[0]), &flags)
            }
            "wait" => {
                self.now_ms += words[0].parse::<i64>().expect("milliseconds");
                self.tick();
                String::new()
            }
            "away" => {
                self.now_ms += words[0].parse::<i64>().expect("milliseconds");
                String::new()
            }
            "down" => {
                let id = broker(words[0]);
                let epoch = self.image.broker(id).expect("it is registered").broker_epoch;
                let epoch = option("epoch").map_or(epoch, |epoch| BrokerEpoch(epoch.parse().expect("a number")));
                let records = self.controller.on_broker_down(&self.image, id, epoch);
                self.commit(&records);
                String::new()
            }
            "controller" => {
                self.elect_controller();
                String::new()
            }
            "create" => self.create(&words),
            "expand" => {
                let topic = CreatePartitionsTopic {
                    name: words[0].to_owned(),
                    count: words[1].parse().expect("a number"),
                    assignments: option("on").map(|on| on.split('/').map(brokers).collect()),
                };
                let request = ControllerRequest::CreatePartitions { topics: vec![topic], validate_only: flag("dry") };
                match self.call(&request) {
                    ControllerResponse::CreatePartitions(topics) => outcome(&topics[0].1),
                    other => unreachable!("{other:?}"),
                }
            }
            "delete" => {
                let topics = vec![TopicSelector::Name(words[0].to_owned())];
                match self.call(&ControllerRequest::DeleteTopics { topics }) {
                    ControllerResponse::DeleteTopics(topics) => match &topics[0].1 {
                        Ok((_, name)) => format!("deleted {name}"),
                        Err(refused) => told(refused),
                    },
                    other => unreachable!("{other:?}"),
                }
            }
            "isr" => self.propose(&words),
            "config" => self.alter_config(&words),
            "elect" => {
                let election_type = if words[0] == "unclean" { ElectionType::Unclean } else { ElectionType::Preferred };
                let partitions = words.get(1).map(|word| vec![self.find(word)]);
                match self.call(&ControllerRequest::ElectLeaders { election_type, partitions }) {
                    ControllerResponse::ElectLeaders(answers) => answers
                        .iter()
                        .map(|(partition, answer)| format!("{} {}", name(&self.image, *partition), code(answer)))
                        .collect::<Vec<_>>()
                        .join(", "),
                    other => unreachable!("{other:?}"),
                }
            }
            "reassign" | "cancel" => {
                let replicas = (command == "reassign").then(|| brokers(words[1]));
                let request = ControllerRequest::AlterPartitionReassignments {
                    partitions: vec![Reassignment { partition: self.find(words[0]), replicas }],
                    allow_replication_factor_change: !flag("same-factor"),
                };
                match self.call(&request) {
                    ControllerResponse::AlterPartitionReassignments(answers) => outcome(&answers[0].1),
                    other => unreachable!("{other:?}"),
                }
            }
            "producer-ids" => {
                let broker_id = broker(words[0]);
                let current = self.image.broker(broker_id).map_or(BrokerEpoch(0), |broker| broker.broker_epoch);
                let broker_epoch =
                    option("epoch").map_or(current, |epoch| BrokerEpoch(epoch.parse().expect("a number")));
                match self.call(&ControllerRequest::AllocateProducerIds { broker_id, broker_epoch }) {
                    ControllerResponse::AllocateProducerIds(Ok(block)) => format!("{} +{}", block.first, block.length),
                    ControllerResponse::AllocateProducerIds(Err(refused)) => refused.code.to_string(),
                    other => unreachable!("{other:?}"),
                }
            }
            "unregister" => match self.call(&ControllerRequest::UnregisterBroker { broker_id: broker(words[0]) }) {
                ControllerResponse::UnregisterBroker(answer) => outcome(&answer),
                other => unreachable!("{other:?}"),
            },
            "show" => describe(&self.image, self.find(words[0])),
            other => panic!("unknown command {other}"),
        }
    }

    /// Flags: `fence`, `shutdown`, `applied=N`, `epoch=N`, `offline=t-0`.
    pub fn heartbeat(&mut self, broker_id: BrokerId, flags: &[&str]) -> String {
        let option = |name: &str| flags.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let current = self.image.broker(broker_id).map_or(BrokerEpoch(0), |broker| broker.broker_epoch);
        let request = Heartbeat {
            broker_id,
            broker_epoch: option("epoch").map_or(current, |epoch| BrokerEpoch(epoch.parse().expect("a number"))),
            applied: option("applied")
                .map_or(self.image.offset, |offset| MetadataOffset(offset.parse().expect("a number"))),
            want_fence: flags.contains(&"fence"),
            want_shutdown: flags.contains(&"shutdown"),
            offline_log_dirs: vec![],
            offline_partitions: option("offline").map(|word| self.find(word)).into_iter().collect(),
        };
        match self.call(&ControllerRequest::Heartbeat(request)) {
            ControllerResponse::Heartbeat(Ok(reply)) => {
                let mut said = vec![if reply.is_fenced { "fenced" } else { "unfenced" }];
                if !reply.is_caught_up {
                    said.push("behind");
                }
                if reply.should_shut_down {
                    said.push("may exit");
                }
                said.join(", ")
            }
            ControllerResponse::Heartbeat(Err(refused)) => refused.code.to_string(),
            other => unreachable!("{other:?}"),
        }
    }

    /// `create t 3x2 [clamp] [dry] [key=value…]` or `create t on=1,2/2,3`.
    fn create(&mut self, words: &[&str]) -> String {
        let topic_id = TopicId::from_random([self.next_topic_id; 16]);
        self.next_topic_id += 1;
        let mut topic = CreateTopic {
            name: words[0].trim_matches('"').to_owned(),
            topic_id,
            partition_count: -1,
            replication_factor: -1,
            assignments: BTreeMap::new(),
            configs: BTreeMap::new(),
            clamp_replication_factor: words.contains(&"clamp"),
        };
        for word in &words[1..] {
            if let Some((partitions, factor)) = word.split_once('x').filter(|_| !word.contains('=')) {
                topic.partition_count = partitions.parse().expect("a number");
                topic.replication_factor = factor.parse().expect("a number");
            } else if let Some(on) = word.strip_prefix("on=") {
                topic.assignments = (0..).map(PartitionIndex).zip(on.split('/').map(brokers)).collect();
            } else if let Some((name, value)) = word.split_once('=') {
                topic.configs.insert(name.to_owned(), value.to_owned());
            }
        }
        let request = CreateTopics { topics: vec![topic], validate_only: words.contains(&"dry") };
        match self.call(&ControllerRequest::CreateTopics(request)) {
            ControllerResponse::CreateTopics(topics) => match &topics[0].result {
                Ok(detail) => format!("{}x{}", detail.partition_count, detail.replication_factor),
                Err(refused) => told(refused),
            },
            other => unreachable!("{other:?}"),
        }
    }

    /// `isr t-0 1,2 [by=1] [leader-epoch=N] [partition-epoch=N] [epoch-of-2=N] [recovered]`.
    fn propose(&mut self, words: &[&str]) -> String {
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| option(name).map(|value| value.parse::<i32>().expect("a number"));
        let partition = self.find(words[0]);
        let current = self.partition(partition).clone();
        let by = option("by").map(broker).or(current.leader).expect("someone proposes");
        let epoch_of = |id: BrokerId| {
            let current = self.image.broker(id).map_or(BrokerEpoch(0), |broker| broker.broker_epoch);
            option(&format!("epoch-of-{id}")).map_or(current, |epoch| BrokerEpoch(epoch.parse().expect("a number")))
        };
        let proposal = AlterPartition {
            partition,
            leader_epoch: number("leader-epoch").map_or(current.leader_epoch, LeaderEpoch),
            partition_epoch: number("partition-epoch").map_or(current.partition_epoch, PartitionEpoch),
            new_isr: brokers(words[1]).into_iter().map(|id| (id, epoch_of(id))).collect(),
            leader_recovered: words.contains(&"recovered"),
        };
        let request = AlterPartitions { broker_id: by, broker_epoch: epoch_of(by), partitions: vec![proposal] };
        match self.call(&ControllerRequest::AlterPartitions(request)) {
            ControllerResponse::AlterPartitions(Ok(answers)) => match &answers[0].1 {
                Ok(altered) => format!("isr {} at {}", list(&altered.isr), altered.partition_epoch),
                Err(code) => code.to_string(),
            },
            ControllerResponse::AlterPartitions(Err(refused)) => refused.code.to_string(),
            other => unreachable!("{other:?}"),
        }
    }

    /// `config topic:t key=value key+=value key-=value !key [replace]`; also `broker:1` and `brokers`.
    fn alter_config(&mut self, words: &[&str]) -> String {
        let resource = match words[0].split_once(':') {
            Some(("topic", name)) => {
                ConfigResource::Topic(self.image.topic_id(name).unwrap_or(TopicId::from_random([255; 16])))
            }
            Some(("broker", id)) => ConfigResource::Broker(broker(id)),
            Some(("group", id)) => ConfigResource::Group(id.to_owned()),
            _ => ConfigResource::ClusterDefault,
        };
        let operations = words[1..].iter().filter(|word| **word != "replace").map(|word| {
            if let Some(name) = word.strip_prefix('!') {
                return ConfigOperation::Delete { name: name.to_owned() };
            }
            let (name, value) = word.split_once('=').expect("key=value");
            let value = value.to_owned();
            match (name.strip_suffix('+'), name.strip_suffix('-')) {
                (Some(name), _) => ConfigOperation::Append { name: name.to_owned(), value },
                (_, Some(name)) => ConfigOperation::Subtract { name: name.to_owned(), value },
                _ => ConfigOperation::Set { name: name.to_owned(), value },
            }
        });
        let request = AlterConfigs {
            resources: vec![(resource.clone(), operations.collect())],
            replace_all: words.contains(&"replace"),
            validate_only: false,
        };
        match self.call(&ControllerRequest::AlterConfigs(request)) {
            ControllerResponse::AlterConfigs(answers) => match &answers[0].1 {
                Ok(()) => {
                    let configs = self.image.configs.get(&resource);
                    let configs = configs.into_iter().flat_map(|configs| configs.iter());
                    configs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
                }
                Err(refused) => told(refused),
            },
            other => unreachable!("{other:?}"),
        }
    }

    fn find(&self, word: &str) -> TopicPartition {
        let (name, partition) = word.rsplit_once('-').expect("topic-partition");
        TopicPartition {
            topic_id: self.image.topic_id(name).unwrap_or(TopicId::from_random([255; 16])),
            partition: PartitionIndex(partition.parse().expect("a partition")),
        }
    }
}

pub fn registration(broker_id: BrokerId, run: u8, previous_broker_epoch: BrokerEpoch) -> RegisterBroker {
    let endpoint = |port| Endpoint { host: "localhost".to_owned(), port, security_protocol: "PLAINTEXT".to_owned() };
    RegisterBroker {
        broker_id,
        cluster_id: "cluster".to_owned(),
        incarnation_id: IncarnationId(vltava_types::Uuid([run; 16])),
        listeners: BTreeMap::from([("PLAINTEXT".to_owned(), endpoint(9092))]),
        peer: endpoint(9093),
        rack: None,
        log_dirs: vec![DirectoryId::from_random([7; 16])],
        is_broker: true,
        previous_broker_epoch,
    }
}

fn broker(word: &str) -> BrokerId {
    BrokerId(word.parse().expect("a broker id"))
}

fn brokers(word: &str) -> Vec<BrokerId> {
    if word == "-" { vec![] } else { word.split(',').map(broker).collect() }
}

fn outcome(answer: &Result<(), ControllerError>) -> String {
    match answer {
        Ok(()) => "ok".to_owned(),
        Err(refused) => told(refused),
    }
}

fn code(answer: &Result<(), ControllerError>) -> ErrorCode {
    answer.as_ref().map_or_else(|refused| refused.code, |()| ErrorCode::None)
}

fn told(refused: &ControllerError) -> String {
    format!("{}: {}", refused.code, refused.message)
}

/// What differs between two images, one line each.
fn changes(before: &ClusterImage, after: &ClusterImage) -> Vec<String> {
    let mut lines = vec![];
    for (partition, image) in after.partitions() {
        if before.partition(partition.topic_id, partition.partition) != Some(image) {
            lines.push(describe(after, partition));
        }
    }
    lines
}

fn name(image: &ClusterImage, partition: TopicPartition) -> String {
    format!("{}-{}", image.topic_name(partition.topic_id).unwrap_or("?"), partition.partition)
}

/// `t-0: 1,2,3 leader 1 epoch 0 isr 1,2,3`, and what is out of the ordinary.
fn describe(image: &ClusterImage, partition: TopicPartition) -> String {
    let name = name(image, partition);
    let Some(partition) = image.partition(partition.topic_id, partition.partition) else {
        return format!("{name}: not there");
    };
    let mut line = format!("{name}: {} ", list(&partition.replicas));
    match partition.leader {
        Some(leader) => write!(line, "leader {leader} epoch {}", partition.leader_epoch),
        None => write!(line, "no leader, epoch {}", partition.leader_epoch),
    }
    .expect("strings can be written");
    let parts = [
        (" isr", &partition.isr),
        (" elr", &partition.eligible_leader_replicas),
        (" adding", &partition.adding_replicas),
        (" removing", &partition.removing_replicas),
    ];
    for (title, members) in parts {
        if title == " isr" || !members.is_empty() {
            write!(line, "{title} {}", list(members)).expect("strings can be written");
        }
    }
    if let Some(last) = partition.last_known_leader {
        write!(line, " last leader {last}").expect("strings can be written");
    }
    if partition.leader_recovering {
        line.push_str(" recovering");
    }
    line
}

fn list(members: &[BrokerId]) -> String {
    if members.is_empty() {
        return "-".to_owned();
    }
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
