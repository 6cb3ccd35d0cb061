//! How inputs are cut into parts, and how checksums in them are mended.

use bytes::BytesMut;
use vltava_protocol::batch::{HEADER_SIZE, LOG_OVERHEAD, stamp};

/// Takes parts from the front. Whatever is missing at the end reads as zeros.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.up_to(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub fn i64(&mut self) -> i64 {
        i64::from_be_bytes(self.array())
    }

    pub fn up_to(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Bytes with their length (16 bits) before them.
    pub fn chunk(&mut self) -> &'a [u8] {
        let length = u16::from_be_bytes(self.array());
        self.up_to(usize::from(length))
    }

    pub fn rest(self) -> &'a [u8] {
        self.rest
    }
}

/// Gives each batch of a run the CRC of its bytes, as far as lengths lead from one to the next.
pub fn mend_crcs(run: &[u8]) -> BytesMut {
    let mut run = BytesMut::from(run);
    let mut at = 0;
    while let Some(length) = run.get(at + 8..at + LOG_OVERHEAD) {
        let length = i32::from_be_bytes(length.try_into().expect("four bytes"));
        let Ok(length) = usize::try_from(length) else { break };
        let end = at + LOG_OVERHEAD + length;
        if end - at < HEADER_SIZE || end > run.len() {
            break;
        }
        stamp::set_crc(&mut run[at..end]);
        at = end;
    }
    run
}

/// Makes one batch of these bytes: its length and its CRC fit.
pub fn mend_batch(bytes: &[u8]) -> BytesMut {
    let mut batch = BytesMut::from(bytes);
    batch.resize(batch.len().max(HEADER_SIZE), 0);
    let length = i32::try_from(batch.len() - LOG_OVERHEAD).expect("inputs are small");
    batch[8..LOG_OVERHEAD].copy_from_slice(&length.to_be_bytes());
    // Magic.
    batch[16] = 2;
    stamp::set_crc(&mut batch);
    batch
}
