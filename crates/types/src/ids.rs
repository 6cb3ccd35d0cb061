//! 128-bit identities, printed as Kafka prints them: URL-safe base64 without padding, 22 characters.

use std::fmt;
use std::str::FromStr;

use crate::PartitionIndex;

/// A 128-bit identity in network byte order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The text is not 22 characters of URL-safe base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 22 characters of url-safe base64 are expected")]
pub struct ParseUuidError;

impl Uuid {
    /// All zero bits: "none" on the wire.
    pub const ZERO: Self = Self([0; 16]);

    /// A version 4 identity from 16 random bytes.
    #[must_use]
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Whether this is "none".
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0u8; 22];
        for (i, character) in text.iter_mut().enumerate() {
            // 21 full groups of six bits, then the last two bits padded to six.
            let group = if i < 21 { bits >> (122 - 6 * i) } else { bits << 4 };
            *character = ALPHABET[(group & 0x3f) as usize];
        }
        formatter.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let text = text.as_bytes();
        if text.len() != 22 {
            return Err(ParseUuidError);
        }
        let mut bits: u128 = 0;
        for (i, character) in text.iter().enumerate() {
            let group = ALPHABET.iter().position(|c| c == character).ok_or(ParseUuidError)? as u128;
            if i < 21 {
                bits = (bits << 6) | group;
            } else if group & 0x0f == 0 {
                bits = (bits << 2) | (group >> 4);
            } else {
                return Err(ParseUuidError);
            }
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

/// Declares an identity of one kind of thing.
macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// "None" on the wire.
            pub const ZERO: Self = Self(Uuid::ZERO);

            /// A fresh identity from 16 random bytes.
            #[must_use]
            pub const fn from_random(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_random(bytes))
            }

            /// Whether this is "none".
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.0.is_zero()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }
    };
}

identity! {
    /// A topic's identity, which a recreated topic of the same name does not share (KIP-516).
    TopicId
}

identity! {
    /// A log or metadata directory's identity, lost when the directory is wiped (KIP-853, KIP-858).
    DirectoryId
}

identity! {
    /// One run of a broker process; sent at registration.
    IncarnationId
}

/// A partition, by the identity of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic_id: TopicId,
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.topic_id, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::Uuid;

    #[test]
    fn text_and_bytes_round_trip() {
        for seed in 0..=255u8 {
            let uuid = Uuid(std::array::from_fn(|i| seed.wrapping_mul(31).wrapping_add(i as u8 * 17)));
            assert_eq!(uuid.to_string().parse(), Ok(uuid));
        }
    }

    #[test]
    fn zero_prints_as_kafka_prints_it() {
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
    }

    #[test]
    fn text_with_stray_low_bits_is_refused() {
        assert!("AAAAAAAAAAAAAAAAAAAAAB".parse::<Uuid>().is_err());
        assert!("short".parse::<Uuid>().is_err());
    }
}
