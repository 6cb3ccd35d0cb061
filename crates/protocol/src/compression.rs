//! The codecs of record batches, each framed as Kafka frames it. Output is bounded, whatever the input claims.

use std::io::{self, BufReader, Read, Write};

use bytes::Bytes;

/// A codec, by its number in a batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

/// Compressed bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecompressError {
    #[error("malformed {} data: {error}", codec.name())]
    Malformed { codec: Compression, error: io::Error },
    #[error("{} data grows beyond {limit} bytes", codec.name())]
    TooLarge { codec: Compression, limit: usize },
}

impl Compression {
    #[must_use]
    pub const fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name in `compression.type`, where "uncompressed" is an older spelling of none.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "none" | "uncompressed" => Some(Self::None),
            "gzip" => Some(Self::Gzip),
            "snappy" => Some(Self::Snappy),
            "lz4" => Some(Self::Lz4),
            "zstd" => Some(Self::Zstd),
            _ => None,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Compresses with the codec's default level, or with `level` where the codec has levels.
    #[must_use]
    pub fn compress(self, level: Option<i32>, input: &[u8]) -> Vec<u8> {
        let written: io::Result<Vec<u8>> = match self {
            Self::None => Ok(input.to_vec()),
            Self::Gzip => {
                let level = match level {
                    Some(level @ 1..=9) => flate2::Compression::new(level.unsigned_abs()),
                    _ => flate2::Compression::default(),
                };
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(input).and_then(|()| encoder.finish())
            }
            Self::Snappy => Ok(xerial::compress(input)),
            Self::Lz4 => {
                // As Kafka's writer: independent blocks of 64 KiB, no checksums beyond the frame header's.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(input).and_then(|()| encoder.finish().map_err(io::Error::other))
            }
            // As a whole: told nothing of the length, zstd clears most of a megabyte of tables for the smallest batch.
            Self::Zstd => zstd::bulk::compress(input, level.unwrap_or(3)),
        };
        written.expect("writing to memory does not fail")
    }

    /// Decompresses all of `input`, or fails once the output would exceed `limit`.
    pub fn decompress(self, input: &Bytes, limit: usize) -> Result<Bytes, DecompressError> {
        if self == Self::None {
            return if input.len() <= limit {
                Ok(input.clone())
            } else {
                Err(DecompressError::TooLarge { codec: self, limit })
            };
        }
        let malformed = |error| DecompressError::Malformed { codec: self, error };
        let mut output = Vec::new();
        let mut reader = self.reader(input).map_err(malformed)?.take(limit as u64 + 1);
        reader.read_to_end(&mut output).map_err(malformed)?;
        if output.len() > limit {
            return Err(DecompressError::TooLarge { codec: self, limit });
        }
        Ok(Bytes::from(output))
    }

    /// Decompresses bit by bit, in memory that does not grow with the output.
    pub fn reader(self, input: &[u8]) -> io::Result<BufReader<Box<dyn Read + '_>>> {
        let reader: Box<dyn Read + '_> = match self {
            Self::None => Box::new(input),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            Self::Snappy => Box::new(xerial::Reader::new(input)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        };
        Ok(BufReader::with_capacity(16 * 1024, reader))
    }
}

/// Snappy as the Java library frames it: a 16-byte header, then blocks with a big-endian length each. Clients of other
/// languages may send one bare block instead; both are read.
mod xerial {
    use std::io::{self, Read};

    const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
    const HEADER_SIZE: usize = 16;
    const BLOCK_SIZE: usize = 32 * 1024;

    pub(super) fn compress(input: &[u8]) -> Vec<u8> {
        let mut output = Vec::with_capacity(HEADER_SIZE + input.len() / 2);
        output.extend_from_slice(&MAGIC);
        // Version 1, readable by version 1.
        output.extend_from_slice(&1i32.to_be_bytes());
        output.extend_from_slice(&1i32.to_be_bytes());
        let mut encoder = snap::raw::Encoder::new();
        for block in input.chunks(BLOCK_SIZE) {
            let compressed = encoder.compress_vec(block).expect("a block is far below snappy's limit");
            let length = u32::try_from(compressed.len()).expect("a block is far below 4 GiB");
            output.extend_from_slice(&length.to_be_bytes());
            output.extend_from_slice(&compressed);
        }
        output
    }

    /// Reads block after block.
    pub(super) struct Reader<'a> {
        input: &'a [u8],
        is_framed: bool,
        block: Vec<u8>,
        position: usize,
    }

    impl<'a> Reader<'a> {
        pub(super) fn new(input: &'a [u8]) -> Self {
            let is_framed = input.len() >= HEADER_SIZE && input.starts_with(&MAGIC);
            let input = if is_framed { &input[HEADER_SIZE..] } else { input };
            Self { input, is_framed, block: Vec::new(), position: 0 }
        }

        fn next_block(&mut self) -> io::Result<()> {
            let compressed = if self.is_framed {
                let (length, rest) = self.input.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
                let length = u32::from_be_bytes(*length) as usize;
                let (block, rest) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
                self.input = rest;
                block
            } else {
                std::mem::take(&mut self.input)
            };
            let claimed = snap::raw::decompress_len(compressed)?;
            // Three bytes of a copy give at most 64, so a larger claim is a lie; do not allocate for it.
            if claimed > compressed.len().saturating_mul(22).saturating_add(64) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "snappy block claims an impossible size"));
            }
            self.block.resize(claimed, 0);
            let written = snap::raw::Decoder::new().decompress(compressed, &mut self.block)?;
            self.block.truncate(written);
            self.position = 0;
            Ok(())
        }
    }

    impl Read for Reader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            while self.position == self.block.len() {
                if self.input.is_empty() {
                    return Ok(0);
                }
                self.next_block()?;
            }
            let rest = &self.block[self.position..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.position += count;
            Ok(count)
        }
    }
}
