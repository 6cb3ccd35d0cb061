//! The group coordinators of this broker: one shard for each partition of `__consumer_offsets` that it leads.
//!
//! [`GroupCoordinators`] follows the images that the replica manager has applied, starts a shard where leadership
//! begins and ends it where leadership does, and takes requests to the shard that holds their group. A shard
//! ([`shard`]) lives for one leader epoch: whatever happened under another leader in between is read from the log
//! again.

pub(crate) mod log;
mod shard;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use vltava_coordinator::group::{
    Caller, CommittedOffsets, GroupConfig, GroupCoordinator, GroupEvent, GroupResponse, TopicExists,
};
use vltava_coordinator::{Outcome, Token, partition_for};
use vltava_host::{random, task};
use vltava_metadata::{ClusterImage, TopicImage};
use vltava_protocol::messages::delete_groups_response::DeletableGroupResult;
use vltava_protocol::messages::describe_groups_response::DescribedGroup;
use vltava_protocol::messages::list_groups_response::ListedGroup;
use vltava_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use vltava_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use vltava_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use vltava_types::{BrokerId, ErrorCode, LeaderEpoch, PartitionIndex, TopicId, TopicPartition, Uuid};

use crate::config::{BrokerConfig, GroupSettings};
use crate::replica_manager::ReplicaManager;
use crate::topic_creation::CONSUMER_OFFSETS_TOPIC;
use shard::{Asker, Shard, ShardOptions};

/// All groups whose coordinator is this broker.
pub struct GroupCoordinators {
    node_id: BrokerId,
    config: GroupConfig,
    options: ShardOptions,
    shards: Mutex<Shards>,
}

/// The shards as of one image.
#[derive(Default)]
struct Shards {
    /// How many partitions the offsets topic has; 0 while there is none.
    partition_count: i32,
    running: BTreeMap<PartitionIndex, (TopicId, Shard<GroupCoordinator>)>,
}

/// Takes the answer of one kind out of a shard's; another kind would be our own mistake.
macro_rules! expect_response {
    ($outcome:expr, $kind:ident) => {
        $outcome.map(|response| match response {
            GroupResponse::$kind(response) => response,
            other => unreachable!("a request of one kind was answered with another: {other:?}"),
        })
    };
}

impl GroupCoordinators {
    /// Starts to follow the replica manager's images. Ends with it.
    #[must_use]
    pub fn start(config: &BrokerConfig, replicas: &Arc<ReplicaManager>) -> Arc<Self> {
        let options = ShardOptions {
            commit_timeout: config.groups.offsets_commit_timeout,
            load_buffer_bytes: config.groups.offsets_load_buffer_bytes,
        };
        let coordinators = Arc::new(Self {
            node_id: config.node_id,
            config: group_config(&config.groups),
            options,
            shards: Mutex::default(),
        });
        task::spawn(follow(Arc::downgrade(&coordinators), Arc::downgrade(replicas), replicas.applied_images()));
        coordinators
    }

    pub async fn join_group(&self, caller: Caller, request: JoinGroupRequest) -> Outcome<JoinGroupResponse> {
        let new_member = Uuid::from_random(random::bytes());
        let shard = self.shard_of(&request.group_id)?;
        let event = move |token| GroupEvent::JoinGroup { token, caller, request, new_member };
        expect_response!(shard.ask(event).await, JoinGroup)
    }

    pub async fn sync_group(&self, request: SyncGroupRequest) -> Outcome<SyncGroupResponse> {
        let shard = self.shard_of(&request.group_id)?;
        expect_response!(shard.ask(move |token| GroupEvent::SyncGroup { token, request }).await, SyncGroup)
    }

    pub async fn heartbeat(&self, request: HeartbeatRequest) -> Outcome<HeartbeatResponse> {
        let shard = self.shard_of(&request.group_id)?;
        // A broker that is cut off for a while and goes on to coordinate must not have expired its members meanwhile.
        let event = move |token| GroupEvent::Heartbeat { token, request };
        expect_response!(shard.ask_even_if_replaced(event).await, Heartbeat)
    }

    pub async fn leave_group(&self, request: LeaveGroupRequest) -> Outcome<LeaveGroupResponse> {
        let shard = self.shard_of(&request.group_id)?;
        expect_response!(shard.ask(move |token| GroupEvent::LeaveGroup { token, request }).await, LeaveGroup)
    }

    /// Topics must exist and carry both name and id.
    pub async fn offset_commit(&self, caller: Caller, request: OffsetCommitRequest) -> Outcome<OffsetCommitResponse> {
        let shard = self.shard_of(&request.group_id)?;
        let event = move |token| GroupEvent::OffsetCommit { token, caller, request };
        expect_response!(shard.ask(event).await, OffsetCommit)
    }

