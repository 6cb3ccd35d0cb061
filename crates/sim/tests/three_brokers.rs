//! Three whole brokers in one process, on a simulated clock and network.

use std::time::Duration;

use vltava_sim::{Fault, Meanwhile, Outcome, Scenario, Victim, show_events};

/// Seeds that every change has to survive. `VLTAVA_SEEDS` asks for others.
const SEEDS: std::ops::Range<u64> = 100..120;

/// DESIGN's goal for a silent cut with default settings.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

fn run(seed: u64, fault: Fault, victim: Victim) -> Outcome {
    show_events();
    let outcome = Scenario::new(seed, fault, victim).run();
    let (pause, recovery, led_both) = (outcome.history.longest_pause(), outcome.recovery, outcome.led_both);
    println!("{fault:?} of {victim:?}, seed {seed}: pause {pause:?}, recovery {recovery:?}, led both: {led_both}");
    outcome
}

#[test]
fn a_healthy_cluster_acknowledges_and_keeps_everything() {
    let history = run(1, Fault::None, Victim::PartitionLeader).history;
    assert!(history.longest_pause() < Duration::from_secs(1), "{:?}", history.longest_pause());
}

/// Whichever leader it is; often one broker is both.
fn check(fault: Fault) {
    for seed in [1, 7] {
        for victim in [Victim::PartitionLeader, Victim::Controller] {
            let pause = run(seed, fault, victim).history.longest_pause();
            assert!(pause < LONGEST_PAUSE, "{fault:?} of {victim:?}, seed {seed}: {pause:?}");
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_a_leader_loses_power() {
    check(Fault::PowerLoss);
}

#[test]
fn nothing_acknowledged_is_lost_when_a_leader_is_cut_off_from_brokers() {
    check(Fault::Isolation(Meanwhile::Delivered));
    check(Fault::Isolation(Meanwhile::Lost));
}

#[test]
fn nothing_acknowledged_is_lost_when_a_leader_is_cut_off_from_everybody() {
    check(Fault::Disconnection(Meanwhile::Delivered));
    check(Fault::Disconnection(Meanwhile::Lost));
}

/// All brokers at once in `flush` mode, all but one in `page-cache` mode.
#[test]
fn trap_13_nothing_acknowledged_is_lost_when_several_brokers_lose_power_at_once() {
    show_events();
    for seed in seeds() {
        let scenario = Scenario::power_loss_from_seed(seed);
        let outcome = scenario.run();
        println!("{scenario:?}: {} values, recovery {:?}", outcome.history.acknowledged.len(), outcome.recovery);
    }
}

#[test]
fn any_fault_at_any_moment_loses_nothing() {
    seeds().for_each(check_seed);
}

/// The timers of both followers run out in the same millisecond. Each encouraged the other, and neither was elected.
#[test]
fn writes_resume_in_time_when_both_followers_time_out_together() {
    check_seed(266);
}

fn check_seed(seed: u64) {
    show_events();
    let scenario = Scenario::from_seed(seed);
    let outcome = scenario.run();
    let (pause, recovery, led_both) = (outcome.history.longest_pause(), outcome.recovery, outcome.led_both);
    println!("{scenario:?}: pause {pause:?}, recovery {recovery:?}, led both: {led_both}");
    assert!(pause < LONGEST_PAUSE, "seed {seed}: {pause:?}");
}

/// `VLTAVA_SEEDS=500..1000`, or what every change has to survive.
fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("VLTAVA_SEEDS") else { return SEEDS };
    let (from, to) = asked.split_once("..").expect("VLTAVA_SEEDS is written from..to");
    let number = |text: &str| text.parse().expect("a seed is a number");
    number(from)..number(to)
}
