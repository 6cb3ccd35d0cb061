//! UnregisterBroker: forgets a broker that will not come back.

use tokio::time::Instant;
use vltava_metadata::controller::{ControllerRequest, ControllerResponse};
use vltava_protocol::make;
use vltava_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use vltava_types::{BrokerId, ErrorCode};

use crate::api::RequestContext;
use crate::api::refused::{mismatched, told, unanswered};

pub async fn handle(context: &RequestContext<'_>, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let deadline = Instant::now() + context.broker.config.network.request_timeout;
    let asked = ControllerRequest::UnregisterBroker { broker_id: BrokerId(request.broker_id) };
    let outcome = match context.broker.controller.call(asked, deadline).await {
        Ok(ControllerResponse::UnregisterBroker(outcome)) => outcome,
        Ok(other) => Err(mismatched(&other)),
        Err(_unavailable) => Err(unanswered(ErrorCode::RequestTimedOut)),
    };
    let (error_code, error_message) = told(&outcome);
    make!(UnregisterBrokerResponse { error_code, error_message })
}
