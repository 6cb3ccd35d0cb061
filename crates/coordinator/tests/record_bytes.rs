//! The bytes of `__consumer_offsets`, laid out by hand from the schemas in Kafka's group-coordinator module.

use bytes::Bytes;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use vltava_coordinator::LogRecord;
use vltava_coordinator::records::{GroupMetadataValue, GroupRecord, MemberMetadata, OffsetCommitValue};
use vltava_types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs, TopicId, Uuid};

fn bytes(hex: &str) -> Bytes {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    digits.chunks(2).map(hex_byte).collect()
}

fn hex_byte(digits: &[u8]) -> u8 {
    let digits = std::str::from_utf8(digits).expect("hexadecimal digits");
    u8::from_str_radix(digits, 16).expect("hexadecimal digits")
}

fn record(key: &str, value: &str) -> LogRecord {
    LogRecord { key: bytes(key), value: Some(bytes(value)) }
}

fn check(key: &str, value: &str, expected: Expect) {
    expected.assert_debug_eq(&GroupRecord::decode(&record(key, value)));
}

/// Kind 1, group "g", topic "t", partition 7.
const OFFSET_KEY: &str = "0001 0001 67 0001 74 00000007";
/// Kind 2, group "g".
const GROUP_KEY: &str = "0002 0001 67";

#[test]
fn offsets_are_written_in_version_4() {
    let value = OffsetCommitValue {
        offset: Offset(42),
        leader_epoch: LeaderEpoch(5),
        metadata: "me".to_owned(),
        commit_timestamp: TimestampMs(0x018b_cfe5_6800),
        expire_timestamp: None,
        topic_id: TopicId(Uuid([0xab; 16])),
    };
    let committed = GroupRecord::OffsetCommit {
        group_id: "g".to_owned(),
        topic: "t".to_owned(),
        partition: PartitionIndex(7),
        value: Some(value.clone()),
    };
    let with_id = "0004 000000000000002a 00000005 03 6d65 0000018bcfe56800 01 00 10 abababababababababababababababab";
    assert_eq!(committed.encode(), record(OFFSET_KEY, with_id));
    assert_eq!(GroupRecord::decode(&record(OFFSET_KEY, with_id)), Ok(Some(committed)));

    let without_id = GroupRecord::OffsetCommit {
        group_id: "g".to_owned(),
        topic: "t".to_owned(),
        partition: PartitionIndex(7),
        value: Some(OffsetCommitValue { topic_id: TopicId::ZERO, ..value }),
    };
    let expected = "0004 000000000000002a 00000005 03 6d65 0000018bcfe56800 00";
    assert_eq!(without_id.encode(), record(OFFSET_KEY, expected));
}

#[test]
fn offsets_with_an_expiry_are_written_in_version_1() {
    let committed = GroupRecord::OffsetCommit {
        group_id: "g".to_owned(),
        topic: "t".to_owned(),
        partition: PartitionIndex(7),
        value: Some(OffsetCommitValue {
            offset: Offset(42),
            leader_epoch: LeaderEpoch(5),
            metadata: String::new(),
            commit_timestamp: TimestampMs(1),
            expire_timestamp: Some(TimestampMs(2)),
            topic_id: TopicId(Uuid([0xab; 16])),
        }),
    };
    let expected = "0001 000000000000002a 0000 0000000000000001 0000000000000002";
    assert_eq!(committed.encode(), record(OFFSET_KEY, expected));
}

#[test]
fn groups_are_written_in_version_3() {
    let group = GroupRecord::GroupMetadata {
        group_id: "g".to_owned(),
        value: Some(GroupMetadataValue {
            protocol_type: "consumer".to_owned(),
            generation: 3,
            protocol: Some("range".to_owned()),
            leader: Some("m".to_owned()),
            current_state_timestamp: TimestampMs(9),
            members: vec![MemberMetadata {
                member_id: "m".to_owned(),
                group_instance_id: None,
                client_id: "c".to_owned(),
                client_host: "/h".to_owned(),
                rebalance_timeout_ms: 60_000,
                session_timeout_ms: 10_000,
                subscription: Bytes::from_static(&[1, 2]),
                assignment: Bytes::from_static(&[3]),
            }],
        }),
    };
    let expected = "0003 0008 636f6e73756d6572 00000003 0005 72616e6765 0001 6d 0000000000000009 00000001
        0001 6d ffff 0001 63 0002 2f68 0000ea60 00002710 00000002 0102 00000001 03";
    assert_eq!(group.encode(), record(GROUP_KEY, expected));

    let empty = GroupRecord::GroupMetadata {
        group_id: "g".to_owned(),
        value: Some(GroupMetadataValue {
            protocol_type: "consumer".to_owned(),
            generation: 4,
            protocol: None,
            leader: None,
            current_state_timestamp: TimestampMs(9),
            members: Vec::new(),
        }),
    };
    let expected = "0003 0008 636f6e73756d6572 00000004 ffff ffff 0000000000000009 00000000";
    assert_eq!(empty.encode(), record(GROUP_KEY, expected));
}

