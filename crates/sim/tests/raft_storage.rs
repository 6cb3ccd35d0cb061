//! Raft's log, vote and snapshots on a disk whose power fails (trap 13).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use vltava_host::disk::{Faults, SimDisk, SyncSite};
use vltava_host::random::Generator;
use vltava_quorum::power_loss::{RaftState, RaftStorage};

const MOUNT: &str = "/raft";

const SEEDS: u64 = 1000;

const STEPS: usize = 25;

/// Runs on a simulated host: what Raft stores carries the time.
fn simulate(work: impl Future<Output = turmoil::Result> + 'static) {
    let mut sim = turmoil::Builder::new().simulation_duration(Duration::from_secs(3600)).build();
    sim.client("raft", work);
    sim.run().expect("the run ends");
}

/// A random change: what the state is after it, and what it answered.
async fn step(random: &mut Generator, storage: &mut RaftStorage, before: &RaftState) -> (RaftState, io::Result<()>) {
    let mut after = before.clone();
    let last = before.entries.last().copied().or(before.snapshot);
    let (term, next) = (last.map_or(1, |(term, _)| term), last.map_or(0, |(_, index)| index + 1));
    let answer = match random.below(10) {
        0..3 => {
            let term = before.vote.map_or(1, |(term, _)| term + 1);
            let candidate = 1 + random.below(3);
            after.vote = Some((term, candidate));
            storage.vote(term, candidate).await
        }
        3..8 => {
            let (term, end) = (term + random.below(2), next + 1 + random.below(4));
            after.entries.extend((next..end).map(|index| (term, index)));
            storage.append(term, next..end).await
        }
        8 if !before.entries.is_empty() => {
            let kept = random.below(before.entries.len() as u64) as usize;
            after.entries.truncate(kept);
            storage.truncate_after(after.entries.last().copied().or(before.snapshot)).await
        }
        _ if !before.entries.is_empty() => {
            let covered = 1 + random.below(before.entries.len() as u64) as usize;
            let (term, index) = before.entries[covered - 1];
            after.entries.drain(..covered);
            after.snapshot = Some((term, index));
            storage.install_snapshot(term, index).await
        }
        _ => Ok(()),
    };
    (after, answer)
}

/// After a crash: everything answered is there. What was under way is there in part, from its beginning on, or not.
fn check(seed: u64, found: &RaftState, before: &RaftState, after: &RaftState) {
    let told = format!("seed {seed}: found {found:?}\nbefore {before:?}\nafter {after:?}");
    assert!(found.vote == before.vote || found.vote == after.vote, "the vote is forgotten: {told}");
    assert!(found.snapshot == before.snapshot || found.snapshot == after.snapshot, "the snapshot is lost: {told}");
    let covered = found.snapshot.map_or(0, |(_, index)| index + 1);
    let [before, after] = [&before.entries, &after.entries]
        .map(|entries| -> Vec<_> { entries.iter().copied().filter(|(_, index)| *index >= covered).collect() });
    let entries: Vec<_> = found.entries.iter().copied().filter(|(_, index)| *index >= covered).collect();
    let (shorter, longer) = if before.len() < after.len() { (&before, &after) } else { (&after, &before) };
    assert!(entries.len() >= shorter.len() && longer.starts_with(&entries), "entries are lost: {told}");
}

async fn run(seed: u64) -> turmoil::Result {
    run_with(seed, |_| ()).await
}

async fn run_with(seed: u64, prepare: impl FnOnce(&SimDisk)) -> turmoil::Result {
    let mut random = Generator::new(seed);
    let disk = SimDisk::mount(MOUNT, random.u64());
    prepare(&disk);
    let directory = Path::new(MOUNT).join("data");
    let mut storage = RaftStorage::open(&directory).await?;
    let mut state = RaftState::default();
    for _ in 0..STEPS {
        if random.below(4) == 0 {
            disk.set_faults(Faults { power_fails_at: Some(1 + random.below(15)), ..Faults::default() });
        }
        let before = state.clone();
        let (after, answer) = step(&mut random, &mut storage, &before).await;
        assert_eq!(answer.is_err(), disk.is_without_power(), "seed {seed}: {answer:?}");
        state = after.clone();
        if answer.is_err() || random.below(8) == 0 {
            let before = if answer.is_err() { &before } else { &after };
            disk.lose_power();
            storage = loop {
                disk.restore_power();
                if random.below(4) == 0 {
                    disk.set_faults(Faults { power_fails_at: Some(1 + random.below(15)), ..Faults::default() });
                }
                match RaftStorage::open(&directory).await {
                    Ok(storage) => break storage,
                    Err(error) => assert!(disk.is_without_power(), "seed {seed}: {error}"),
                }
            };
            state = storage.state().await?;
            check(seed, &state, before, &after);
            // A purge that did not come to its end.
            state.entries.retain(|position| Some(*position) > state.snapshot);
        }
    }
    Ok(())
}

#[test]
fn trap_13_what_raft_has_answered_survives_power_loss() {
    for seed in 0..SEEDS {
        simulate(run(seed));
    }
}

/// A test that cannot fail shows nothing: each sync of Raft's storage is left out, and some seed misses it.
#[test]
fn trap_13_every_sync_of_raft_is_missed_when_it_is_left_out() {
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    for seed in 0..30 {
        let seen = Rc::clone(&seen);
        simulate(async move {
            let mut disk = None;
            run_with(seed, |mounted| disk.insert(mounted.clone()).watch_syncs()).await?;
            seen.borrow_mut().extend(disk.iter().flat_map(SimDisk::sync_sites));
            Ok(())
        });
    }
    let mut unmissed = vec![];
    // What else the log syncs is the storage's, whose own test asks for each.
    let is_of_raft = |site: &SyncSite| site.path().starts_with("quorum") || site.what == "log";
    for site in seen.take().into_iter().filter(is_of_raft) {
        let leaving_out = |seed| {
            let site = site.clone();
            run_with(seed, move |disk| disk.leave_out_syncs_of(site))
        };
        let misses = |seed: &u64| std::panic::catch_unwind(AssertUnwindSafe(|| simulate(leaving_out(*seed)))).is_err();
        match (0..SEEDS).find(misses) {
            Some(seed) => println!("{site}: seed {seed}"),
            None => unmissed.push(site.to_string()),
        }
    }
    assert!(unmissed.is_empty(), "nobody misses {unmissed:#?}");
}

/// Where the disk cannot put anything on the platter, nothing is answered as if it were there.
#[test]
fn trap_13_raft_answers_nothing_that_was_not_flushed() {
    for seed in 0..SEEDS {
        simulate(async move {
            let mut random = Generator::new(seed);
            let disk = SimDisk::mount(MOUNT, random.u64());
            let mut storage = RaftStorage::open(&Path::new(MOUNT).join("data")).await?;
            let mut state = RaftState::default();
            for _ in 0..random.below(8) {
                let (after, answer) = step(&mut random, &mut storage, &state).await;
                answer?;
                state = after;
            }
            disk.set_faults(Faults { syncs_fail: true, ..Faults::default() });
            let (after, answer) = step(&mut random, &mut storage, &state).await;
            assert!(answer.is_err() || after == state, "seed {seed}: answered from {state:?} to {after:?}");
            Ok(())
        });
    }
}
