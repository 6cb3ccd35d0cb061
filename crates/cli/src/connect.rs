//! From connection options to a client of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use vltava_client::{Admin, ClientError, Options};
use vltava_host::fs;

use crate::console::Console;
use crate::kafka::Failure;
use crate::properties;

/// Where the cluster is, and how to talk to it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `host:port`, separated by commas.
    pub bootstrap: String,
    pub options: Options,
    /// How long one command may take (`default.api.timeout.ms`).
    pub limit: Duration,
}

/// The only `security.protocol` so far.
const PLAINTEXT: &str = "PLAINTEXT";

impl Connection {
    /// Kafka's defaults, or the settings of a file that `--command-config` names.
    pub fn new(bootstrap: &str, command_config: Option<&str>) -> Result<Self, Failure> {
        let settings = command_config.map(read_settings).transpose()?.unwrap_or_default();
        Self::from_settings(bootstrap, &settings)
    }

    /// The same from settings that are already read. What has no effect here is passed over; what would make the
    /// connection another one than was asked for is refused.
    pub fn from_settings(bootstrap: &str, settings: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let mut options = Options::default();
        if let Some(protocol) = settings.get("security.protocol").filter(|protocol| *protocol != PLAINTEXT) {
            let message = format!("security.protocol={protocol} is not supported: brokers speak PLAINTEXT only so far");
            return Err(Failure::Message(message));
        }
        if let Some(client_id) = settings.get("client.id") {
            options.client_id.clone_from(client_id);
        }
        if let Some(timeout) = milliseconds(settings, "request.timeout.ms")? {
            options.timeout = timeout;
        }
        let limit = milliseconds(settings, "default.api.timeout.ms")?.unwrap_or(Duration::from_secs(60));
        check_addresses(bootstrap)?;
        Ok(Self { bootstrap: bootstrap.to_owned(), options, limit })
    }

    /// A client that has reached the cluster. Says once on standard error that it waits, if it has to.
    pub async fn admin(&self, console: &mut Console<'_>) -> Result<Admin, ClientError> {
        let mut admin = Admin::new(&self.bootstrap, self.options.clone(), self.limit);
        admin
            .reach(|error| {
                let _ = console.complain(format_args!(
                    "no broker answers at {} yet ({error}); waiting up to {} s",
                    self.bootstrap,
                    self.limit.as_secs()
                ));
            })
            .await?;
        Ok(admin)
    }
}

/// Reads a properties file of a client.
pub fn read_settings(file: &str) -> Result<BTreeMap<String, String>, Failure> {
    let unreadable = |problem: String| Failure::Message(format!("cannot read {file}: {problem}"));
    let text = fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    properties::parse(&text).map_err(|error| unreadable(error.to_string()))
}

fn milliseconds(settings: &BTreeMap<String, String>, name: &str) -> Result<Option<Duration>, Failure> {
    let Some(text) = settings.get(name) else { return Ok(None) };
    match text.trim().parse() {
        Ok(milliseconds) => Ok(Some(Duration::from_millis(milliseconds))),
        Err(_) => {
            Err(Failure::Message(format!("Invalid value {text} for configuration {name}: Not a number of type INT")))
        }
    }
}

/// A bad address is told before anything waits for it.
fn check_addresses(bootstrap: &str) -> Result<(), Failure> {
    let mut addresses = bootstrap.split(',').map(str::trim).filter(|address| !address.is_empty()).peekable();
    if addresses.peek().is_none() {
        return Err(Failure::Message("No resolvable bootstrap urls given in bootstrap.servers".to_owned()));
    }
    for address in addresses {
        let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.and_then(|port| port.parse::<u16>().ok()).is_none() {
            return Err(Failure::Message(format!("Invalid url in bootstrap.servers: {address}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use expect_test::{Expect, expect};

    use super::Connection;

    fn check(bootstrap: &str, settings: &[(&str, &str)], expected: Expect) {
        let settings: BTreeMap<_, _> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let text = match Connection::from_settings(bootstrap, &settings) {
            Ok(found) => format!("{} as {} within {:?}", found.bootstrap, found.options.client_id, found.limit),
            Err(failure) => failure.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn settings_that_cannot_be_honoured_are_refused() {
        check("a:1,b:2", &[("client.id", "me")], expect!["a:1,b:2 as me within 60s"]);
        check("a:1", &[("default.api.timeout.ms", "1500")], expect!["a:1 as vltava within 1.5s"]);
        check(
            "a:1",
            &[("security.protocol", "SASL_SSL")],
            expect!["security.protocol=SASL_SSL is not supported: brokers speak PLAINTEXT only so far"],
        );
        check(
            "a:1",
            &[("request.timeout.ms", "soon")],
            expect!["Invalid value soon for configuration request.timeout.ms: Not a number of type INT"],
        );
        check("localhost", &[], expect!["Invalid url in bootstrap.servers: localhost"]);
        check(",", &[], expect!["No resolvable bootstrap urls given in bootstrap.servers"]);
    }
}
