//! How far long work has come: a bar on a terminal, a line now and then elsewhere. On standard error, so that it never
//! gets among results.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::console::Console;

const BAR_WIDTH: u64 = 30;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Work of so many steps.
pub struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    last_line: Option<Instant>,
}

impl Progress {
    /// `what` stands behind the numbers: "partitions moved".
    #[must_use]
    pub const fn new(what: &'static str, total: u64) -> Self {
        Self { what, total, done: 0, last_line: None }
    }

    /// So many steps are left, which may be more than there were.
    pub fn show_left(&mut self, left: u64, console: &mut Console<'_>) -> io::Result<()> {
        self.total = self.total.max(self.done + left);
        self.show(self.total - left, console)
    }

    /// So many steps are done.
    pub fn show(&mut self, done: u64, console: &mut Console<'_>) -> io::Result<()> {
        let has_moved = done != self.done || self.last_line.is_none();
        self.done = done.min(self.total);
        if console.is_interactive {
            self.last_line = Some(Instant::now());
            write!(console.err, "\r\x1b[K{} {}", bar(self.done, self.total), self.text())?;
            return console.err.flush();
        }
        let is_due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
        if has_moved && is_due && self.done < self.total {
            self.last_line = Some(Instant::now());
            console.complain(self.text())?;
        }
        Ok(())
    }

    /// Leaves the last state on the screen.
    pub fn finish(self, console: &mut Console<'_>) -> io::Result<()> {
        if console.is_interactive { console.complain("") } else { console.complain(self.text()) }
    }

    fn text(&self) -> String {
        format!("{} of {} {}", self.done, self.total, self.what)
    }
}

fn bar(done: u64, total: u64) -> String {
    let filled = (done * BAR_WIDTH).checked_div(total).unwrap_or(BAR_WIDTH);
    let cells = (0..BAR_WIDTH).map(|cell| if cell < filled { '█' } else { '░' });
    cells.collect()
}

#[cfg(test)]
mod tests {
    use super::{Progress, bar};
    use crate::console::Console;

    fn shown(is_interactive: bool, left: &[u64]) -> String {
        let (mut out, mut err) = (vec![], vec![]);
        {
            let mut console = Console::into_buffers(&mut out, &mut err);
            console.is_interactive = is_interactive;
            let mut progress = Progress::new("partitions moved", left[0]);
            for left in left {
                progress.show_left(*left, &mut console).expect("a buffer takes everything");
            }
            progress.finish(&mut console).expect("a buffer takes everything");
        }
        assert!(out.is_empty(), "results only");
        String::from_utf8(err).expect("text")
    }

    #[test]
    fn elsewhere_than_on_a_terminal_lines_are_few_and_plain() {
        assert_eq!(shown(false, &[4, 3, 2, 0]), "0 of 4 partitions moved\n4 of 4 partitions moved\n");
        assert_eq!(shown(false, &[2, 3, 0]), "0 of 2 partitions moved\n3 of 3 partitions moved\n", "more came up");
    }

    #[test]
    fn a_terminal_has_one_line_that_changes() {
        let shown = shown(true, &[2, 1, 0]);
        assert_eq!(shown.matches('\n').count(), 1);
        assert_eq!(shown.matches('\r').count(), 3);
        assert!(shown.ends_with("2 of 2 partitions moved\n"), "{shown}");
    }

    #[test]
    fn a_bar_is_full_when_everything_is_done() {
        assert_eq!(bar(0, 10).matches('█').count(), 0);
        assert_eq!(bar(5, 10).matches('█').count(), 15);
        assert_eq!((bar(10, 10).matches('░').count(), bar(0, 0).matches('░').count()), (0, 0));
    }
}
