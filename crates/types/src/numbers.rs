//! Numbers of Kafka's and Raft's that must never be mixed up.

use std::fmt;

/// Declares a number type: `Name(repr)`, ordered, hashable, printed as the bare number.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            /// The bare number, for the wire and for files.
            pub const fn value(self) -> $repr {
                self.0
            }
        }

        impl From<$repr> for $name {
            fn from(value: $repr) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

number! {
    /// A position in a partition's log. The first record of a partition has offset 0.
    Offset(i64)
}

number! {
    /// The number of a partition's leadership: raised by the controller at each election (KIP-101).
    LeaderEpoch(i32)
}

number! {
    /// Counts the controller's changes to one partition; the compare-and-set key of AlterPartition (KIP-497).
    PartitionEpoch(i32)
}

number! {
    /// `node.id` of a broker or controller.
    BrokerId(i32)
}

number! {
    /// Given out by the controller at each registration of a broker, strictly increasing (KIP-841, KIP-903).
    BrokerEpoch(i64)
}

number! {
    /// The index of a partition within its topic, from 0.
    PartitionIndex(i32)
}

number! {
    /// An idempotent or transactional producer (KIP-98).
    ProducerId(i64)
}

number! {
    /// The incarnation of a producer id; an older one is fenced (KIP-98).
    ProducerEpoch(i16)
}

number! {
    /// The sequence number of a producer's record within one partition; wraps from `i32::MAX` to 0.
    Sequence(i32)
}

number! {
    /// An index into the metadata log (Raft's log index); an image is the result of replaying up to one.
    MetadataOffset(i64)
}

number! {
    /// Milliseconds since the Unix epoch.
    TimestampMs(i64)
}

impl Offset {
    /// The offset `count` records further on.
    #[must_use]
    pub const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }
}

impl LeaderEpoch {
    /// "No leader epoch known" on the wire.
    pub const NONE: Self = Self(-1);
}

impl BrokerId {
    /// "No broker" on the wire, as for a partition without a leader.
    pub const NONE: Self = Self(-1);
}

impl BrokerEpoch {
    /// "Not registered", or an unclean shutdown when reported as the previous epoch.
    pub const NONE: Self = Self(-1);
}

impl ProducerId {
    /// A record batch that was not written by an idempotent producer.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// Goes with [`ProducerId::NONE`].
    pub const NONE: Self = Self(-1);
}

impl Sequence {
    /// Goes with [`ProducerId::NONE`].
    pub const NONE: Self = Self(-1);

    /// The sequence `count` records further on, wrapping from `i32::MAX` to 0 (KIP-98).
    #[must_use]
    pub const fn plus(self, count: i32) -> Self {
        if self.0 > i32::MAX - count { Self(count - (i32::MAX - self.0) - 1) } else { Self(self.0 + count) }
    }
}

impl TimestampMs {
    /// "No timestamp" on the wire.
    pub const NONE: Self = Self(-1);
}

#[cfg(test)]
mod tests {
    use super::Sequence;

    #[test]
    fn sequence_wraps_to_zero_after_the_largest() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).plus(3), Sequence(1));
        assert_eq!(Sequence(5).plus(3), Sequence(8));
    }
}
