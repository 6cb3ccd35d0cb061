//! Cuts a stream of bytes into frames.

use std::io;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Read ahead at most this much of requests that follow.
const READ_AHEAD_BYTES: usize = 16 * 1024;

/// Room is made for at most this much more than came already.
const MAX_GROWTH_BYTES: usize = 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// Reads frames: `int32 length`, then that many bytes.
pub(super) struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    max_frame_bytes: usize,
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
    pub(super) fn new(stream: R, first_bytes: BytesMut, max_frame_bytes: usize) -> Self {
        Self { stream, buffer: first_bytes, max_frame_bytes }
    }

    /// The next frame without its length, or `None` if the client closed the connection after a whole frame. May be
    /// dropped and called again: no byte is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let wanted = match self.frame_length()? {
                Some(length) if self.buffer.len() >= LENGTH_BYTES + length => {
                    self.buffer.advance(LENGTH_BYTES);
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
                Some(length) => LENGTH_BYTES + length - self.buffer.len(),
                None => READ_AHEAD_BYTES,
            };
            // Doubles as bytes come, so a frame that only claims to be long costs little.
            let affordable = self.buffer.len().clamp(READ_AHEAD_BYTES, MAX_GROWTH_BYTES);
            self.buffer.reserve(wanted.clamp(READ_AHEAD_BYTES, affordable));
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
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

    use super::FrameReader;

    /// Reads all frames of at most 100 bytes from `bytes`.
    async fn check(first_bytes: &[u8], bytes: &[u8], expected: Expect) {
        let mut reader = FrameReader::new(Cursor::new(bytes), BytesMut::from(first_bytes), 100);
        let mut story = String::new();
        loop {
            let next = reader.next().await;
            let is_last = !matches!(next, Ok(Some(_)));
            story += &format!("{next:?}\n");
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
        let mut reader = FrameReader::new(Cursor::new(bytes), BytesMut::new(), usize::MAX);
        assert!(reader.next().await.is_err());
        assert!(reader.buffer.capacity() < 128 * 1024, "grew to {}", reader.buffer.capacity());
    }
}
