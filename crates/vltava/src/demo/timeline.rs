//! What happened, and when.

use tokio::time::Instant;

pub struct Timeline {
    started: Instant,
    events: Vec<(u64, String)>,
}

impl Timeline {
    pub fn new() -> Self {
        Self { started: Instant::now(), events: Vec::new() }
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub fn note(&mut self, event: impl Into<String>) {
        self.events.push((self.now_ms(), event.into()));
    }

    /// The events from this one on, as lines.
    pub fn lines_from(&self, first: usize) -> Vec<String> {
        let line = |(at, event): &(u64, String)| format!("{:>8.3} s  {event}", *at as f64 / 1_000.0);
        self.events.iter().skip(first).map(line).collect()
    }

    pub fn len(&self) -> usize {
        self.events.len()
    }
}
