//! Kafka's exceptions by error code: their names and what they say where the broker says nothing itself. Kafka's tools
//! print both.

use vltava_client::ApiError;
use vltava_types::ErrorCode;

/// Declares exceptions once; codes that no tool of ours meets are left out.
macro_rules! exceptions {
    ($($code:ident => $name:literal, $message:literal;)*) => {
        /// The class without its package, and the message.
        const fn exception(code: ErrorCode) -> (&'static str, &'static str) {
            match code {
                $(ErrorCode::$code => ($name, $message),)*
                _ => ("UnknownServerException", "The server experienced an unexpected error when processing the request."),
            }
        }
    };
}

/// What the exception says: the broker's own words if there are any.
pub fn message(error: &ApiError) -> String {
    match &error.message {
        Some(message) if !message.is_empty() => message.clone(),
        _ => exception(error.code).1.to_owned(),
    }
}

/// The exception's class.
pub fn class(error: &ApiError) -> String {
    format!("org.apache.kafka.common.errors.{}", exception(error.code).0)
}

/// The exception as Java prints it.
pub fn full(error: &ApiError) -> String {
    format!("{}: {}", class(error), message(error))
}

exceptions! {
    OffsetOutOfRange => "OffsetOutOfRangeException", "The requested offset is not within the range of offsets maintained by the server.";
    CorruptMessage => "CorruptRecordException", "This message has failed its CRC checksum, exceeds the valid size, has a null key for a compacted topic, or is otherwise corrupt.";
    UnknownTopicOrPartition => "UnknownTopicOrPartitionException", "This server does not host this topic-partition.";
    LeaderNotAvailable => "LeaderNotAvailableException", "There is no leader for this topic-partition as we are in the middle of a leadership election.";
    NotLeaderOrFollower => "NotLeaderOrFollowerException", "For requests intended only for the leader, this error indicates that the broker is not the current leader. For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition.";
    RequestTimedOut => "TimeoutException", "The request timed out.";
    BrokerNotAvailable => "BrokerNotAvailableException", "The broker is not available.";
    ReplicaNotAvailable => "ReplicaNotAvailableException", "The replica is not available for the requested topic-partition. Produce/Fetch requests and other requests intended only for the leader or follower return NOT_LEADER_OR_FOLLOWER if the broker is not a replica of the topic-partition.";
    MessageTooLarge => "RecordTooLargeException", "The request included a message larger than the max message size the server will accept.";
    StaleControllerEpoch => "ControllerMovedException", "The controller moved to another broker.";
    OffsetMetadataTooLarge => "OffsetMetadataTooLarge", "The metadata field of the offset request was too large.";
    NetworkException => "NetworkException", "The server disconnected before a response was received.";
    CoordinatorLoadInProgress => "CoordinatorLoadInProgressException", "The coordinator is loading and hence can't process requests.";
    CoordinatorNotAvailable => "CoordinatorNotAvailableException", "The coordinator is not available.";
    NotCoordinator => "NotCoordinatorException", "This is not the correct coordinator.";
    InvalidTopicException => "InvalidTopicException", "The request attempted to perform an operation on an invalid topic.";
    RecordListTooLarge => "RecordBatchTooLargeException", "The request included message batch larger than the configured segment size on the server.";
    NotEnoughReplicas => "NotEnoughReplicasException", "Messages are rejected since there are fewer in-sync replicas than required.";
    NotEnoughReplicasAfterAppend => "NotEnoughReplicasAfterAppendException", "Messages are written to the log, but to fewer in-sync replicas than required.";
    IllegalGeneration => "IllegalGenerationException", "Specified group generation id is not valid.";
    InvalidGroupId => "InvalidGroupIdException", "The group id is invalid.";
    UnknownMemberId => "UnknownMemberIdException", "The coordinator is not aware of this member.";
    RebalanceInProgress => "RebalanceInProgressException", "The group is rebalancing, so a rejoin is needed.";
    InvalidCommitOffsetSize => "InvalidCommitOffsetSizeException", "The committing offset data size is not valid.";
    TopicAuthorizationFailed => "TopicAuthorizationException", "Topic authorization failed.";
    GroupAuthorizationFailed => "GroupAuthorizationException", "Group authorization failed.";
    ClusterAuthorizationFailed => "ClusterAuthorizationException", "Cluster authorization failed.";
    InvalidTimestamp => "InvalidTimestampException", "The timestamp of the message is out of acceptable range.";
    UnsupportedVersion => "UnsupportedVersionException", "The version of API is not supported.";
    TopicAlreadyExists => "TopicExistsException", "Topic with this name already exists.";
    InvalidPartitions => "InvalidPartitionsException", "Number of partitions is below 1.";
    InvalidReplicationFactor => "InvalidReplicationFactorException", "Replication factor is below 1 or larger than the number of available brokers.";
    InvalidReplicaAssignment => "InvalidReplicaAssignmentException", "Replica assignment is invalid.";
    InvalidConfig => "InvalidConfigurationException", "Configuration is invalid.";
    NotController => "NotControllerException", "This is not the correct controller for this cluster.";
    InvalidRequest => "InvalidRequestException", "This most likely occurs because of a request being malformed by the client library or the message was sent to an incompatible broker. See the broker logs for more details.";
    UnsupportedForMessageFormat => "UnsupportedForMessageFormatException", "The message format version on the broker does not support the request.";
    PolicyViolation => "PolicyViolationException", "Request parameters do not satisfy the configured policy.";
    SecurityDisabled => "SecurityDisabledException", "Security features are disabled.";
    OperationNotAttempted => "OperationNotAttemptedException", "The broker did not attempt to execute this operation. This may happen for batched RPCs where some operations in the batch failed, causing the broker to respond without trying the rest.";
    KafkaStorageError => "KafkaStorageException", "Disk error when trying to access log file on the disk.";
    LogDirNotFound => "LogDirNotFoundException", "The user-specified log directory is not found in the broker config.";
    ReassignmentInProgress => "ReassignmentInProgressException", "A partition reassignment is in progress.";
    NonEmptyGroup => "GroupNotEmptyException", "The group is not empty.";
    GroupIdNotFound => "GroupIdNotFoundException", "The group id does not exist.";
    ListenerNotFound => "ListenerNotFoundException", "There is no listener on the leader broker that matches the listener on which metadata request was processed.";
    TopicDeletionDisabled => "TopicDeletionDisabledException", "Topic deletion is disabled.";
    FencedLeaderEpoch => "FencedLeaderEpochException", "The leader epoch in the request is older than the epoch on the broker.";
    UnknownLeaderEpoch => "UnknownLeaderEpochException", "The leader epoch in the request is newer than the epoch on the broker.";
    UnsupportedCompressionType => "UnsupportedCompressionTypeException", "The requesting client does not support the compression type of given partition.";
    StaleBrokerEpoch => "StaleBrokerEpochException", "Broker epoch has changed.";
    OffsetNotAvailable => "OffsetNotAvailableException", "The leader high watermark has not caught up from a recent leader election so the offsets cannot be guaranteed to be monotonically increasing.";
    MemberIdRequired => "MemberIdRequiredException", "The group member needs to have a valid member id before actually entering a consumer group.";
    PreferredLeaderNotAvailable => "PreferredLeaderNotAvailableException", "The preferred leader was not available.";
    GroupMaxSizeReached => "GroupMaxSizeReachedException", "The group has reached its maximum size.";
    EligibleLeadersNotAvailable => "EligibleLeadersNotAvailableException", "Eligible topic partition leaders are not available.";
    ElectionNotNeeded => "ElectionNotNeededException", "Leader election not needed for topic partition.";
    NoReassignmentInProgress => "NoReassignmentInProgressException", "No partition reassignment is in progress.";
    GroupSubscribedToTopic => "GroupSubscribedToTopicException", "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it.";
    ThrottlingQuotaExceeded => "ThrottlingQuotaExceededException", "The throttling quota has been exceeded.";
    ResourceNotFound => "ResourceNotFoundException", "A request illegally referred to a resource that does not exist.";
    DuplicateResource => "DuplicateResourceException", "A request illegally referred to the same resource twice.";
    UnknownTopicId => "UnknownTopicIdException", "This server does not host this topic ID.";
    DuplicateBrokerRegistration => "DuplicateBrokerRegistrationException", "This broker ID is already in use.";
    BrokerIdNotRegistered => "BrokerIdNotRegisteredException", "The given broker ID was not registered.";
    InconsistentTopicId => "InconsistentTopicIdException", "The log's topic ID did not match the topic ID in the request.";
    InconsistentClusterId => "InconsistentClusterIdException", "The clusterId in the request does not match that found on the server.";
    IneligibleReplica => "IneligibleReplicaException", "The new ISR contains at least one ineligible replica.";
    NewLeaderElected => "NewLeaderElectedException", "The AlterPartition request successfully updated the partition state but the leader has changed.";
    MismatchedEndpointType => "MismatchedEndpointTypeException", "The request was sent to an endpoint of the wrong type.";
    UnsupportedEndpointType => "UnsupportedEndpointTypeException", "This endpoint type is not supported yet.";
    UnknownControllerId => "UnknownControllerIdException", "This controller ID is not known.";
    InvalidRegistration => "InvalidRegistrationException", "The controller has considered the broker registration to be invalid.";
    InvalidRegularExpression => "InvalidRegularExpression", "The regular expression is not valid.";
}
