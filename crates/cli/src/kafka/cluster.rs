//! kafka-cluster: the cluster's id, its brokers' addresses, and brokers that are gone for good.

use std::fmt::Write as _;

use vltava_client::Admin;
use vltava_protocol::messages::describe_cluster_response::DescribeClusterBroker;

use super::subcommands::{Argument, Command, Grammar, Parsed, Request, option, switch};
use super::{Failure, broker_api_versions, last_words};
use crate::connect::Connection;
use crate::console::Console;

const SERVER: Argument = option("--bootstrap-server", "-b", "The brokers to begin with, host:port, by commas.");
const CONTROLLER: Argument = option("--bootstrap-controller", "-C", "Not supported: ask the brokers.");
const CONFIG: Argument = option("--config", "", "The old name of --command-config.");
const COMMAND_CONFIG: Argument = option("--command-config", "-c", "A properties file with settings of the client.");
const ID: Argument = option("--id", "-i", "The id.");

const GRAMMAR: Grammar = Grammar {
    tool: "kafka-cluster",
    purpose: "The Kafka cluster tool.",
    arguments: &[],
    commands: &[
        Command {
            name: "cluster-id",
            help: "Get information about the ID of a cluster.",
            arguments: &[SERVER, CONTROLLER, CONFIG, COMMAND_CONFIG],
        },
        Command {
            name: "unregister",
            help: "Unregister a broker.",
            arguments: &[SERVER, CONTROLLER, CONFIG, COMMAND_CONFIG, ID],
        },
        Command {
            name: "unregister-controller",
            help: "Unregister a controller. (Not built yet.)",
            arguments: &[SERVER, CONTROLLER, CONFIG, COMMAND_CONFIG, ID],
        },
        Command {
            name: "list-endpoints",
            help: "List endpoints",
            arguments: &[
                SERVER,
                CONTROLLER,
                CONFIG,
                COMMAND_CONFIG,
                switch("--include-fenced-brokers", "Brokers that are registered and do not live too."),
            ],
        },
        Command {
            name: "api-versions",
            help: "Get information about the api versions of the brokers.",
            arguments: &[SERVER, CONTROLLER, CONFIG, COMMAND_CONFIG],
        },
    ],
};

pub async fn run(arguments: &[String], console: &mut Console<'_>) -> Result<u8, Failure> {
    let parsed = match GRAMMAR.parse(arguments)? {
        Request::Run(parsed) => parsed,
        Request::Help(text) => {
            console.text(text)?;
            return Ok(0);
        }
    };
    let id = parsed.number::<i32>("--id", &GRAMMAR)?;
    let mut admin = connect(&parsed, console).await?;
    let failed = |error| Failure::Message(last_words(&error));
    match (parsed.command, id) {
        ("cluster-id", _) => {
            let cluster = admin.describe_cluster(false).await.map_err(failed)?;
            console.line(format_args!("Cluster ID: {}", cluster.cluster_id))?;
        }
        ("unregister", Some(id)) => {
            admin.unregister_broker(id).await.map_err(failed)?;
            console.line(format_args!("Broker {id} is no longer registered."))?;
        }
        ("unregister-controller", Some(_)) => {
            console.line("The target cluster does not support the controller unregistration API.")?;
        }
        ("list-endpoints", _) => {
            let is_all = parsed.has("--include-fenced-brokers");
            let cluster = admin.describe_cluster(is_all).await.map_err(failed)?;
            console.text(endpoints(&cluster.brokers))?;
        }
        ("api-versions", _) => broker_api_versions::print(&mut admin, console).await?,
        _ => return Err(GRAMMAR.refuse("argument --id/-i is required")),
    }
    Ok(0)
}

async fn connect(parsed: &Parsed, console: &mut Console<'_>) -> Result<Admin, Failure> {
    GRAMMAR.require(parsed, &["--bootstrap-server", "--bootstrap-controller"])?;
    if parsed.has("--bootstrap-controller") {
        let message = "--bootstrap-controller is not supported: any broker answers for its controller";
        return Err(Failure::Message(message.to_owned()));
    }
    if parsed.has("--config") {
        if parsed.has("--command-config") {
            let message = "--config and --command-config cannot be specified together.";
            return Err(Failure::Message(message.to_owned()));
        }
        console.line(
            "Option --config has been deprecated and will be removed in a future version. Use --command-config instead.",
        )?;
    }
    let config = parsed.value("--config").or(parsed.value("--command-config"));
    let connection = Connection::new(parsed.value("--bootstrap-server").unwrap_or_default(), config)?;
    super::reach(&connection, console).await
}

fn endpoints(brokers: &[DescribeClusterBroker]) -> String {
    let host_width = brokers.iter().map(|broker| broker.host.len()).max().unwrap_or(100);
    let rack_width =
        brokers.iter().filter_map(|broker| broker.rack.as_ref()).map(|rack| rack.len()).max().unwrap_or(10);
    let mut text = String::new();
    let mut row = |id: &str, host: &str, port: &str, rack: &str, state: &str, kind: &str| {
        let _ = writeln!(text, "{id:<10} {host:<host_width$} {port:<10} {rack:<rack_width$} {state:<10} {kind:<15}");
    };
    row("ID", "HOST", "PORT", "RACK", "STATE", "ENDPOINT_TYPE");
    for broker in brokers {
        let rack = broker.rack.as_ref().map_or("null", |rack| rack.as_str());
        let state = if broker.is_fenced { "fenced" } else { "unfenced" };
        row(&broker.broker_id.to_string(), &broker.host, &broker.port.to_string(), rack, state, "broker");
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use vltava_protocol::make;

    use super::{DescribeClusterBroker, endpoints};

    #[test]
    fn endpoints_line_up() {
        let brokers = [
            make!(DescribeClusterBroker { broker_id: 1, host: "localhost".into(), port: 9092 }),
            make!(DescribeClusterBroker {
                broker_id: 2,
                host: "h".into(),
                port: 1,
                rack: Some("r".into()),
                is_fenced: true
            }),
        ];
        expect![[r#"
            ID         HOST      PORT       RACK STATE      ENDPOINT_TYPE  |
            1          localhost 9092       null unfenced   broker         |
            2          h         1          r fenced     broker         |
        "#]]
        .assert_eq(&endpoints(&brokers).replace('\n', "|\n"));
    }
}
