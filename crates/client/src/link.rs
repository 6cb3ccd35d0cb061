//! One connection to one broker that many callers share. Requests are sent in the order of submission without waiting
//! for each other's answers.
//!
//! A link lives as long as its socket. When that fails, everything submitted and not answered fails with it, and the
//! next request needs another link: whether to send again is decided above.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use vltava_host::task;
use vltava_protocol::messages::RequestResponsePair;

use crate::connection::{CorrelationId, decode_answer, encode_frame};
use crate::{ClientError, Connection, Options};

/// Requests that were submitted and not sent yet. Callers keep fewer under way; this is the backstop.
const QUEUED_REQUESTS: usize = 64;

pub(crate) struct Link {
    requests: mpsc::Sender<Request>,
    options: Options,
    next_correlation_id: i32,
}

struct Request {
    frame: Bytes,
    deadline: Instant,
    reply: Reply,
}

/// What whoever submitted a request waits for.
enum Reply {
    Answer(oneshot::Sender<Result<Bytes, ClientError>>),
    /// The broker sends no answer (Produce with acks=0): only that the request went out.
    Sent(oneshot::Sender<()>),
}

impl Reply {
    fn fail(self, error: &ClientError) {
        match self {
            // Nobody may wait for it any more.
            Self::Answer(answer) => drop(answer.send(Err(same_failure(error)))),
            Self::Sent(_) => {}
        }
    }
}

/// The answer to a submitted request, which may be still to come.
pub(crate) struct Answer<R> {
    frame: oneshot::Receiver<Result<Bytes, ClientError>>,
    version: i16,
    correlation_id: CorrelationId,
    options: Options,
    request: PhantomData<fn() -> R>,
}

impl<R: RequestResponsePair> Answer<R> {
    pub(crate) async fn receive(self) -> Result<R::Response, ClientError> {
        let frame = self.frame.await.unwrap_or(Err(ClientError::Closed))?;
        decode_answer::<R>(frame, self.version, self.correlation_id, &self.options)
    }
}

impl Link {
    /// Starts to connect; the first requests wait for it.
    pub(crate) fn open(address: String, options: Options) -> Self {
        let (requests, queue) = mpsc::channel(QUEUED_REQUESTS);
        task::spawn(serve(address, options.clone(), queue));
        Self { requests, options, next_correlation_id: 0 }
    }

    /// Whether the socket has failed.
    pub(crate) fn is_closed(&self) -> bool {
        self.requests.is_closed()
    }

    pub(crate) fn submit<R: RequestResponsePair>(
        &mut self,
        version: i16,
        request: &R,
        deadline: Instant,
    ) -> Result<Answer<R>, ClientError> {
        let correlation_id = self.take_correlation_id();
        let (answer, frame) = oneshot::channel();
        self.enqueue(encode_frame(request, version, correlation_id, &self.options)?, deadline, Reply::Answer(answer))?;
        Ok(Answer { frame, version, correlation_id, options: self.options.clone(), request: PhantomData })
    }

    /// For requests that brokers do not answer. The receiver hears when the request went out, or fails with the socket.
    pub(crate) fn submit_unanswered<R: RequestResponsePair>(
        &mut self,
        version: i16,
        request: &R,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<()>, ClientError> {
        let correlation_id = self.take_correlation_id();
        let (sent, receiver) = oneshot::channel();
        self.enqueue(encode_frame(request, version, correlation_id, &self.options)?, deadline, Reply::Sent(sent))?;
        Ok(receiver)
    }

    fn take_correlation_id(&mut self) -> CorrelationId {
        let taken = CorrelationId(self.next_correlation_id);
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1);
        taken
    }

    fn enqueue(&self, frame: Bytes, deadline: Instant, reply: Reply) -> Result<(), ClientError> {
        self.requests.try_send(Request { frame, deadline, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ClientError::Busy,
            mpsc::error::TrySendError::Closed(_) => ClientError::Closed,
        })
    }
}

async fn serve(address: String, options: Options, mut requests: mpsc::Receiver<Request>) {
    let mut unanswered = VecDeque::new();
    let error = match Connection::connect(&address, options).await {
        Ok(connection) => exchange(connection, &mut requests, &mut unanswered).await,
        Err(error) => error,
    };
    requests.close();
    while let Ok(request) = requests.try_recv() {
        unanswered.push_back(request);
    }
    for request in unanswered {
        request.reply.fail(&error);
    }
}

/// Sends and receives until the socket fails, a request's time is up, or nobody can submit any more.
async fn exchange(
    mut connection: Connection,
    requests: &mut mpsc::Receiver<Request>,
    unanswered: &mut VecDeque<Request>,
) -> ClientError {
    loop {
        let deadline = unanswered.front().map(|request| request.deadline);
        tokio::select! {
            biased;
            // Even with nothing due, so that a socket that the broker closes is noticed before the next request.
            frame = connection.next_frame() => match (frame, unanswered.pop_front()) {
                (Ok(frame), Some(Request { reply: Reply::Answer(answer), .. })) => { let _ = answer.send(Ok(frame)); }
                (Ok(_), _) => return ClientError::Incomplete,
                (Err(error), request) => {
                    if let Some(request) = request {
                        unanswered.push_front(request);
                    }
                    return error;
                }
            },
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                return ClientError::TimedOut;
            }
            request = requests.recv() => {
                let Some(request) = request else { return ClientError::Closed };
                let sent = connection.send_bytes(&request.frame).await;
                match request.reply {
                    Reply::Sent(told) if sent.is_ok() => { let _ = told.send(()); }
                    Reply::Sent(_) => {}
                    reply @ Reply::Answer(_) => unanswered.push_back(Request { reply, ..request }),
                }
                if let Err(error) = sent {
                    return error;
                }
            }
        }
    }
}

/// One failure, told to everybody whom it concerns.
fn same_failure(error: &ClientError) -> ClientError {
    match error {
        ClientError::Io(error) => ClientError::Io(io::Error::new(error.kind(), error.to_string())),
        ClientError::TimedOut => ClientError::TimedOut,
        ClientError::BadAddress(address) => ClientError::BadAddress(address.clone()),
        ClientError::AnswerTooLarge { length, limit } => ClientError::AnswerTooLarge { length: *length, limit: *limit },
        _ => ClientError::Closed,
    }
}
