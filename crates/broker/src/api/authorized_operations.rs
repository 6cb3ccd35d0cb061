//! What a client may do with a resource, as answers tell it: bits of Kafka's `AclOperation`. Nothing is forbidden
//! without an authorizer.

/// Read, write, create, delete, alter, describe, describe configs, alter configs.
pub const ALL_TOPIC_OPERATIONS: i32 = 0b1101_1111_1000;
/// Create, alter, describe, cluster action, describe configs, alter configs, idempotent write.
pub const ALL_CLUSTER_OPERATIONS: i32 = 0b1_1111_1010_0000;
/// Read, delete, describe, describe configs, alter configs.
pub const ALL_GROUP_OPERATIONS: i32 = 0b1101_0100_1000;
