// Round trips with kafkajs, which speaks the old versions of the protocol only.
// The cluster under test is named by BOOTSTRAP_SERVERS.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import kafkajs from 'kafkajs';
import snappy from 'kafkajs-snappy';
import lz4 from 'lz4js';
import zstd from 'zstd-codec';

const { CompressionCodecs, CompressionTypes, Kafka, Partitioners, ConfigResourceTypes, logLevel } = kafkajs;

const codecs = await new Promise((resolve) => zstd.ZstdCodec.run((codec) => resolve(new codec.Simple())));
CompressionCodecs[CompressionTypes.Snappy] = snappy;
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => Buffer.from(lz4.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(codecs.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(codecs.decompress(buffer)),
});

const kafka = new Kafka({
  clientId: 'vltava-tests',
  brokers: (process.env.BOOTSTRAP_SERVERS ?? 'localhost:9092').split(','),
  logLevel: logLevel.NOTHING,
});
const admin = kafka.admin();
await admin.connect();
after(() => admin.disconnect());

let counter = 0;
const fresh = (kind) => `${kind}-${process.pid}-${Date.now()}-${counter++}`;

async function create(name, numPartitions = 1) {
  const topic = fresh(name);
  await admin.createTopics({ topics: [{ topic, numPartitions, replicationFactor: 3 }], waitForLeaders: true });
  return topic;
}

const membership = { sessionTimeout: 10_000, heartbeatInterval: 500, maxWaitTimeInMs: 200 };

/** Runs a consumer until `count` messages came, and returns them with the consumer, which still runs. */
async function read(topic, groupId, count, options = {}) {
  const consumer = kafka.consumer({ ...membership, groupId, ...options });
  const messages = [];
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({ eachMessage: async ({ partition, message }) => messages.push({ partition, ...message }) });
  await until(`${count} messages`, () => messages.length >= count);
  return { consumer, messages };
}

async function until(what, condition, timeout = 60_000) {
  const deadline = Date.now() + timeout;
  while (!(await condition())) {
    assert.ok(Date.now() < deadline, `timed out waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const base = Date.now() - 60_000;
const everyByte = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
const records = [
  { key: Buffer.from('key'), value: Buffer.from('value'), headers: {}, timestamp: String(base + 1) },
  { key: null, value: Buffer.from('no key'), headers: { trace: Buffer.from([0, 255]) }, timestamp: String(base + 2) },
  { key: Buffer.from(''), value: Buffer.from(''), headers: { empty: Buffer.from('') }, timestamp: String(base + 3) },
  { key: Buffer.from([0, 254, 255]), value: everyByte, headers: { a: Buffer.from('1') }, timestamp: String(base + 4) },
  { key: Buffer.from('řeka'), value: Buffer.from('řeka '.repeat(999)), headers: {}, timestamp: String(base + 5) },
];

for (const codec of ['None', 'GZIP', 'Snappy', 'LZ4', 'ZSTD']) {
  for (const idempotent of [false, true]) {
    test(`records come back byte for byte: ${codec}, idempotent ${idempotent}`, async () => {
      const topic = await create('bytes');
      const producer = kafka.producer({ idempotent, createPartitioner: Partitioners.DefaultPartitioner });
      await producer.connect();
      const [sent] = await producer.send({ topic, acks: -1, compression: CompressionTypes[codec], messages: records });
      assert.equal(sent.errorCode, 0);
      assert.equal(sent.baseOffset, '0');
      await producer.disconnect();
      const { consumer, messages } = await read(topic, fresh('readers'), records.length);
      await consumer.disconnect();
      assert.deepEqual(
        messages.map(({ key, value, headers, timestamp }) => ({ key, value, headers, timestamp })),
        records,
      );
    });
  }
}

test('keys decide partitions and keep their order', async () => {
  const topic = await create('keyed', 6);
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  for (let number = 0; number < 300; number += 100) {
    const numbers = Array.from({ length: 100 }, (_, i) => number + i);
    await producer.send({ topic, messages: numbers.map((value) => ({ key: `key-${value % 30}`, value: `${value}` })) });
  }
  await producer.disconnect();
  const { consumer, messages } = await read(topic, fresh('readers'), 300);
  await consumer.disconnect();
  const byKey = new Map();
  for (const { key, value, partition } of messages) {
    const seen = byKey.get(key.toString()) ?? { partition, numbers: [] };
    assert.equal(seen.partition, partition);
    seen.numbers.push(Number(value.toString()));
    byKey.set(key.toString(), seen);
  }
  assert.equal(byKey.size, 30);
  for (const { numbers } of byKey.values()) {
    assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
  }
});

test('a group shares partitions, hands them over, and resumes', async () => {
  const topic = await create('shared', 2);
  const groupId = fresh('sharers');
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  const send = (from, to) =>
    producer.send({
      topic,
      messages: Array.from({ length: to - from }, (_, i) => ({ value: `${from + i}`, partition: (from + i) % 2 })),
    });
  await send(0, 20);
  const { consumer: first, messages } = await read(topic, groupId, 20);
  const second = kafka.consumer({ ...membership, groupId });
  const late = [];
  await second.connect();
  await second.subscribe({ topics: [topic], fromBeginning: true });
  let assigned = 0;
  second.on(second.events.GROUP_JOIN, ({ payload }) => (assigned = (payload.memberAssignment[topic] ?? []).length));
  await second.run({ eachMessage: async ({ message }) => late.push(message.value.toString()) });
  await until('one partition for the second', () => assigned === 1);
  await first.disconnect();
  await until('both partitions for the second', () => assigned === 2);
  await send(20, 40);
  await until('the second half', () => late.length >= 20);
  await second.disconnect();
  assert.equal(messages.length, 20, 'what was committed does not come again');
  assert.deepEqual(late.map(Number).toSorted((a, b) => a - b), Array.from({ length: 20 }, (_, i) => 20 + i));
  const offsets = await admin.fetchOffsets({ groupId, topics: [topic] });
  assert.deepEqual(offsets[0].partitions.map(({ offset }) => offset), ['20', '20']);
  await producer.disconnect();
});

test('admin calls', async () => {
  const topic = await create('managed', 2);
  assert.equal((await admin.describeCluster()).brokers.length, 3);
  assert.ok((await admin.listTopics()).includes(topic));
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] });
  await until('three partitions', async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    return topics[0].partitions.length === 3;
  });
  const resource = { type: ConfigResourceTypes.TOPIC, name: topic };
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{ ...resource, configEntries: [{ name: 'retention.ms', value: '123456789' }] }],
  });
  await until('the new config', async () => {
    const { resources } = await admin.describeConfigs({
      includeSynonyms: false,
      resources: [{ ...resource, configNames: ['retention.ms'] }],
    });
    return resources[0].configEntries[0].configValue === '123456789';
  });
  assert.deepEqual((await admin.fetchTopicOffsets(topic)).map(({ high }) => high), ['0', '0', '0']);
  await admin.deleteTopics({ topics: [topic] });
  await until('the topic to be gone', async () => !(await admin.listTopics()).includes(topic));
});
