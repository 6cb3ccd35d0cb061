use std::collections::BTreeMap;

use expect_test::{Expect, expect};

use super::BrokerConfig;

/// Reads `name=value` lines and prints what the operator would see of the outcome.
fn check(properties: &str, expected: Expect) {
    let properties: BTreeMap<String, String> = properties
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let text = match BrokerConfig::from_properties(&properties, "this-machine") {
        Ok(read) => {
            let config = read.config;
            let mut lines = vec![format!(
                "node {} broker={} controller={}",
                config.node_id, config.roles.broker, config.roles.controller
            )];
            for listener in &config.listeners {
                lines.push(format!(
                    "{} on {} told {}",
                    listener.name,
                    listener.bind.bind_address(),
                    listener.advertised
                ));
            }
            lines.push(format!(
                "peer {} on {} told {} shared={}",
                config.peer.name,
                config.peer.bind.bind_address(),
                config.peer.advertised,
                config.peer_shares_client_port()
            ));
            for (voter, address) in &config.quorum.voters {
                lines.push(format!("voter {voter}@{address}"));
            }
            lines.extend(read.warnings.into_iter().map(|warning| format!("warning: {warning}")));
            lines.join("\n")
        }
        Err(error) => error.problems.iter().map(|problem| format!("error: {problem}")).collect::<Vec<_>>().join("\n"),
    };
    expected.assert_eq(&text);
}

