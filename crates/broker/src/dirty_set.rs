//! What has news since somebody last looked: many mark, one takes.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A set of numbers with a bell. A number is in it at most once, however often it is marked, so that its size is
/// bounded by what can be marked.
#[derive(Default)]
pub struct DirtySet {
    marked: Mutex<BTreeSet<u32>>,
    bell: Notify,
}

impl DirtySet {
    /// Marks a number and wakes who waits. Cheap, and never blocks for long: may be called under other locks.
    pub fn mark(&self, number: u32) {
        if self.marked.lock().insert(number) {
            self.bell.notify_one();
        }
    }

    /// Everything that was marked since the last call.
    pub fn take(&self) -> BTreeSet<u32> {
        std::mem::take(&mut *self.marked.lock())
    }

    /// Waits until something was marked since the last [`DirtySet::take`]; may also wake for nothing.
    pub async fn wait(&self) {
        self.bell.notified().await;
    }

    /// Wakes who waits, for another reason.
    pub fn ring(&self) {
        self.bell.notify_one();
    }
}
