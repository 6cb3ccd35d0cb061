//! The group coordinator: any records of `__consumer_offsets` are replayed or refused, and then any requests of members
//! are decided in any order, with appends that succeed or fail. What it writes can be replayed by the next coordinator.
//!
//! Input: steps. The first byte says what kind; records and requests follow with their length.

use bytes::Bytes;
use vltava_coordinator::group::{Caller, GroupConfig, GroupCoordinator, GroupEvent, GroupResponse};
use vltava_coordinator::records::GroupRecord;
use vltava_coordinator::{Coordinator, Decision, LogRecord, Now, Token};
use vltava_protocol::frame::{Header, decode_body};
use vltava_protocol::messages::*;
use vltava_protocol::versions::ApiKey;
use vltava_types::{ErrorCode, TimestampMs, Uuid};

use crate::input::Input;

const MAX_STEPS: usize = 64;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut shell = Shell::new();
    let records = input.byte() % 16;
    for _ in 0..records {
        let key = Bytes::copy_from_slice(input.chunk());
        let value = (!input.byte().is_multiple_of(4)).then(|| Bytes::copy_from_slice(input.chunk()));
        shell.replay(&LogRecord { key, value });
    }
    let decision = shell.coordinator.loaded(shell.now());
    shell.carry_out(decision, true);
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        shell.step(&mut input);
    }
    shell.check_successor();
    let _ = shell.coordinator.unload();
}

struct Shell {
    coordinator: GroupCoordinator,
    /// Everything that was replayed.
    log: Vec<LogRecord>,
    monotonic_ms: u64,
    tokens: u64,
}

impl Shell {
    fn new() -> Self {
        let config = GroupConfig { max_size: 4, ..GroupConfig::default() };
        Self { coordinator: GroupCoordinator::new(config), log: Vec::new(), monotonic_ms: 1_000, tokens: 0 }
    }

    fn now(&self) -> Now {
        let wall_clock = TimestampMs(1_750_000_000_000_i64.saturating_add_unsigned(self.monotonic_ms));
        Now { monotonic_ms: self.monotonic_ms, wall_clock }
    }

    fn replay(&mut self, record: &LogRecord) {
        if let Ok(Some(decoded)) = GroupRecord::decode(record) {
            let again = GroupRecord::decode(&decoded.encode()).expect("what we encoded can be decoded");
            assert!(again.is_some(), "a record stays one of ours");
        }
        if self.coordinator.replay(record).is_ok() {
            self.log.push(record.clone());
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let (kind, parameter) = (input.byte(), input.byte());
        let succeeds = parameter & 0x80 == 0;
        self.monotonic_ms += u64::from(parameter & 0x7f);
        self.tokens += 1;
        let token = Token(self.tokens);
        let version = |api: ApiKey, number: u8| {
            let versions = api.accepted_versions();
            versions.start() + i16::from(number) % (versions.end() - versions.start() + 1)
        };
        macro_rules! request {
            ($api:ident, $request:ident, |$decoded:ident, $caller:ident| $event:expr) => {{
                let version = version(ApiKey::$api, input.byte());
                let header = Header { api: ApiKey::$api, version, correlation_id: 1, client_id: None };
                let body = Bytes::copy_from_slice(input.chunk());
                let $caller = Caller { version, client_id: "client".to_owned(), client_host: "/127.0.0.1".to_owned() };
                match decode_body::<$request>(&header, body) {
                    Ok($decoded) => $event,
                    Err(_) => return,
                }
            }};
        }
        let event = match kind % 12 {
            0 | 1 => request!(JoinGroup, JoinGroupRequest, |request, caller| GroupEvent::JoinGroup {
                token,
                caller,
                request,
                new_member: Uuid([self.tokens as u8; 16]),
            }),
            2 => request!(SyncGroup, SyncGroupRequest, |request, _caller| GroupEvent::SyncGroup { token, request }),
            3 => request!(Heartbeat, HeartbeatRequest, |request, _caller| GroupEvent::Heartbeat { token, request }),
            4 => request!(LeaveGroup, LeaveGroupRequest, |request, _caller| GroupEvent::LeaveGroup { token, request }),
            5 => request!(OffsetCommit, OffsetCommitRequest, |request, caller| GroupEvent::OffsetCommit {
                token,
                caller,
                request,
            }),
            6 => request!(OffsetFetch, OffsetFetchRequest, |decoded, _caller| {
                let Some(request) = decoded.groups.into_iter().next() else { return };
                GroupEvent::OffsetFetch { token, request }
            }),
            7 => request!(OffsetDelete, OffsetDeleteRequest, |request, _caller| GroupEvent::OffsetDelete {
                token,
                request,
            }),
            8 => {
                let group_ids = vec![String::from_utf8_lossy(input.chunk()).into_owned(), "group".to_owned()];
                GroupEvent::DescribeGroups { token, version: i16::from(parameter % 7), group_ids }
            }
            9 => GroupEvent::ListGroups { token, states_filter: Vec::new(), types_filter: Vec::new() },
            10 => {
                let group_ids = vec![String::from_utf8_lossy(input.chunk()).into_owned()];
                GroupEvent::DeleteGroups { token, group_ids }
            }
            _ => {
                self.monotonic_ms += u64::from(u16::from_be_bytes(input.array())) * 100;
                while let Some(decision) = self.coordinator.expire(self.now()) {
                    self.carry_out(decision, succeeds);
                }
                return;
            }
        };
        let decision = self.coordinator.handle(event, self.now());
        self.carry_out(decision, succeeds);
    }

    /// Appends and replays what was decided, or fails to.
    fn carry_out(&mut self, mut decision: Decision<GroupCoordinator>, succeeds: bool) {
        loop {
            if succeeds {
                for record in &decision.records {
                    assert!(GroupRecord::decode(record).is_ok_and(|record| record.is_some()), "our own record");
                    self.replay(record);
                }
            }
            for reply in &decision.replies {
                if let Ok(GroupResponse::JoinGroup(response)) = &reply.outcome {
                    assert!(response.error_code != 0 || response.generation_id >= 0, "a generation");
                }
            }
            let Some(completion) = decision.completion else { return };
            let result = if succeeds { Ok(()) } else { Err(ErrorCode::NotEnoughReplicas) };
            decision = self.coordinator.complete(completion, result, self.now());
        }
    }

    /// The next coordinator reads the same log and has the same state.
    fn check_successor(&self) {
        let mut successor = GroupCoordinator::new(GroupConfig::default());
        for record in &self.log {
            successor.replay(record).expect("what was replayed once can be replayed again");
        }
        assert_eq!(successor.replicated(), self.coordinator.replicated(), "the log is the state");
    }
}
