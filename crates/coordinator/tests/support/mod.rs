//! A script language for stories about groups: one event a line, and every reply as it comes.
//!
//! A line is `name: verb arguments`, and replies are printed as `name <- …`. Member ids are written `client#n` (or
//! `instance#n`), where `n` counts the JoinGroups in hexadecimal. Records are durable at once unless the script says
//! `hold`.

#![allow(clippy::unwrap_used, reason = "a script that does not parse is a mistake in its test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use vltava_coordinator::group::{
    Caller, CommittedOffset, GroupCompletion, GroupConfig, GroupCoordinator, GroupEvent, GroupResponse, TopicExists,
};
use vltava_coordinator::records::{GroupRecord, OffsetCommitValue};
use vltava_coordinator::{Coordinator, Decision, LogRecord, Now, Token};
use vltava_protocol::make;
use vltava_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use vltava_protocol::messages::leave_group_request::MemberIdentity;
use vltava_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use vltava_protocol::messages::offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use vltava_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use vltava_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use vltava_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest, StrBytes,
    SyncGroupRequest, WireId as _,
};
use vltava_types::{ErrorCode, TimestampMs, TopicId, Uuid};

const UUID_PREFIX: &str = "-00000000-0000-0000-0000-0000000000";

/// Wall-clock time when a story begins.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Sessions of a few seconds, and an initial delay that is easy to count with.
pub fn config() -> GroupConfig {
    GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() }
}

pub struct Story {
    pub coordinator: GroupCoordinator,
    pub log: Vec<LogRecord>,
    pub config: GroupConfig,
    now_ms: u64,
    next_token: u64,
    joins: u8,
    names: BTreeMap<Token, String>,
    /// Completions that wait while records are held, oldest first.
    held: Option<Vec<(bool, GroupCompletion)>>,
    printed_records: usize,
    output: String,
}

impl Story {
    pub fn new(config: GroupConfig) -> Self {
        let mut story = Self {
            coordinator: GroupCoordinator::new(config.clone()),
            log: Vec::new(),
            config,
            now_ms: 0,
            next_token: 0,
            joins: 0,
            names: BTreeMap::new(),
            held: None,
            printed_records: 0,
            output: String::new(),
        };
        story.load();
        story
    }