#[test]
fn older_and_newer_offsets_are_read() {
    let decode = |key: &str, value: &str| match GroupRecord::decode(&record(key, value)) {
        Ok(Some(GroupRecord::OffsetCommit { value: Some(value), .. })) => {
            format!("{} {} {:?} {}", value.offset, value.leader_epoch, value.expire_timestamp, value.topic_id.is_zero())
        }
        other => format!("{other:?}"),
    };
    let told = [
        decode("0000 0001 67 0001 74 00000007", "0000 000000000000002a 0000 0000000000000001"),
        decode(OFFSET_KEY, "0000 000000000000002a 0000 0000000000000001"),
        decode(OFFSET_KEY, "0001 000000000000002a 0000 0000000000000001 0000000000000002"),
        decode(OFFSET_KEY, "0001 000000000000002a 0000 0000000000000001 ffffffffffffffff"),
        decode(OFFSET_KEY, "0002 000000000000002a 0000 0000000000000001"),
        decode(OFFSET_KEY, "0003 000000000000002a 00000005 0000 0000000000000001"),
        // A tag of a later release, and then the topic id.
        decode(
            OFFSET_KEY,
            "0004 000000000000002a 00000005 01 0000000000000001 02 00 10 abababababababababababababababab 07 01 ff",
        ),
        decode(OFFSET_KEY, "0005 000000000000002a"),
    ];
    expect![[r#"
        42 -1 None true
        42 -1 None true
        42 -1 Some(TimestampMs(2)) true
        42 -1 None true
        42 -1 None true
        42 5 None true
        42 5 None false
        Err(UnknownVersion { schema: "OffsetCommitValue", version: 5 })"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn older_and_newer_groups_are_read() {
    let head = "0008 636f6e73756d6572 00000003 0005 72616e6765 0001 6d";
    let version_0 = format!("0000 {head} 00000001 0001 6d 0001 63 0002 2f68 00002710 00000000 00000000");
    check(
        GROUP_KEY,
        &version_0,
        expect![[r#"
        Ok(
            Some(
                GroupMetadata {
                    group_id: "g",
                    value: Some(
                        GroupMetadataValue {
                            protocol_type: "consumer",
                            generation: 3,
                            protocol: Some(
                                "range",
                            ),
                            leader: Some(
                                "m",
                            ),
                            current_state_timestamp: TimestampMs(
                                -1,
                            ),
                            members: [
                                MemberMetadata {
                                    member_id: "m",
                                    group_instance_id: None,
                                    client_id: "c",
                                    client_host: "/h",
                                    rebalance_timeout_ms: -1,
                                    session_timeout_ms: 10000,
                                    subscription: b"",
                                    assignment: b"",
                                },
                            ],
                        },
                    ),
                },
            ),
        )
    "#]],
    );
    let version_2 =
        format!("0002 {head} 0000000000000009 00000001 0001 6d 0001 63 0002 2f68 0000ea60 00002710 00000000 00000000");
    check(
        GROUP_KEY,
        &version_2,
        expect![[r#"
        Ok(
            Some(
                GroupMetadata {
                    group_id: "g",
                    value: Some(
                        GroupMetadataValue {
                            protocol_type: "consumer",
                            generation: 3,
                            protocol: Some(
                                "range",
                            ),
                            leader: Some(
                                "m",
                            ),
                            current_state_timestamp: TimestampMs(
                                9,
                            ),
                            members: [
                                MemberMetadata {
                                    member_id: "m",
                                    group_instance_id: None,
                                    client_id: "c",
                                    client_host: "/h",
                                    rebalance_timeout_ms: 60000,
                                    session_timeout_ms: 10000,
                                    subscription: b"",
                                    assignment: b"",
                                },
                            ],
                        },
                    ),
                },
            ),
        )
    "#]],
    );
    let version_4 = "0004 09 636f6e73756d6572 00000003 06 72616e6765 02 6d 0000000000000009 02
        02 6d 02 69 02 63 03 2f68 0000ea60 00002710 03 0102 01 00 00";
    check(
        GROUP_KEY,
        version_4,
        expect![[r#"
        Ok(
            Some(
                GroupMetadata {
                    group_id: "g",
                    value: Some(
                        GroupMetadataValue {
                            protocol_type: "consumer",
                            generation: 3,
                            protocol: Some(
                                "range",
                            ),
                            leader: Some(
                                "m",
                            ),
                            current_state_timestamp: TimestampMs(
                                9,
                            ),
                            members: [
                                MemberMetadata {
                                    member_id: "m",
                                    group_instance_id: Some(
                                        "i",
                                    ),
                                    client_id: "c",
                                    client_host: "/h",
                                    rebalance_timeout_ms: 60000,
                                    session_timeout_ms: 10000,
                                    subscription: b"\x01\x02",
                                    assignment: b"",
                                },
                            ],
                        },
                    ),
                },
            ),
        )
    "#]],
    );
}

#[test]
fn other_kinds_are_ignored_and_bad_bytes_refused() {
    // A member of a consumer group of KIP-848.
    check(
        "0005 0001 67 0001 6d",
        "0000",
        expect![[r#"
        Ok(
            None,
        )
    "#]],
    );
    check(
        "",
        "",
        expect![[r#"
        Err(
            Truncated,
        )
    "#]],
    );
    check(
        "0002 0005 67",
        "0003",
        expect![[r#"
        Err(
            Truncated,
        )
    "#]],
    );
    check(
        GROUP_KEY,
        "0003 ffff",
        expect![[r#"
        Err(
            UnexpectedNull(
                "protocolType",
            ),
        )
    "#]],
    );
    check(
        GROUP_KEY,
        "0003 0000 00000003 ffff ffff 0000000000000009 7fffffff",
        expect![[r#"
        Err(
            Truncated,
        )
    "#]],
    );
    check(
        GROUP_KEY,
        "0003 0000 00000003 ffff ffff 0000000000000009 80000000",
        expect![[r#"
        Err(
            InvalidLength,
        )
    "#]],
    );
    check(
        OFFSET_KEY,
        "0004 000000000000002a 00000005 ffffffffffff",
        expect![[r#"
        Err(
            InvalidLength,
        )
    "#]],
    );
}

fn text() -> impl Strategy<Value = String> {
    "[a-zß😀 -]{0,12}"
}

fn blob() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

prop_compose! {
    fn offset_value()(
        offset in any::<i64>(), epoch in any::<i32>(), metadata in text(), commit in any::<i64>(),
        id in any::<[u8; 16]>(),
    ) -> OffsetCommitValue {
        OffsetCommitValue {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(epoch),
            metadata,
            commit_timestamp: TimestampMs(commit),
            expire_timestamp: None,
            topic_id: TopicId(Uuid(id)),
        }
    }
}

prop_compose! {
    fn member()(
        texts in [text(), text(), text()], instance in prop::option::of(text()), timeouts in any::<(i32, i32)>(),
        blobs in [blob(), blob()],
    ) -> MemberMetadata {
        let [member_id, client_id, client_host] = texts;
        let [subscription, assignment] = blobs;
        MemberMetadata {
            member_id,
            group_instance_id: instance,
            client_id,
            client_host,
            rebalance_timeout_ms: timeouts.0,
            session_timeout_ms: timeouts.1,
            subscription,
            assignment,
        }
    }
}

prop_compose! {
    fn group_value()(
        protocol_type in text(), generation in any::<i32>(),
        names in [prop::option::of(text()), prop::option::of(text())],
        timestamp in any::<i64>(), members in prop::collection::vec(member(), 0..4),
    ) -> GroupMetadataValue {
        let [protocol, leader] = names;
        let current_state_timestamp = TimestampMs(timestamp);
        GroupMetadataValue { protocol_type, generation, protocol, leader, current_state_timestamp, members }
    }
}

fn any_record() -> impl Strategy<Value = GroupRecord> {
    let commit = (text(), text(), any::<i32>(), prop::option::of(offset_value()));
    let commit = commit.prop_map(|(group_id, topic, partition, value)| GroupRecord::OffsetCommit {
        group_id,
        topic,
        partition: PartitionIndex(partition),
        value,
    });
    let group = (text(), prop::option::of(group_value()));
    let group = group.prop_map(|(group_id, value)| GroupRecord::GroupMetadata { group_id, value });
    prop_oneof![commit, group]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(record in any_record()) {
        prop_assert_eq!(GroupRecord::decode(&record.encode()), Ok(Some(record)));
    }

    #[test]
    fn no_bytes_cause_a_panic(key in blob(), value in prop::option::of(prop::collection::vec(any::<u8>(), 0..80))) {
        let _ = GroupRecord::decode(&LogRecord { key, value: value.map(Bytes::from) });
    }

    #[test]
    fn damaged_records_cause_no_panic(record in any_record(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let encoded = record.encode();
        let mut value = encoded.value.unwrap_or_default().to_vec();
        if !value.is_empty() {
            let at = at.index(value.len());
            value[at] ^= 1 << bit;
        }
        let _ = GroupRecord::decode(&LogRecord { key: encoded.key, value: Some(value.into()) });
    }
}
