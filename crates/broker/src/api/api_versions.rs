//! ApiVersions: what this broker speaks. The one request whose client may not know yet what it may send.

use bytes::Bytes;
use vltava_protocol::frame;
use vltava_protocol::make;
use vltava_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use vltava_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use vltava_protocol::versions::ApiKey;
use vltava_types::ErrorCode;

use crate::api::{RequestContext, is_served};

pub async fn handle(context: &RequestContext<'_>, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let names_itself_properly =
        is_software_name(&request.client_software_name) && is_software_name(&request.client_software_version);
    if context.version >= 3 && !names_itself_properly {
        return make!(ApiVersionsResponse { error_code: ErrorCode::InvalidRequest.code() });
    }

    let api_keys = ApiKey::ALL.iter().copied().filter(|api| is_served(*api)).map(describe).collect();
    let mut response = make!(ApiVersionsResponse { api_keys });
    if context.version >= 3 {
        // A feature's levels start at 1 here. Below version 4 no feature with minimum 0 may be named (KAFKA-17492).
        let features = context.image.features.iter();
        response.supported_features = features
            .clone()
            .map(|(name, level)| {
                make!(SupportedFeatureKey { name: name.as_str().into(), min_version: 1, max_version: *level })
            })
            .collect();
        response.finalized_features = features
            .map(|(name, level)| {
                let name = name.as_str().into();
                make!(FinalizedFeatureKey { name, max_version_level: *level, min_version_level: *level })
            })
            .collect();
        response.finalized_features_epoch = context.image.offset.value();
    }
    response
}

/// The answer to a version above ours, in version 0, which every client reads: it names what to retry with (KIP-511).
pub fn too_new(correlation_id: i32) -> Bytes {
    let response = make!(ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![describe(ApiKey::ApiVersions)],
    });
    frame::encode_response(ApiKey::ApiVersions, 0, correlation_id, &response)
        .expect("an error code and one key fit version 0")
}

fn describe(api: ApiKey) -> ApiVersion {
    let versions = api.advertised_versions();
    make!(ApiVersion { api_key: api.code(), min_version: *versions.start(), max_version: *versions.end() })
}

/// Letters and digits, and between them also dots and dashes.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && bytes.iter().all(is_inner)
}