    /// Topics must carry their names.
    pub async fn offset_fetch(&self, request: OffsetFetchRequestGroup) -> Outcome<OffsetFetchResponseGroup> {
        let shard = self.shard_of(&request.group_id)?;
        expect_response!(shard.ask(move |token| GroupEvent::OffsetFetch { token, request }).await, OffsetFetch)
    }

    pub async fn offset_delete(&self, request: OffsetDeleteRequest) -> Outcome<OffsetDeleteResponse> {
        let shard = self.shard_of(&request.group_id)?;
        expect_response!(shard.ask(move |token| GroupEvent::OffsetDelete { token, request }).await, OffsetDelete)
    }

    /// Groups by the partition that holds them; each part has an outcome of its own.
    pub async fn describe_groups(
        &self,
        version: i16,
        group_ids: Vec<String>,
    ) -> Vec<(Vec<String>, Outcome<Vec<DescribedGroup>>)> {
        let event = move |token, group_ids| GroupEvent::DescribeGroups { token, version, group_ids };
        let outcomes = self.ask_each(group_ids, event).await;
        outcomes.into_iter().map(|(ids, outcome)| (ids, expect_response!(outcome, DescribeGroups))).collect()
    }

    /// As [`GroupCoordinators::describe_groups`].
    pub async fn delete_groups(
        &self,
        group_ids: Vec<String>,
    ) -> Vec<(Vec<String>, Outcome<Vec<DeletableGroupResult>>)> {
        let event = |token, group_ids| GroupEvent::DeleteGroups { token, group_ids };
        let outcomes = self.ask_each(group_ids, event).await;
        outcomes.into_iter().map(|(ids, outcome)| (ids, expect_response!(outcome, DeleteGroups))).collect()
    }

