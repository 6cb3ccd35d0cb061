"""kafka-topics."""

import re

from conftest import run_ours


def test_a_topic_is_created_described_grown_and_deleted(compare):
    compare("kafka-topics --create --topic {me}-life --replica-assignment 1:2:3,2:3:1,3:1:2 "
            "--config retention.ms=3600000 --config min.insync.replicas=2", code=0)
    described = compare("kafka-topics --describe --topic {me}-life", code=0)
    assert "Topic: ours-life\tPartition: 2\tLeader: 3\tReplicas: 3,1,2" in described
    compare("kafka-topics --alter --topic {me}-life --partitions 5 --replica-assignment 1:2:3,2:3:1,3:1:2,1:2:3,2:3:1",
            code=0)
    assert "PartitionCount: 5" in compare("kafka-topics --describe --topic {me}-life", code=0)
    compare("kafka-topics --describe --topic {me}-life --topics-with-overrides", code=0)
    compare("kafka-topics --describe --topic {me}-life --at-min-isr-partitions", code=0)
    compare("kafka-topics --describe --topic {me}-life --under-replicated-partitions", code=0)
    compare("kafka-topics --describe --topic {me}-life --under-min-isr-partitions", code=0)
    compare("kafka-topics --describe --topic {me}-life --unavailable-partitions", code=0)
    compare("kafka-topics --delete --topic {me}-life", code=0)
    compare("kafka-topics --describe --topic {me}-life", code=1)
    compare("kafka-topics --describe --topic {me}-life --if-exists", code=0)


def test_topics_are_listed_by_pattern(compare):
    for name in ("list.a", "list_b", "list-c"):
        compare(f"kafka-topics --create --topic {{me}}-{name} --replica-assignment 1", code=0)
    assert compare("kafka-topics --list --topic {me}-list.*", code=0) == "ours-list-c\nours-list.a\nours-list_b\n"
    compare("kafka-topics --list --topic '{me}-list.a,{me}-list-c'", code=0)
    compare("kafka-topics --list --topic {me}-nothing", code=0)
    compare("kafka-topics --list --exclude-internal --topic __consumer_offsets", code=0)
    compare("kafka-topics --describe --topic {me}-list.*", unordered=True, code=0)
    compare("kafka-topics --delete --topic {me}-list.*", code=0)


def test_defaults_come_from_the_cluster(compare):
    compare("kafka-topics --create --topic {me}-defaults", code=0)
    compare("kafka-topics --describe --topic {me}-defaults", hide=r"Leader: \d|Replicas: \S+|Isr: \S+", code=0)
    compare("kafka-topics --create --topic {me}-defaults", code=1)
    compare("kafka-topics --create --topic {me}-defaults --if-not-exists", code=0)


def test_what_cannot_be_is_refused(compare):
    compare("kafka-topics --create --topic {me}-many --partitions 0", code=1)
    compare("kafka-topics --create --topic {me}-many --replication-factor 0", code=1)
    compare("kafka-topics --create --topic {me}-many --replication-factor 9", code=1)
    compare("kafka-topics --create --topic {me}-many --partitions x", code=1)
    compare("kafka-topics --create --topic 'bad/name'", code=1)
    compare("kafka-topics --create --topic {me}-bad --config frob=1", code=1)
    compare("kafka-topics --create --topic {me}-bad --config retention.ms=abc", code=1)
    compare("kafka-topics --create --topic {me}-bad --config retention.ms", code=1)
    compare("kafka-topics --create --topic {me}-bad --replica-assignment 1:1", code=1)
    compare("kafka-topics --create --topic {me}-bad --replica-assignment 1:2,3", code=1)
    compare("kafka-topics --create --topic {me}-bad --replica-assignment 7", code=1)
    compare("kafka-topics --delete --topic {me}-nothing", code=1)
    compare("kafka-topics --delete --topic {me}-nothing --if-exists", code=0)
    compare("kafka-topics --alter --topic {me}-nothing --partitions 3", code=1)
    compare("kafka-topics --create --topic {me}-shrink --replica-assignment 1,1,1", code=0)
    compare("kafka-topics --alter --topic {me}-shrink --partitions 2", code=1)
    compare("kafka-topics --alter --topic {me}-shrink --partitions 3", code=1)


def test_command_lines_that_make_no_sense(compare):
    for line in ("", "--frob", "--list --create", "--create", "--topic", "--alter --topic t", "--list --if-exists",
                 "--describe --under-replicated-partitions --topics-with-overrides", "--list --partitions 3",
                 "--create --topic t --replica-assignment 1 --partitions 1", "--describe --if-exists",
                 "--describe --topic-id abc"):
        compare(f"kafka-topics {line}", code=1)


def test_help_and_version(compare):
    compare("kafka-topics --help", code=1)
    assert compare("kafka-topics --version", code=0) == "4.3.1\n"


def test_a_topic_is_described_by_its_id(compare):
    server = ["--bootstrap-server", compare.bootstrap]
    run_ours("kafka-topics", [*server, "--create", "--topic", "of-both", "--if-not-exists", "--replica-assignment", "2:3"])
    _, out = run_ours("kafka-topics", [*server, "--describe", "--topic", "of-both"])
    topic_id = re.search(r"TopicId: (\S{22})", out)[1]
    compare(f"kafka-topics --describe --topic-id={topic_id}", code=0)
    compare("kafka-topics --describe --topic-id=4L6g3nShT-eMCtK--X86sw", code=1)
    compare("kafka-topics --describe --topic-id=4L6g3nShT-eMCtK--X86sw --if-exists", code=0)
