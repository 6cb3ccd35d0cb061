//! `KAFKA_*` variables, mapped to properties as the official Kafka image maps them.

use std::collections::BTreeMap;

/// Variables that steer Kafka's scripts and its JVM, and are no properties.
const NOT_PROPERTIES: [&str; 15] = [
    "KAFKA_CLUSTERS_DIR",
    "KAFKA_DEBUG",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_OPTS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_VERSION",
];

/// `KAFKA_A_B` is `a.b`, `__` stands for `_` and `___` for `-`; `CLUSTER_ID` is `cluster.id`.
pub fn properties(variables: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (variable, value) in variables {
        if variable == "CLUSTER_ID" {
            properties.insert("cluster.id".to_owned(), value);
        } else if let Some(name) = variable.strip_prefix("KAFKA_")
            && !NOT_PROPERTIES.contains(&variable.as_str())
            && !is_service_link(name)
        {
            let name = name.to_ascii_lowercase().replace("___", "-").replace("__", "\0").replace('_', ".");
            properties.insert(name.replace('\0', "_"), value);
        }
    }
    properties
}

/// Kubernetes tells every pod of a service called `kafka` by variables such as `KAFKA_PORT=tcp://10.0.0.1:9092`,
/// which famously stopped brokers from starting.
fn is_service_link(name: &str) -> bool {
    name == "PORT"
        || name == "SERVICE_HOST"
        || name.starts_with("SERVICE_PORT")
        || (name.starts_with("PORT_") && name.contains("_TCP"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::properties;

    fn check(variables: &[(&str, &str)], expected: Expect) {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let read: Vec<String> =
            properties(variables).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        expected.assert_eq(&read.join("\n"));
    }

    #[test]
    fn underscores_become_dots_and_their_doubles_stay() {
        check(
            &[
                ("KAFKA_NODE_ID", "1"),
                ("KAFKA_LISTENER_NAME_A__B_X", "2"),
                ("KAFKA_A___B", "3"),
                ("CLUSTER_ID", "4L6g3nShT-eMCtK--X86sw"),
                ("PATH", "/bin"),
            ],
            expect![[r#"
                a-b=3
                cluster.id=4L6g3nShT-eMCtK--X86sw
                listener.name.a_b.x=2
                node.id=1"#]],
        );
    }

    #[test]
    fn script_variables_and_service_links_are_no_properties() {
        check(
            &[
                ("KAFKA_HEAP_OPTS", "-Xmx1g"),
                ("KAFKA_PORT", "tcp://10.0.0.1:9092"),
                ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
                ("KAFKA_SERVICE_HOST", "10.0.0.1"),
                ("KAFKA_SERVICE_PORT_CLIENT", "9092"),
            ],
            expect![""],
        );
    }
}
