//! Stories: one request or answer a line, what became of it after the arrow.

use expect_test::{Expect, expect};
use vltava_types::{Offset, TimestampMs};

use super::{FetchSessions, PartitionKey, PartitionNews, Plan, Position, SessionRequest, TopicKey};

/// Runs a script against sessions of at most `max_sessions`, and `max_partitions` in all.
///
/// `fetch <session> <epoch> [partition@offset ..] [-partition ..]` begins a request (`ids` uses topic ids), `answer
/// [partition:news ..]` finishes the last one that began; news are `r` (records), `h<offset>` (high watermark), `e`
/// (error). `at <ms>` sets the time. Partitions are names of topics; their index is 0. Session ids count up from 1.
fn check(max_sessions: usize, max_partitions: usize, script: &str, expected: Expect) {
    let mut sessions = FetchSessions::new(max_sessions);
    sessions.max_partitions = max_partitions;
    let mut now = TimestampMs(0);
    let mut next_id = 0u64;
    let mut plan = None;
    let mut story = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        let result = match command {
            "at" => {
                now = TimestampMs(rest.parse().expect("a time"));
                continue;
            }
            "fetch" => match sessions.begin(request(rest), now) {
                Ok(begun) => {
                    let text = describe(&begun);
                    plan = Some(begun);
                    text
                }
                Err(error) => error.to_string(),
            },
            "answer" => {
                let plan = plan.as_ref().expect("a request began");
                let news: Vec<PartitionNews> = plan.partitions.iter().map(|(key, _)| news(key, rest)).collect();
                let fresh_id = || {
                    next_id += 1;
                    next_id << 33
                };
                match sessions.finish(plan, &news, now, fresh_id) {
                    Ok(outcome) => {
                        let told = plan.partitions.iter().zip(&outcome.included).filter(|(_, told)| **told);
                        let told: Vec<&str> = told.map(|((key, _), _)| name(key)).collect();
                        format!("session {} tells {}", outcome.session_id, told.join(" "))
                    }
                    Err(error) => error.to_string(),
                }
            }
            _ => panic!("no such command: {line}"),
        };
        story += format!("{line} -> {result}").trim_end();
        story.push('\n');
        assert_eq!(sessions.cached_partitions, sessions.sessions.values().map(|s| s.partitions.len()).sum::<usize>());
        assert_eq!(sessions.by_use.len(), sessions.sessions.len());
        assert!(sessions.sessions.len() <= max_sessions);
        assert!(sessions.cached_partitions <= max_partitions);
    }
    expected.assert_eq(&story);
}

fn request(text: &str) -> SessionRequest {
    let mut words = text.split(' ').peekable();
    let session_id = words.next().expect("a session id").parse().expect("a number");
    let session_epoch = words.next().expect("an epoch").parse().expect("a number");
    let uses_topic_ids = words.next_if_eq(&"ids").is_some();
    let key = |name: &str| PartitionKey { topic: TopicKey::Name(name.to_owned()), partition: 0 };
    let mut request =
        SessionRequest { session_id, session_epoch, uses_topic_ids, partitions: vec![], forgotten: vec![] };
    for word in words {
        match (word.strip_prefix('-'), word.split_once('@')) {
            (Some(forgotten), _) => request.forgotten.push(key(forgotten)),
            (None, Some((name, offset))) => {
                let fetch_offset = offset.parse().expect("an offset");
                let position =
                    Position { fetch_offset, max_bytes: 1000, current_leader_epoch: -1, last_fetched_epoch: -1 };
                request.partitions.push((key(name), position));
            }
            (None, None) => panic!("no partition: {word}"),
        }
    }
    request
}

fn news(key: &PartitionKey, text: &str) -> PartitionNews {
    let mut news = PartitionNews {
        has_records: false,
        high_watermark: Offset(0),
        log_start_offset: Offset(0),
        must_be_told: false,
        is_error: false,
    };
    for (_, what) in text.split(' ').filter_map(|word| word.split_once(':')).filter(|(n, _)| *n == name(key)) {
        match what.split_at(1) {
            ("r", _) => news.has_records = true,
            ("e", _) => (news.is_error, news.high_watermark) = (true, Offset(-1)),
            ("h", offset) => news.high_watermark = Offset(offset.parse().expect("an offset")),
            _ => panic!("no such news: {what}"),
        }
    }
    news
}