    pub fn run(&mut self, script: &str) -> String {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.line(line);
        }
        std::mem::take(&mut self.output)
    }

    /// A record that an earlier coordinator left.
    #[allow(dead_code, reason = "each test binary uses a part of this module")]
    pub fn write(&mut self, record: &GroupRecord) {
        let record = record.encode();
        self.coordinator.replay(&record).unwrap();
        self.log.push(record);
    }

    pub fn now(&self) -> Now {
        let wall_clock = TimestampMs(EPOCH_MS + i64::try_from(self.now_ms).unwrap());
        Now { monotonic_ms: self.now_ms, wall_clock }
    }

    fn line(&mut self, line: &str) {
        if let Some(ms) = line.strip_prefix('+') {
            return self.advance(ms.replace('_', "").parse().unwrap());
        }
        let (name, command) = line.split_once(": ").unwrap_or(("", line));
        let mut words = command.split_whitespace();
        let verb = words.next().unwrap();
        let (options, rest): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        let options: BTreeMap<&str, &str> = options.iter().map(|option| option.split_once('=').unwrap()).collect();
        match verb {
            "hold" => self.held = Some(Vec::new()),
            "committed" => self.release(Ok(())),
            "fail" => self.release(Err(error_named(rest[0]))),
            "failover" => self.failover(),
            "records" => self.print_records(),
            _ => {
                let token = Token(self.next_token);
                self.next_token += 1;
                self.names.insert(token, name.to_owned());
                let event = self.event(token, verb, &rest, &options);
                let decision = self.coordinator.handle(event, self.now());
                self.execute(decision);
            }
        }
    }

    fn event(&mut self, token: Token, verb: &str, rest: &[&str], options: &BTreeMap<&str, &str>) -> GroupEvent {
        let text = |key: &str, default: &str| options.get(key).copied().unwrap_or(default).to_owned();
        let number = |key: &str, default: i32| options.get(key).map_or(default, |value| value.parse().unwrap());
        let instance = options.get("instance").map(|instance| StrBytes::from(*instance));
        let group_id: StrBytes = text("group", "g").as_str().into();
        let version = i16::try_from(number("v", 9)).unwrap();
        match verb {
            "join" => {
                self.joins += 1;
                let mut random = [0; 16];
                random[15] = self.joins;
                let names = text("protocols", "range");
                let names = names.split(',').filter(|name| !name.is_empty());
                let topics = text("topics", "t");
                let protocols = names
                    .map(|name| make!(JoinGroupRequestProtocol { name: name.into(), metadata: subscription(&topics) }));
                let request = make!(JoinGroupRequest {
                    group_id,
                    session_timeout_ms: number("session", 10_000),
                    rebalance_timeout_ms: number("rebalance", 60_000),
                    member_id: expand(&text("id", "")).as_str().into(),
                    group_instance_id: instance,
                    protocol_type: text("type", "consumer").as_str().into(),
                    protocols: protocols.collect(),
                });
                let client_id = rest[0].to_owned();
                let caller = Caller { version, client_id, client_host: "/127.0.0.1".to_owned() };
                GroupEvent::JoinGroup { token, caller, request, new_member: Uuid(random) }
            }
            "sync" => {
                let assign = text("assign", "");
                let assignments = assign.split(',').filter(|part| !part.is_empty()).map(|part| {
                    let (member, assignment) = part.split_once(':').unwrap();
                    make!(SyncGroupRequestAssignment {
                        member_id: expand(member).as_str().into(),
                        assignment: Bytes::copy_from_slice(assignment.as_bytes()),
                    })
                });
                let request = make!(SyncGroupRequest {
                    group_id,
                    generation_id: number("gen", 1),
                    member_id: expand(rest[0]).as_str().into(),
                    group_instance_id: instance,
                    protocol_type: options.get("type").map(|name| (*name).into()),
                    protocol_name: options.get("protocol").map(|name| (*name).into()),
                    assignments: assignments.collect(),
                });
                GroupEvent::SyncGroup { token, request }
            }
            "heartbeat" => {
                let request = make!(HeartbeatRequest {
                    group_id,
                    generation_id: number("gen", 1),
                    member_id: expand(rest[0]).as_str().into(),
                    group_instance_id: instance,
                });
                GroupEvent::Heartbeat { token, request }
            }
            "leave" => {
                let members = rest.iter().map(|member| {
                    let (member_id, instance) = member.split_once('/').unwrap_or((member, ""));
                    make!(MemberIdentity {
                        member_id: expand(member_id).as_str().into(),
                        group_instance_id: Some(instance).filter(|id| !id.is_empty()).map(Into::into),
                    })
                });
                let request = make!(LeaveGroupRequest { group_id, members: members.collect() });
                GroupEvent::LeaveGroup { token, request }
            }
            "commit" => {
                let topics = rest.iter().map(|part| {
                    let (partition, offset) = part.split_once('@').unwrap();
                    let (topic, index) = partition.rsplit_once('-').unwrap();
                    let metadata = options.get("metadata").map(|metadata| (*metadata).into());
                    let partition = make!(OffsetCommitRequestPartition {
                        partition_index: index.parse().unwrap(),
                        committed_offset: offset.parse().unwrap(),
                        committed_leader_epoch: 3,
                        committed_metadata: metadata,
                    });
                    make!(OffsetCommitRequestTopic {
                        name: topic.into(),
                        topic_id: topic_id(topic).to_wire(),
                        partitions: vec![partition],
                    })
                });
                let request = make!(OffsetCommitRequest {
                    group_id,
                    generation_id_or_member_epoch: number("gen", -1),
                    member_id: expand(&text("member", "")).as_str().into(),
                    group_instance_id: instance,
                    retention_time_ms: i64::from(number("retention", -1)),
                    topics: topics.collect(),
                });
                GroupEvent::OffsetCommit { token, caller: Caller { version, ..Caller::default() }, request }
            }
            "fetch" => {
                let topics = rest.iter().map(|part| {
                    let (topic, index) = part.rsplit_once('-').unwrap();
                    // A topic that was created anew has another id.
                    let id = if options.contains_key("recreated") { TopicId(Uuid([9; 16])) } else { topic_id(topic) };
                    make!(OffsetFetchRequestTopics {
                        name: topic.into(),
                        topic_id: id.to_wire(),
                        partition_indexes: vec![index.parse().unwrap()],
                    })
                });
                let topics = Some(topics.collect()).filter(|_| !rest.is_empty());
                GroupEvent::OffsetFetch { token, request: make!(OffsetFetchRequestGroup { group_id, topics }) }
            }
            "delete-offsets" => {
                let topics = rest.iter().map(|part| {
                    let (topic, index) = part.rsplit_once('-').unwrap();
                    let partition = make!(OffsetDeleteRequestPartition { partition_index: index.parse().unwrap() });
                    make!(OffsetDeleteRequestTopic { name: topic.into(), partitions: vec![partition] })
                });
                let request = make!(OffsetDeleteRequest { group_id, topics: topics.collect() });
                GroupEvent::OffsetDelete { token, request }
            }
            "describe" => GroupEvent::DescribeGroups { token, version, group_ids: vec![group_id.into_string()] },
            "list" => {
                let words = |key| text(key, "").split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
                GroupEvent::ListGroups { token, states_filter: words("states"), types_filter: words("types") }
            }
            "delete" => {
                GroupEvent::DeleteGroups { token, group_ids: rest.iter().map(|group| (*group).to_owned()).collect() }
            }
            "committed-offsets" => {
                GroupEvent::CommittedOffsets { token, limit: usize::try_from(number("limit", 100)).unwrap() }
            }
            "topics-deleted" => {
                let deleted: Vec<String> = rest.iter().map(|topic| (*topic).to_owned()).collect();
                let exists: TopicExists = std::sync::Arc::new(move |name, id| {
                    !deleted.iter().any(|topic| topic == name) || (!id.is_zero() && id != topic_id(name))
                });
                GroupEvent::TopicsDeleted { exists }
            }
            other => panic!("no such verb: {other}"),
        }
    }

    pub fn execute(&mut self, decision: Decision<GroupCoordinator>) {
        for reply in decision.replies {
            let name = self.names.remove(&reply.token).expect("nobody is answered twice");
            let outcome = reply.outcome.as_ref().map_or_else(|error| format!("error {error}"), show);
            let outcome = outcome.replace(UUID_PREFIX, "#");
            writeln!(self.output, "{name} <- {outcome}").unwrap();
        }
        let has_records = !decision.records.is_empty();
        for record in decision.records {
            self.coordinator.replay(&record).unwrap();
            self.log.push(record);
        }
        let Some(completion) = decision.completion else { return };
        match &mut self.held {
            Some(held) => held.push((has_records, completion)),
            None => {
                let decision = self.coordinator.complete(completion, Ok(()), self.now());
                self.execute(decision);
            }
        }
    }

    fn release(&mut self, result: Result<(), ErrorCode>) {
        for (has_records, completion) in self.held.take().expect("records are held") {
            let result = if has_records { result } else { Ok(()) };
            let decision = self.coordinator.complete(completion, result, self.now());
            self.execute(decision);
        }
    }

    fn advance(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(deadline) = self.coordinator.next_deadline_ms().filter(|deadline| *deadline <= end) {
            self.now_ms = self.now_ms.max(deadline);
            let decision = self.coordinator.expire(self.now()).expect("a deadline has come");
            self.execute(decision);
        }
        self.now_ms = end;
    }

    fn failover(&mut self) {
        let replies = self.coordinator.unload();
        self.execute(Decision { replies, ..Decision::nothing() });
        let before = self.coordinator.replicated().clone();
        self.held = None;
        self.coordinator = GroupCoordinator::new(self.config.clone());
        self.load();
        assert_eq!(*self.coordinator.replicated(), before, "the log gives the state that its leader had");
    }

    fn load(&mut self) {
        for record in &self.log {
            self.coordinator.replay(record).unwrap();
        }
        let decision = self.coordinator.loaded(self.now());
        self.execute(decision);
    }

    fn print_records(&mut self) {
        for record in &self.log[self.printed_records..] {
            let record = GroupRecord::decode(record).unwrap().expect("only known records are written");
            let record = match record {
                GroupRecord::GroupMetadata { group_id, value: None } => format!("{group_id} = tombstone"),
                GroupRecord::GroupMetadata { group_id, value: Some(value) } => {
                    let members = value
                        .members
                        .iter()
                        .map(|member| format!("{}:{}", member.member_id, String::from_utf8_lossy(&member.assignment)));
                    let members = members.collect::<Vec<_>>().join(" ");
                    let protocol = value.protocol.as_deref().unwrap_or("none");
                    let leader = value.leader.as_deref().unwrap_or("none");
                    format!("{group_id} = generation {} {protocol} leader={leader} [{members}]", value.generation)
                }
                GroupRecord::OffsetCommit { group_id, topic, partition, value } => {
                    format!("{group_id}/{topic}-{partition} = {}", show_offset(value.as_ref()))
                }
            };
            writeln!(self.output, "  {}", record.replace(UUID_PREFIX, "#")).unwrap();
        }
        self.printed_records = self.log.len();
    }
}

