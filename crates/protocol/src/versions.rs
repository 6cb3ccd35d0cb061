//! The table of APIs that this broker speaks, at the version ranges of Kafka 4.3.
//!
//! Only what is built stands here: an API that is missing is not advertised, and its requests are refused. Keys 4 to 7
//! are gone from Kafka 4. Client telemetry (71, 72) is left out so that clients stay quiet.

use std::ops::RangeInclusive;

/// Declares each API once: key, accepted versions, first flexible version.
macro_rules! apis {
    ($($name:ident = $key:literal, $min:literal..=$max:literal, flexible from $flexible:expr;)*) => {
        /// An API that this broker speaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $($name = $key,)*
        }

        impl ApiKey {
            /// Every API of this broker, in order of key.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The API of this number, if this broker speaks it.
            #[must_use]
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name of the API.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The versions that are served.
            #[must_use]
            pub const fn accepted_versions(self) -> RangeInclusive<i16> {
                match self {
                    $(Self::$name => $min..=$max,)*
                }
            }

            /// The first version with compact lengths and tagged fields; `i16::MAX` where there is none.
            const fn first_flexible_version(self) -> i16 {
                match self {
                    $(Self::$name => $flexible,)*
                }
            }
        }
    };
}

const NEVER: i16 = i16::MAX;

apis! {
    Produce = 0, 3..=13, flexible from 9;
    Fetch = 1, 4..=18, flexible from 12;
    ListOffsets = 2, 1..=11, flexible from 6;
    Metadata = 3, 0..=13, flexible from 9;
    OffsetCommit = 8, 2..=10, flexible from 8;
    OffsetFetch = 9, 1..=10, flexible from 6;
    FindCoordinator = 10, 0..=6, flexible from 3;
    JoinGroup = 11, 0..=9, flexible from 6;
    Heartbeat = 12, 0..=4, flexible from 4;
    LeaveGroup = 13, 0..=5, flexible from 4;
    SyncGroup = 14, 0..=5, flexible from 4;
    DescribeGroups = 15, 0..=6, flexible from 5;
    ListGroups = 16, 0..=5, flexible from 3;
    ApiVersions = 18, 0..=4, flexible from 3;
    CreateTopics = 19, 2..=7, flexible from 5;
    DeleteTopics = 20, 1..=6, flexible from 4;
    DeleteRecords = 21, 0..=2, flexible from 2;
    // Version 6 (KIP-939) is unstable in 4.3 and hidden there too.
    InitProducerId = 22, 0..=5, flexible from 2;
    OffsetForLeaderEpoch = 23, 2..=4, flexible from 4;
    DescribeConfigs = 32, 1..=4, flexible from 4;
    AlterConfigs = 33, 0..=2, flexible from 2;
    AlterReplicaLogDirs = 34, 1..=2, flexible from 2;
    DescribeLogDirs = 35, 1..=5, flexible from 2;
    CreatePartitions = 37, 0..=3, flexible from 2;
    DeleteGroups = 42, 0..=2, flexible from 2;
    ElectLeaders = 43, 0..=2, flexible from 2;
    IncrementalAlterConfigs = 44, 0..=1, flexible from 1;
    AlterPartitionReassignments = 45, 0..=1, flexible from 0;
    ListPartitionReassignments = 46, 0..=0, flexible from 0;
    OffsetDelete = 47, 0..=0, flexible from NEVER;
    DescribeQuorum = 55, 0..=2, flexible from 0;
    DescribeCluster = 60, 0..=2, flexible from 0;
    DescribeProducers = 61, 0..=0, flexible from 0;
    UnregisterBroker = 64, 0..=0, flexible from 0;
    ListConfigResources = 74, 0..=1, flexible from 0;
    DescribeTopicPartitions = 75, 0..=0, flexible from 0;
}

impl ApiKey {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether requests of this version are served.
    #[must_use]
    pub const fn accepts(self, version: i16) -> bool {
        let versions = self.accepted_versions();
        *versions.start() <= version && version <= *versions.end()
    }

    /// The versions named in ApiVersions. Produce is named from 0 although 0 to 2 are refused: librdkafka up to 2.11.0
    /// silently drops gzip where it cannot see version 0 (KAFKA-18659).
    #[must_use]
    pub const fn advertised_versions(self) -> RangeInclusive<i16> {
        match self {
            Self::Produce => 0..=*self.accepted_versions().end(),
            _ => self.accepted_versions(),
        }
    }

    /// Whether this version uses compact lengths and tagged fields.
    #[must_use]
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.first_flexible_version()
    }

    /// The version of the request header before a request of `version`.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the response header. ApiVersions always answers with version 0, because the client does not know
    /// yet what the broker speaks (KIP-511).
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            Self::ApiVersions => 0,
            _ => self.is_flexible(version) as i16,
        }
    }
}
