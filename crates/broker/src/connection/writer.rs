//! Writes answers in the order of their requests, as many as are ready in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::future::BoxFuture;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};

use crate::api::{Answer, Refusal};

/// Frames handed to one system call.
const MAX_SLICES: usize = 64;

/// Where the reading side of a connection puts answers, in the order of the requests.
pub(super) struct AnswerQueue {
    answers: mpsc::Sender<Queued>,
    backlog: Arc<Backlog>,
}

/// What the writing side takes them from.
pub(super) struct QueuedAnswers {
    answers: mpsc::Receiver<Queued>,
    backlog: Arc<Backlog>,
}

enum Queued {
    Frame(Bytes),
    Later(BoxFuture<'static, Result<Bytes, Refusal>>),
}

/// What is still to be written.
#[derive(Default)]
struct Backlog {
    /// Of frames that are ready. Answers to come are small: only Produce is answered later.
    bytes: AtomicUsize,
    answers: AtomicUsize,
    shrank: Notify,
}

/// A queue of at most `max_answers`.
pub(super) fn answer_queue(max_answers: usize) -> (AnswerQueue, QueuedAnswers) {
    let (sender, receiver) = mpsc::channel(max_answers.max(1));
    let backlog = Arc::new(Backlog::default());
    (AnswerQueue { answers: sender, backlog: Arc::clone(&backlog) }, QueuedAnswers { answers: receiver, backlog })
}

impl AnswerQueue {
    /// Waits for room. An answer that nobody will write any more is dropped.
    pub(super) async fn send(&self, answer: Answer) {
        let queued = match answer {
            Answer::Nothing => return,
            Answer::Frame(frame) => {
                self.backlog.bytes.fetch_add(frame.len(), Ordering::Relaxed);
                Queued::Frame(frame)
            }
            Answer::Later(later) => Queued::Later(later),
        };
        self.backlog.answers.fetch_add(1, Ordering::Relaxed);
        // The writing side ends first only when the connection does; the reading side learns of it by `closed`.
        let _ = self.answers.send(queued).await;
    }

    /// Waits until the client has read all but `bytes` of its answers.
    pub(super) async fn wait_until_below(&self, bytes: usize) {
        while self.backlog.bytes.load(Ordering::Relaxed) > bytes {
            self.backlog.shrank.notified().await;
        }
    }

    /// Completes when nobody writes any more.
    pub(super) async fn closed(&self) {
        self.answers.closed().await;
    }

    /// Whether a request still waits for its answer.
    pub(super) fn has_unanswered(&self) -> bool {
        self.backlog.answers.load(Ordering::Relaxed) > 0
    }
}

/// Writes until the queue is closed and empty, the client is gone, or reads nothing for `idle`.
pub(super) async fn write_answers<W: AsyncWrite + Unpin>(
    mut queued: QueuedAnswers,
    mut stream: W,
    idle: Option<Duration>,
) -> Result<(), Refusal> {
    let mut ready = VecDeque::new();
    loop {
        // Gather what is ready; wait for the first only.
        let next = if ready.is_empty() {
            match queued.answers.recv().await {
                Some(next) => next,
                None => return Ok(()),
            }
        } else {
            match queued.answers.try_recv() {
                Ok(next) if ready.len() < MAX_SLICES => next,
                Ok(next) => {
                    if !write_all(&mut stream, &mut ready, &queued.backlog, idle).await {
                        return Ok(());
                    }
                    next
                }
                Err(_) => {
                    if !write_all(&mut stream, &mut ready, &queued.backlog, idle).await {
                        return Ok(());
                    }
                    continue;
                }
            }
        };
        let frame = match next {
            Queued::Frame(frame) => frame,
            Queued::Later(mut later) => {
                let frame = match futures::poll!(&mut later) {
                    std::task::Poll::Ready(frame) => frame?,
                    std::task::Poll::Pending => {
                        if !write_all(&mut stream, &mut ready, &queued.backlog, idle).await {
                            return Ok(());
                        }
                        later.await?
                    }
                };
                queued.backlog.bytes.fetch_add(frame.len(), Ordering::Relaxed);
                frame
            }
        };
        ready.push_back(frame);
    }
}

/// Whether the client took it all.
async fn write_all<W: AsyncWrite + Unpin>(
    stream: &mut W,
    ready: &mut VecDeque<Bytes>,
    backlog: &Backlog,
    idle: Option<Duration>,
) -> bool {
    while !ready.is_empty() {
        let write = write_some(stream, ready);
        let written = match idle {
            Some(idle) => tokio::time::timeout(idle, write).await.unwrap_or(Ok(0)),
            None => write.await,
        };
        let Ok(mut written @ 1..) = written else { return false };
        backlog.bytes.fetch_sub(written, Ordering::Relaxed);
        while let Some(first) = ready.front_mut() {
            let taken = written.min(first.len());
            first.advance(taken);
            written -= taken;
            if !first.is_empty() {
                break;
            }
            ready.pop_front();
            backlog.answers.fetch_sub(1, Ordering::Relaxed);
        }
        backlog.shrank.notify_one();
    }
    true
}

async fn write_some<W: AsyncWrite + Unpin>(stream: &mut W, ready: &VecDeque<Bytes>) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    for (slice, frame) in slices.iter_mut().zip(ready) {
        *slice = IoSlice::new(frame);
    }
    stream.write_vectored(&slices[..ready.len().min(MAX_SLICES)]).await
}
