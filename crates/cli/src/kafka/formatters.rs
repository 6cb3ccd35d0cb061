//! How the console consumer shows records: Kafka's formatters.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};
use vltava_client::ConsumerRecord;
use vltava_coordinator::LogRecord;
use vltava_coordinator::records::{GroupMetadataValue, GroupRecord, MemberMetadata, OffsetCommitValue};
use vltava_protocol::batch::TimestampType;
use vltava_types::TimestampMs;

/// Appends a record's text to `out`.
pub enum Formatter {
    Default(DefaultFormatter),
    /// Keys and values in a sentence, for logs.
    Logging,
    /// Nothing.
    NoOp,
    /// Commits, out of `__consumer_offsets`.
    Offsets,
    /// Generations of groups, out of `__consumer_offsets`.
    GroupMetadata,
}

impl Formatter {
    /// By the class in Kafka, with its package or without.
    pub fn named(class: &str, properties: &[(String, String)]) -> Result<Self, String> {
        // Inner classes of older releases are told by what follows the dollar.
        let simple = class.rsplit(['.', '$']).next().unwrap_or(class);
        Ok(match simple {
            "DefaultMessageFormatter" => Self::Default(DefaultFormatter::new(properties)?),
            "LoggingMessageFormatter" => Self::Logging,
            "NoOpMessageFormatter" => Self::NoOp,
            "OffsetsMessageFormatter" => Self::Offsets,
            "GroupMetadataMessageFormatter" => Self::GroupMetadata,
            _ => return Err(format!("Could not find class {class}: it is none of the built-in formatters")),
        })
    }

    pub fn write(&self, record: &ConsumerRecord, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Default(formatter) => formatter.write(record, out),
            Self::Logging => {
                let text = |bytes: &Option<Bytes>| {
                    bytes.as_ref().map_or("null".into(), |bytes| String::from_utf8_lossy(bytes).into_owned())
                };
                let timestamp = match timestamp(record) {
                    Some(timestamp) => format!("{timestamp}, "),
                    None => String::new(),
                };
                let line = format!("{timestamp}key:{}, value:{}\n", text(&record.key), text(&record.value));
                out.extend_from_slice(line.as_bytes());
                Ok(())
            }
            Self::NoOp => Ok(()),
            Self::Offsets | Self::GroupMetadata => {
                // Kafka ends no line here either: one object follows the other.
                if let Some(object) = group_record(record, matches!(self, Self::Offsets))? {
                    out.extend_from_slice(object.as_bytes());
                }
                Ok(())
            }
        }
    }
}

