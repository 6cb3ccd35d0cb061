//! Lines of standard input.

use std::io::{self, BufRead as _, Write as _};

use tokio::sync::mpsc;

/// Lines that were read and not asked for yet. The reader waits beyond that.
const LINES_AHEAD: usize = 1_000;

/// Reads standard input line by line, without line ends. Shows `prompt` before each line.
///
/// A thread of its own reads, which the end of the process does not wait for: the input may never come.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a thread of the runtime would be waited for")]
pub fn lines(prompt: Option<&'static str>) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (lines, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            if let Some(prompt) = prompt {
                let mut out = io::stdout();
                let _ = out.write_all(prompt.as_bytes()).and_then(|()| out.flush());
            }
            let mut line = Vec::new();
            let read = match input.read_until(b'\n', &mut line) {
                Ok(0) => return,
                Ok(_) => {
                    if line.pop_if(|last| *last == b'\n').is_some() {
                        line.pop_if(|last| *last == b'\r');
                    }
                    Ok(line)
                }
                Err(error) => Err(error),
            };
            let is_over = read.is_err();
            if lines.blocking_send(read).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}
