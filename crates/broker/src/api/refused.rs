//! How refusals of the controller, or of a handler itself, are told to clients.

use tokio::time::Duration;
use vltava_metadata::controller::{ControllerError, ControllerResponse};
use vltava_protocol::messages::StrBytes;
use vltava_types::ErrorCode;

/// The longest that one request may wait for the controller, whatever it asks for.
const MAX_TIMEOUT_MS: i32 = 5 * 60 * 1000;

/// How long a client that asked for this is kept waiting.
pub fn timeout(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::from(timeout_ms.clamp(0, MAX_TIMEOUT_MS).unsigned_abs()))
}

/// An error that the handler finds itself.
pub fn refuse(code: ErrorCode, message: impl Into<String>) -> ControllerError {
    ControllerError { code, message: message.into() }
}

/// An outcome as the two fields of a response.
pub fn told<T>(outcome: &Result<T, ControllerError>) -> (i16, Option<StrBytes>) {
    match outcome {
        Ok(_) => (ErrorCode::None.code(), None),
        Err(error) if error.message.is_empty() => (error.code.code(), None),
        Err(error) => (error.code.code(), Some(error.message.as_str().into())),
    }
}

/// Nobody decided; the outcome is unknown.
pub fn unanswered(code: ErrorCode) -> ControllerError {
    let message = match code {
        ErrorCode::RequestTimedOut => "The active controller did not answer in time.",
        _ => "",
    };
    refuse(code, message)
}

/// The answer is not of the request's kind, which the controller never does.
pub fn mismatched(response: &ControllerResponse) -> ControllerError {
    tracing::error!(?response, "the controller answered another request than was asked");
    refuse(ErrorCode::UnknownServerError, "")
}
