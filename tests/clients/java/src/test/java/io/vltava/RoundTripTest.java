package io.vltava;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Round trips with the Java client. The cluster under test is named by BOOTSTRAP_SERVERS. */
class RoundTripTest {
    private static final String BOOTSTRAP =
            System.getenv().getOrDefault("BOOTSTRAP_SERVERS", "localhost:9092");
    private static final AtomicInteger COUNTER = new AtomicInteger();
    private static Admin admin;

    @BeforeAll
    static void connect() {
        admin = Admin.create(Map.of("bootstrap.servers", BOOTSTRAP));
    }

    @AfterAll
    static void disconnect() {
        admin.close();
    }

    @ParameterizedTest
    @CsvSource({
        "none,true", "gzip,true", "snappy,true", "lz4,true", "zstd,true",
        "none,false", "gzip,false", "snappy,false", "lz4,false", "zstd,false",
    })
    void recordsComeBackByteForByte(String codec, boolean idempotence) throws Exception {
        String topic = create("bytes", 1);
        List<ProducerRecord<byte[], byte[]>> records = awkwardRecords(topic);
        try (var producer = producer(Map.of("compression.type", codec, "enable.idempotence", idempotence))) {
            List<Future<RecordMetadata>> sent = records.stream().map(producer::send).toList();
            for (int index = 0; index < records.size(); index++) {
                assertEquals(index, sent.get(index).get(30, TimeUnit.SECONDS).offset());
            }
        }
        try (var consumer = consumer(fresh("readers"), Map.of())) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> read = read(consumer, records.size());
            for (int index = 0; index < records.size(); index++) {
                ProducerRecord<byte[], byte[]> expected = records.get(index);
                ConsumerRecord<byte[], byte[]> actual = read.get(index);
                assertArrayEquals(expected.key(), actual.key());
                assertArrayEquals(expected.value(), actual.value());
                assertEquals(expected.timestamp(), actual.timestamp());
                assertEquals(
                        Arrays.toString(expected.headers().toArray()), Arrays.toString(actual.headers().toArray()));
            }
        }
    }

    @ParameterizedTest
    @CsvSource({"0", "1", "all"})
    void everyLevelOfAcknowledgement(String acks) throws Exception {
        String topic = create("acks", 1);
        try (var producer = producer(Map.of("acks", acks, "enable.idempotence", false))) {
            for (int number = 0; number < 200; number++) {
                producer.send(new ProducerRecord<>(topic, bytes("" + number)));
            }
        }
        try (var consumer = consumer(fresh("readers"), Map.of())) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> read = read(consumer, 200);
            for (int number = 0; number < 200; number++) {
                assertArrayEquals(bytes("" + number), read.get(number).value());
            }
        }
    }

    @Test
    void keysDecidePartitionsAndKeepTheirOrder() throws Exception {
        String topic = create("keyed", 6);
        Map<Integer, Integer> partitionOfKey = new HashMap<>();
        try (var producer = producer(Map.of("linger.ms", 5, "batch.size", 1000))) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int number = 0; number < 5_000; number++) {
                sent.add(producer.send(new ProducerRecord<>(topic, bytes("" + number % 40), bytes("" + number))));
            }
            for (int number = 0; number < sent.size(); number++) {
                int partition = sent.get(number).get(30, TimeUnit.SECONDS).partition();
                assertEquals(partition, partitionOfKey.computeIfAbsent(number % 40, key -> partition));
            }
        }
        try (var consumer = consumer(fresh("readers"), Map.of())) {
            consumer.subscribe(List.of(topic));
            Map<String, Integer> last = new HashMap<>();
            for (ConsumerRecord<byte[], byte[]> record : read(consumer, 5_000)) {
                int number = Integer.parseInt(new String(record.value(), UTF_8));
                Integer before = last.put(new String(record.key(), UTF_8), number);
                assertTrue(before == null ? number < 40 : number == before + 40, number + " after " + before);
            }
        }
    }

    @Test
    void aGroupSharesPartitionsAndHandsThemOver() throws Exception {
        String topic = create("shared", 4);
        String group = fresh("sharers");
        try (var first = consumer(group, Map.of()); var second = consumer(group, Map.of())) {
            first.subscribe(List.of(topic));
            second.subscribe(List.of(topic));
            waitFor("two partitions each", () -> {
                first.poll(Duration.ofMillis(50));
                second.poll(Duration.ofMillis(50));
                return first.assignment().size() == 2 && second.assignment().size() == 2;
            });
            second.close();
            waitFor("all partitions at the one that is left", () -> {
                first.poll(Duration.ofMillis(50));
                return first.assignment().size() == 4;
            });
            var described = admin.describeConsumerGroups(List.of(group)).all().get(30, TimeUnit.SECONDS).get(group);
            assertEquals(1, described.members().size());
        }
    }

    @Test
    void aRestartedConsumerResumesFromItsCommit() throws Exception {
        String topic = create("resumed", 1);
        String group = fresh("steady");
        TopicPartition partition = new TopicPartition(topic, 0);
        try (var producer = producer(Map.of())) {
            for (int number = 0; number < 30; number++) {
                producer.send(new ProducerRecord<>(topic, bytes("" + number)));
            }
        }
        try (var consumer = consumer(group, Map.of("max.poll.records", 10))) {
            consumer.subscribe(List.of(topic));
            assertEquals(10, read(consumer, 10).size());
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(10, "poznámka")));
            OffsetAndMetadata committed = consumer.committed(Set.of(partition)).get(partition);
            assertEquals(10, committed.offset());
            assertEquals("poznámka", committed.metadata());
        }
        try (var consumer = consumer(group, Map.of())) {
            consumer.subscribe(List.of(topic));
            assertEquals(10, read(consumer, 20).get(0).offset());
        }
        try (var consumer = consumer(fresh("newcomer"), Map.of())) {
            consumer.subscribe(List.of(topic));
            assertEquals(0, read(consumer, 30).get(0).offset());
        }
    }

    @Test
    void offsetsAreFoundByTimeAndRecordsCanBeDeleted() throws Exception {
        String topic = create("times", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        long start = System.currentTimeMillis() - 60_000;
        try (var producer = producer(Map.of())) {
            for (int number = 0; number < 10; number++) {
                producer.send(new ProducerRecord<>(topic, 0, start + 1000L * number, null, bytes("" + number))).get();
            }
        }
        assertEquals(5, offset(partition, OffsetSpec.forTimestamp(start + 4500)));
        assertEquals(9, offset(partition, OffsetSpec.maxTimestamp()));
        assertEquals(10, offset(partition, OffsetSpec.latest()));
        assertEquals(0, offset(partition, OffsetSpec.earliest()));
        admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(4))).all().get(30, TimeUnit.SECONDS);
        assertEquals(4, offset(partition, OffsetSpec.earliest()));
        try (var consumer = consumer(fresh("readers"), Map.of())) {
            consumer.subscribe(List.of(topic));
            assertEquals(4, read(consumer, 6).get(0).offset());
        }
    }

    @Test
    void topicsConfigsAndTheClusterAreDescribedAndChanged() throws Exception {
        String topic = create("managed", 1);
        assertEquals(3, admin.describeCluster().nodes().get(30, TimeUnit.SECONDS).size());
        assertNotNull(admin.describeCluster().clusterId().get(30, TimeUnit.SECONDS));
        assertEquals(3, admin.describeMetadataQuorum().quorumInfo().get(30, TimeUnit.SECONDS).voters().size());
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        AlterConfigOp set = new AlterConfigOp(new ConfigEntry("retention.ms", "123456789"), AlterConfigOp.OpType.SET);
        admin.incrementalAlterConfigs(Map.of(resource, List.of(set))).all().get(30, TimeUnit.SECONDS);
        waitFor("the new config", () -> {
            var config = get(admin.describeConfigs(List.of(resource)).all()).get(resource);
            return config.get("retention.ms").value().equals("123456789")
                    && config.get("min.insync.replicas").value().equals("2");
        });
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(3))).all().get(30, TimeUnit.SECONDS);
        waitFor("three partitions", () ->
                get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size() == 3);
        assertEquals(3, get(admin.describeLogDirs(List.of(1, 2, 3)).allDescriptions()).size());
        admin.deleteTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
        waitFor("the topic to be gone", () -> !get(admin.listTopics().names()).contains(topic));
    }

    @Test
    void groupsAreListedAlteredAndDeleted() throws Exception {
        String topic = create("grouped", 1);
        String group = fresh("groups");
        TopicPartition partition = new TopicPartition(topic, 0);
        Map<TopicPartition, OffsetAndMetadata> offsets = Map.of(partition, new OffsetAndMetadata(0));
        admin.alterConsumerGroupOffsets(group, offsets).all().get(30, TimeUnit.SECONDS);
        assertTrue(isListed(group));
        var committed = get(admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        assertEquals(0, committed.get(partition).offset());
        admin.deleteConsumerGroups(List.of(group)).all().get(30, TimeUnit.SECONDS);
        assertTrue(!isListed(group));
    }

    private static boolean isListed(String group) {
        var listed = get(admin.listGroups(ListGroupsOptions.forConsumerGroups()).all());
        return listed.stream().anyMatch(one -> one.groupId().equals(group));
    }

    private static List<ProducerRecord<byte[], byte[]>> awkwardRecords(String topic) {
        long base = System.currentTimeMillis() - 60_000;
        byte[] everyByte = new byte[256];
        for (int value = 0; value < 256; value++) {
            everyByte[value] = (byte) value;
        }
        return List.of(
                record(topic, base + 1, bytes("key"), bytes("value")),
                record(topic, base + 2, null, bytes("no key"), header("trace", new byte[] {0, -1})),
                record(topic, base + 3, bytes(""), bytes(""), header("empty", bytes("")), header("none", null)),
                record(topic, base + 4, new byte[] {0, -2, -1}, everyByte,
                        header("a", bytes("1")), header("a", bytes("2"))),
                record(topic, base + 5, bytes("řeka"), null),
                record(topic, base + 6, bytes("long"), bytes("Vltava – řeka ".repeat(2_000))));
    }

    private static ProducerRecord<byte[], byte[]> record(
            String topic, long timestamp, byte[] key, byte[] value, Header... headers) {
        return new ProducerRecord<>(topic, 0, timestamp, key, value, List.of(headers));
    }

    private static Header header(String name, byte[] value) {
        return new RecordHeader(name, value);
    }

    private static String create(String kind, int partitions) throws Exception {
        String topic = fresh(kind);
        admin.createTopics(List.of(new NewTopic(topic, partitions, (short) 3))).all().get(30, TimeUnit.SECONDS);
        return topic;
    }

    private static KafkaProducer<byte[], byte[]> producer(Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", BOOTSTRAP));
        all.putAll(settings);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String group, Map<String, Object> settings) {
        Map<String, Object> all = new HashMap<>(Map.of(
                "bootstrap.servers", BOOTSTRAP, "group.id", group, "auto.offset.reset", "earliest",
                "enable.auto.commit", false, "session.timeout.ms", 10_000, "heartbeat.interval.ms", 500));
        all.putAll(settings);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        waitFor(count + " records", () -> {
            consumer.poll(Duration.ofMillis(200)).forEach(records::add);
            return records.size() >= count;
        });
        return records;
    }

    private static long offset(TopicPartition partition, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(partition, spec)).all().get(30, TimeUnit.SECONDS).get(partition).offset();
    }

    private static <T> T get(org.apache.kafka.common.KafkaFuture<T> future) {
        try {
            return future.get(30, TimeUnit.SECONDS);
        } catch (Exception error) {
            throw new AssertionError(error);
        }
    }

    private static void waitFor(String what, BooleanSupplier condition) {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
        while (!condition.getAsBoolean()) {
            assertTrue(System.nanoTime() < deadline, "timed out waiting for " + what);
            try {
                Thread.sleep(20);
            } catch (InterruptedException error) {
                throw new AssertionError(error);
            }
        }
    }

    private static String fresh(String kind) {
        return kind + "-" + System.nanoTime() + "-" + COUNTER.incrementAndGet();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(UTF_8);
    }
}
