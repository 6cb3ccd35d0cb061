//! Reads that wait for a disk, away from the threads that serve everybody else.

use tokio::sync::Semaphore;
use vltava_host::task;

/// Enough to keep a disk busy, and few enough to leave it to others in between. Each holds one partition's share of a
/// response in memory.
const MAX_AT_ONCE: usize = 16;

/// Lets a bounded number of reads wait for disks at the same time; the others wait for their turn.
pub struct ColdReads {
    turns: Semaphore,
}

impl Default for ColdReads {
    fn default() -> Self {
        Self { turns: Semaphore::new(MAX_AT_ONCE) }
    }
}

impl ColdReads {
    pub async fn run<T: Send + 'static>(&self, read: impl FnOnce() -> T + Send + 'static) -> T {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        task::blocking(read).await
    }
}
