use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use vltava_storage::{Flush, Flushable, Flusher, Log};
use vltava_types::Offset;

use crate::batch::{append, config, create};

/// A log behind a lock, as a partition keeps it.
struct Partition {
    log: Mutex<Log>,
    durable: watch::Sender<Offset>,
}

impl Flushable for Partition {
    fn begin_flush(&self) -> Option<Flush> {
        self.log.lock().begin_flush()
    }

    fn end_flush(&self, flush: &Flush) {
        let durable = self.log.lock().end_flush(flush);
        self.durable.send_replace(durable);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_append_becomes_durable() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let partitions: Vec<_> = (0..5)
        .map(|i| {
            let log = create(&directory.path().join(format!("orders-{i}")), config());
            Arc::new(Partition { log: Mutex::new(log), durable: watch::Sender::new(Offset(0)) })
        })
        .collect();
    let flushes = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&flushes);
    let on_flushed = move |_took| {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let flusher = Flusher::start(2, on_flushed, |error| panic!("{error}"));
    for _ in 0..50 {
        for partition in &partitions {
            append(&mut partition.log.lock(), 2, 3);
            flusher.mark_dirty(Arc::clone(partition) as Arc<dyn Flushable>);
        }
        tokio::task::yield_now().await;
    }
    for partition in &partitions {
        let mut durable = partition.durable.subscribe();
        let reached = tokio::time::timeout(Duration::from_secs(10), durable.wait_for(|offset| *offset == Offset(100)));
        reached.await.expect("in time").expect("the partition lives");
    }
    assert!(flushes.load(Ordering::Relaxed) >= partitions.len());
}

/// A log whose disk fails.
struct Failing {
    log: Mutex<Log>,
}

impl Flushable for Failing {
    fn begin_flush(&self) -> Option<Flush> {
        self.log.lock().begin_flush()
    }

    fn end_flush(&self, _flush: &Flush) {
        panic!("a failed flush is not reported as durable");
    }
}

#[tokio::test]
async fn trap_27_a_failed_flush_is_final() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("orders-0");
    let mut log = create(&path, config());
    for _ in 0..30 {
        append(&mut log, 2, 3);
    }
    // The new segments' names cannot be flushed in a directory that is gone.
    vltava_host::fs::remove_dir_all(&path).expect("removed");
    let log = Arc::new(Failing { log: Mutex::new(log) });
    let (failure, failed) = tokio::sync::oneshot::channel();
    let flusher = Flusher::start(
        1,
        |_took| panic!("a failed flush is not counted"),
        move |error| {
            let _ = failure.send(error);
        },
    );
    flusher.mark_dirty(Arc::clone(&log) as Arc<dyn Flushable>);
    assert!(failed.await.expect("reported").is_io());
    assert!(flusher.has_failed());
    flusher.mark_dirty(Arc::clone(&log) as Arc<dyn Flushable>);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&log), 1, "nothing is queued any more");
    assert_eq!(log.log.lock().recovery_point(), Offset(0));
}
