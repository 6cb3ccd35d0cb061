//! Blocks of producer ids, which brokers hand out one by one (KIP-730).

use vltava_types::{BrokerEpoch, BrokerId, ErrorCode, ProducerId};

use super::brokers::check_broker_epoch;
use super::draft::error;
use super::{ControllerError, Decision, ProducerIdBlock};
use crate::image::ClusterImage;
use crate::record::MetadataRecord;

const BLOCK_LENGTH: i32 = 1000;

pub(super) fn allocate_producer_ids(
    image: &ClusterImage,
    broker_id: BrokerId,
    broker_epoch: BrokerEpoch,
) -> Decision<Result<ProducerIdBlock, ControllerError>> {
    if let Err(refused) = check_broker_epoch(image, broker_id, broker_epoch) {
        return Decision { records: vec![], response: Err(refused) };
    }
    let first = image.next_producer_id;
    let Some(next) = first.0.checked_add(i64::from(BLOCK_LENGTH)) else {
        let message = "Exhausted all producer ids.";
        return Decision { records: vec![], response: Err(error(ErrorCode::UnknownServerError, message)) };
    };
    let record = MetadataRecord::ProducerIds { broker_id, broker_epoch, next: ProducerId(next) };
    Decision { records: vec![record], response: Ok(ProducerIdBlock { first, length: BLOCK_LENGTH }) }
}
