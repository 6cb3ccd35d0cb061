//! Cuts a stream of bytes into frames.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Read ahead at most this much of requests that follow.
const READ_AHEAD_BYTES: usize = 16 * 1024;

/// Room is made for at most this much more than came already.
const MAX_GROWTH_BYTES: usize = 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// Longer frames take their turn within the broker's [`LargeFrames`].
const LARGE_FRAME_BYTES: usize = 1024 * 1024;

/// A large frame must come at least this fast, after a start that is free.
const LARGE_FRAME_MIN_BYTES_PER_SECOND: u64 = 256 * 1024;
const LARGE_FRAME_START: Duration = Duration::from_secs(30);

/// Memory for large frames, shared by all connections, so that many of them together cannot exhaust the broker either.
#[derive(Clone)]
pub(crate) struct LargeFrames {
    /// In KiB.
    room: Arc<Semaphore>,
}

impl LargeFrames {
    /// The most that large frames may take together; a single one always fits.
    const BYTES: usize = 256 * 1024 * 1024;

    pub(crate) fn new(max_frame_bytes: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(Self::BYTES.max(max_frame_bytes).div_ceil(1024))) }
    }

    /// Waits for room. A connection holds at most one share, and gives it back in bounded time.
    async fn admit(&self, length: usize) -> (OwnedSemaphorePermit, Instant) {
        let share = u32::try_from(length.div_ceil(1024)).expect("a frame's length is an i32");
        let room = Arc::clone(&self.room).acquire_many_owned(share).await.expect("the semaphore is never closed");
        let seconds = length as u64 / LARGE_FRAME_MIN_BYTES_PER_SECOND;
        (room, Instant::now() + LARGE_FRAME_START + Duration::from_secs(seconds))
    }
}

/// A frame without its length, and its share of [`LargeFrames`], if it is one.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Reads frames: `int32 length`, then that many bytes.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    max_frame_bytes: usize,
    large_frames: LargeFrames,
    /// Room for the large frame that is being read, and when it must be complete.
    granted: Option<(OwnedSemaphorePermit, Instant)>,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("frame length {0} is negative")]
    NegativeLength(i32),
    #[error("frame of {length} bytes exceeds socket.request.max.bytes ({max})")]
    TooLarge { length: usize, max: usize },
    #[error("the client left in the middle of a frame")]
    Truncated,
    #[error("a frame of {length} bytes came too slowly")]
    TooSlow { length: usize },
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
}

impl ReadError {
    /// Clients vanish all the time; an operator need not hear of each.
    pub(super) fn is_ordinary(&self) -> bool {
        matches!(self, Self::Io(_))
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// `first_bytes` came before those of `stream`.
    pub(super) fn new(stream: R, first_bytes: BytesMut, max_frame_bytes: usize, large_frames: LargeFrames) -> Self {
        Self { stream, buffer: first_bytes, max_frame_bytes, large_frames, granted: None }
    }

    /// The next frame, or `None` if the client closed the connection after a whole one. May be dropped and called
    /// again: no byte is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            let length = self.frame_length()?;
            let wanted = match length {
                Some(length) if self.buffer.len() >= LENGTH_BYTES + length => {
                    self.buffer.advance(LENGTH_BYTES);
                    let bytes = self.buffer.split_to(length).freeze();
                    return Ok(Some(Frame { bytes, room: self.granted.take().map(|(room, _)| room) }));
                }
                Some(length) => LENGTH_BYTES + length - self.buffer.len(),
                None => READ_AHEAD_BYTES,
            };
            if let Some(length) = length.filter(|length| *length > LARGE_FRAME_BYTES)
                && self.granted.is_none()
            {
                self.granted = Some(self.large_frames.admit(length).await);
            }
            // Doubles as bytes come, so a frame that only claims to be long costs little.
            let affordable = self.buffer.len().clamp(READ_AHEAD_BYTES, MAX_GROWTH_BYTES);
            self.buffer.reserve(wanted.clamp(READ_AHEAD_BYTES, affordable));
            let read = self.stream.read_buf(&mut self.buffer);
            let read = match &self.granted {
                None => read.await?,
                Some((_, complete_by)) => tokio::time::timeout_at(*complete_by, read)
                    .await
                    .map_err(|_| ReadError::TooSlow { length: length.unwrap_or_default() })??,
            };
            if read == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
    }