/// `CreateTime:1` or `LogAppendTime:1`.
fn timestamp(record: &ConsumerRecord) -> Option<String> {
    let name = match record.timestamp_type {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    (record.timestamp != TimestampMs::NONE).then(|| format!("{name}:{}", record.timestamp))
}

/// Kafka's `DefaultMessageFormatter` and its properties.
pub struct DefaultFormatter {
    print_timestamp: bool,
    print_partition: bool,
    print_offset: bool,
    print_delivery: bool,
    print_epoch: bool,
    print_headers: bool,
    print_key: bool,
    print_value: bool,
    key_separator: String,
    line_separator: String,
    headers_separator: String,
    null_literal: String,
    key: Deserializer,
    value: Deserializer,
    headers: Deserializer,
}

impl DefaultFormatter {
    fn new(properties: &[(String, String)]) -> Result<Self, String> {
        let given =
            |name: &str| properties.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.clone());
        let is_set =
            |name: &str, default: bool| given(name).map_or(default, |value| value.trim().eq_ignore_ascii_case("true"));
        let text = |name: &str, default: &str| {
            given(name).map_or_else(|| default.to_owned(), |value| value.replace("\\t", "\t").replace("\\n", "\n"))
        };
        let deserializer = |name: &str| given(name).map_or(Ok(Deserializer::Text), |class| Deserializer::named(&class));
        Ok(Self {
            print_timestamp: is_set("print.timestamp", false),
            print_partition: is_set("print.partition", false),
            print_offset: is_set("print.offset", false),
            print_delivery: is_set("print.delivery", false),
            print_epoch: is_set("print.epoch", false),
            print_headers: is_set("print.headers", false),
            print_key: is_set("print.key", false),
            print_value: is_set("print.value", true),
            key_separator: text("key.separator", "\t"),
            line_separator: text("line.separator", "\n"),
            headers_separator: text("headers.separator", ","),
            null_literal: text("null.literal", "null"),
            key: deserializer("key.deserializer")?,
            value: deserializer("value.deserializer")?,
            headers: deserializer("headers.deserializer")?,
        })
    }

    fn write(&self, record: &ConsumerRecord, out: &mut Vec<u8>) -> Result<(), String> {
        let mut fields: Vec<Vec<u8>> = Vec::new();
        if self.print_timestamp {
            fields.push(timestamp(record).unwrap_or_else(|| "NO_TIMESTAMP".to_owned()).into());
        }
        if self.print_partition {
            fields.push(format!("Partition:{}", record.partition).into());
        }
        if self.print_offset {
            fields.push(format!("Offset:{}", record.offset).into());
        }
        if self.print_delivery {
            // Only share groups count deliveries.
            fields.push(b"Delivery:NOT_PRESENT".to_vec());
        }
        if self.print_epoch {
            // Kafka's tool does not pass it on to its formatter.
            fields.push(b"Epoch:NOT_PRESENT".to_vec());
        }
        if self.print_headers {
            let mut text = Vec::new();
            for (index, header) in record.headers.iter().enumerate() {
                if index > 0 {
                    text.extend_from_slice(self.headers_separator.as_bytes());
                }
                text.extend_from_slice(&header.key);
                text.push(b':');
                self.field(self.headers, header.value.as_ref(), &mut text)?;
            }
            if record.headers.is_empty() {
                text.extend_from_slice(b"NO_HEADERS");
            }
            fields.push(text);
        }
        for (is_printed, deserializer, bytes) in
            [(self.print_key, self.key, &record.key), (self.print_value, self.value, &record.value)]
        {
            if is_printed {
                let mut text = Vec::new();
                self.field(deserializer, bytes.as_ref(), &mut text)?;
                fields.push(text);
            }
        }
        if !fields.is_empty() {
            out.extend_from_slice(&fields.join(self.key_separator.as_bytes()));
            out.extend_from_slice(self.line_separator.as_bytes());
        }
        Ok(())
    }

    fn field(&self, deserializer: Deserializer, bytes: Option<&Bytes>, out: &mut Vec<u8>) -> Result<(), String> {
        match bytes {
            None => out.extend_from_slice(self.null_literal.as_bytes()),
            Some(bytes) => deserializer.write(bytes, out)?,
        }
        Ok(())
    }
}

/// How bytes become text: Kafka's deserializers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deserializer {
    /// The bytes as they are.
    Text,
    Short,
    Integer,
    Long,
    Float,
    Double,
    Boolean,
    Uuid,
}

impl Deserializer {
    /// By the class in Kafka, with its package or without.
    pub fn named(class: &str) -> Result<Self, String> {
        let simple = class.rsplit('.').next().unwrap_or(class);
        Ok(match simple {
            "StringDeserializer" | "ByteArrayDeserializer" | "BytesDeserializer" => Self::Text,
            "ShortDeserializer" => Self::Short,
            "IntegerDeserializer" => Self::Integer,
            "LongDeserializer" => Self::Long,
            "FloatDeserializer" => Self::Float,
            "DoubleDeserializer" => Self::Double,
            "BooleanDeserializer" => Self::Boolean,
            "UUIDDeserializer" => Self::Uuid,
            _ => return Err(format!("Could not find class {class}: it is none of the built-in deserializers")),
        })
    }

