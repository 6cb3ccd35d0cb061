//! kafka-server-start and kafka-server-stop: a node of this program, begun and ended as a Kafka node is.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use vltava_host::fs;

use super::Failure;
use crate::console::Console;
use crate::properties;

/// Begins a node by running this same program as `vltava serve`: in its own place, so that signals and the process id
/// are the node's, or beside it with `-daemon`.
pub fn start(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let Some(request) = StartRequest::parse(arguments) else {
        let usage = "USAGE: kafka-server-start [-daemon] server.properties [--override property=value]*";
        console.line(usage)?;
        return Ok(1);
    };
    let failed = |what: &str, error: std::io::Error| Failure::Message(format!("{what}: {error}"));
    let program = std::env::current_exe().map_err(|error| failed("cannot find this program's own file", error))?;
    let mut command = Command::new(program);
    command.arg0("vltava").args(request.serve);
    if !request.is_daemon {
        return Err(failed("cannot start", command.exec()));
    }
    let logs = std::env::var_os("LOG_DIR").map_or_else(|| PathBuf::from("logs"), PathBuf::from);
    let file = logs.join("kafkaServer.out");
    let opened = fs::create_dir_all(&logs)
        .and_then(|()| std::fs::OpenOptions::new().create(true).append(true).open(&file))
        .and_then(|out| Ok((out.try_clone()?, out)));
    let (out, err) = opened.map_err(|error| failed(&format!("cannot write {}", file.display()), error))?;
    // A process group of its own, so that what ends this shell's job does not end the node.
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    command.spawn().map_err(|error| failed("cannot start", error))?;
    Ok(0)
}

/// What `kafka-server-start` is asked for.
#[derive(Debug, PartialEq, Eq)]
struct StartRequest {
    is_daemon: bool,
    /// The arguments of `vltava serve`.
    serve: Vec<String>,
}

impl StartRequest {
    fn parse(arguments: &[String]) -> Option<Self> {
        let is_daemon = arguments.first().is_some_and(|first| first == "-daemon" || first == "--daemon");
        let rest = &arguments[usize::from(is_daemon)..];
        // Kafka reads its options with the file in front.
        let (file, options) = rest.split_first().filter(|(file, _)| !file.starts_with('-'))?;
        let mut serve = vec!["serve".to_owned(), file.clone()];
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let pair = match option.strip_prefix("--override") {
                Some("") => options.next()?.clone(),
                Some(attached) => attached.strip_prefix('=')?.to_owned(),
                None => return None,
            };
            serve.extend(["--override".to_owned(), pair]);
        }
        Some(Self { is_daemon, serve })
    }
}

/// Ends nodes of this program on this machine, all or those that the options name.
pub fn stop(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let value = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='));
    let (node_id, roles) = (value("--node-id"), value("--process-role"));
    if node_id.is_some() && roles.is_some() {
        console.line("When both node-id and process-role are provided, the value for node-id will take precedence")?;
    }
    let wanted = match (node_id, roles) {
        (Some(id), _) => Some(("node.id", id)),
        (None, roles) => roles.map(|roles| ("process.roles", roles)),
    };
    let signal = match std::env::var("SIGNAL").ok().as_deref() {
        None | Some("TERM") => Signal::TERM,
        Some("INT") => Signal::INT,
        Some("KILL") => Signal::KILL,
        Some(other) => return Err(Failure::Message(format!("SIGNAL={other} is not one of TERM, INT and KILL"))),
    };
    let nodes = nodes().map_err(|error| Failure::Message(format!("cannot list processes in /proc: {error}")))?;
    if nodes.is_empty() {
        console.line("No kafka server to stop")?;
        return Ok(1);
    }
    for node in nodes {
        if wanted.is_none_or(|(name, value)| node.setting(name).as_deref() == Some(value)) {
            let ended = kill_process(node.pid, signal);
            ended.map_err(|error| Failure::Message(format!("cannot stop process {}: {error}", node.pid)))?;
        }
    }
    Ok(0)
}

/// A process that runs `vltava serve`.
struct NodeProcess {
    pid: Pid,
    directory: Option<PathBuf>,
    arguments: Vec<String>,
}

