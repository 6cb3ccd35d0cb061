//! `vltava log`: what lies in a log directory, and what is wrong with it, told without a broker.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use vltava_cli::console::Console;
use vltava_cli::people::report::{Format, Report};
use vltava_storage::{Depth, Finding, Inspection, Severity, StorageError, inspect};

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// List the segments of a directory with their offsets, and what is wrong with them by their headers.
    Inspect(LogArguments),
    /// Read every byte of a directory, check it, and say what is wrong. Lists nothing that is sound.
    Verify(LogArguments),
}

#[derive(Debug, Args)]
pub struct LogArguments {
    /// A log directory (an entry of log.dirs), a partition's directory, or a .log file. No broker may be using it.
    path: PathBuf,
    /// How to show results.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Returns the exit code: 1 if something is damaged, or cannot be looked at.
pub fn run(command: &LogCommand, console: &mut Console<'_>) -> anyhow::Result<u8> {
    let (arguments, depth) = match command {
        LogCommand::Inspect(arguments) => (arguments, Depth::Headers),
        LogCommand::Verify(arguments) => (arguments, Depth::Everything),
    };
    let path = &arguments.path;
    let inspection = inspect(path, depth).map_err(|error| match error {
        StorageError::Locked { path } => {
            anyhow::anyhow!(
                "a broker is using {}: stop it first, since its files change while they are read",
                path.display()
            )
        }
        error => error.into(),
    });
    let inspection = inspection.with_context(|| format!("cannot look at {}", path.display()))?;
    let report = match depth {
        Depth::Headers => segments(&inspection),
        Depth::Everything => findings(&inspection),
    };
    console.text(report.show(arguments.output, console.colours))?;
    if arguments.output == Format::Table {
        console.line(summary(&inspection))?;
    }
    Ok(u8::from(!inspection.is_sound()))
}

/// A row for each segment, and one for each other place where something was found.
fn segments(inspection: &Inspection) -> Report {
    let columns = ["path", "first_offset", "next_offset", "bytes", "batches", "records", "codecs", "problems"];
    let mut report = Report::new(&columns).with_alarm(|name, value| name == "problems" && !value.is_null());
    for segment in &inspection.segments {
        report.push(vec![
            json!(segment.path.display().to_string()),
            json!(segment.base_offset.value()),
            json!(segment.end_offset.value()),
            json!(segment.bytes),
            json!(segment.batches),
            json!(segment.records),
            json!(segment.codecs),
            problems(inspection, |finding| finding.path == segment.path),
        ]);
    }
    let mut others: Vec<_> = inspection.findings.iter().map(|finding| &finding.path).collect();
    others.retain(|path| !inspection.segments.iter().any(|segment| segment.path == **path));
    others.dedup();
    for path in others {
        let mut row = vec![json!(null); columns.len()];
        row[0] = json!(path.display().to_string());
        row[columns.len() - 1] = problems(inspection, |finding| finding.path == *path);
        report.push(row);
    }
    report
}

fn problems(inspection: &Inspection, concerns: impl Fn(&Finding) -> bool) -> serde_json::Value {
    let told: Vec<&str> =
        inspection.findings.iter().filter(|finding| concerns(finding)).map(|finding| finding.what.as_str()).collect();
    if told.is_empty() { json!(null) } else { json!(told.join("; ")) }
}

fn findings(inspection: &Inspection) -> Report {
    let mut report = Report::new(&["severity", "path", "what"])
        .with_alarm(|name, value| name == "severity" && *value == json!("damage"));
    for finding in &inspection.findings {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Damage => "damage",
        };
        report.push(vec![json!(severity), json!(finding.path.display().to_string()), json!(finding.what)]);
    }
    report
}

fn summary(inspection: &Inspection) -> String {
    let bytes: u64 = inspection.segments.iter().map(|segment| segment.bytes).sum();
    let damaged = inspection.findings.iter().filter(|finding| finding.severity == Severity::Damage).count();
    let verdict = if damaged == 0 { "nothing is damaged".to_owned() } else { format!("{damaged} damaged places") };
    format!("{} segments, {bytes} bytes: {verdict}", inspection.segments.len())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use vltava_cli::console::Console;
    use vltava_cli::people::report::Format;
    use vltava_host::fs;
    use vltava_storage::{LogConfig, LogDir, PartitionName};
    use vltava_types::{PartitionIndex, TopicId};

    use super::{LogArguments, LogCommand, run};

    fn verify(path: &Path, output: Format) -> (Option<u8>, String) {
        let (mut out, mut err) = (vec![], vec![]);
        let command = LogCommand::Verify(LogArguments { path: path.to_owned(), output });
        let code = run(&command, &mut Console::into_buffers(&mut out, &mut err)).ok();
        (code, String::from_utf8(out).expect("text"))
    }

    #[test]
    fn the_exit_code_tells_of_damage_and_a_directory_in_use_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log_dir = LogDir::open(directory.path()).expect("opened");
        let name = PartitionName::new("orders", PartitionIndex(0));
        let config = Arc::new(LogConfig::default());
        drop(log_dir.create(&name, TopicId::from_random([1; 16]), config).expect("created"));
        assert_eq!(verify(directory.path(), Format::Table).0, None);
        drop(log_dir);
        let (code, told) = verify(directory.path(), Format::Table);
        assert_eq!(code, Some(0));
        assert!(told.ends_with("1 segments, 0 bytes: nothing is damaged\n"), "{told}");
        fs::remove_file(directory.path().join("orders-0/partition.metadata")).expect("there");
        let (code, told) = verify(directory.path(), Format::Json);
        assert_eq!(code, Some(1));
        assert!(told.contains(r#""severity": "damage""#) && told.contains("partition.metadata is missing"), "{told}");
    }
}
