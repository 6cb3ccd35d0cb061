//! Writes answers in the order of their requests, as many as are ready in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Notify, mpsc};
use vltava_host::net::FileSink;

use crate::api::{Answer, Piece, Refusal};

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
    Pieces(Vec<Piece>),
    Later(BoxFuture<'static, Result<Bytes, Refusal>>),
}

/// What is still to be written.
#[derive(Default)]
struct Backlog {
    /// Of frames that are ready, be they in memory or in files. Answers to come are small: only Produce is answered later.
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
            Answer::Pieces(pieces) => {
                let bytes: usize = pieces.iter().map(Piece::len).sum();
                self.backlog.bytes.fetch_add(bytes, Ordering::Relaxed);
                Queued::Pieces(pieces)
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
pub(super) async fn write_answers<W: FileSink>(
    mut queued: QueuedAnswers,
    mut stream: W,
    idle: Option<Duration>,
) -> Result<(), Refusal> {
    let mut ready = Ready::default();
    loop {
        // Gather what is ready; wait for the first only.
        let next = if ready.pieces.is_empty() {
            match queued.answers.recv().await {
                Some(next) => next,
                None => return Ok(()),
            }
        } else {
            match queued.answers.try_recv() {
                Ok(next) if ready.pieces.len() < MAX_SLICES => next,
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
            Queued::Pieces(pieces) => {
                ready.push(pieces);
                continue;
            }
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
        ready.push([Piece::Bytes(frame)]);
    }
}

/// What is written next.
#[derive(Default)]
struct Ready {
    /// None is empty.
    pieces: VecDeque<ReadyPiece>,
}

struct ReadyPiece {
    piece: Piece,
    ends_answer: bool,
}

impl Ready {
    /// The pieces of an answer, which is not empty.
    fn push(&mut self, pieces: impl IntoIterator<Item = Piece>) {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty());
        self.pieces.extend(pieces.map(|piece| ReadyPiece { piece, ends_answer: false }));
        self.pieces.back_mut().expect("a frame has a length at least").ends_answer = true;
    }
}

/// Whether the client took it all.
async fn write_all<W: FileSink>(stream: &mut W, ready: &mut Ready, backlog: &Backlog, idle: Option<Duration>) -> bool {
    while !ready.pieces.is_empty() {
        let write = write_some(stream, ready);
        let written = match idle {
            Some(idle) => tokio::time::timeout(idle, write).await.unwrap_or(Ok(0)),
            None => write.await,
        };
        let Ok(mut written @ 1..) = written else { return false };
        backlog.bytes.fetch_sub(written, Ordering::Relaxed);
        while let Some(first) = ready.pieces.front_mut() {
            let taken = written.min(first.piece.len());
            first.piece.advance(taken);
            written -= taken;
            if !first.piece.is_empty() {
                break;
            }
            backlog.answers.fetch_sub(usize::from(first.ends_answer), Ordering::Relaxed);
            ready.pieces.pop_front();
        }
        backlog.shrank.notify_one();
    }
    true
}

/// 0, and the connection ends, if a file is shorter than was promised.
async fn write_some<W: FileSink>(stream: &mut W, ready: &Ready) -> io::Result<usize> {
    if let Some(ReadyPiece { piece: Piece::File(region), .. }) = ready.pieces.front() {
        let truncated = || io::Error::other("the log was truncated while it was read");
        if !region.is_intact() {
            return Err(truncated());
        }
        let sent = stream.send_file(region.file(), region.position(), region.len()).await?;
        // Asked again, because what was sent just now may be what was written after the truncation.
        return if region.is_intact() { Ok(sent) } else { Err(truncated()) };
    }
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    let mut count = 0;
    for (slice, ready) in slices.iter_mut().zip(&ready.pieces) {
        let Piece::Bytes(bytes) = &ready.piece else { break };
        *slice = IoSlice::new(bytes);
        count += 1;
    }
    stream.write_vectored(&slices[..count]).await
}

#[cfg(test)]
mod tests;