#[test]
fn nothing_given_is_a_single_node_on_localhost() {
    check(
        "",
        expect![[r#"
            node 1 broker=true controller=true
            PLAINTEXT on localhost:9092 told localhost:9092
            peer PLAINTEXT on localhost:9092 told localhost:9092 shared=true
            voter 1@localhost:9092"#]],
    );
}

#[test]
fn kafkas_shipped_server_properties_is_a_quorum_of_one() {
    check(
        "process.roles=broker,controller
         node.id=1
         controller.quorum.bootstrap.servers=localhost:9093
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093
         inter.broker.listener.name=PLAINTEXT
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
         controller.listener.names=CONTROLLER
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
         log.dirs=/tmp/kraft-combined-logs",
        expect![[r#"
            node 1 broker=true controller=true
            PLAINTEXT on 0.0.0.0:9092 told localhost:9092
            peer CONTROLLER on 0.0.0.0:9093 told localhost:9093 shared=false
            voter 1@localhost:9093
            warning: clients of listener PLAINTEXT will be told localhost:9092: this works on this machine only, although the listener is open to others"#]],
    );
}

#[test]
fn a_compose_file_with_two_client_listeners_and_three_voters() {
    check(
        "node.id=2
         process.roles=broker,controller
         listeners=PLAINTEXT://:19092,CONTROLLER://:9093,PLAINTEXT_HOST://:9092
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT
         advertised.listeners=PLAINTEXT://broker-2:19092,PLAINTEXT_HOST://localhost:39092
         inter.broker.listener.name=PLAINTEXT
         controller.listener.names=CONTROLLER
         controller.quorum.voters=1@broker-1:9093,2@broker-2:9093,3@broker-3:9093",
        expect![[r#"
            node 2 broker=true controller=true
            PLAINTEXT on 0.0.0.0:19092 told broker-2:19092
            PLAINTEXT_HOST on 0.0.0.0:9092 told localhost:39092
            peer CONTROLLER on 0.0.0.0:9093 told broker-2:9093 shared=false
            voter 1@broker-1:9093
            voter 2@broker-2:9093
            voter 3@broker-3:9093
            warning: clients of listener PLAINTEXT_HOST will be told localhost:39092, but other voters are on other machines, from where that address leads back to themselves: set advertised.listeners to an address reachable from there"#]],
    );
}

#[test]
fn a_member_with_the_settings_of_all_is_a_broker_only_if_it_is_no_voter() {
    check(
        "node.id=3
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093
         advertised.listeners=PLAINTEXT://v-3.v:9092,CONTROLLER://v-3.v:9093
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
         controller.listener.names=CONTROLLER
         controller.quorum.voters=0@v-0.v:9093,1@v-1.v:9093,2@v-2.v:9093",
        expect![[r#"
            node 3 broker=true controller=false
            PLAINTEXT on 0.0.0.0:9092 told v-3.v:9092
            peer CONTROLLER on 0.0.0.0:9093 told v-3.v:9093 shared=false
            voter 0@v-0.v:9093
            voter 1@v-1.v:9093
            voter 2@v-2.v:9093"#]],
    );
}

#[test]
fn a_broker_without_controller_listener_answers_peers_on_its_inter_broker_listener() {
    check(
        "node.id=7
         process.roles=broker
         listeners=INTERNAL://10.0.0.7:9094,EXTERNAL://0.0.0.0:9092
         listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT
         inter.broker.listener.name=INTERNAL
         controller.listener.names=CONTROLLER
         controller.quorum.voters=1@10.0.0.1:9093",
        expect![[r#"
            node 7 broker=true controller=false
            INTERNAL on 10.0.0.7:9094 told 10.0.0.7:9094
            EXTERNAL on 0.0.0.0:9092 told this-machine:9092
            peer INTERNAL on 10.0.0.7:9094 told 10.0.0.7:9094 shared=true
            voter 1@10.0.0.1:9093"#]],
    );
}

#[test]
fn an_advertised_wildcard_is_called_out() {
    check(
        "advertised.listeners=PLAINTEXT://0.0.0.0:9092",
        expect![[r#"
            node 1 broker=true controller=true
            PLAINTEXT on localhost:9092 told 0.0.0.0:9092
            peer PLAINTEXT on localhost:9092 told 0.0.0.0:9092 shared=true
            voter 1@0.0.0.0:9092
            warning: clients of listener PLAINTEXT will be told 0.0.0.0:9092, which is no address they can connect to: set advertised.listeners to a name or address of this machine"#]],
    );
}

#[test]
fn all_problems_are_told_at_once() {
    check(
        "node.id=one
         process.roles=broker,observer
         listeners=PLAINTEXT://:9092,SSL://:9093,oops
         num.partitions=0
         auto.create.topics.enable=yes
         socket.request.max.bytes=99999999999
         broker.session.timeout.ms=100",
        expect![[r#"
            error: node.id has "one", which is not a whole number
            error: process.roles has "observer"; it knows broker and controller
            error: listeners has "oops"; a listener is written NAME://host:port
            error: listener SSL is SSL, which is not built yet: only PLAINTEXT is
            error: controller.quorum.voters is needed: list every voter as id@host:port, separated by commas
            error: socket.request.max.bytes has "99999999999", which is out of range
            error: broker.session.timeout.ms must be longer than broker.heartbeat.interval.ms, or every broker is fenced
            error: auto.create.topics.enable has "yes"; it must be true or false
            error: num.partitions must be at least 1"#]],
    );
}

#[test]
fn a_voter_must_know_itself() {
    check(
        "node.id=4
         process.roles=broker,controller
         controller.quorum.voters=1@a:9093,2@b:9093,2@c:9093,d",
        expect![[r#"
            error: controller.quorum.voters names node 2 twice
            error: controller.quorum.voters has "d"; it is written id@host:port
            error: process.roles contains controller, but controller.quorum.voters does not list node 4"#]],
    );
}

#[test]
fn ipv6_addresses_are_read_with_brackets() {
    check(
        "listeners=PLAINTEXT://[::1]:9092",
        expect![[r#"
            node 1 broker=true controller=true
            PLAINTEXT on [::1]:9092 told [::1]:9092
            peer PLAINTEXT on [::1]:9092 told [::1]:9092 shared=true
            voter 1@[::1]:9092"#]],
    );
}

#[test]
fn a_misspelt_name_is_an_error_and_an_unhonoured_one_a_warning() {
    check(
        "log.retention.hour=1
         surely.not.a.setting=1",
        expect![[r#"
            error: log.retention.hour is no setting of Kafka's or of Vltava's; did you mean log.retention.hours?
            error: surely.not.a.setting is no setting of Kafka's or of Vltava's"#]],
    );
    check(
        "num.io.threads=8",
        expect![[r#"
        node 1 broker=true controller=true
        PLAINTEXT on localhost:9092 told localhost:9092
        peer PLAINTEXT on localhost:9092 told localhost:9092 shared=true
        voter 1@localhost:9092
        warning: num.io.threads is a setting of Kafka's that is not honoured yet: it has no effect"#]],
    );
    check(
        "log.retention.hours=soon",
        expect!["error: Invalid value soon for configuration log.retention.hours: Not a number of type INT"],
    );
}
