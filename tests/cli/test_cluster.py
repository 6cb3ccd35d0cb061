"""kafka-metadata-quorum, kafka-broker-api-versions, kafka-cluster."""

#: Kafka's client hides versions that it does not speak, and brokers differ in which are unstable.


def test_metadata_quorum(compare):
    moving = r"(HighWatermark|MaxFollowerLag|MaxFollowerLagTimeMs): +-?\d+"
    status = compare("kafka-metadata-quorum describe --status", hide=moving, code=0)
    assert "CurrentVoters:" in status
    # Offsets and times go on while we look.
    columns = r"\b\d{2,}\b *|-1 +| +(?=\t)"
    compare("kafka-metadata-quorum describe --replication", hide=columns + r"|\t\d+(?=\s)", code=0)
    compare("kafka-metadata-quorum describe --replication --human-readable", hide=r"\b\d+ ms ago *|\b\d{2,}\b *|-1 +| +(?=\t)|\t\d+(?=\s)", code=0)
    for line in ("", "describe", "describe --status --replication", "describe --status --human-readable", "frob",
                 "describe --frob"):
        compare(f"kafka-metadata-quorum {line}", code=1)


def test_broker_api_versions(compare):
    versions = compare("kafka-broker-api-versions", unordered=True, code=0)
    assert "\tProduce(0): 0 to 13 [usable: 13]," in versions
    compare("kafka-broker-api-versions --frob", code=1)


def test_cluster(compare):
    assert compare("kafka-cluster cluster-id", code=0).startswith("Cluster ID: ")
    compare("kafka-cluster list-endpoints", unordered=True, code=0)
    compare("kafka-cluster list-endpoints --include-fenced-brokers", unordered=True, code=0)
    compare("kafka-cluster unregister --id 99", code=1)
    compare("kafka-cluster frob", code=1)
    compare("kafka-cluster unregister", code=1)
