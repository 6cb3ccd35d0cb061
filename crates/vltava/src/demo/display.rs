//! What the demo shows while it runs: a picture that is drawn over itself, or lines for a log.

use std::io::{self, IsTerminal as _, Write as _};

use tokio::time::Instant;

use super::load::{Load, Observed};
use super::timeline::Timeline;
use crate::cluster::Broker;

/// Between two pictures.
const FRAME_MS: u128 = 100;

/// Tenths of a second in the curve.
const CURVE: usize = 60;

/// The latest events in the picture.
const EVENTS: usize = 12;

pub struct Display {
    is_plain: bool,
    /// Events that are printed.
    printed: usize,
    /// Lines of the last picture, which the next one covers.
    drawn: usize,
    drawn_at: Option<Instant>,
}

impl Display {
    /// Draws only on a terminal.
    pub fn new(is_plain: bool) -> Self {
        Self { is_plain: is_plain || !io::stdout().is_terminal(), printed: 0, drawn: 0, drawn_at: None }
    }

    pub fn show(&mut self, brokers: &[Broker], observed: &Observed, load: &Load, timeline: &Timeline) {
        if self.is_plain {
            for line in timeline.lines_from(self.printed) {
                println!("{line}");
            }
            self.printed = timeline.len();
            return;
        }
        if self.drawn_at.is_some_and(|at| at.elapsed().as_millis() < FRAME_MS) {
            return;
        }
        self.drawn_at = Some(Instant::now());
        let lines = picture(brokers, observed, load, timeline);
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            text.push_str(&format!("\r\x1b[2K{line}\n"));
        }
        // A shorter picture leaves nothing of a longer one behind.
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        let mut out = io::stdout();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// What follows stands below the last picture.
    pub fn end(&mut self) {
        self.drawn = 0;
    }
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

fn picture(brokers: &[Broker], observed: &Observed, load: &Load, timeline: &Timeline) -> Vec<String> {
    let mut lines = vec![format!("{BOLD}vltava demo failover{PLAIN}  {:>6.1} s", timeline.now_ms() as f64 / 1_000.0)];
    lines.push(String::new());
    for broker in brokers {
        let id = i32::from(broker.node_id());
        let state = if broker.runs() { format!("{GREEN}up  {PLAIN}") } else { format!("{RED}dead{PLAIN}") };
        let mark = |is_so: bool, text: &str| if is_so { text.to_owned() } else { " ".repeat(text.len()) };
        let leader = mark(observed.leader == Some(id), "leader");
        let in_sync = mark(observed.isr.contains(&id), "in sync");
        let controller = mark(observed.controller == Some(id), "controller");
        lines.push(format!("  broker {id}  {state}  {BOLD}{leader}{PLAIN}  {in_sync}  {YELLOW}{controller}{PLAIN}"));
    }
    let (produced, acknowledged, consumed) = load.counts();
    lines.push(String::new());
    lines.push(format!("  produced {produced:>9}   acknowledged {acknowledged:>9}   consumed {consumed:>9}"));
    lines.push(format!("  acknowledged, last {} s  {}", CURVE / 10, curve(&load.recent(timeline.now_ms(), CURVE))));
    lines.push(String::new());
    let first = timeline.len().saturating_sub(EVENTS);
    lines.extend(timeline.lines_from(first).into_iter().map(|line| format!("{DIM}{line}{PLAIN}")));
    lines
}

/// One character for each count, as high as the count among the others.
fn curve(counts: &[usize]) -> String {
    const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    counts.iter().map(|count| HEIGHTS[(count * 8).div_ceil(most)]).collect()
}

#[cfg(test)]
mod tests {
    use super::curve;

    #[test]
    fn a_curve_shows_pauses_as_gaps() {
        assert_eq!(curve(&[10, 5, 0, 1, 10]), "█▄ ▁█");
        assert_eq!(curve(&[0, 0]), "  ");
    }
}