    fn write(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        /// The bytes as an array of the length that the type has.
        fn exactly<const N: usize>(bytes: &[u8]) -> Result<[u8; N], String> {
            bytes.try_into().map_err(|_| format!("Size of data received by the deserializer is not {N}"))
        }
        /// Java writes whole numbers with one decimal.
        fn decimal(number: f64, shortest: &str) -> String {
            if number.fract() == 0.0 && number.abs() < 1e7 { format!("{number:.1}") } else { shortest.to_owned() }
        }
        let text = match self {
            Self::Text => {
                out.extend_from_slice(bytes);
                return Ok(());
            }
            Self::Short => i16::from_be_bytes(exactly(bytes)?).to_string(),
            Self::Integer => i32::from_be_bytes(exactly(bytes)?).to_string(),
            Self::Long => i64::from_be_bytes(exactly(bytes)?).to_string(),
            Self::Float => {
                let number = f32::from_be_bytes(exactly(bytes)?);
                decimal(f64::from(number), &number.to_string())
            }
            Self::Double => {
                let number = f64::from_be_bytes(exactly(bytes)?);
                decimal(number, &number.to_string())
            }
            Self::Boolean => match exactly::<1>(bytes)? {
                [0] => "false".to_owned(),
                [1] => "true".to_owned(),
                _ => return Err("Unexpected byte received by the deserializer".to_owned()),
            },
            Self::Uuid => String::from_utf8(bytes.to_vec()).map_err(|_| "the UUID is not text".to_owned())?,
        };
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A record of `__consumer_offsets` as Kafka's formatters write it; `None` if it is of the other kind.
fn group_record(record: &ConsumerRecord, wants_offsets: bool) -> Result<Option<String>, String> {
    let Some(key) = &record.key else { return Ok(None) };
    let leading = |bytes: &Bytes| bytes.first_chunk::<2>().map_or(-1, |number| i16::from_be_bytes(*number));
    let kind = leading(key);
    let version = record.value.as_ref().map_or(-1, leading);
    let decoded = GroupRecord::decode(&LogRecord { key: key.clone(), value: record.value.clone() });
    let (key, value) = match decoded.map_err(|error| error.to_string())? {
        Some(GroupRecord::OffsetCommit { group_id, topic, partition, value }) if wants_offsets => {
            let key = vec![("group", json!(group_id)), ("topic", json!(topic)), ("partition", json!(partition.0))];
            (key, value.map(|value| offset_commit(&value, version)))
        }
        Some(GroupRecord::GroupMetadata { group_id, value }) if !wants_offsets => {
            (vec![("group", json!(group_id))], value.map(|value| group_metadata(&value, version)))
        }
        _ => return Ok(None),
    };
    let value = match value {
        Some(data) => format!("{{\"version\":{version},\"data\":{data}}}"),
        None => "null".to_owned(),
    };
    Ok(Some(format!("{{\"key\":{{\"type\":{kind},\"data\":{}}},\"value\":{value}}}", object(&key))))
}

fn offset_commit(value: &OffsetCommitValue, version: i16) -> String {
    let mut data = vec![("offset", json!(value.offset.0))];
    if version >= 3 {
        data.push(("leaderEpoch", json!(value.leader_epoch.0)));
    }
    data.push(("metadata", json!(value.metadata)));
    data.push(("commitTimestamp", json!(value.commit_timestamp.0)));
    if version == 1 {
        data.push(("expireTimestamp", json!(value.expire_timestamp.map_or(-1, |expiry| expiry.0))));
    }
    if !value.topic_id.is_zero() {
        data.push(("topicId", json!(value.topic_id.to_string())));
    }
    object(&data)
}

fn group_metadata(value: &GroupMetadataValue, version: i16) -> String {
    let member = |member: &MemberMetadata| {
        let mut data = vec![("memberId", json!(member.member_id))];
        if version >= 3 {
            data.push(("groupInstanceId", json!(member.group_instance_id)));
        }
        data.push(("clientId", json!(member.client_id)));
        data.push(("clientHost", json!(member.client_host)));
        if version >= 1 {
            data.push(("rebalanceTimeout", json!(member.rebalance_timeout_ms)));
        }
        data.push(("sessionTimeout", json!(member.session_timeout_ms)));
        data.push(("subscription", json!(base64(&member.subscription))));
        data.push(("assignment", json!(base64(&member.assignment))));
        object(&data)
    };
    let members: Vec<String> = value.members.iter().map(member).collect();
    let mut data = vec![
        ("protocolType", json!(value.protocol_type)),
        ("generation", json!(value.generation)),
        ("protocol", json!(value.protocol)),
        ("leader", json!(value.leader)),
    ];
    if version >= 2 {
        data.push(("currentStateTimestamp", json!(value.current_state_timestamp.0)));
    }
    let mut text = object(&data);
    text.pop();
    format!("{text},\"members\":[{}]}}", members.join(","))
}

/// An object whose fields stand in the order of the schema.
fn object(fields: &[(&str, Value)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", fields.join(","))
}

/// With padding, as Kafka's JSON carries bytes.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * index) & 0x3f) as usize];
            let _ = text.write_char(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use vltava_protocol::batch::RecordHeader;
    use vltava_types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

    use super::*;

    fn record(key: Option<&'static [u8]>, value: Option<&'static [u8]>) -> ConsumerRecord {
        ConsumerRecord {
            topic: "t".into(),
            partition: 2,
            offset: Offset(7),
            leader_epoch: LeaderEpoch(3),
            timestamp: TimestampMs(1_700_000_000_000),
            timestamp_type: TimestampType::CreateTime,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: vec![
                RecordHeader { key: "a".into(), value: Some("1".into()) },
                RecordHeader { key: "b".into(), value: None },
            ],
        }
    }

    fn check(properties: &str, record: &ConsumerRecord, expected: &Expect) {
        let properties = properties.split(' ').filter_map(|pair| pair.split_once('='));
        let properties: Vec<_> = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut out = Vec::new();
        let text = match Formatter::named("DefaultMessageFormatter", &properties)
            .and_then(|formatter| formatter.write(record, &mut out))
        {
            Ok(()) => format!("{:?}", String::from_utf8_lossy(&out)),
            Err(error) => error,
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn fields_stand_in_kafka_s_order() {
        let record = record(Some(b"k"), Some(b"v"));
        check("", &record, &expect![[r#""v\n""#]]);
        check("print.key=true key.separator=-", &record, &expect![[r#""k-v\n""#]]);
        let all = "print.timestamp=true print.partition=true print.offset=true print.delivery=true print.epoch=true \
                   print.headers=true print.key=true";
        check(
            all,
            &record,
            &expect![[
                r#""CreateTime:1700000000000\tPartition:2\tOffset:7\tDelivery:NOT_PRESENT\tEpoch:NOT_PRESENT\ta:1,b:null\tk\tv\n""#
            ]],
        );
        check("print.offset=true print.value=false", &record, &expect![[r#""Offset:7\n""#]]);
        check("print.value=false", &record, &expect![[r#""""#]]);
    }

    #[test]
    fn nothing_has_a_literal_and_numbers_are_read() {
        check("print.key=true null.literal=NIL", &record(None, None), &expect![[r#""NIL\tNIL\n""#]]);
        let integer = "value.deserializer=org.apache.kafka.common.serialization.IntegerDeserializer";
        check(integer, &record(None, Some(&[0, 0, 1, 0])), &expect![[r#""256\n""#]]);
        check(integer, &record(None, Some(&[1])), &expect!["Size of data received by the deserializer is not 4"]);
        let double = "value.deserializer=DoubleDeserializer";
        check(double, &record(None, Some(&[0x40, 0, 0, 0, 0, 0, 0, 0])), &expect![[r#""2.0\n""#]]);
    }

    #[test]
    fn commits_are_written_as_json() {
        let commit = GroupRecord::OffsetCommit {
            group_id: "g".to_owned(),
            topic: "t".to_owned(),
            partition: PartitionIndex(1),
            value: Some(OffsetCommitValue {
                offset: Offset(5),
                leader_epoch: LeaderEpoch::NONE,
                metadata: String::new(),
                commit_timestamp: TimestampMs(9),
                expire_timestamp: None,
                topic_id: TopicId::ZERO,
            }),
        };
        let LogRecord { key, value } = commit.encode();
        let record = ConsumerRecord { key: Some(key), value, ..record(None, None) };
        let mut out = Vec::new();
        Formatter::Offsets.write(&record, &mut out).expect("readable");
        Formatter::GroupMetadata.write(&record, &mut out).expect("of no interest");
        expect![[
            r#"{"key":{"type":1,"data":{"group":"g","topic":"t","partition":1}},"value":{"version":4,"data":{"offset":5,"leaderEpoch":-1,"metadata":"","commitTimestamp":9}}}"#
        ]]
        .assert_eq(&String::from_utf8_lossy(&out));
    }

    #[test]
    fn bytes_are_padded_base64() {
        assert_eq!(["", "f", "fo", "foo"].map(|text| base64(text.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v"]);
    }
}