fn show_offset(value: Option<&OffsetCommitValue>) -> String {
    let Some(value) = value else { return "tombstone".to_owned() };
    let mut text = value.offset.to_string();
    if !value.metadata.is_empty() {
        write!(text, " \"{}\"", value.metadata).unwrap();
    }
    if let Some(expire) = value.expire_timestamp {
        write!(text, " until +{}", expire.value() - EPOCH_MS).unwrap();
    }
    text
}

fn show(response: &GroupResponse) -> String {
    match response {
        GroupResponse::JoinGroup(response) if response.error_code != 0 => {
            let member_id = Some(response.member_id.as_str()).filter(|id| !id.is_empty()).unwrap_or("nobody");
            format!("{} {member_id}", error(response.error_code))
        }
        GroupResponse::JoinGroup(response) => {
            let protocol = response.protocol_name.as_deref().unwrap_or("none");
            let mut text = format!(
                "joined generation {} as {} leader={} {protocol}",
                response.generation_id, response.member_id, response.leader
            );
            if !response.members.is_empty() {
                let members: Vec<&str> = response.members.iter().map(|member| member.member_id.as_str()).collect();
                write!(text, " members=[{}]", members.join(" ")).unwrap();
            }
            if response.skip_assignment {
                text.push_str(" skip-assignment");
            }
            text
        }
        GroupResponse::SyncGroup(response) if response.error_code != 0 => error(response.error_code),
        GroupResponse::SyncGroup(response) => format!("assigned {:?}", String::from_utf8_lossy(&response.assignment)),
        GroupResponse::Heartbeat(response) => error(response.error_code),
        GroupResponse::LeaveGroup(response) => {
            let members = response.members.iter().map(|member| {
                let instance = member.group_instance_id.as_deref().map(|id| format!("/{id}")).unwrap_or_default();
                format!("{}{instance} {}", member.member_id, error(member.error_code))
            });
            let members = members.collect::<Vec<_>>().join(", ");
            if response.error_code == 0 { members } else { error(response.error_code) }
        }
        GroupResponse::OffsetCommit(response) => {
            let partitions = response.topics.iter().flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|it| format!("{}-{} {}", topic.name, it.partition_index, error(it.error_code)))
            });
            partitions.collect::<Vec<_>>().join(", ")
        }
        GroupResponse::OffsetFetch(response) => {
            let partitions = response.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|it| {
                    let metadata = it.metadata.as_deref().unwrap_or_default();
                    let metadata = if metadata.is_empty() { String::new() } else { format!(" {metadata:?}") };
                    let epoch = it.committed_leader_epoch;
                    format!("{}-{}@{} epoch {epoch}{metadata}", topic.name, it.partition_index, it.committed_offset)
                })
            });
            let partitions = partitions.collect::<Vec<_>>().join(", ");
            if partitions.is_empty() { "no offsets".to_owned() } else { partitions }
        }
        GroupResponse::OffsetDelete(response) if response.error_code != 0 => error(response.error_code),
        GroupResponse::OffsetDelete(response) => {
            let partitions = response.topics.iter().flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|it| format!("{}-{} {}", topic.name, it.partition_index, error(it.error_code)))
            });
            partitions.collect::<Vec<_>>().join(", ")
        }
        GroupResponse::DescribeGroups(groups) => {
            let groups = groups.iter().map(|group| {
                let members = group.members.iter().map(|member| {
                    let subscribed = if member.member_metadata.is_empty() { "" } else { " subscribed" };
                    let assignment = String::from_utf8_lossy(&member.member_assignment);
                    let host = &member.client_host;
                    format!("{}@{host}:{assignment}{subscribed}", member.member_id)
                });
                let members = members.collect::<Vec<_>>().join(" ");
                let (id, state, kind) = (&group.group_id, &group.group_state, &group.protocol_type);
                format!("{} {id} {state} {kind} {} [{members}]", error(group.error_code), group.protocol_data)
            });
            groups.collect::<Vec<_>>().join(", ")
        }
        GroupResponse::ListGroups(groups) => {
            let groups = groups.iter().map(|group| {
                let (id, state, kind) = (&group.group_id, &group.group_state, &group.protocol_type);
                format!("{id} {state} {} {:?}", group.group_type, kind.as_str())
            });
            format!("[{}]", groups.collect::<Vec<_>>().join(", "))
        }
        GroupResponse::CommittedOffsets(committed) => {
            let offsets = committed.offsets.iter().map(|committed| {
                let CommittedOffset { group_id, topic, partition, offset, .. } = committed;
                format!("{group_id}/{topic}-{partition}@{offset}")
            });
            format!("[{}] and {} untold", offsets.collect::<Vec<_>>().join(", "), committed.untold)
        }
        GroupResponse::DeleteGroups(results) => {
            let results = results.iter().map(|result| format!("{} {}", result.group_id, error(result.error_code)));
            results.collect::<Vec<_>>().join(", ")
        }
    }
}

fn error(code: i16) -> String {
    match ErrorCode::from_code(code).expect("only Kafka's errors") {
        ErrorCode::None => "ok".to_owned(),
        error => error.to_string(),
    }
}

fn error_named(name: &str) -> ErrorCode {
    let named = (-1..134).filter_map(ErrorCode::from_code).find(|error| error.name() == name);
    named.unwrap_or_else(|| panic!("no such error: {name}"))
}

/// `client#n` as it is on the wire.
pub fn expand(member_id: &str) -> String {
    member_id.replace('#', UUID_PREFIX)
}

/// The id of a topic in these stories.
pub fn topic_id(topic: &str) -> TopicId {
    TopicId(Uuid([topic.as_bytes()[0]; 16]))
}

/// A consumer's subscription, version 0.
fn subscription(topics: &str) -> Bytes {
    let topics: Vec<&str> = topics.split(',').filter(|topic| !topic.is_empty()).collect();
    let mut bytes = vec![0, 0];
    bytes.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([0, 0, 0, 0]);
    bytes.into()
}
