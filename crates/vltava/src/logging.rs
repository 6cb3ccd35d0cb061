//! Log lines on standard error: for people on a terminal, JSON otherwise.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// `VLTAVA_LOG` or `RUST_LOG` selects levels (`info` by default), `VLTAVA_LOG_FORMAT` may force `human` or `json`.
pub fn init() {
    let filter = std::env::var("VLTAVA_LOG")
        .or_else(|_| std::env::var("RUST_LOG"))
        .ok()
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new("info,openraft=warn"));
    let is_terminal = std::io::stderr().is_terminal();
    let human = match std::env::var("VLTAVA_LOG_FORMAT").as_deref() {
        Ok("human") => true,
        Ok("json") => false,
        _ => is_terminal,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if human {
        builder.with_ansi(is_terminal).init();
    } else {
        builder.json().flatten_event(true).init();
    }
}