    /// All groups here; an error if some cannot be told yet.
    pub async fn list_groups(
        &self,
        states_filter: Vec<String>,
        types_filter: Vec<String>,
    ) -> Outcome<Vec<ListedGroup>> {
        let askers: Vec<Asker<GroupCoordinator>> = {
            let shards = self.shards.lock();
            shards.running.values().map(|(_, shard)| shard.asker()).collect()
        };
        let asked = askers.into_iter().map(|asker| {
            let (states_filter, types_filter) = (states_filter.clone(), types_filter.clone());
            asker.ask_even_if_replaced(move |token| GroupEvent::ListGroups { token, states_filter, types_filter })
        });
        let mut groups = Vec::new();
        for outcome in join_all(asked).await {
            match expect_response!(outcome, ListGroups) {
                Ok(listed) => groups.extend(listed),
                // It has moved to another broker, which the client asks as well.
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(groups)
    }

    /// What is committed to the groups here, up to so many offsets. Groups that are being loaded are left out.
    pub async fn committed_offsets(&self, limit: usize) -> CommittedOffsets {
        let askers: Vec<Asker<GroupCoordinator>> = {
            let shards = self.shards.lock();
            shards.running.values().map(|(_, shard)| shard.asker()).collect()
        };
        let mut committed = CommittedOffsets::default();
        for asker in askers {
            let limit = limit - committed.offsets.len();
            let outcome = asker.ask(move |token| GroupEvent::CommittedOffsets { token, limit }).await;
            if let Ok(told) = expect_response!(outcome, CommittedOffsets) {
                committed.offsets.extend(told.offsets);
                committed.untold += told.untold;
            }
        }
        committed
    }

    async fn ask_each(
        &self,
        group_ids: Vec<String>,
        event: impl Fn(Token, Vec<String>) -> GroupEvent + Clone + Send + 'static,
    ) -> Vec<(Vec<String>, Outcome<GroupResponse>)> {
        let mut by_partition: BTreeMap<Option<PartitionIndex>, Vec<String>> = BTreeMap::new();
        let partition_count = self.shards.lock().partition_count;
        for group_id in group_ids {
            let partition = (partition_count > 0).then(|| partition_for(&group_id, partition_count));
            by_partition.entry(partition).or_default().push(group_id);
        }
        let asked = by_partition.into_values().map(|group_ids| {
            let event = event.clone();
            let shard = self.shard_of(&group_ids[0]);
            async move {
                let asked_ids = group_ids.clone();
                let outcome = match shard {
                    Ok(shard) => shard.ask(move |token| event(token, asked_ids)).await,
                    Err(error) => Err(error),
                };
                (group_ids, outcome)
            }
        });
        join_all(asked).await
    }

    /// The shard that holds a group, if it is here.
    fn shard_of(&self, group_id: &str) -> Result<Asker<GroupCoordinator>, ErrorCode> {
        let shards = self.shards.lock();
        if shards.partition_count == 0 {
            return Err(ErrorCode::NotCoordinator);
        }
        let partition = partition_for(group_id, shards.partition_count);
        let (_, shard) = shards.running.get(&partition).ok_or(ErrorCode::NotCoordinator)?;
        Ok(shard.asker())
    }

    /// Starts and ends shards so that they are those of the image.
    fn apply(&self, image: &Arc<ClusterImage>, replicas: &ReplicaManager) {
        let topic = image.topic_by_name(CONSUMER_OFFSETS_TOPIC);
        let mut shards = self.shards.lock();
        shards.partition_count = topic.map_or(0, |topic| {
            i32::try_from(topic.partitions.len()).expect("a topic has fewer than two thousand million partitions")
        });
        let led = topic.map(|topic| self.led_partitions(topic)).unwrap_or_default();
        // A change of epoch may hide that somebody else led meanwhile, so a shard never outlives its epoch.
        shards.running.retain(|partition, (topic_id, shard)| {
            let is_same_topic = topic.is_some_and(|topic| topic.topic_id == *topic_id);
            is_same_topic && led.get(partition) == Some(&shard.leader_epoch) && !shard.has_ended()
        });
        let Some(topic) = topic else { return };
        for (partition, leader_epoch) in led {
            if shards.running.contains_key(&partition) {
                continue;
            }
            let id = TopicPartition { topic_id: topic.topic_id, partition };
            let Some(log) = replicas.partition(id) else {
                // Its log directory is offline, say; the controller will find another leader.
                tracing::warn!(%partition, "the group coordinator's partition is led here but not hosted");
                continue;
            };
            let coordinator = GroupCoordinator::new(self.config.clone());
            let shard = Shard::start(coordinator, log, leader_epoch, self.options);
            // Topics may have been deleted while nobody coordinated.
            tell_of_topics(&shard, image);
            shards.running.insert(partition, (topic.topic_id, shard));
        }
    }

    fn led_partitions(&self, topic: &TopicImage) -> BTreeMap<PartitionIndex, LeaderEpoch> {
        let led = (0..).zip(&topic.partitions).filter(|(_, partition)| partition.leader == Some(self.node_id));
        led.map(|(index, partition)| (PartitionIndex(index), partition.leader_epoch)).collect()
    }

    /// Has every shard drop the offsets of topics that the image no longer has.
    fn forget_deleted_topics(&self, image: &Arc<ClusterImage>) {
        for (_, shard) in self.shards.lock().running.values() {
            tell_of_topics(shard, image);
        }
    }
}

/// Holds on to neither, so that both can end.
async fn follow(
    coordinators: Weak<GroupCoordinators>,
    replicas: Weak<ReplicaManager>,
    mut images: watch::Receiver<Arc<ClusterImage>>,
) {
    let mut previous: Option<Arc<ClusterImage>> = None;
    loop {
        let image = Arc::clone(&images.borrow_and_update());
        let (Some(coordinators), Some(replicas)) = (coordinators.upgrade(), replicas.upgrade()) else { return };
        coordinators.apply(&image, &replicas);
        if previous.as_ref().is_some_and(|previous| has_lost_topics(previous, &image)) {
            coordinators.forget_deleted_topics(&image);
        }
        previous = Some(image);
        drop((coordinators, replicas));
        if images.changed().await.is_err() {
            return;
        }
    }
}

/// Never waits for the shard: one that loads takes no news, and must still be ended when leadership is.
fn tell_of_topics(shard: &Shard<GroupCoordinator>, image: &Arc<ClusterImage>) {
    let asker = shard.asker();
    let exists = topic_exists(image);
    task::spawn(async move { asker.tell(GroupEvent::TopicsDeleted { exists }).await });
}

fn has_lost_topics(previous: &ClusterImage, image: &ClusterImage) -> bool {
    !Arc::ptr_eq(&previous.topic_ids, &image.topic_ids)
        && previous.topic_ids.values().any(|topic_id| image.topic(*topic_id).is_none())
}

/// By id where one is known; offsets that Kafka stored before 4.1 name their topic only.
fn topic_exists(image: &Arc<ClusterImage>) -> TopicExists {
    let image = Arc::clone(image);
    Arc::new(
        move |name, topic_id| {
            if topic_id.is_zero() { image.topic_id(name).is_some() } else { image.topic(topic_id).is_some() }
        },
    )
}

fn group_config(settings: &GroupSettings) -> GroupConfig {
    let millis = |duration: std::time::Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
    GroupConfig {
        min_session_timeout_ms: millis(settings.min_session_timeout),
        max_session_timeout_ms: millis(settings.max_session_timeout),
        initial_rebalance_delay_ms: millis(settings.initial_rebalance_delay),
        max_size: settings.max_size,
        offset_metadata_max_bytes: settings.offset_metadata_max_bytes,
        offsets_retention_ms: i64::try_from(settings.offsets_retention.as_millis()).unwrap_or(i64::MAX),
        offsets_retention_check_interval_ms: u64::try_from(settings.offsets_retention_check_interval.as_millis())
            .unwrap_or(u64::MAX),
    }
}
