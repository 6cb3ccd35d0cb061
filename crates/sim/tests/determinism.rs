//! A seed tells everything: the same events in the same order, down to each segment on the network.
//!
//! A process of its own: tests that run beside this one would share tracing's and tokio's global state.

use vltava_sim::{Fault, Meanwhile, Scenario, Trace, Victim};

#[test]
fn the_same_seed_gives_the_same_events() {
    for fault in [Fault::PowerLoss, Fault::Isolation(Meanwhile::Lost)] {
        let record = || Trace::record(|| Scenario::new(7, fault, Victim::PartitionLeader).run().history);
        let ((first, first_trace), (second, second_trace)) = (record(), record());
        if first_trace.hash() != second_trace.hash() {
            panic!("{fault:?}: {}", first_trace.first_difference(&second_trace).expect("hashes differ"));
        }
        assert!(first_trace.len() > 10_000, "{} events tell little", first_trace.len());
        assert!(first == second, "equal events, equal histories");
    }
}
