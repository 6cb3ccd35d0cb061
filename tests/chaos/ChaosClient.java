import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.OutOfOrderSequenceException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * An idempotent producer and a member of a group. Tells of each event with a line of JSON; `clients.py` reads them. The
 * line `flush` on standard input ends the producer, `stop` or the end of input ends everything.
 */
public class ChaosClient {
    private static final PrintStream OUT = new PrintStream(System.out, false, UTF_8);
    private static volatile boolean producing = true;
    private static volatile boolean running = true;

    public static void main(String[] arguments) throws Exception {
        String name = arguments[0];
        String group = arguments[1];
        String bootstrap = arguments[2];
        String topic = arguments[3];
        int partitions = Integer.parseInt(arguments[4]);
        double perSecond = Double.parseDouble(arguments[5]);
        int patience = Integer.parseInt(arguments[6]);
        Thread producer = start(() -> produce(name, bootstrap, topic, partitions, perSecond, patience));
        Thread member = start(() -> consume(group, bootstrap, topic));
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        String line = input.readLine();
        while (line != null && !line.equals("stop")) {
            producing = false;
            line = input.readLine();
        }
        producing = false;
        producer.join();
        running = false;
        member.join();
        OUT.flush();
    }

    private static Thread start(Runnable work) {
        Thread thread = new Thread(() -> {
            try {
                work.run();
            } catch (Throwable problem) {
                problem.printStackTrace();
                OUT.flush();
                Runtime.getRuntime().halt(1);
            }
        });
        thread.start();
        return thread;
    }

    private static void produce(
            String name, String bootstrap, String topic, int partitions, double perSecond, int patience) {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", bootstrap, "acks", "all", "enable.idempotence", true, "linger.ms", 5,
                "delivery.timeout.ms", patience, "request.timeout.ms", 8_000, "max.block.ms", patience,
                "reconnect.backoff.max.ms", 200, "buffer.memory", 8 << 20);
        int[] counts = new int[partitions];
        double due = System.nanoTime() / 1e9;
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            for (int partition = 0; producing; partition = (partition + 1) % partitions) {
                int at = partition;
                int sequence = counts[partition]++;
                tell("[\"sent\",%d,%d]", partition, sequence + 1);
                double sent = now();
                String value = padded(name + ":" + partition + ":" + sequence);
                producer.send(new ProducerRecord<>(topic, partition, name, value), (metadata, error) -> {
                    if (error == null) {
                        tell("[\"ack\",%d,%d,%d,%.6f,%.6f]", at, sequence, metadata.offset(), sent, now());
                    } else {
                        boolean fatal = error instanceof OutOfOrderSequenceException
                                || error instanceof ProducerFencedException
                                || error instanceof InvalidProducerEpochException;
                        tell("[\"fail\",%d,%d,\"%s\",%b,%.6f]", at, sequence, quoted(error.toString()), fatal, now());
                    }
                });
                due = Math.max(due + 1 / perSecond, System.nanoTime() / 1e9 - 0.1);
                sleep(due - System.nanoTime() / 1e9);
            }
        }
    }

    private static void consume(String group, String bootstrap, String topic) {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", bootstrap, "group.id", group, "enable.auto.commit", false,
                "auto.offset.reset", "earliest", "session.timeout.ms", 10_000, "heartbeat.interval.ms", 1_000,
                "fetch.max.wait.ms", 100, "request.timeout.ms", 10_000, "default.api.timeout.ms", 10_000);
        Map<Integer, Long> next = new HashMap<>();
        int[] generation = {-1};
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
                    generation[0]++;
                    next.clear();
                    String list = assigned.stream().map(p -> "" + p.partition()).collect(Collectors.joining(","));
                    tell("[\"assigned\",%d,[%s],%.6f]", generation[0], list, now());
                }

                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
                    next.clear();
                }
            });
            double committed = now();
            while (running) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    next.put(record.partition(), record.offset() + 1);
                    tell("[\"read\",%d,%d,%d,\"%s\",%.6f]",
                            generation[0], record.partition(), record.offset(), quoted(record.value()), now());
                }
                OUT.flush();
                if (now() > committed + 1 && !next.isEmpty()) {
                    commit(consumer, topic, Map.copyOf(next));
                    committed = now();
                }
            }
        }
    }

    private static void commit(KafkaConsumer<String, String> consumer, String topic, Map<Integer, Long> next) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        next.forEach((partition, offset) ->
                offsets.put(new TopicPartition(topic, partition), new OffsetAndMetadata(offset)));
        double begun = now();
        boolean ok = false;
        try {
            consumer.commitSync(offsets);
            ok = true;
        } catch (RuntimeException error) {
            System.err.println("commit: " + error);
        }
        for (Map.Entry<Integer, Long> entry : next.entrySet()) {
            tell("[\"commit\",%d,%d,%b,%.6f,%.6f]", entry.getKey(), entry.getValue(), ok, begun, now());
        }
    }

    private static void tell(String format, Object... arguments) {
        String line = String.format(Locale.ROOT, format, arguments);
        synchronized (OUT) {
            OUT.println(line);
        }
    }

    private static double now() {
        return System.currentTimeMillis() / 1e3;
    }

    private static void sleep(double seconds) {
        if (seconds > 0) {
            try {
                Thread.sleep((long) (seconds * 1000), (int) (seconds * 1e9 % 1e6));
            } catch (InterruptedException error) {
                throw new IllegalStateException(error);
            }
        }
    }

    private static String padded(String value) {
        CRC32 crc = new CRC32();
        crc.update(value.getBytes(UTF_8));
        return (value + String.format("|%08x", crc.getValue())).repeat(4);
    }

    private static String quoted(String text) {
        return text.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\p{Cntrl}", " ");
    }
}
