//! Those who work on a log without its lock, and come late.

use vltava_protocol::batch::batches;
use vltava_storage::{LogReader, ReadLimits, StorageError};
use vltava_types::Offset;

use super::{Outcome, Run};

impl Run {
    /// Begins a read, a flush and a scrub that will be at work when other things happen.
    pub(super) fn hold_on(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: a reader and a flush begin", driven.name));
        let log = driven.log.as_ref().expect("a log");
        driven.flush = log.begin_flush();
        if driven.readers.len() < 3 {
            let bytes = driven.model.between(driven.model.start, driven.model.end).flat_map(|b| b.bytes.to_vec());
            driven.readers.push((log.reader(), bytes.collect()));
            driven.scrubs.extend(log.scrub_closed_segments(Offset(driven.model.durable_end)).into_iter().next());
        }
        Ok(())
    }

    /// They go on, whatever has become of the log: deleted, truncated, moved on, compacted, or another of its name.
    pub(super) fn come_late(&mut self, index: usize) -> Outcome {
        let driven = &mut self.logs[index];
        self.story.lines.push(format!("{}: a reader and a flush come late", driven.name));
        for (reader, expected) in std::mem::take(&mut driven.readers) {
            match try_read_all(&reader) {
                Ok(read) => assert!(read == expected, "a reader sees something else"),
                Err(StorageError::Truncated) => {}
                Err(error) => return Err(error),
            }
        }
        for mut scrub in std::mem::take(&mut driven.scrubs) {
            while !scrub.is_done() {
                match scrub.advance(1 + self.random.below(300)) {
                    Ok(_) => {}
                    Err(error) if self.disk.is_without_power() => return Err(error),
                    Err(error) => {
                        let is_ours = driven.log.as_ref().expect("a log").holds(&scrub);
                        assert!(!is_ours, "a sound segment is told to be damaged: {error}");
                        break;
                    }
                }
            }
        }
        driven.flush.take().map_or(Ok(()), |flush| flush.run())?;
        driven.log.as_ref().expect("a log").close_unused_files();
        Ok(())
    }
}

/// All bytes that a reader sees. Every CRC is checked on the way.
fn try_read_all(reader: &LogReader) -> Result<Vec<u8>, StorageError> {
    let mut bytes = Vec::new();
    let mut offset = reader.log_start_offset();
    loop {
        let limits = ReadLimits { max_bytes: 2000, end_offset: Offset(i64::MAX), at_least_one_batch: true };
        let read = reader.read(offset, limits)?;
        let Some(last) = batches(&read).last() else { return Ok(bytes) };
        offset = last.expect("reads return whole batches").header.next_offset();
        bytes.extend_from_slice(&read);
    }
}