    fn frame_length(&self) -> Result<Option<usize>, ReadError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        let length = usize::try_from(length).map_err(|_| ReadError::NegativeLength(length))?;
        if length > self.max_frame_bytes {
            return Err(ReadError::TooLarge { length, max: self.max_frame_bytes });
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use bytes::BytesMut;
    use expect_test::{Expect, expect};

    use super::{FrameReader, LargeFrames};

    /// Reads all frames of at most 100 bytes from `bytes`.
    async fn check(first_bytes: &[u8], bytes: &[u8], expected: Expect) {
        let mut reader = FrameReader::new(Cursor::new(bytes), BytesMut::from(first_bytes), 100, LargeFrames::new(100));
        let mut story = String::new();
        loop {
            let next = reader.next().await;
            let is_last = !matches!(next, Ok(Some(_)));
            story += &format!("{:?}\n", next.map(|frame| frame.map(|frame| frame.bytes)));
            if is_last {
                break;
            }
        }
        expected.assert_eq(&story);
    }

    #[tokio::test]
    async fn frames_are_cut_wherever_reads_happen_to_end() {
        check(
            &[0, 0, 0],
            &[2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1, 9],
            expect![[r#"
                Ok(Some(b"\x07\x08"))
                Ok(Some(b""))
                Ok(Some(b"\t"))
                Ok(None)
            "#]],
        )
        .await;
    }

    #[tokio::test]
    async fn a_claimed_length_is_bounded_before_anything_is_read_for_it() {
        check(
            &[],
            &[0, 0, 0, 101, 1],
            expect![[r#"
                Err(TooLarge { length: 101, max: 100 })
            "#]],
        )
        .await;
        check(
            &[],
            &[0xff, 0xff, 0xff, 0xff],
            expect![[r#"
                Err(NegativeLength(-1))
            "#]],
        )
        .await;
    }

    #[tokio::test]
    async fn a_frame_that_ends_too_early_is_told_from_a_polite_end() {
        check(
            &[],
            &[0, 0, 0, 3, 1, 2],
            expect![[r#"
                Err(Truncated)
            "#]],
        )
        .await;
    }

    #[tokio::test]
    async fn the_buffer_grows_with_what_came_and_not_with_what_was_claimed() {
        let mut bytes = vec![0x7f, 0xff, 0xff, 0xff];
        bytes.resize(1000, 1);
        let max = i32::MAX as usize;
        let mut reader = FrameReader::new(Cursor::new(bytes), BytesMut::new(), max, LargeFrames::new(max));
        assert!(reader.next().await.is_err());
        assert!(reader.buffer.capacity() < 128 * 1024, "grew to {}", reader.buffer.capacity());
    }
    #[tokio::test(start_paused = true)]
    async fn large_frames_take_turns_and_must_not_dawdle() {
        let large_frames = LargeFrames::new(100);
        let length = 200 * 1024 * 1024_i32;
        let start = length.to_be_bytes();
        let max = length as usize;
        let (_first_client, first) = tokio::io::duplex(64);
        let (_second_client, second) = tokio::io::duplex(64);
        let mut first = FrameReader::new(first, BytesMut::from(&start[..]), max, large_frames.clone());
        let mut second = FrameReader::new(second, BytesMut::from(&start[..]), max, large_frames);
        let minute = std::time::Duration::from_secs(60);
        assert!(tokio::time::timeout(minute, first.next()).await.is_err(), "still waits for bytes");
        assert!(tokio::time::timeout(minute, second.next()).await.is_err(), "still waits for room");
        assert!(second.granted.is_none());
        assert!(first.next().await.expect_err("nothing came").to_string().contains("too slowly"));
        drop(first);
        assert!(tokio::time::timeout(minute, second.next()).await.is_err(), "now waits for bytes");
        assert!(second.granted.is_some());
    }
}
