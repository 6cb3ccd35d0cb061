//! A few long runs that every change has to survive. `cargo xtask sim --seeds 200` runs more, and longer ones.

use std::time::Duration;

use vltava_sim::long_run::{self, Plan};
use vltava_sim::show_events;

fn check(seed: u64, duration: Duration) {
    show_events();
    let plan = Plan::draw(seed, duration);
    let report = long_run::run(&plan);
    println!("seed {seed}: {report}");
    assert!(report.violations.is_empty(), "{:#?}\n{plan}", report.violations);
    assert!(report.acknowledged > 0, "a run without an acknowledgement tells nothing");
}

#[test]
fn a_minute_under_faults_keeps_every_promise() {
    for seed in 100..103 {
        check(seed, Duration::from_secs(60));
    }
}
