//! Where output goes: the process's own streams, or buffers that a test reads.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};

/// Standard output and standard error of one command.
pub struct Console<'a> {
    pub out: Box<dyn Write + Send + 'a>,
    pub err: Box<dyn Write + Send + 'a>,
    /// Whether text on `out` may carry colours.
    pub colours: bool,
    /// Whether `err` is a terminal, on which a line may be drawn again.
    pub is_interactive: bool,
}

impl Console<'static> {
    /// The process's streams. Colours only for a terminal, and not if `NO_COLOR` is set.
    #[must_use]
    pub fn of_process() -> Self {
        let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            colours,
            is_interactive: io::stderr().is_terminal(),
        }
    }
}

impl<'a> Console<'a> {
    /// Collects everything, without colours.
    #[must_use]
    pub fn into_buffers(out: &'a mut Vec<u8>, err: &'a mut Vec<u8>) -> Self {
        Self { out: Box::new(out), err: Box::new(err), colours: false, is_interactive: false }
    }

    /// A line on standard output.
    pub fn line(&mut self, text: impl fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Text as it is on standard output.
    pub fn text(&mut self, text: impl fmt::Display) -> io::Result<()> {
        write!(self.out, "{text}")
    }

    /// A line on standard error.
    pub fn complain(&mut self, text: impl fmt::Display) -> io::Result<()> {
        writeln!(self.err, "{text}")
    }
}
