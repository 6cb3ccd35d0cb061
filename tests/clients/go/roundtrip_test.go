// Round trips with franz-go. The cluster under test is named by BOOTSTRAP_SERVERS.
package roundtrip

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var counter atomic.Int64

func bootstrap() []string {
	servers := os.Getenv("BOOTSTRAP_SERVERS")
	if servers == "" {
		servers = "localhost:9092"
	}
	return strings.Split(servers, ",")
}

func fresh(kind string) string {
	return fmt.Sprintf("%s-%d-%d", kind, time.Now().UnixNano(), counter.Add(1))
}

// deadline ends with the test, and long before the runner gives up.
func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap()...)}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func create(t *testing.T, kind string, partitions int32) string {
	t.Helper()
	topic := fresh(kind)
	responses, err := kadm.NewClient(client(t)).CreateTopics(deadline(t), partitions, 3, nil, topic)
	if err != nil {
		t.Fatal(err)
	}
	if err := responses.Error(); err != nil {
		t.Fatal(err)
	}
	return topic
}

func read(t *testing.T, consumer *kgo.Client, count int) []*kgo.Record {
	t.Helper()
	ctx := deadline(t)
	var records []*kgo.Record
	for len(records) < count {
		fetches := consumer.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("%d of %d records: %v", len(records), count, err)
		}
		for _, failure := range fetches.Errors() {
			t.Fatalf("fetching %s-%d: %v", failure.Topic, failure.Partition, failure.Err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func TestRecordsComeBackByteForByte(t *testing.T) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for name, codec := range codecs {
		for _, idempotent := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/idempotent=%t", name, idempotent), func(t *testing.T) {
				topic := create(t, "bytes", 1)
				options := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.RequiredAcks(kgo.AllISRAcks())}
				if !idempotent {
					options = append(options, kgo.DisableIdempotentWrite())
				}
				everyByte := make([]byte, 256)
				for value := range everyByte {
					everyByte[value] = byte(value)
				}
				twice := []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}}
				base := time.UnixMilli(time.Now().UnixMilli() - 60_000)
				records := []*kgo.Record{
					{Key: []byte("key"), Value: []byte("value")},
					{Key: nil, Value: []byte("no key"), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte{0, 255}}}},
					{Key: []byte{}, Value: []byte{}, Headers: []kgo.RecordHeader{{Key: "empty", Value: []byte{}}}},
					{Key: []byte{0, 254, 255}, Value: everyByte, Headers: twice},
					{Key: []byte("tombstone"), Value: nil},
					{Key: []byte("řeka"), Value: bytes.Repeat([]byte("Vltava – řeka "), 2_000)},
				}
				for index, record := range records {
					record.Topic, record.Timestamp = topic, base.Add(time.Duration(index)*time.Millisecond)
				}
				producer := client(t, options...)
				if err := producer.ProduceSync(deadline(t), records...).FirstErr(); err != nil {
					t.Fatal(err)
				}
				consumer := client(t, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
				for index, got := range read(t, consumer, len(records)) {
					want := records[index]
					if got.Offset != int64(index) || !got.Timestamp.Equal(want.Timestamp) ||
						!bytes.Equal(got.Key, want.Key) || (got.Key == nil) != (want.Key == nil) ||
						!bytes.Equal(got.Value, want.Value) || (got.Value == nil) != (want.Value == nil) ||
						fmt.Sprint(got.Headers) != fmt.Sprint(want.Headers) {
						t.Errorf("record %d came back as %v, was %v", index, got, want)
					}
				}
			})
		}
	}
}

func TestGroupSharesPartitionsHandsThemOverAndResumes(t *testing.T) {
	topic, group := create(t, "shared", 4), fresh("sharers")
	producer := client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	send := func(from, to int) {
		for number := from; number < to; number++ {
			record := &kgo.Record{Topic: topic, Partition: int32(number % 4), Value: fmt.Appendf(nil, "%d", number)}
			if err := producer.ProduceSync(deadline(t), record).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(0, 40)
	member := func() *kgo.Client {
		return client(t, kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.HeartbeatInterval(500*time.Millisecond),
			kgo.SessionTimeout(10*time.Second))
	}
	first := member()
	read(t, first, 40)
	if err := first.CommitUncommittedOffsets(deadline(t)); err != nil {
		t.Fatal(err)
	}
	second := member()
	admin := kadm.NewClient(client(t))
	waitForMembers(t, admin, group, map[int]int{2: 2})
	first.Close()
	waitForMembers(t, admin, group, map[int]int{4: 1})
	send(40, 80)
	seen := map[string]bool{}
	for _, record := range read(t, second, 40) {
		seen[string(record.Value)] = true
	}
	for number := 40; number < 80; number++ {
		if !seen[fmt.Sprint(number)] {
			t.Errorf("record %d did not come", number)
		}
	}
	offsets, err := admin.FetchOffsets(deadline(t), group)
	if err != nil {
		t.Fatal(err)
	}
	for partition := range int32(4) {
		if offset, found := offsets.Lookup(topic, partition); !found || offset.At != 10 {
			t.Errorf("partition %d is committed at %v", partition, offset.At)
		}
	}
}

// waitForMembers waits until the group is stable with this many members for each number of partitions.
func waitForMembers(t *testing.T, admin *kadm.Client, group string, want map[int]int) {
	t.Helper()
	ctx := deadline(t)
	for {
		described, err := admin.DescribeGroups(ctx, group)
		if err != nil {
			t.Fatalf("the group did not become %v: %v", want, err)
		}
		have := map[int]int{}
		if described[group].State == "Stable" {
			for _, member := range described[group].Members {
				if assigned, ok := member.Assigned.AsConsumer(); ok {
					count := 0
					for _, topic := range assigned.Topics {
						count += len(topic.Partitions)
					}
					have[count]++
				}
			}
		}
		if fmt.Sprint(have) == fmt.Sprint(want) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestAdminCalls(t *testing.T) {
	topic := create(t, "managed", 1)
	admin := kadm.NewClient(client(t))
	ctx := deadline(t)
	brokers, err := admin.ListBrokers(ctx)
	if err != nil || len(brokers) != 3 {
		t.Fatalf("brokers %v: %v", brokers, err)
	}
	retention := kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("123456789")}
	altered, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{retention}, topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, response := range altered {
		if response.Err != nil {
			t.Fatal(response.Err)
		}
	}
	for {
		configs, err := admin.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, config := range configs[0].Configs {
			found = found || config.Key == "retention.ms" && config.MaybeValue() == "123456789"
		}
		if found {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := admin.UpdatePartitions(ctx, 3, topic); err != nil {
		t.Fatal(err)
	}
	for {
		details, err := admin.ListTopics(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		if len(details[topic].Partitions) == 3 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	// The leaders of new partitions may be the last to hear of them.
	for {
		ends, err := admin.ListEndOffsets(ctx, topic)
		if err != nil {
			t.Fatal(err)
		}
		if ends.Error() == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if _, err := admin.DeleteTopics(ctx, topic); err != nil {
		t.Fatal(err)
	}
}