impl NodeProcess {
    /// A property from the command line or the file; defaults are not known here.
    fn setting(&self, name: &str) -> Option<String> {
        let mut words = self.arguments.iter();
        let mut value = None;
        while let Some(word) = words.next() {
            if word == "--override"
                && let Some((overridden, to)) = words.next().and_then(|pair| pair.split_once('='))
                && overridden == name
            {
                value = Some(to.to_owned());
            }
        }
        let file = self.arguments.get(1).filter(|file| !file.starts_with('-'));
        value.or_else(|| {
            let file = self.directory.as_deref().unwrap_or(Path::new("/")).join(file?);
            properties::parse(&fs::read_to_string(file).ok()?).ok()?.remove(name)
        })
    }
}

/// Nodes that run from this program's file. Brokers of a `vltava cluster` are that command's to stop.
fn nodes() -> std::io::Result<Vec<NodeProcess>> {
    let program = std::env::current_exe()?;
    let mut nodes = vec![];
    for entry in fs::read_dir("/proc")? {
        let directory = entry?.path();
        let id = directory.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
        let Some(pid) = id.and_then(Pid::from_raw) else { continue };
        // Processes of others cannot be looked into, and processes end while they are listed.
        let Ok(file) = std::fs::read_link(directory.join("exe")) else { continue };
        let Ok(line) = fs::read(directory.join("cmdline")) else { continue };
        let arguments = arguments(&line);
        if is_same_program(&file, &program) && is_node(&arguments) {
            nodes.push(NodeProcess { pid, directory: std::fs::read_link(directory.join("cwd")).ok(), arguments });
        }
    }
    Ok(nodes)
}

/// The words after the program's name.
fn arguments(command_line: &[u8]) -> Vec<String> {
    let words = command_line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).skip(1);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn is_node(arguments: &[String]) -> bool {
    arguments.first().is_some_and(|command| command == "serve") && !arguments.iter().any(|word| word == "--parent")
}

/// A program that was replaced on disk since it started is still the same one.
fn is_same_program(running: &Path, this: &Path) -> bool {
    let mut replaced = OsString::from(this);
    replaced.push(" (deleted)");
    running == this || running == Path::new(&replaced)
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;

    use super::{NodeProcess, StartRequest, arguments, is_node, is_same_program};

    fn parse(line: &str) -> Option<(bool, String)> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        StartRequest::parse(&words).map(|request| (request.is_daemon, request.serve.join(" ")))
    }

    #[test]
    fn starting_is_serving() {
        assert_eq!(parse("a.properties"), Some((false, "serve a.properties".to_owned())));
        assert_eq!(
            parse("-daemon a.properties --override b=c --override=d=e"),
            Some((true, "serve a.properties --override b=c --override d=e".to_owned()))
        );
        assert_eq!(parse(""), None);
        assert_eq!(parse("-daemon"), None);
        assert_eq!(parse("a.properties --frob"), None);
        assert_eq!(parse("a.properties --override"), None);
    }

    #[test]
    fn only_nodes_are_stopped() {
        let words = arguments(b"vltava\0serve\0a.properties\0--override\0node.id=7\0");
        assert!(is_node(&words));
        assert!(!is_node(&arguments(b"vltava\0cluster\0")));
        assert!(!is_node(&arguments(b"vltava\0serve\0a\0--parent\x0012\0")));
        assert!(is_same_program("/a (deleted)".as_ref(), "/a".as_ref()));
        assert!(!is_same_program("/b".as_ref(), "/a".as_ref()));
        let directory = tempfile::tempdir().expect("a directory");
        vltava_host::fs::write(directory.path().join("a.properties"), "node.id=1\nprocess.roles=broker\n")
            .expect("written");
        let node = NodeProcess { pid: getpid(), directory: Some(directory.path().to_owned()), arguments: words };
        assert_eq!(node.setting("node.id").as_deref(), Some("7"));
        assert_eq!(node.setting("process.roles").as_deref(), Some("broker"));
        assert_eq!(node.setting("log.dirs"), None);
    }
}
