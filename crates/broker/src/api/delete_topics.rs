//! DeleteTopics: by name, and since version 6 by name or id.

use std::collections::BTreeSet;

use tokio::time::Instant;
use vltava_metadata::ClusterImage;
use vltava_metadata::controller::{
    ControllerError, ControllerRequest, ControllerResponse, DeletedTopics, TopicSelector,
};
use vltava_protocol::make;
use vltava_protocol::messages::delete_topics_response::DeletableTopicResult;
use vltava_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, WireId as _};
use vltava_types::{ErrorCode, TopicId};

use crate::api::RequestContext;
use crate::api::refused::{mismatched, refuse, timeout, told, unanswered};

pub async fn handle(context: &RequestContext<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let deadline = Instant::now() + timeout(request.timeout_ms);
    let mut results = vec![];
    let mut wanted = vec![];
    let mut seen = BTreeSet::new();
    for (name, topic_id) in selections(&request) {
        match select(context, name.as_deref(), topic_id, &mut seen) {
            Ok(selector) => wanted.push(selector),
            Err(refused) => results.push(describe::<()>(context, name.as_deref(), topic_id, &Err(refused))),
        }
    }
    if wanted.is_empty() {
        return make!(DeleteTopicsResponse { responses: results });
    }

    let asked = ControllerRequest::DeleteTopics { topics: wanted.clone() };
    let outcomes: DeletedTopics = match context.broker.controller.call(asked, deadline).await {
        Ok(ControllerResponse::DeleteTopics(deleted)) => deleted,
        Ok(other) => {
            let failure = mismatched(&other);
            wanted.into_iter().map(|selector| (selector, Err(failure.clone()))).collect()
        }
        Err(_unavailable) => {
            let failure = unanswered(ErrorCode::RequestTimedOut);
            wanted.into_iter().map(|selector| (selector, Err(failure.clone()))).collect()
        }
    };
    let deleted: Vec<TopicId> = outcomes.iter().filter_map(|(_, outcome)| Some(outcome.as_ref().ok()?.0)).collect();
    let is_gone = |image: &ClusterImage| deleted.iter().all(|id| image.topic(*id).is_none());
    context.broker.wait_for_image(deadline, is_gone).await;

    results.extend(outcomes.iter().map(|(selector, outcome)| match (outcome, selector) {
        (Ok((topic_id, name)), _) => describe(context, Some(name), *topic_id, outcome),
        (Err(_), TopicSelector::Name(name)) => describe(context, Some(name), TopicId::ZERO, outcome),
        (Err(_), TopicSelector::Id(topic_id)) => describe(context, None, *topic_id, outcome),
    }));
    make!(DeleteTopicsResponse { responses: results })
}

/// Name and id of each topic, as given.
fn selections(request: &DeleteTopicsRequest) -> Vec<(Option<String>, TopicId)> {
    let named = request.topic_names.iter().map(|name| (Some(name.to_string()), TopicId::ZERO));
    let selected = request.topics.iter().map(|topic| {
        let name = topic.name.as_ref().map(ToString::to_string);
        (name, TopicId::from_wire(topic.topic_id))
    });
    named.chain(selected).collect()
}

/// Says which topic is meant, each only once.
fn select(
    context: &RequestContext<'_>,
    name: Option<&str>,
    topic_id: TopicId,
    seen: &mut BTreeSet<TopicId>,
) -> Result<TopicSelector, ControllerError> {
    if !context.broker.config.topics.delete_enabled {
        let code = if context.version < 3 { ErrorCode::InvalidRequest } else { ErrorCode::TopicDeletionDisabled };
        return Err(refuse(code, "Topic deletion is disabled."));
    }
    let (selector, known_id) = match (name, topic_id.is_zero()) {
        (Some(_), false) => {
            return Err(refuse(ErrorCode::InvalidRequest, "You may not specify both topic name and topic id."));
        }
        (None, true) => {
            return Err(refuse(ErrorCode::InvalidRequest, "Neither topic name nor id were specified."));
        }
        (Some(name), true) => {
            let known = context.image.topic_by_name(name).map(|topic| topic.topic_id);
            (TopicSelector::Name(name.to_owned()), known)
        }
        (None, false) => (TopicSelector::Id(topic_id), Some(topic_id)),
    };
    if known_id.is_some_and(|id| !seen.insert(id)) {
        return Err(refuse(ErrorCode::InvalidRequest, "The topic was already named in this request."));
    }
    Ok(selector)
}

fn describe<T>(
    context: &RequestContext<'_>,
    name: Option<&str>,
    topic_id: TopicId,
    outcome: &Result<T, ControllerError>,
) -> DeletableTopicResult {
    let (error_code, error_message) = told(outcome);
    let mut result = make!(DeletableTopicResult { name: name.map(Into::into), error_code });
    if context.version >= 5 {
        result.error_message = error_message;
    }
    if context.version >= 6 {
        result.topic_id = topic_id.to_wire();
    } else {
        result.name.get_or_insert_default();
    }
    result
}
