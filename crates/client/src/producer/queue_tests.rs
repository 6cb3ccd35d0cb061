//! Stories of one partition's queue, and a broker that loses requests and answers.

use std::collections::BTreeMap;

use vltava_protocol::batch::{BatchHeader, records};
use vltava_protocol::compression::Compression;
use vltava_types::Offset;

use super::*;

const IDENTITY: Option<Identity> = Some(Identity { id: ProducerId(7), epoch: ProducerEpoch(0) });

fn rules() -> Rules {
    Rules {
        is_idempotent: true,
        batch_size: 200,
        linger_ms: 5,
        delivery_timeout_ms: 1_000,
        retries: u32::MAX,
        retry_backoff_ms: 10,
        retry_backoff_max_ms: 40,
        batches_in_flight: 5,
        requests_in_flight: 5,
        max_request_size: 1_000_000,
        compression: Compression::None,
        compression_level: None,
    }
}

/// A queue, a clock, and one batch for each record.
struct Story {
    rules: Rules,
    queue: PartitionQueue<u32>,
    now: Millis,
}

impl Story {
    fn new() -> Self {
        Self { rules: rules(), queue: PartitionQueue::default(), now: 0 }
    }

    fn append(&mut self, value: u32) {
        let bytes = value.to_be_bytes();
        let record = RecordFields { timestamp: TimestampMs(1), key: None, value: Some(&bytes), headers: &[] };
        self.queue.append(&self.rules, &record, value, self.now);
    }

    /// One batch of these records.
    fn batch(&mut self, values: &[u32]) {
        for value in values {
            self.append(*value);
        }
        let open = self.queue.open.take().expect("records were appended");
        self.queue.full.push_back(open);
    }

    fn send(&mut self, broker: i32) -> Option<ToSend> {
        self.queue.send(&self.rules, broker, IDENTITY, false, self.now)
    }

    /// Sends all that may be sent now; tells epoch and first sequence number of each batch.
    fn send_all(&mut self, broker: i32) -> (Vec<Attempt>, String) {
        let mut attempts = Vec::new();
        let mut told = Vec::new();
        while let Some(to_send) = self.send(broker) {
            let header = BatchHeader::parse(&to_send.bytes).expect("a batch");
            told.push(format!("{}:{}+{}", header.producer_epoch, header.base_sequence, header.record_count));
            attempts.push(to_send.attempt);
        }
        (attempts, told.join(" "))
    }

    fn answer(&mut self, attempt: Attempt, outcome: Outcome) -> Option<Completed<u32>> {
        self.queue.on_outcome(&self.rules, attempt, outcome, self.now)
    }

    fn refuse(&mut self, attempt: Attempt, code: ErrorCode) -> Option<Completed<u32>> {
        self.answer(attempt, Outcome::Refused(code))
    }
}

fn written(base_offset: i64) -> Outcome {
    Outcome::Written(Written { base_offset: Some(Offset(base_offset)), log_append_time: TimestampMs::NONE })
}

#[test]
fn records_linger_until_time_or_size_or_somebody_is_waiting() {
    let mut story = Story::new();
    story.append(1);
    assert!(story.send(1).is_none());
    assert_eq!(story.queue.next_event(&story.rules, story.now), Some(5));
    story.now = 5;
    assert_eq!(story.send_all(1).1, "0:0+1");
    (0..60).for_each(|value| story.append(value));
    assert_eq!(story.send_all(1).1, "0:1+10 0:11+10 0:21+10 0:31+10", "full ones go, with the first one five");
    let mut story = Story::new();
    story.append(1);
    story.queue.make_urgent();
    assert!(story.send(1).is_some());
}

#[test]
fn a_batch_sent_again_keeps_its_number_and_goes_before_new_ones() {
    let mut story = Story::new();
    story.batch(&[1, 2]);
    story.batch(&[3]);
    let (attempts, told) = story.send_all(1);
    assert_eq!(told, "0:0+2 0:2+1");
    story.refuse(attempts[0], ErrorCode::NotLeaderOrFollower);
    story.refuse(attempts[1], ErrorCode::NotLeaderOrFollower);
    story.batch(&[4]);
    assert!(story.send(1).is_none(), "not before the back-off is over");
    story.now += 10;
    assert_eq!(story.send_all(1).1, "0:0+2 0:2+1 0:3+1");
}

#[test]
fn a_gap_that_no_predecessor_will_fill_is_closed_by_the_next_epoch() {
    let mut story = Story::new();
    story.batch(&[1]);
    story.batch(&[2]);
    story.batch(&[3]);
    let (attempts, _) = story.send_all(1);
    let failed = story.refuse(attempts[0], ErrorCode::InvalidRecord).expect("the broker will not have it");
    assert_eq!(failed.waiting, [1]);
    story.refuse(attempts[1], ErrorCode::OutOfOrderSequenceNumber);
    story.now += 50;
    assert!(story.send(1).is_none(), "the third is still on the wire under its old number");
    story.refuse(attempts[2], ErrorCode::OutOfOrderSequenceNumber);
    story.now += 50;
    assert_eq!(story.send_all(1).1, "1:0+1 1:1+1");
}

