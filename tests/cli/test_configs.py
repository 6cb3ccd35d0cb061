"""kafka-configs."""

import time

from conftest import run_ours


def test_configs_of_a_topic(compare):
    compare("kafka-topics --create --topic {me}-configs --replica-assignment 1:2:3 --config retention.ms=1000000", code=0)
    for entity in ("--topic {me}-configs", "--entity-type topics --entity-name {me}-configs"):
        compare(f"kafka-configs --describe {entity}", code=0)
        compare(f"kafka-configs --describe {entity} --all", code=0)
    compare("kafka-configs --alter --topic {me}-configs --add-config max.message.bytes=2000000,cleanup.policy=[delete]",
            code=0)
    compare("kafka-configs --describe --topic {me}-configs", code=0)
    compare("kafka-configs --alter --topic {me}-configs --delete-config retention.ms,max.message.bytes", code=0)
    compare("kafka-configs --describe --topic {me}-configs", code=0)
    added = compare.file("added.properties", "retention.bytes=1000000\nsegment.bytes=2000000\n")
    compare(f"kafka-configs --alter --topic {{me}}-configs --add-config-file {added}", code=0)
    compare("kafka-configs --describe --topic {me}-configs", code=0)


def test_configs_of_brokers(compare):
    compare("kafka-configs --describe --entity-type brokers --entity-default", code=0)
    compare("kafka-configs --describe --broker 1", code=0)
    compare("kafka-configs --describe --entity-type brokers", code=0)
    compare("kafka-configs --describe --broker 2 --all", code=0)
    compare("kafka-configs --alter --broker-defaults --add-config log.cleaner.threads=1", code=0)
    compare("kafka-configs --describe --broker-defaults", code=0)
    compare("kafka-configs --alter --entity-type brokers --entity-default --delete-config log.cleaner.threads", code=0)
    compare("kafka-configs --alter --entity-type brokers --entity-name 1 --add-config log.retention.ms=3600000", code=0)
    compare("kafka-configs --describe --entity-type brokers --entity-name 1", code=0)
    compare("kafka-configs --alter --broker 1 --delete-config log.retention.ms", code=0)
    compare("kafka-configs --describe --broker 9", code=0)


def test_a_broker_that_is_not_there_is_not_waited_for(bootstrap):
    """Only the broker itself knows all its configs. Kafka's tool looks for it for a minute."""
    began = time.monotonic()
    code, out = run_ours("kafka-configs", ["--bootstrap-server", bootstrap, "--describe", "--broker", "9", "--all"])
    assert (code, out) == (1, "All configs for broker 9 are:\n")
    assert time.monotonic() - began < 20


def test_configs_of_groups(compare):
    compare("kafka-configs --describe --group {me}-configs", code=0)
    compare("kafka-configs --alter --group {me}-configs --add-config consumer.session.timeout.ms=50000", code=0)
    compare("kafka-configs --describe --group {me}-configs", code=0)
    compare("kafka-configs --alter --entity-type groups --entity-name {me}-configs "
            "--delete-config consumer.session.timeout.ms", code=0)


def test_what_is_not_there_or_wrong(compare):
    compare("kafka-configs --describe --topic {me}-nothing", code=0)
    compare("kafka-configs --describe --topic {me}-nothing --all", code=1)
    compare("kafka-configs --alter --topic {me}-nothing --add-config retention.ms=1", code=1)
    compare("kafka-topics --create --topic {me}-wrong --replica-assignment 1", code=0)
    compare("kafka-configs --alter --topic {me}-wrong --add-config frob=1", code=1)
    compare("kafka-configs --alter --topic {me}-wrong --add-config retention.ms=abc", code=1)
    compare("kafka-configs --alter --topic {me}-wrong --delete-config frob", code=None)


def test_command_lines_that_make_no_sense(compare):
    for line in ("", "--describe", "--describe --alter --topic t", "--describe --broker x", "--alter --topic t",
                 "--describe --entity-type frobs", "--describe --topic t --broker 1", "--alter --topic t --add-config a",
                 "--describe --entity-type topics --topic t", "--alter --entity-type brokers --add-config a=b",
                 "--describe --topic t --add-config a=b", "--describe --entity-type broker-loggers",
                 "--describe --entity-type topics --entity-default", "--alter --topic t --add-config 'a b=c'"):
        compare(f"kafka-configs {line}", code=1)
