//! The generated messages, and how our ids and theirs convert.
//!
//! Generated structs are `#[non_exhaustive]`: build them with [`make!`](crate::make). Encoding refuses a value with a
//! non-default field that the response's version does not know (unless Kafka's schema calls the field ignorable), so a
//! handler must leave such fields alone for older clients.

pub use kafka_wire::*;
pub use kafka_wire_core::{
    ApiVersion, DecodeError, DecodeLimits, Decoder, EncodeError, KafkaDecode, KafkaEncode, StrBytes, TaggedFields, Uuid,
};

use vltava_types::{DirectoryId, TopicId};

/// Builds a generated message: the named fields set, all others at their protocol defaults.
///
/// ```
/// use vltava_protocol::make;
/// use vltava_protocol::messages::HeartbeatResponse;
///
/// let error_code = 27;
/// let response = make!(HeartbeatResponse { throttle_time_ms: 0, error_code });
/// assert_eq!(response.error_code, 27);
/// ```
#[macro_export]
macro_rules! make {
    ($type:path { $($field:ident $(: $value:expr)?),* $(,)? }) => {{
        #[allow(unused_mut)]
        let mut message = <$type as ::core::default::Default>::default();
        $(message.$field = $crate::make!(@value $field $(: $value)?);)*
        message
    }};
    (@value $field:ident : $value:expr) => { $value };
    (@value $field:ident) => { $field };
}

/// An identity of ours that travels as sixteen bytes.
pub trait WireId: Sized {
    fn to_wire(self) -> Uuid;
    fn from_wire(uuid: Uuid) -> Self;
}

impl WireId for vltava_types::Uuid {
    fn to_wire(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }

    fn from_wire(uuid: Uuid) -> Self {
        Self(uuid.to_bytes())
    }
}

impl WireId for TopicId {
    fn to_wire(self) -> Uuid {
        self.0.to_wire()
    }

    fn from_wire(uuid: Uuid) -> Self {
        Self(vltava_types::Uuid::from_wire(uuid))
    }
}

impl WireId for DirectoryId {
    fn to_wire(self) -> Uuid {
        self.0.to_wire()
    }

    fn from_wire(uuid: Uuid) -> Self {
        Self(vltava_types::Uuid::from_wire(uuid))
    }
}
