//! A seed tells everything of a long run too, down to each segment on the network. A process of its own, as for
//! `determinism.rs`.

use std::time::Duration;

use vltava_sim::Trace;
use vltava_sim::long_run::{self, Plan};

#[test]
fn the_same_seed_gives_the_same_long_run() {
    let plan = Plan::draw(11, Duration::from_secs(30));
    let record = || Trace::record(|| long_run::run(&plan).digest);
    let ((first, first_trace), (second, second_trace)) = (record(), record());
    if first_trace.hash() != second_trace.hash() {
        panic!("{}", first_trace.first_difference(&second_trace).expect("hashes differ"));
    }
    assert!(first_trace.len() > 10_000, "{} events tell little", first_trace.len());
    assert_eq!(first, second, "equal events, equal histories");
}