fn name(key: &PartitionKey) -> &str {
    match &key.topic {
        TopicKey::Name(name) => name,
        TopicKey::Id(_) => "by id",
    }
}

fn describe(plan: &Plan) -> String {
    let partitions = plan.partitions.iter().map(|(key, at)| format!(" {}@{}", name(key), at.fetch_offset));
    format!("{:?}:{}", plan.kind, partitions.collect::<String>())
}

#[test]
fn a_session_remembers_partitions_and_tells_only_what_is_new() {
    check(
        10,
        100,
        "
        fetch 0 0 a@5 b@7
        answer
        fetch 1 1
        answer
        fetch 1 2
        answer a:r a:h6 b:h1
        fetch 1 3 a@6
        answer a:h6 b:h1
        fetch 1 4 c@0 -a
        answer b:h1
        ",
        expect![[r#"
            fetch 0 0 a@5 b@7 -> Full { uses_topic_ids: false }: a@5 b@7
            answer -> session 1 tells a b
            fetch 1 1 -> Incremental { session_id: 1, epoch: 2 }: a@5 b@7
            answer -> session 1 tells
            fetch 1 2 -> Incremental { session_id: 1, epoch: 3 }: a@5 b@7
            answer a:r a:h6 b:h1 -> session 1 tells a b
            fetch 1 3 a@6 -> Incremental { session_id: 1, epoch: 4 }: b@7 a@6
            answer a:h6 b:h1 -> session 1 tells
            fetch 1 4 c@0 -a -> Incremental { session_id: 1, epoch: 5 }: b@7 c@0
            answer b:h1 -> session 1 tells c
        "#]],
    );
}

#[test]
fn a_partition_with_records_goes_to_the_end_so_that_others_get_their_turn() {
    check(
        10,
        100,
        "
        fetch 0 0 a@0 b@0 c@0
        answer a:r
        fetch 1 1
        answer b:r
        fetch 1 2
        ",
        expect![[r#"
            fetch 0 0 a@0 b@0 c@0 -> Full { uses_topic_ids: false }: a@0 b@0 c@0
            answer a:r -> session 1 tells a b c
            fetch 1 1 -> Incremental { session_id: 1, epoch: 2 }: b@0 c@0 a@0
            answer b:r -> session 1 tells b
            fetch 1 2 -> Incremental { session_id: 1, epoch: 3 }: c@0 a@0 b@0
        "#]],
    );
}

#[test]
fn an_error_is_told_each_time_and_so_is_its_end() {
    check(
        10,
        100,
        "
        fetch 0 0 a@0
        answer a:h3
        fetch 1 1
        answer a:e
        fetch 1 2
        answer a:e
        fetch 1 3
        answer a:h3
        fetch 1 4
        answer a:h3
        ",
        expect![[r#"
            fetch 0 0 a@0 -> Full { uses_topic_ids: false }: a@0
            answer a:h3 -> session 1 tells a
            fetch 1 1 -> Incremental { session_id: 1, epoch: 2 }: a@0
            answer a:e -> session 1 tells a
            fetch 1 2 -> Incremental { session_id: 1, epoch: 3 }: a@0
            answer a:e -> session 1 tells a
            fetch 1 3 -> Incremental { session_id: 1, epoch: 4 }: a@0
            answer a:h3 -> session 1 tells a
            fetch 1 4 -> Incremental { session_id: 1, epoch: 5 }: a@0
            answer a:h3 -> session 1 tells
        "#]],
    );
}

#[test]
fn wrong_epochs_ids_and_ways_of_naming_topics_are_errors() {
    check(
        10,
        100,
        "
        fetch 7 1
        fetch 0 0 a@0
        answer
        fetch 1 2
        fetch 1 1 ids
        fetch 1 1
        fetch 1 1
        ",
        expect![[r#"
            fetch 7 1 -> FETCH_SESSION_ID_NOT_FOUND
            fetch 0 0 a@0 -> Full { uses_topic_ids: false }: a@0
            answer -> session 1 tells a
            fetch 1 2 -> INVALID_FETCH_SESSION_EPOCH
            fetch 1 1 ids -> FETCH_SESSION_TOPIC_ID_ERROR
            fetch 1 1 -> Incremental { session_id: 1, epoch: 2 }: a@0
            fetch 1 1 -> INVALID_FETCH_SESSION_EPOCH
        "#]],
    );
}

#[test]
fn a_full_request_ends_the_session_it_names() {
    check(
        10,
        100,
        "
        fetch 0 0 a@0
        answer
        fetch 1 0 b@0
        answer
        fetch 1 1
        fetch 2 -1 b@3
        answer
        fetch 2 1
        ",
        expect![[r#"
            fetch 0 0 a@0 -> Full { uses_topic_ids: false }: a@0
            answer -> session 1 tells a
            fetch 1 0 b@0 -> Full { uses_topic_ids: false }: b@0
            answer -> session 2 tells b
            fetch 1 1 -> FETCH_SESSION_ID_NOT_FOUND
            fetch 2 -1 b@3 -> Sessionless: b@3
            answer -> session 0 tells b
            fetch 2 1 -> FETCH_SESSION_ID_NOT_FOUND
        "#]],
    );
}

#[test]
fn a_session_without_partitions_is_over() {
    check(
        10,
        100,
        "
        fetch 0 0 a@0
        answer
        fetch 1 1 -a
        answer
        fetch 1 2
        fetch 0 0
        answer
        ",
        expect![[r#"
            fetch 0 0 a@0 -> Full { uses_topic_ids: false }: a@0
            answer -> session 1 tells a
            fetch 1 1 -a -> Sessionless:
            answer -> session 0 tells
            fetch 1 2 -> FETCH_SESSION_ID_NOT_FOUND
            fetch 0 0 -> Full { uses_topic_ids: false }:
            answer -> session 0 tells
        "#]],
    );
}

#[test]
fn a_full_cache_makes_room_for_larger_sessions_and_drops_stale_ones() {
    check(
        2,
        100,
        "
        fetch 0 0 a@0
        answer
        fetch 0 0 a@0 b@0
        answer
        fetch 0 0 a@0 b@0 c@0
        answer
        at 121000
        fetch 2 1
        answer
        fetch 0 0 d@0
        answer
        fetch 1 1
        at 130000
        fetch 3 1
        fetch 0 0 a@0
        answer
        fetch 0 0 a@0 b@0 c@0
        answer
        fetch 2 2
        ",
        expect![[r#"
            fetch 0 0 a@0 -> Full { uses_topic_ids: false }: a@0
            answer -> session 1 tells a
            fetch 0 0 a@0 b@0 -> Full { uses_topic_ids: false }: a@0 b@0
            answer -> session 2 tells a b
            fetch 0 0 a@0 b@0 c@0 -> Full { uses_topic_ids: false }: a@0 b@0 c@0
            answer -> session 0 tells a b c
            fetch 2 1 -> Incremental { session_id: 2, epoch: 2 }: a@0 b@0
            answer -> session 2 tells
            fetch 0 0 d@0 -> Full { uses_topic_ids: false }: d@0
            answer -> session 3 tells d
            fetch 1 1 -> FETCH_SESSION_ID_NOT_FOUND
            fetch 3 1 -> Incremental { session_id: 3, epoch: 2 }: d@0
            fetch 0 0 a@0 -> Full { uses_topic_ids: false }: a@0
            answer -> session 0 tells a
            fetch 0 0 a@0 b@0 c@0 -> Full { uses_topic_ids: false }: a@0 b@0 c@0
            answer -> session 4 tells a b c
            fetch 2 2 -> FETCH_SESSION_ID_NOT_FOUND
        "#]],
    );
}

#[test]
fn partitions_are_bounded_over_all_sessions() {
    check(
        10,
        3,
        "
        fetch 0 0 a@0 b@0 c@0 d@0
        answer
        fetch 0 0 a@0 b@0
        answer
        fetch 1 1 c@0 d@0
        fetch 1 2
        ",
        expect![[r#"
            fetch 0 0 a@0 b@0 c@0 d@0 -> Full { uses_topic_ids: false }: a@0 b@0 c@0 d@0
            answer -> session 0 tells a b c d
            fetch 0 0 a@0 b@0 -> Full { uses_topic_ids: false }: a@0 b@0
            answer -> session 1 tells a b
            fetch 1 1 c@0 d@0 -> FETCH_SESSION_ID_NOT_FOUND
            fetch 1 2 -> FETCH_SESSION_ID_NOT_FOUND
        "#]],
    );
}

#[test]
fn epochs_wrap_to_one() {
    assert_eq!(super::next_epoch(i32::MAX), 1);
    assert_eq!(super::next_epoch(0), 1);
}
