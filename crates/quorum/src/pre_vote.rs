//! Whom this voter encourages to stand for election, when several want to.
//!
//! A pre-vote binds nobody (Raft thesis, section 9.6), and OpenRaft grants every one that it would vote for. So if the
//! timers of two followers run out within the few milliseconds that a round of messages takes, both are encouraged, both
//! vote for themselves, neither wins, and writes wait for another timeout. Therefore a voter backs one candidacy at a
//! time, its own among them, and turns others down until that one has had time to be voted for. Two that have both
//! begun are told apart by what both know: the longer log, then the lower id, goes first.
//!
//! Turning down a pre-vote changes no term and no vote, so this can delay an election, by the patience below at most,
//! and can never make one unsafe. Losing what is remembered here does no harm either.

use std::cmp::Reverse;
use std::time::Duration;

use openraft::raft::VoteRequest;
use tokio::time::Instant;

use crate::types::{LogId, TypeConfig};

/// A node that asks whether it would be voted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidacy {
    pub candidate: u64,
    pub term: u64,
    pub last_log_id: Option<LogId>,
}

impl Candidacy {
    pub fn of(request: &VoteRequest<TypeConfig>) -> Self {
        let leader_id = &request.vote.leader_id;
        Self { candidate: leader_id.voted_for, term: leader_id.term, last_log_id: request.last_log_id }
    }

    fn goes_before(&self, other: &Self) -> bool {
        (self.last_log_id, Reverse(self.candidate)) > (other.last_log_id, Reverse(other.candidate))
    }
}

/// The one candidacy that a voter backs.
#[derive(Debug)]
pub(crate) struct Backing {
    own_id: u64,
    /// How long it takes at most from a granted pre-vote to the vote that follows.
    patience: Duration,
    backed: Option<(Candidacy, Instant)>,
}

impl Backing {
    pub fn new(own_id: u64, patience: Duration) -> Self {
        Self { own_id, patience, backed: None }
    }

    /// Whether this voter backs the candidacy, its own or another's. If so, it backs no other for a while.
    pub fn back(&mut self, candidacy: Candidacy, now: Instant) -> bool {
        if let Some((backed, until)) = &self.backed
            && now < *until
            && backed.candidate != candidacy.candidate
            && candidacy.term <= backed.term
            && !(backed.candidate == self.own_id && candidacy.goes_before(backed))
        {
            return false;
        }
        self.backed = Some((candidacy, now + self.patience));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::{Expect, expect};

    use super::*;
    use crate::types::log_id;

    /// Asks voter 2 with 200 ms of patience. Each word is a question: `milliseconds:candidate@term/last log index`.
    fn check(questions: &str, expected: Expect) {
        let started_at = Instant::now();
        let mut backing = Backing::new(2, Duration::from_millis(200));
        let mut answers = String::new();
        for question in questions.split_whitespace() {
            let numbers: Vec<u64> =
                question.split([':', '@', '/']).map(|number| number.parse().expect("a number")).collect();
            let [at_ms, candidate, term, index] = numbers[..] else { panic!("{question} is no question") };
            let candidacy = Candidacy { candidate, term, last_log_id: Some(log_id(1, index)) };
            let is_backed = backing.back(candidacy, started_at + Duration::from_millis(at_ms));
            writeln!(answers, "{question} -> {}", if is_backed { "yes" } else { "no" }).expect("a string takes all");
        }
        expected.assert_eq(&answers);
    }

    #[test]
    fn one_candidacy_is_backed_at_a_time() {
        check(
            "0:3@5/9 10:1@5/9 20:2@5/9 150:3@5/9 340:1@5/9 360:1@5/9",
            expect![[r#"
                0:3@5/9 -> yes
                10:1@5/9 -> no
                20:2@5/9 -> no
                150:3@5/9 -> yes
                340:1@5/9 -> no
                360:1@5/9 -> yes
            "#]],
        );
    }

    #[test]
    fn of_two_that_have_begun_the_lower_id_goes_first() {
        check(
            "0:2@5/9 5:3@5/9 6:1@5/9 7:2@5/9",
            expect![[r#"
                0:2@5/9 -> yes
                5:3@5/9 -> no
                6:1@5/9 -> yes
                7:2@5/9 -> no
            "#]],
        );
    }

    #[test]
    fn a_longer_log_goes_before_a_lower_id() {
        check(
            "0:2@5/9 5:1@5/8 6:3@5/10 7:1@5/9",
            expect![[r#"
                0:2@5/9 -> yes
                5:1@5/8 -> no
                6:3@5/10 -> yes
                7:1@5/9 -> no
            "#]],
        );
    }

    #[test]
    fn a_later_term_is_another_election() {
        check(
            "0:2@5/9 5:3@4/9 6:3@6/9 7:1@5/9",
            expect![[r#"
                0:2@5/9 -> yes
                5:3@4/9 -> no
                6:3@6/9 -> yes
                7:1@5/9 -> no
            "#]],
        );
    }

    /// Whatever the order in which two followers hear their timers and each other, one of them is encouraged by both,
    /// and the other is not.
    #[test]
    fn two_followers_never_split_the_vote() {
        // When each one's timer runs out, and how long each one's question is under way.
        let moments = [0u64, 2, 5, 8, 11];
        for (timer_1, timer_3) in moments.iter().flat_map(|a| moments.iter().map(move |b| (*a, *b))) {
            for (delay_1, delay_3) in [(1, 1), (1, 6), (6, 1), (6, 6)] {
                let winners = elect_of_two([(1, timer_1, delay_1), (3, timer_3, delay_3)]);
                assert_eq!(winners.len(), 1, "timers at {timer_1} and {timer_3}, delays {delay_1} and {delay_3}");
            }
        }
    }

    /// Two followers, with node id, the milliseconds at which the timer runs out, and those that its question takes.
    /// Returns those that both back.
    fn elect_of_two(nodes: [(u64, u64, u64); 2]) -> Vec<u64> {
        let started_at = Instant::now();
        let at = |ms| started_at + Duration::from_millis(ms);
        let mut backings = nodes.map(|(id, ..)| Backing::new(id, Duration::from_millis(200)));
        // Events in order of time: a timer is heard by its own node, a question by the other one.
        let mut events = Vec::new();
        for (from, (_, timer, delay)) in nodes.iter().enumerate() {
            events.push((*timer, from, from));
            events.push((timer + delay, 1 - from, from));
        }
        events.sort_unstable();
        let mut stands = [false; 2];
        let mut winners = Vec::new();
        for (ms, node, from) in events {
            let candidacy = Candidacy { candidate: nodes[from].0, term: 5, last_log_id: Some(log_id(1, 9)) };
            if node != from && !stands[from] {
                continue;
            }
            let is_backed = backings[node].back(candidacy, at(ms));
            if node == from {
                stands[from] = is_backed;
            } else if is_backed {
                winners.push(candidacy.candidate);
            }
        }
        winners
    }
}
