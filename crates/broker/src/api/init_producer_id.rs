//! InitProducerId: identities for idempotent producers.

use vltava_protocol::make;
use vltava_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use vltava_types::{ErrorCode, ProducerEpoch, ProducerId};

use crate::api::RequestContext;

pub async fn handle(context: &RequestContext<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let (error, producer_id, epoch) = match initialize(context, &request).await {
        Ok(producer_id) => (ErrorCode::None, producer_id, ProducerEpoch(0)),
        Err(error) => (error, ProducerId::NONE, ProducerEpoch::NONE),
    };
    make!(InitProducerIdResponse {
        error_code: error.code(),
        producer_id: producer_id.value(),
        producer_epoch: epoch.value(),
    })
}

async fn initialize(context: &RequestContext<'_>, request: &InitProducerIdRequest) -> Result<ProducerId, ErrorCode> {
    let has_id = request.producer_id != ProducerId::NONE.value();
    let has_epoch = request.producer_epoch != ProducerEpoch::NONE.value();
    match &request.transactional_id {
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        // There are no transactions yet. Clients take this as final, where other codes would make them try for ever.
        Some(_) => Err(ErrorCode::TransactionalIdAuthorizationFailed),
        None if has_id != has_epoch => Err(ErrorCode::InvalidRequest),
        // A producer without transactions that lost its place simply begins anew (KIP-360).
        None => context.broker.producer_ids.next(context.broker).await,
    }
}
