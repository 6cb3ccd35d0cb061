//! Logs on a disk that loses, tears, reorders and fails writes: what was acknowledged as durable is there afterwards, and
//! nothing is half there.

mod check;
mod model;
mod run;
mod scripts;
mod syncs;

use run::{Run, Trouble};

/// Seeds that every change has to survive. `VLTAVA_STORAGE_SEEDS=500..1000` asks for others.
const SEEDS: std::ops::Range<u64> = 0..2_000;

const STEPS: usize = 40;

fn seeds() -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("VLTAVA_STORAGE_SEEDS") else { return SEEDS };
    let (from, to) = asked.split_once("..").expect("VLTAVA_STORAGE_SEEDS is written from..to");
    let number = |text: &str| text.parse().expect("a seed is a number");
    number(from)..number(to)
}

/// Runs all seeds, and tells of all that fail.
fn check(trouble: Trouble) {
    let mut recoveries = 0;
    let failed: Vec<u64> = seeds()
        .filter(|seed| {
            let outcome = std::panic::catch_unwind(|| {
                let mut run = Run::new(*seed, trouble);
                run.run(STEPS);
                run.recoveries
            });
            recoveries += outcome.as_ref().copied().unwrap_or_default();
            outcome.is_err()
        })
        .collect();
    println!("{trouble:?}: {} seeds, {recoveries} recoveries", seeds().count());
    assert!(failed.is_empty(), "{trouble:?}: {} seeds failed: {failed:?}", failed.len());
}

#[test]
fn what_was_durable_survives_a_crash_at_any_operation() {
    check(Trouble::Crashes);
}

#[test]
fn what_was_durable_survives_failed_writes_and_flushes() {
    check(Trouble::FailingDisk);
}

#[test]
fn what_was_durable_survives_a_full_disk() {
    check(Trouble::FullDisk);
}

#[test]
fn what_decays_is_found_and_never_served() {
    check(Trouble::DecayingDisk);
}

/// A test that cannot fail shows nothing: on a disk that lies about flushes, records are lost, and it is seen.
#[test]
fn a_disk_that_lies_about_flushes_is_found_out() {
    let found_out = (0..40).filter(|seed| {
        let outcome = std::panic::catch_unwind(|| Run::new(*seed, Trouble::LyingDisk).run(STEPS));
        outcome.is_err()
    });
    assert!(found_out.count() > 20);
}