#[test]
fn a_batch_that_may_still_come_late_gets_no_second_number() {
    let mut story = Story::new();
    story.batch(&[1]);
    story.batch(&[2]);
    story.batch(&[3]);
    let (attempts, _) = story.send_all(1);
    story.answer(attempts[0], Outcome::Unanswered);
    story.answer(attempts[1], Outcome::Unanswered);
    story.refuse(attempts[2], ErrorCode::NotLeaderOrFollower);
    story.now = story.rules.delivery_timeout_ms;
    story.queue.numbered[1].created = story.now;
    story.queue.numbered[2].created = story.now;
    assert_eq!(story.queue.expire(&story.rules, story.now).len(), 1);
    let (again, told) = story.send_all(1);
    assert_eq!(told, "0:1+1 0:2+1");
    let given_up = story.refuse(again[0], ErrorCode::OutOfOrderSequenceNumber).expect("its outcome stays unknown");
    assert_eq!((given_up.waiting, given_up.result), (vec![2], Err(ProduceError::NoAnswer)));
    assert!(story.refuse(again[1], ErrorCode::OutOfOrderSequenceNumber).is_none());
    assert_eq!(story.send_all(1).1, "1:0+1", "the third was refused each time");
}

#[test]
fn a_gap_before_a_later_batch_waits_for_the_predecessor() {
    let mut story = Story::new();
    story.batch(&[1]);
    story.batch(&[2]);
    let (attempts, _) = story.send_all(1);
    story.refuse(attempts[0], ErrorCode::NotEnoughReplicas);
    story.refuse(attempts[1], ErrorCode::OutOfOrderSequenceNumber);
    story.now += 50;
    assert_eq!(story.send_all(1).1, "0:0+1 0:1+1");
}

#[test]
fn a_new_leader_gets_what_the_former_one_did_not_answer() {
    let mut story = Story::new();
    story.batch(&[1]);
    let (old, _) = story.send_all(1);
    assert!(story.send(2).is_none(), "nothing goes to two brokers at once");
    story.queue.on_new_leader(&story.rules, 2);
    let (new, told) = story.send_all(2);
    assert_eq!(told, "0:0+1");
    assert!(story.answer(old[0], written(5)).is_none(), "the old attempt was given up");
    assert_eq!(story.answer(new[0], written(6)).expect("done").waiting, [1]);
}

#[test]
fn without_idempotence_a_new_leader_waits_for_the_former_one_s_answer() {
    let mut story = Story::new();
    story.rules.is_idempotent = false;
    story.rules.batches_in_flight = 1;
    story.batch(&[1]);
    story.batch(&[2]);
    let (attempts, told) = story.send_all(1);
    assert_eq!(told, "-1:-1+1");
    story.queue.on_new_leader(&story.rules, 2);
    assert!(story.send(2).is_none());
    story.answer(attempts[0], Outcome::Unanswered);
    story.now += 10;
    assert_eq!(story.send_all(2).1, "-1:-1+1", "the same one again");
}

#[test]
fn halves_of_a_batch_that_is_too_large_keep_the_numbers() {
    let mut story = Story::new();
    story.batch(&[1, 2, 3]);
    story.batch(&[4]);
    let (attempts, _) = story.send_all(1);
    assert!(story.refuse(attempts[0], ErrorCode::MessageTooLarge).is_none());
    story.refuse(attempts[1], ErrorCode::OutOfOrderSequenceNumber);
    story.now += 50;
    let (attempts, told) = story.send_all(1);
    assert_eq!(told, "0:0+1 0:1+2 0:3+1");
    assert_eq!(story.answer(attempts[1], written(1)).expect("done").waiting, [2, 3]);
}

#[test]
fn what_waits_too_long_fails_and_its_successors_go_on() {
    let mut story = Story::new();
    story.batch(&[1]);
    story.now = 500;
    story.batch(&[2]);
    let (attempts, _) = story.send_all(1);
    story.now = 1_000;
    let expired = story.queue.expire(&story.rules, story.now);
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].waiting, [1]);
    assert!(matches!(expired[0].result, Err(ProduceError::TimedOut { .. })));
    assert!(story.answer(attempts[0], written(0)).is_none());
    assert_eq!(story.answer(attempts[1], written(1)).expect("done").waiting, [2]);
}

#[test]
fn an_epoch_that_cannot_grow_needs_another_identity() {
    let mut story = Story::new();
    story.batch(&[1]);
    story.queue.identity = Some(Identity { id: ProducerId(7), epoch: ProducerEpoch(i16::MAX) });
    let (attempts, _) = story.send_all(1);
    story.refuse(attempts[0], ErrorCode::OutOfOrderSequenceNumber);
    story.now += 50;
    assert!(story.send(1).is_none());
    assert!(story.queue.needs_identity(IDENTITY));
    let other = Some(Identity { id: ProducerId(8), epoch: ProducerEpoch(0) });
    assert!(story.queue.send(&story.rules, 1, other, false, story.now).is_some());
}

