use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use vltava_host::net::{self, FileSink};
use vltava_host::task;
use vltava_protocol::batch::BatchBuilder;
use vltava_storage::{FileRegion, Log, LogConfig, LogOptions, ReadLimits, WarmRead};
use vltava_types::{LeaderEpoch, Offset, TimestampMs, TopicId};

use super::{answer_queue, write_answers};
use crate::api::{Answer, Piece};

const RECORD_BYTES: usize = 300_000;

/// A log with one large record in each of `count` batches, and all of it.
fn log(directory: &Path, count: i64) -> (Log, FileRegion, Vec<u8>) {
    let topic_id = TopicId::from_random([1; 16]);
    let mut log = Log::create(&directory.join("t-0"), topic_id, Arc::new(LogConfig::default()), LogOptions::default())
        .expect("created");
    let mut bytes = Vec::new();
    for offset in 0..count {
        let mut builder = BatchBuilder::new().base_offset(Offset(offset)).leader_epoch(LeaderEpoch(0));
        builder.append(TimestampMs(1), None, Some(&vec![offset as u8; RECORD_BYTES]), &[]);
        let batch = builder.build();
        log.append_as_leader(&batch).expect("appended");
        bytes.extend_from_slice(&batch);
    }
    let limits = ReadLimits { max_bytes: usize::MAX >> 1, end_offset: Offset(count), at_least_one_batch: true };
    match log.reader().read_warm(Offset(0), limits, 1, usize::MAX) {
        Ok(WarmRead::Region(region)) => (log, region, bytes),
        other => panic!("what was written just now is a region, and not {other:?}"),
    }
}

fn answers(region: FileRegion) -> Vec<Answer> {
    let bytes = |text: &'static str| Piece::Bytes(Bytes::from_static(text.as_bytes()));
    vec![
        Answer::Frame(Bytes::from_static(b"first ")),
        Answer::Pieces(vec![bytes("head "), Piece::File(region), bytes(" tail "), bytes("")]),
        Answer::Later(Box::pin(async { Ok(Bytes::from_static(b"later ")) })),
        Answer::Frame(Bytes::from_static(b"last")),
    ]
}

/// Writes answers, and returns what the other side reads.
async fn exchange(
    answers: Vec<Answer>,
    to: impl FileSink + 'static,
    mut from: impl tokio::io::AsyncRead + Unpin,
) -> Vec<u8> {
    let (queue, queued) = answer_queue(10);
    let writer = task::spawn(write_answers(queued, to, None));
    let sent = task::spawn(async move {
        for answer in answers {
            queue.send(answer).await;
        }
        queue
    });
    let mut read = Vec::new();
    let queue = sent.await.expect("nothing panicked");
    let unread = queue.backlog.bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!(unread > 0, "files count among what the client has to read");
    let finished = task::spawn(async move {
        queue.wait_until_below(0).await;
        let has_unanswered = queue.has_unanswered();
        drop(queue);
        has_unanswered
    });
    let writer = async {
        writer.await.expect("nothing panicked").expect("nothing was refused");
    };
    let reading = async { from.read_to_end(&mut read).await.map(drop) };
    let (_, outcome) = tokio::join!(writer, reading);
    outcome.expect("the connection ends in order");
    // It waits in vain where the connection has ended before all was written.
    if finished.is_finished() {
        assert!(!finished.await.expect("nothing panicked"));
    }
    read
}

async fn pair() -> (net::OwnedWriteHalf, net::TcpStream) {
    let listener = net::bind("127.0.0.1", 0).await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let client = net::connect("127.0.0.1", port).await.expect("connected");
    let (server, _) = listener.accept().await.expect("accepted");
    (server.into_split().1, client)
}

fn expected(records: &[u8]) -> Vec<u8> {
    [b"first head ", records, b" tail later last"].concat()
}

#[tokio::test]
async fn files_go_out_in_their_place_by_the_system_or_by_copy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (_log, region, records) = log(directory.path(), 20);
    let (to, from) = pair().await;
    assert!(exchange(answers(region.clone()), to, from).await == expected(&records));
    let (to, from) = tokio::io::duplex(5000);
    assert!(exchange(answers(region), to, from).await == expected(&records));
}

#[tokio::test]
async fn a_log_that_is_truncated_meanwhile_ends_the_connection() {
    for truncate_to in [0, 10, 19] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut log, region, records) = log(directory.path(), 20);
        let (to, mut from) = pair().await;
        let (queue, queued) = answer_queue(10);
        let writer = task::spawn(write_answers(queued, to, None));
        for answer in answers(region) {
            queue.send(answer).await;
        }
        // Far more is left than the system keeps for a connection.
        let mut read = vec![0; 50_000];
        from.read_exact(&mut read).await.expect("it was begun");
        log.truncate_to(Offset(truncate_to)).expect("truncated");
        let whole = expected(&records);
        assert!(whole.starts_with(&read));
        let _ = from.read_to_end(&mut read).await;
        // What the system has taken already it sends as the file is by then. The client throws an unfinished answer away.
        assert!(read.len() < whole.len(), "truncated to {truncate_to}");
        writer.await.expect("nothing panicked").expect("nothing was refused");
        queue.closed().await;
    }
}
