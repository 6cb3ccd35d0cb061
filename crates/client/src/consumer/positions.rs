//! Where a consumer stands in each of its partitions, and what it has to find out or fetch next.
//!
//! Owns no socket and no clock. Each partition has a serial number that changes with every assignment, seek or change of
//! leader: what was asked for under an older one is not taken in.

use std::collections::BTreeMap;

use vltava_types::{ErrorCode, Offset};

use super::OffsetReset;
use crate::ClusterView;
use crate::error::is_retriable;

/// A partition by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: String,
    pub partition: i32,
}

impl TopicPartition {
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}", self.topic, self.partition)
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the group's committed offset, else where `auto.offset.reset` says.
    Committed,
    Earliest,
    Latest,
    Offset(Offset),
}

/// What a partition waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Committed,
    /// A ListOffsets timestamp.
    ByTime(i64),
}

pub(crate) const EARLIEST: i64 = -2;
pub(crate) const LATEST: i64 = -1;

/// A question asked under a serial number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub partition: TopicPartition,
    pub serial: u64,
    /// Where a fetch begins.
    pub offset: Offset,
}

/// What an error of a partition means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The leader may be another one.
    AskForLeader,
    /// The position is looked up anew.
    Reset,
    NoOffset(TopicPartition),
    Fatal(ErrorCode),
}

#[derive(Debug)]
struct Position {
    serial: u64,
    state: State,
    /// The next offset that the application has not seen.
    consumed: Option<Offset>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unknown(Lookup),
    LookedUp(Lookup),
    /// To be fetched from here.
    Ready(Offset),
    /// Asked for at this broker.
    Fetching(Offset, i32),
    /// Fetched and not delivered in full.
    Buffered,
}

#[derive(Debug)]
pub struct Positions {
    partitions: BTreeMap<TopicPartition, Position>,
    reset: OffsetReset,
    next_serial: u64,
}

impl Positions {
    pub fn new(reset: OffsetReset) -> Self {
        Self { partitions: BTreeMap::new(), reset, next_serial: 0 }
    }