#[test]
fn numbers_go_on_with_0_after_the_largest() {
    assert_eq!(advance(i32::MAX - 1, 1), i32::MAX);
    assert_eq!(advance(i32::MAX, 1), 0);
    assert_eq!(advance(i32::MAX - 1, 3), 1);
}

/// What a leader keeps of a producer.
#[derive(Default)]
struct Broker {
    log: Vec<u32>,
    epoch: i16,
    next_sequence: i32,
    /// First sequence numbers of the last five batches, and where those went.
    recent: Vec<(i32, i64)>,
}

impl Broker {
    fn produce(&mut self, bytes: &Bytes) -> Outcome {
        let view = batch::batches(bytes).next().expect("a batch").expect("whole");
        view.verify_crc().expect("intact, also under its second number");
        let header = view.header;
        if header.producer_epoch.0 < self.epoch {
            return Outcome::Refused(ErrorCode::InvalidProducerEpoch);
        }
        let is_new_epoch = header.producer_epoch.0 > self.epoch;
        if !is_new_epoch
            && let Some((_, offset)) = self.recent.iter().find(|(first, _)| *first == header.base_sequence.0)
        {
            return written(*offset);
        }
        let expected = if is_new_epoch { 0 } else { self.next_sequence };
        if header.base_sequence.0 != expected {
            return Outcome::Refused(ErrorCode::OutOfOrderSequenceNumber);
        }
        if is_new_epoch {
            self.recent.clear();
            self.epoch = header.producer_epoch.0;
        }
        let offset = self.log.len() as i64;
        for record in records(bytes, 1_000).expect("readable") {
            let value = record.expect("readable").value.expect("a value");
            self.log.push(u32::from_be_bytes(value[..].try_into().expect("four bytes")));
        }
        self.next_sequence = header.base_sequence.0 + header.record_count;
        self.recent.push((header.base_sequence.0, offset));
        if self.recent.len() > 5 {
            self.recent.remove(0);
        }
        written(offset)
    }
}

/// Requests are lost or come late, answers are lost, requests are refused, leaders change, records expire. What was acknowledged
/// is in the log at its offset, nothing is there twice, and the order is that of the appends.
#[test]
fn whatever_is_lost_on_the_way_nothing_is_lost_doubled_or_reordered() {
    let mut expired_in_all = 0;
    let mut renumbered_in_all = 0;
    let mut unknown_in_all = 0;
    for seed in 0..400_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let mut story = Story::new();
        story.rules.delivery_timeout_ms = 300;
        let mut broker = Broker::default();
        let mut acknowledged = BTreeMap::new();
        let mut wire: VecDeque<(Attempt, Outcome)> = VecDeque::new();
        let mut late: VecDeque<Bytes> = VecDeque::new();
        let mut leader = 1;
        let mut appended = 0;
        for _ in 0..600 {
            story.now += random(20);
            if random(2) == 0 && appended < 400 {
                story.append(appended);
                appended += 1;
            }
            let expired = story.queue.expire(&story.rules, story.now);
            expired_in_all += expired.len();
            if random(15) == 0 {
                // A leader that fails takes the answers that it owes with it.
                leader += 1;
                if random(2) == 0 {
                    story.queue.on_new_leader(&story.rules, leader);
                    wire.clear();
                } else {
                    wire.iter_mut().for_each(|(_, outcome)| *outcome = Outcome::Unanswered);
                }
            }
            if let Some(to_send) = story.send(leader) {
                let outcome = match random(11) {
                    0 => Outcome::Unanswered,
                    10 => {
                        late.push_back(to_send.bytes.clone());
                        Outcome::Unanswered
                    }
                    1 => {
                        broker.produce(&to_send.bytes);
                        Outcome::Unanswered
                    }
                    2 => Outcome::Refused(ErrorCode::NotLeaderOrFollower),
                    3 => {
                        broker.produce(&to_send.bytes);
                        Outcome::Refused(ErrorCode::RequestTimedOut)
                    }
                    _ => broker.produce(&to_send.bytes),
                };
                wire.push_back((to_send.attempt, outcome));
            }
            if random(8) == 0
                && let Some(bytes) = late.pop_front()
            {
                broker.produce(&bytes);
            }
            if random(3) > 0
                && let Some((attempt, outcome)) = wire.pop_front()
                && let Some(completed) = story.answer(attempt, outcome)
            {
                let written = match completed.result {
                    Err(ProduceError::NoAnswer) => {
                        unknown_in_all += 1;
                        continue;
                    }
                    result => result.expect("nothing is refused for good"),
                };
                let base = written.base_offset.expect("told");
                for (index, value) in completed.waiting.into_iter().enumerate() {
                    acknowledged.insert(value, base.0 as usize + index);
                }
            }
        }
        renumbered_in_all += usize::from(broker.epoch > 0);
        assert!(broker.log.is_sorted_by(|a, b| a < b), "seed {seed}: {:?}", broker.log);
        for (value, offset) in acknowledged {
            assert_eq!(broker.log.get(offset), Some(&value), "seed {seed}");
        }
    }
    let told = (expired_in_all, renumbered_in_all, unknown_in_all);
    assert!(told.0 > 100 && told.1 > 20 && told.2 > 20, "{told:?}: too quiet a story");
}
