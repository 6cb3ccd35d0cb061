//! What simulated machines do wrong besides their disks and networks: a clock that is off, a process that stands still, a
//! disk that is slow.
//!
//! A machine is known by the runtime that its process runs on. What stands still are the tasks spawned through
//! [`crate::task`]; those that libraries spawn by themselves go on, so whoever pauses a machine cuts it off as well.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Handle, Id};

thread_local! {
    static MACHINES: RefCell<HashMap<Id, Machine>> = RefCell::default();
    /// Whether any machine was ever disturbed: most runs need not ask which one they are on.
    static IS_ANY_DISTURBED: Cell<bool> = const { Cell::new(false) };
}

/// A handle on a machine, for whoever runs the simulation.
#[derive(Clone, Default)]
pub struct Machine {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    clock_offset_ms: Cell<i64>,
    disk_delay_ms: Cell<u64>,
    is_paused: Cell<bool>,
    /// Of tasks that were to run meanwhile.
    wakers: RefCell<Vec<Waker>>,
}

impl Machine {
    /// The current runtime runs on this machine from now on.
    pub fn boot(&self) {
        MACHINES.with_borrow_mut(|machines| {
            machines.retain(|_, machine| !Rc::ptr_eq(&machine.state, &self.state));
            machines.insert(Handle::current().id(), self.clone());
        });
    }

    /// Forgets all machines of this thread.
    pub fn forget_all() {
        MACHINES.with_borrow_mut(HashMap::clear);
        IS_ANY_DISTURBED.set(false);
    }

    /// Its wall clock is off by so much.
    pub fn set_clock_offset_ms(&self, offset_ms: i64) {
        IS_ANY_DISTURBED.set(true);
        self.state.clock_offset_ms.set(offset_ms);
    }

    /// Whatever waits for its disk waits up to so much longer.
    pub fn set_disk_delay_ms(&self, delay_ms: u64) {
        IS_ANY_DISTURBED.set(true);
        self.state.disk_delay_ms.set(delay_ms);
    }

    /// Its process stands still, as after SIGSTOP, while time goes on.
    pub fn pause(&self) {
        IS_ANY_DISTURBED.set(true);
        self.state.is_paused.set(true);
    }

    /// Its process goes on.
    pub fn resume(&self) {
        self.state.is_paused.set(false);
        self.state.wakers.take().into_iter().for_each(Waker::wake);
    }
}

fn current<R>(ask: impl FnOnce(&State) -> R) -> Option<R> {
    if !IS_ANY_DISTURBED.get() {
        return None;
    }
    let id = Handle::try_current().ok()?.id();
    MACHINES.with_borrow(|machines| machines.get(&id).map(|machine| ask(&machine.state)))
}

pub(crate) fn clock_offset_ms() -> i64 {
    current(|machine| machine.clock_offset_ms.get()).unwrap_or(0)
}

pub(crate) fn disk_delay_ms() -> u64 {
    current(|machine| machine.disk_delay_ms.get()).unwrap_or(0)
}

/// A task that stands still while its machine does.
pub struct Pausable<F> {
    task: Pin<Box<F>>,
}

impl<F> Pausable<F> {
    pub fn new(task: F) -> Self {
        Self { task: Box::pin(task) }
    }
}

impl<F: Future> Future for Pausable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let is_paused = current(|machine| {
            if machine.is_paused.get() {
                machine.wakers.borrow_mut().push(context.waker().clone());
            }
            machine.is_paused.get()
        });
        if is_paused == Some(true) { Poll::Pending } else { self.task.as_mut().poll(context) }
    }
}
