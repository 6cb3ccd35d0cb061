//! Tasks, blocking work and separate runtimes.

use std::future::Future;
use std::sync::{Arc, Mutex};

pub use tokio::task::JoinHandle;

/// How long a simulated disk takes at most, about that of a good SSD's flush on a bad day.
#[cfg(vltava_sim)]
const MAX_DISK_DELAY_MS: u64 = 4;

/// Runs a task on the current runtime.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[cfg(vltava_sim)]
    let task = crate::machine::Pausable::new(task);
    tokio::spawn(task)
}

/// Runs work that may block on a disk away from the runtime's own threads; in place, and after a random moment, under the
/// simulator: what waits for the disk there can be overtaken by a crash.
pub async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    #[cfg(not(vltava_sim))]
    return match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_cancelled) => std::future::pending().await,
        },
    };
    #[cfg(vltava_sim)]
    {
        if turmoil::in_simulation() {
            let delay_ms = crate::random::u64() % (MAX_DISK_DELAY_MS + crate::machine::disk_delay_ms());
            tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
        }
        work()
    }
}

/// Runs work that may block on each of `items`, `threads` at a time. Outcomes come in any order.
pub async fn blocking_each<T, R>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Send + Sync + 'static) -> Vec<R>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let items = Arc::new(Mutex::new(items.into_iter()));
    let work = Arc::new(work);
    let workers: Vec<_> = (0..threads.max(1))
        .map(|_| {
            let (items, work) = (Arc::clone(&items), Arc::clone(&work));
            spawn(blocking(move || {
                // The lock is held by this expression only, and not while the item is worked on.
                let next = || items.lock().expect("an iterator over values does not panic").next();
                std::iter::from_fn(next).map(|item| work(item)).collect::<Vec<R>>()
            }))
        })
        .collect();
    let mut outcomes = Vec::new();
    for worker in workers {
        match worker.await {
            Ok(more) => outcomes.extend(more),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down, and this task with it.
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }
    outcomes
}

/// Runs `task` to its end on a runtime and threads of its own, so that a saturated data path cannot starve it.
/// Dropping the handle stops the runtime. Under the simulator it is a task like any other.
pub fn spawn_isolated<F>(name: &str, threads: usize, task: F) -> std::io::Result<Isolated>
where
    F: Future<Output = ()> + Send + 'static,
{
    #[cfg(not(vltava_sim))]
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()?;
        let task = runtime.spawn(task);
        Ok(Isolated { runtime: Some(runtime), task })
    }
    #[cfg(vltava_sim)]
    {
        let _ = (name, threads);
        Ok(Isolated { task: spawn(task) })
    }
}

/// A task on a runtime of its own; see [`spawn_isolated`].
pub struct Isolated {
    #[cfg(not(vltava_sim))]
    runtime: Option<tokio::runtime::Runtime>,
    task: JoinHandle<()>,
}

impl Isolated {
    /// Waits for the task to end by itself; panics if it panicked.
    pub async fn join(mut self) {
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl Drop for Isolated {
    fn drop(&mut self) {
        self.task.abort();
        #[cfg(not(vltava_sim))]
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
