//! Answers to requests that Kafka knows and this broker does not serve yet.
//!
//! They are not advertised, so a client that negotiates never sends them. One that sends them all the same is told
//! Kafka's error code where the response has a place for one; otherwise its connection is closed, as Kafka does with
//! APIs that are switched off.

use bytes::{Bytes, BytesMut};
use kafka_wire_core::{ApiVersion, EncodeError, Encoder, KafkaEncode};
use vltava_types::ErrorCode;

use crate::messages::*;

/// Key, response, and what Kafka answers where the feature is off.
macro_rules! refusals {
    ($($key:literal $response:ident $error:ident;)*) => {
        /// The frame that refuses a request of this key and version, if there is one.
        #[must_use]
        pub fn refuse(api_key: i16, version: i16, correlation_id: i32) -> Option<Bytes> {
            let version = ApiVersion::new(version);
            match api_key {
                $($key if $response::supports(version) => {
                    let mut response = $response::default();
                    response.error_code = ErrorCode::$error.code();
                    encode(version, correlation_id, &response).ok()
                })*
                _ => None,
            }
        }
    };
}

refusals! {
    17 SaslHandshakeResponse IllegalSaslState;
    25 AddOffsetsToTxnResponse UnsupportedVersion;
    26 EndTxnResponse UnsupportedVersion;
    29 DescribeAclsResponse SecurityDisabled;
    36 SaslAuthenticateResponse IllegalSaslState;
    38 CreateDelegationTokenResponse DelegationTokenAuthDisabled;
    39 RenewDelegationTokenResponse DelegationTokenAuthDisabled;
    40 ExpireDelegationTokenResponse DelegationTokenAuthDisabled;
    41 DescribeDelegationTokenResponse DelegationTokenAuthDisabled;
    48 DescribeClientQuotasResponse UnsupportedVersion;
    50 DescribeUserScramCredentialsResponse UnsupportedVersion;
    57 UpdateFeaturesResponse UnsupportedVersion;
    66 ListTransactionsResponse UnsupportedVersion;
    68 ConsumerGroupHeartbeatResponse UnsupportedVersion;
    71 GetTelemetrySubscriptionsResponse UnsupportedVersion;
    72 PushTelemetryResponse UnsupportedVersion;
    76 ShareGroupHeartbeatResponse UnsupportedVersion;
    78 ShareFetchResponse UnsupportedVersion;
    79 ShareAcknowledgeResponse UnsupportedVersion;
    80 AddRaftVoterResponse UnsupportedVersion;
    81 RemoveRaftVoterResponse UnsupportedVersion;
    88 StreamsGroupHeartbeatResponse UnsupportedVersion;
}

fn encode<R: KafkaResponse>(version: ApiVersion, correlation_id: i32, response: &R) -> Result<Bytes, EncodeError> {
    let mut header = ResponseHeader::default();
    header.correlation_id = correlation_id;
    let header_version = ApiVersion::new(i16::from(R::is_flexible(version)));
    let length = header.encoded_len(header_version)? + response.encoded_len(version)?;
    let prefix = i32::try_from(length).map_err(|_| EncodeError::FrameTooLarge { bytes: length })?;
    let mut buffer = BytesMut::with_capacity(4 + length);
    buffer.extend_from_slice(&prefix.to_be_bytes());
    let mut encoder = Encoder::new(&mut buffer);
    header.encode(&mut encoder, header_version)?;
    response.encode(&mut encoder, version)?;
    Ok(buffer.freeze())
}

#[cfg(test)]
mod tests {
    use super::refuse;
    use crate::versions::ApiKey;

    #[test]
    fn what_is_served_is_not_refused_and_what_is_refused_can_be_encoded() {
        let mut refused = 0;
        for key in -1..100 {
            for version in 0..10 {
                let frame = refuse(key, version, 5);
                assert!(frame.is_none() || ApiKey::from_code(key).is_none(), "{key} is served");
                refused += usize::from(frame.is_some());
            }
        }
        assert!(refused > 22, "each of them has a version that can be told");
    }

    #[test]
    fn a_consumer_of_the_newer_protocol_is_told() {
        let frame = refuse(68, 0, 5).expect("an answer");
        // Length, correlation id, tagged fields, throttle time, error code.
        assert_eq!(frame[4..15], [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 35]);
    }
}
