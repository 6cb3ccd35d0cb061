//! Topics: listed, described, created, grown and deleted.

use std::collections::BTreeMap;

use vltava_protocol::make;
use vltava_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use vltava_protocol::messages::create_topics_request::CreatableTopic;
use vltava_protocol::messages::delete_topics_request::DeleteTopicState;
use vltava_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use vltava_protocol::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic;
use vltava_protocol::messages::metadata_request::MetadataRequestTopic;
use vltava_protocol::messages::metadata_response::MetadataResponseTopic;
use vltava_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeTopicPartitionsRequest, MetadataRequest,
};

use super::{Admin, AdminError, ApiError, To};

const METADATA_VERSION: i16 = 12;
const DESCRIBE_TOPIC_PARTITIONS_VERSION: i16 = 0;
const CREATE_TOPICS_VERSION: i16 = 7;
const CREATE_PARTITIONS_VERSION: i16 = 3;
const DELETE_TOPICS_VERSION: i16 = 6;

impl Admin {
    /// These topics, or all, with their partitions, in order of name. Each has an error code of its own.
    pub async fn topics(&mut self, names: Option<&[String]>) -> Result<Vec<MetadataResponseTopic>, AdminError> {
        let named = |name: &String| make!(MetadataRequestTopic { name: Some(name.as_str().into()) });
        let topics = names.map(|names| names.iter().map(named).collect());
        let request = make!(MetadataRequest { topics, allow_auto_topic_creation: false });
        let mut topics = self.call(To::Any, METADATA_VERSION, &request, |_| Ok(())).await?.topics;
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(topics)
    }

    /// These topics as the controller sees them, with eligible leaders (KIP-966), in order of name. A topic that is not
    /// there has its error code; with `names` empty there are none.
    pub async fn describe_topics(
        &mut self,
        names: &[String],
        page: i32,
    ) -> Result<Vec<DescribeTopicPartitionsResponseTopic>, AdminError> {
        let mut found: BTreeMap<String, DescribeTopicPartitionsResponseTopic> = BTreeMap::new();
        if names.is_empty() {
            return Ok(vec![]);
        }
        let mut cursor = None;
        loop {
            let topics = names.iter().map(|name| make!(TopicRequest { name: name.as_str().into() })).collect();
            let request = make!(DescribeTopicPartitionsRequest { topics, response_partition_limit: page, cursor });
            let response = self.call(To::Any, DESCRIBE_TOPIC_PARTITIONS_VERSION, &request, |_| Ok(())).await?;
            for topic in response.topics {
                let name = topic.name.as_ref().map(ToString::to_string).unwrap_or_default();
                match found.get_mut(&name) {
                    Some(begun) => begun.partitions.extend(topic.partitions),
                    None => _ = found.insert(name, topic),
                }
            }
            match response.next_cursor {
                None => break,
                Some(next) => {
                    cursor = Some(make!(Cursor { topic_name: next.topic_name, partition_index: next.partition_index }));
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// Creates one topic.
    pub async fn create_topic(&mut self, topic: CreatableTopic) -> Result<(), AdminError> {
        let timeout_ms = self.timeout_ms();
        let request = make!(CreateTopicsRequest { topics: vec![topic], timeout_ms });
        self.call(To::Any, CREATE_TOPICS_VERSION, &request, |response| {
            first_failure(response.topics.iter().map(|topic| (topic.error_code, topic.error_message.as_ref())))
        })
        .await?;
        Ok(())
    }

    /// Adds partitions; the first topic that is refused is the error.
    pub async fn create_partitions(&mut self, topics: Vec<CreatePartitionsTopic>) -> Result<(), AdminError> {
        let timeout_ms = self.timeout_ms();
        let request = make!(CreatePartitionsRequest { topics, timeout_ms });
        self.call(To::Any, CREATE_PARTITIONS_VERSION, &request, |response| {
            first_failure(response.results.iter().map(|topic| (topic.error_code, topic.error_message.as_ref())))
        })
        .await?;
        Ok(())
    }

    /// Deletes topics by name; the first that is refused is the error.
    pub async fn delete_topics(&mut self, names: &[String]) -> Result<(), AdminError> {
        let timeout_ms = self.timeout_ms();
        let named = |name: &String| make!(DeleteTopicState { name: Some(name.as_str().into()) });
        let request = make!(DeleteTopicsRequest { topics: names.iter().map(named).collect(), timeout_ms });
        self.call(To::Any, DELETE_TOPICS_VERSION, &request, |response| {
            first_failure(response.responses.iter().map(|topic| (topic.error_code, topic.error_message.as_ref())))
        })
        .await?;
        Ok(())
    }
}

type Outcome<'a> = (i16, Option<&'a vltava_protocol::messages::StrBytes>);

/// The first item that did not succeed.
fn first_failure<'a>(mut outcomes: impl Iterator<Item = Outcome<'a>>) -> Result<(), ApiError> {
    outcomes.try_for_each(|(code, message)| ApiError::check(code, message))
}
