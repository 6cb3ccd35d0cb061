//! What a run did, event by event, so that two runs of one seed can be held against each other.

use std::fmt;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// Lines around the first difference that are shown.
const SHOWN: usize = 8;

/// Every log event of a run in order, with the host it happened on. Time is turmoil's own events: one a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    lines: Vec<String>,
}

impl Trace {
    /// Runs `work`, which must stay on this thread, and records what it logs and what its network carries.
    pub fn record<T>(work: impl FnOnce() -> T) -> (T, Self) {
        let lines = Arc::default();
        let recorder = Recorder { lines: Arc::clone(&lines) };
        let subscriber = tracing_subscriber::registry().with(recorder.with_filter(filter_fn(is_recorded)));
        let result = tracing::subscriber::with_default(subscriber, work);
        let lines = std::mem::take(&mut *lines.lock().expect("no holder panics"));
        (result, Self { lines })
    }

    /// Equal for equal runs.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The first lines in which the runs differ, after the last ones in which they agree. `None` if they are equal.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<String> {
        if self == other {
            return None;
        }
        let at = self.lines.iter().zip(&other.lines).take_while(|(a, b)| a == b).count();
        let mut shown = format!("the runs part at event {at}\n");
        for line in &self.lines[at.saturating_sub(SHOWN)..at] {
            let _ = writeln!(shown, "  {line}");
        }
        for (sign, lines) in [('-', &self.lines), ('+', &other.lines)] {
            for line in lines.iter().skip(at).take(SHOWN) {
                let _ = writeln!(shown, "{sign} {line}");
            }
        }
        Some(shown)
    }
}

/// Shows events as the variable `RUST_LOG` asks, with the simulated time and the host.
pub fn show_events() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::OFF.into()).from_env_lossy();
    // An error means that it was done before.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SimulatedTime).with_ansi(false).try_init();
}

struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{:?}", turmoil::sim_elapsed().unwrap_or_default())
    }
}

/// Our own events, and every segment on the simulated network. Others' events tell real times.
fn is_recorded(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    metadata.is_span() || target == "turmoil" || (target.starts_with("vltava") && *metadata.level() <= Level::DEBUG)
}

struct Recorder {
    lines: Arc<Mutex<Vec<String>>>,
}

/// The simulated host that turmoil's span names.
struct HostName(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if attributes.metadata().name() == "node" {
            let mut line = Line::default();
            attributes.record(&mut line);
            if let Some(span) = context.span(id) {
                span.extensions_mut().insert(HostName(line.0));
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut line = Line::default();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(HostName(name)) = span.extensions().get() {
                let _ = write!(line.0, "{name} ");
            }
        }
        let _ = write!(line.0, "{}", event.metadata().target());
        event.record(&mut line);
        self.lines.lock().expect("no holder panics").push(line.0);
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A segment in hexadecimal digits: long, and HTTP servers put the real date into it.
        if field.name() == "protocol" {
            return;
        }
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(events: &[u32]) -> Trace {
        let ((), trace) = Trace::record(|| {
            for number in events {
                tracing::info!(number);
                tracing::trace!("left out");
            }
        });
        trace
    }

    #[test]
    fn equal_runs_have_equal_traces() {
        assert_eq!(trace(&[1, 2]).hash(), trace(&[1, 2]).hash());
        assert_eq!(trace(&[1, 2]).first_difference(&trace(&[1, 2])), None);
    }

    #[test]
    fn the_first_difference_is_shown() {
        let difference = trace(&[1, 2]).first_difference(&trace(&[1, 3])).expect("they differ");
        let expected = "the runs part at event 1\n  vltava_sim::trace::tests number=1\n\
                        - vltava_sim::trace::tests number=2\n+ vltava_sim::trace::tests number=3\n";
        assert_eq!(difference, expected);
    }
}
