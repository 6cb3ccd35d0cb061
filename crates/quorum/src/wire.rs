//! Between OpenRaft's messages and those on the wire.

use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest, VoteResponse};
use vltava_peer::CallError;
use vltava_peer::raft as wire;

use crate::encoding::{decode_payload, encode_payload};
use crate::types::{Entry, LogId, TypeConfig, Vote, log_id, term_of};

pub(crate) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote_from_wire(vote: Option<wire::Vote>) -> Result<Vote, CallError> {
    let vote = vote.ok_or_else(|| malformed("a message without a vote"))?;
    if i32::try_from(vote.term).is_err() {
        return Err(malformed("a term out of range"));
    }
    Ok(if vote.committed { Vote::new_committed(vote.term, vote.node_id) } else { Vote::new(vote.term, vote.node_id) })
}

pub(crate) fn log_id_to_wire(log_id: &LogId) -> wire::LogId {
    wire::LogId { term: term_of(log_id), index: log_id.index }
}

/// Bounded like the offsets and leader epochs that log ids become on disk.
pub(crate) fn log_id_from_wire(id: Option<&wire::LogId>) -> Result<Option<LogId>, CallError> {
    match id {
        None => Ok(None),
        Some(id) if i32::try_from(id.term).is_ok() && id.index < i64::MAX as u64 => Ok(Some(log_id(id.term, id.index))),
        Some(_) => Err(malformed("a log id out of range")),
    }
}

pub(crate) fn append_to_wire(
    envelope: wire::Envelope,
    request: &AppendEntriesRequest<TypeConfig>,
) -> wire::AppendEntriesRequest {
    let entries = request.entries.iter().map(|entry| wire::Entry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: encode_payload(&entry.payload),
    });
    wire::AppendEntriesRequest {
        envelope: Some(envelope),
        vote: Some(vote_to_wire(&request.vote)),
        previous_log_id: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: entries.collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

pub(crate) fn append_from_wire(
    request: wire::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, CallError> {
    let prev_log_id = log_id_from_wire(request.previous_log_id.as_ref())?;
    let mut entries = Vec::with_capacity(request.entries.len());
    let first_index = prev_log_id.map_or(0, |previous| previous.index + 1);
    for (expected_index, entry) in (first_index..).zip(request.entries) {
        let log_id = log_id_from_wire(entry.log_id.as_ref())?.ok_or_else(|| malformed("an entry without an id"))?;
        // A gap would make OpenRaft's own assertions fail.
        if log_id.index != expected_index {
            return Err(malformed("entries with a gap"));
        }
        let payload = decode_payload(entry.payload).map_err(|error| CallError::Refused(error.to_string()))?;
        entries.push(Entry { log_id, payload });
    }
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote)?,
        prev_log_id,
        entries,
        leader_commit: log_id_from_wire(request.leader_commit.as_ref())?,
    })
}

pub(crate) fn appended_to_wire(response: &AppendEntriesResponse<TypeConfig>) -> wire::AppendEntriesResponse {
    let outcome = match response {
        AppendEntriesResponse::Success => wire::Outcome::Success(wire::Success {}),
        AppendEntriesResponse::PartialSuccess(log_id) => {
            wire::Outcome::PartialSuccess(wire::PartialSuccess { log_id: log_id.as_ref().map(log_id_to_wire) })
        }
        AppendEntriesResponse::Conflict => wire::Outcome::Conflict(wire::Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => wire::Outcome::HigherVote(vote_to_wire(vote)),
    };
    wire::AppendEntriesResponse { outcome: Some(outcome) }
}

pub(crate) fn appended_from_wire(
    response: wire::AppendEntriesResponse,
) -> Result<AppendEntriesResponse<TypeConfig>, CallError> {
    Ok(match response.outcome.ok_or_else(|| malformed("an answer without an outcome"))? {
        wire::Outcome::Success(_) => AppendEntriesResponse::Success,
        wire::Outcome::PartialSuccess(partial) => {
            AppendEntriesResponse::PartialSuccess(log_id_from_wire(partial.log_id.as_ref())?)
        }
        wire::Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        wire::Outcome::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote_from_wire(Some(vote))?),
    })
}

pub(crate) fn vote_request_to_wire(envelope: wire::Envelope, request: &VoteRequest<TypeConfig>) -> wire::VoteRequest {
    wire::VoteRequest {
        envelope: Some(envelope),
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_wire(request: wire::VoteRequest) -> Result<VoteRequest<TypeConfig>, CallError> {
    let last_log_id = log_id_from_wire(request.last_log_id.as_ref())?;
    let mut vote = VoteRequest::new(vote_from_wire(request.vote)?, last_log_id);
    vote.leadership_transfer = request.leadership_transfer;
    Ok(vote)
}

pub(crate) fn voted_to_wire(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_wire),
        leader_id: None,
        leader_silence_ms: 0,
    }
}

pub(crate) fn voted_from_wire(response: wire::VoteResponse) -> Result<VoteResponse<TypeConfig>, CallError> {
    let last_log_id = log_id_from_wire(response.last_log_id.as_ref())?;
    Ok(VoteResponse::new(vote_from_wire(response.vote)?, last_log_id, response.granted))
}

pub(crate) fn transfer_to_wire(
    envelope: wire::Envelope,
    request: &TransferLeaderRequest<TypeConfig>,
) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        envelope: Some(envelope),
        from_leader: Some(vote_to_wire(request.from_leader())),
        to_node_id: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

pub(crate) fn transfer_from_wire(
    request: wire::TransferLeaderRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, CallError> {
    let last_log_id = log_id_from_wire(request.last_log_id.as_ref())?;
    Ok(TransferLeaderRequest::new(vote_from_wire(request.from_leader)?, request.to_node_id, last_log_id))
}

pub(crate) fn malformed(what: &str) -> CallError {
    CallError::Refused(format!("malformed message: {what}"))
}
