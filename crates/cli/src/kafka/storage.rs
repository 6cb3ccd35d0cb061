//! kafka-storage: what prepares a Kafka node's directories. Vltava needs no such step, so that `format` checks what it is
//! given and says so.

use vltava_host::random;
use vltava_types::Uuid;

use super::Failure;
use super::subcommands::{Argument, Command, Grammar, Request, option};
use crate::connect::read_settings;
use crate::console::Console;

const CONFIG: Argument = option("--config", "-c", "The node's properties file.");
const RELEASE: Argument = option("--release-version", "-r", "Has no effect.");
const FEATURE: Argument = option("--feature", "-f", "Has no effect.");

const GRAMMAR: Grammar = Grammar {
    tool: "kafka-storage",
    purpose: "The Kafka storage tool.",
    arguments: &[],
    commands: &[
        Command { name: "info", help: "Not built: directories need no format.", arguments: &[CONFIG] },
        Command {
            name: "format",
            help: "Check the arguments. Directories need no format.",
            arguments: &[
                CONFIG,
                option("--cluster-id", "-t", "The cluster's id."),
                option("--add-scram", "-S", "Not built yet."),
                Argument { name: "--ignore-formatted", short: "-g", takes_value: false, help: "Has no effect." },
                RELEASE,
                FEATURE,
                Argument { name: "--standalone", short: "-s", takes_value: false, help: "Has no effect." },
                Argument { name: "--no-initial-controllers", short: "-N", takes_value: false, help: "Has no effect." },
                option("--initial-controllers", "-I", "Has no effect: voters are in controller.quorum.voters."),
            ],
        },
        Command { name: "version-mapping", help: "Not built.", arguments: &[RELEASE] },
        Command { name: "feature-dependencies", help: "Not built.", arguments: &[FEATURE] },
        Command { name: "random-uuid", help: "Print a random UUID.", arguments: &[] },
    ],
};

pub fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let parsed = match GRAMMAR.parse(arguments)? {
        Request::Run(parsed) => parsed,
        Request::Help(text) => {
            console.text(text)?;
            return Ok(0);
        }
    };
    let refuse = |message: String| Err(Failure::Message(message));
    match parsed.command {
        "random-uuid" => {
            console.line(random_id())?;
            Ok(0)
        }
        "format" => {
            let settings = read_settings(GRAMMAR.require(&parsed, &["--config"])?)?;
            let cluster_id = GRAMMAR.require(&parsed, &["--cluster-id"])?;
            if cluster_id.parse::<Uuid>().is_err() {
                let message = format!(
                    "Cluster ID string {cluster_id} does not appear to be a valid UUID: 22 characters of url-safe \
                     base64 are expected"
                );
                return refuse(message);
            }
            if parsed.has("--add-scram") {
                return refuse("--add-scram: SCRAM credentials are not built yet".to_owned());
            }
            console.text(told(cluster_id, settings.get("cluster.id").map(String::as_str)))?;
            Ok(0)
        }
        command => refuse(format!("kafka-storage {command} is not built: directories need no format")),
    }
}

/// What `format` says instead of formatting.
fn told(cluster_id: &str, configured: Option<&str>) -> String {
    let mut text = "No format is needed: directories are prepared when the node starts.\n".to_owned();
    if configured != Some(cluster_id) {
        text.push_str(&format!(
            "The cluster takes its id from CLUSTER_ID or cluster.id when it first starts; set one of them to \
             {cluster_id} if it must be this one.\n"
        ));
    }
    text
}

/// Never one that a command line would take for an option.
fn random_id() -> Uuid {
    loop {
        let id = Uuid::from_random(random::bytes());
        if !id.to_string().starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::{run, told};
    use crate::console::Console;

    fn output(line: &str) -> Result<String, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (mut out, mut err) = (vec![], vec![]);
        let outcome = run(&words, &mut Console::into_buffers(&mut out, &mut err));
        outcome.map_err(|failure| failure.to_string())?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn ids_are_random_and_no_options() {
        let (one, other) = (output("random-uuid").expect("an id"), output("random-uuid").expect("an id"));
        assert_ne!(one, other);
        assert_eq!(one.trim_end().len(), 22);
    }

    #[test]
    fn format_checks_and_does_nothing() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("server.properties");
        vltava_host::fs::write(&file, "node.id=1\n").expect("written");
        let format = |id: &str| output(&format!("format -t {id} -c {} -g --standalone", file.display()));
        expect![[r#"
            No format is needed: directories are prepared when the node starts.
            The cluster takes its id from CLUSTER_ID or cluster.id when it first starts; set one of them to 4L6g3nShT-eMCtK--X86sw if it must be this one.
        "#]]
        .assert_eq(&format("4L6g3nShT-eMCtK--X86sw").expect("in order"));
        assert!(format("short").is_err());
        assert!(output("format -t 4L6g3nShT-eMCtK--X86sw").is_err());
        assert!(output("info -c x").is_err());
        assert_eq!(told("a", Some("a")).lines().count(), 1);
    }
}