    /// Replaces all partitions.
    pub fn assign(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, Start)>) {
        self.partitions.clear();
        for (partition, start) in partitions {
            self.seek(partition, start);
        }
    }

    /// Goes on from elsewhere; also adds a partition.
    pub fn seek(&mut self, partition: TopicPartition, start: Start) {
        let state = match start {
            Start::Committed => State::Unknown(Lookup::Committed),
            Start::Earliest => State::Unknown(Lookup::ByTime(EARLIEST)),
            Start::Latest => State::Unknown(Lookup::ByTime(LATEST)),
            Start::Offset(offset) => State::Ready(offset),
        };
        let consumed = if let Start::Offset(offset) = start { Some(offset) } else { None };
        self.next_serial += 1;
        self.partitions.insert(partition, Position { serial: self.next_serial, state, consumed });
    }

    pub fn assignment(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.keys()
    }

    /// The next offset that the application has not seen, where it is known.
    pub fn consumed(&self) -> BTreeMap<TopicPartition, Offset> {
        let known = |(partition, position): (&TopicPartition, &Position)| Some((partition.clone(), position.consumed?));
        self.partitions.iter().filter_map(known).collect()
    }

    /// The positions to look up in the group's commits; marks them as asked for.
    pub fn take_committed_lookups(&mut self) -> Vec<Asked> {
        let mut taken = Vec::new();
        for (partition, position) in &mut self.partitions {
            if position.state == State::Unknown(Lookup::Committed) {
                position.state = State::LookedUp(Lookup::Committed);
                taken.push(Asked { partition: partition.clone(), serial: position.serial, offset: Offset(-1) });
            }
        }
        taken
    }

    /// The positions to ask the leaders for, by broker, each with its timestamp; marks them as asked for. Partitions
    /// without a leader wait; returns whether there are any.
    pub fn take_leader_lookups(&mut self, view: &ClusterView) -> (BTreeMap<i32, Vec<(Asked, i64)>>, bool) {
        let mut by_broker: BTreeMap<i32, Vec<(Asked, i64)>> = BTreeMap::new();
        let mut lacks_leader = false;
        for (partition, position) in &mut self.partitions {
            let State::Unknown(lookup @ Lookup::ByTime(timestamp)) = position.state else { continue };
            let Some(leader) = view.leader(&partition.topic, partition.partition) else {
                lacks_leader = true;
                continue;
            };
            position.state = State::LookedUp(lookup);
            let asked = Asked { partition: partition.clone(), serial: position.serial, offset: Offset(-1) };
            by_broker.entry(leader).or_default().push((asked, timestamp));
        }
        (by_broker, lacks_leader)
    }

    /// What to fetch, by broker; marks it as asked for. `is_free` tells which brokers take a fetch now. Returns also
    /// whether partitions lack a leader.
    pub fn take_fetches(
        &mut self,
        view: &ClusterView,
        is_free: impl Fn(i32) -> bool,
    ) -> (BTreeMap<i32, Vec<Asked>>, bool) {
        let mut by_broker: BTreeMap<i32, Vec<Asked>> = BTreeMap::new();
        let mut lacks_leader = false;
        for (partition, position) in &mut self.partitions {
            let State::Ready(offset) = position.state else { continue };
            match view.leader(&partition.topic, partition.partition) {
                None => lacks_leader = true,
                Some(leader) if is_free(leader) => {
                    position.state = State::Fetching(offset, leader);
                    let asked = Asked { partition: partition.clone(), serial: position.serial, offset };
                    by_broker.entry(leader).or_default().push(asked);
                }
                Some(_) => {}
            }
        }
        (by_broker, lacks_leader)
    }

    /// A position was found; `None` if there is none to be found.
    pub fn on_found(&mut self, asked: &Asked, offset: Option<Offset>) -> Result<(), Trouble> {
        let Some(position) = self.asked(asked) else { return Ok(()) };
        match offset {
            Some(offset) => {
                position.state = State::Ready(offset);
                position.consumed = Some(offset);
                Ok(())
            }
            None => self.reset(asked),
        }
    }

    /// An answer did not come, or not from the right broker. The question is asked again.
    pub fn on_unanswered(&mut self, asked: &Asked) {
        if let Some(position) = self.asked(asked) {
            match position.state {
                State::LookedUp(lookup) => position.state = State::Unknown(lookup),
                State::Fetching(offset, _) => position.state = State::Ready(offset),
                State::Unknown(_) | State::Ready(_) | State::Buffered => {}
            }
        }
    }

    /// A lookup or a fetch was refused.
    pub fn on_refused(&mut self, asked: &Asked, code: ErrorCode) -> Trouble {
        if self.asked(asked).is_none() {
            return Trouble::AskForLeader;
        }
        if code == ErrorCode::OffsetOutOfRange {
            return match self.reset(asked) {
                Ok(()) => Trouble::Reset,
                Err(trouble) => trouble,
            };
        }
        self.on_unanswered(asked);
        if is_retriable(code) { Trouble::AskForLeader } else { Trouble::Fatal(code) }
    }

    /// Records came. Returns false if nobody waits for them any more. Without records the next fetch goes on from
    /// `next_offset`; with some it waits until they are delivered, see [`Positions::on_delivered`].
    pub fn on_fetched(&mut self, asked: &Asked, has_records: bool, next_offset: Offset) -> bool {
        let Some(position) = self.asked(asked) else { return false };
        if has_records {
            position.state = State::Buffered;
        } else {
            position.state = State::Ready(next_offset);
            position.consumed = Some(next_offset);
        }
        true
    }

    /// Whether what was fetched under this serial number is still wanted.
    pub fn is_current(&self, asked: &Asked) -> bool {
        self.partitions.get(&asked.partition).is_some_and(|position| position.serial == asked.serial)
    }

    /// The application has everything below `next_offset`; `is_all` if nothing more is buffered.
    pub fn on_delivered(&mut self, asked: &Asked, next_offset: Offset, is_all: bool) {
        if let Some(position) = self.asked(asked) {
            position.consumed = Some(next_offset);
            if is_all {
                position.state = State::Ready(next_offset);
            }
        }
    }

    /// What is asked for at a broker that is no leader any more is asked for at the new one at once.
    pub fn on_metadata(&mut self, view: &ClusterView) {
        for (partition, position) in &mut self.partitions {
            if let State::Fetching(offset, broker) = position.state
                && view.leader(&partition.topic, partition.partition).is_some_and(|leader| leader != broker)
            {
                self.next_serial += 1;
                position.serial = self.next_serial;
                position.state = State::Ready(offset);
            }
        }
    }

    fn asked(&mut self, asked: &Asked) -> Option<&mut Position> {
        self.partitions.get_mut(&asked.partition).filter(|position| position.serial == asked.serial)
    }

    fn reset(&mut self, asked: &Asked) -> Result<(), Trouble> {
        let timestamp = match self.reset {
            OffsetReset::Earliest => EARLIEST,
            OffsetReset::Latest => LATEST,
            OffsetReset::None => return Err(Trouble::NoOffset(asked.partition.clone())),
        };
        if let Some(position) = self.asked(asked) {
            position.state = State::Unknown(Lookup::ByTime(timestamp));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::make;
    use vltava_protocol::messages::MetadataResponse;
    use vltava_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;

    fn led_by(leader_id: i32, leader_epoch: i32) -> ClusterView {
        let partition = make!(MetadataResponsePartition { partition_index: 0, leader_id, leader_epoch });
        let topic = make!(MetadataResponseTopic { name: Some("t".into()), partitions: vec![partition] });
        let mut view = ClusterView::default();
        view.update(&make!(MetadataResponse { topics: vec![topic] }));
        view
    }

    fn partition() -> TopicPartition {
        TopicPartition::new("t", 0)
    }

    fn fetch(positions: &mut Positions, view: &ClusterView) -> Option<(i32, Asked)> {
        let (fetches, _) = positions.take_fetches(view, |_| true);
        fetches.into_iter().next().map(|(broker, mut asked)| (broker, asked.remove(0)))
    }

    #[test]
    fn a_group_without_a_commit_begins_where_the_reset_policy_says() {
        let mut positions = Positions::new(OffsetReset::Earliest);
        positions.assign([(partition(), Start::Committed)]);
        let asked = positions.take_committed_lookups().remove(0);
        assert!(positions.take_committed_lookups().is_empty(), "asked once");
        positions.on_found(&asked, None).expect("reset");
        let (lookups, _) = positions.take_leader_lookups(&led_by(1, 0));
        let (asked, timestamp) = &lookups[&1][0];
        assert_eq!(*timestamp, EARLIEST);
        positions.on_found(asked, Some(Offset(4))).expect("found");
        assert_eq!(fetch(&mut positions, &led_by(1, 0)).expect("ready").1.offset, Offset(4));
        assert_eq!(positions.consumed(), BTreeMap::from([(partition(), Offset(4))]));
    }

    #[test]
    fn without_a_policy_a_missing_commit_is_an_error() {
        let mut positions = Positions::new(OffsetReset::None);
        positions.assign([(partition(), Start::Committed)]);
        let asked = positions.take_committed_lookups().remove(0);
        assert_eq!(positions.on_found(&asked, None), Err(Trouble::NoOffset(partition())));
    }

    #[test]
    fn only_what_was_delivered_counts_as_consumed() {
        let view = led_by(1, 0);
        let mut positions = Positions::new(OffsetReset::Latest);
        positions.assign([(partition(), Start::Offset(Offset(0)))]);
        let (_, asked) = fetch(&mut positions, &view).expect("ready");
        assert!(positions.on_fetched(&asked, true, Offset(10)));
        assert!(fetch(&mut positions, &view).is_none(), "not while records wait");
        positions.on_delivered(&asked, Offset(6), false);
        assert_eq!(positions.consumed()[&partition()], Offset(6));
        positions.on_delivered(&asked, Offset(10), true);
        assert_eq!(fetch(&mut positions, &view).expect("ready").1.offset, Offset(10));
    }

    #[test]
    fn an_answer_from_before_a_seek_is_not_taken_in() {
        let view = led_by(1, 0);
        let mut positions = Positions::new(OffsetReset::Latest);
        positions.assign([(partition(), Start::Offset(Offset(0)))]);
        let (_, asked) = fetch(&mut positions, &view).expect("ready");
        positions.seek(partition(), Start::Offset(Offset(100)));
        assert!(!positions.on_fetched(&asked, true, Offset(10)));
        assert_eq!(fetch(&mut positions, &view).expect("ready").1.offset, Offset(100));
    }

    #[test]
    fn a_new_leader_is_asked_while_the_former_one_has_not_answered() {
        let mut positions = Positions::new(OffsetReset::Latest);
        positions.assign([(partition(), Start::Offset(Offset(3)))]);
        let (_, old) = fetch(&mut positions, &led_by(1, 0)).expect("ready");
        positions.on_metadata(&led_by(2, 1));
        let (broker, new) = fetch(&mut positions, &led_by(2, 1)).expect("ready");
        assert_eq!((broker, new.offset), (2, Offset(3)));
        assert!(!positions.on_fetched(&old, true, Offset(9)));
    }

    #[test]
    fn errors_say_what_to_do() {
        let mut positions = Positions::new(OffsetReset::Earliest);
        let mut trouble = |code| {
            positions.assign([(partition(), Start::Offset(Offset(3)))]);
            let (_, asked) = fetch(&mut positions, &led_by(1, 0)).expect("ready");
            positions.on_refused(&asked, code)
        };
        assert_eq!(trouble(ErrorCode::NotLeaderOrFollower), Trouble::AskForLeader);
        assert_eq!(trouble(ErrorCode::UnknownTopicOrPartition), Trouble::AskForLeader);
        assert_eq!(trouble(ErrorCode::OffsetOutOfRange), Trouble::Reset);
        let forbidden = ErrorCode::TopicAuthorizationFailed;
        assert_eq!(trouble(forbidden), Trouble::Fatal(forbidden));
    }
}
