//! Tests that cannot fail show nothing: each sync of the storage is left out, and a script or some seed has to miss it.

use std::collections::BTreeSet;
use std::path::Path;

use vltava_host::disk::SyncSite;

use crate::run::{Run, Trouble};
use crate::{STEPS, scripts, seeds};

/// What the histories go through in turn.
const TROUBLES: [Trouble; 4] = [Trouble::Crashes, Trouble::DecayingDisk, Trouble::FullDisk, Trouble::FailingDisk];

const OLDER_IS_AS_GOOD: &str = "what an older one says is true, and costs time at most";

const ANOTHER_FOLLOWS: &str = "another sync of the same directory follows before anything relies on it";

/// Syncs that nothing misses, by what is synced, the function and the line of code, and why they are there or do no harm.
const NOT_MISSED: &[(&str, &str, &str)] = &[
    ("leader-epoch-checkpoint", "create: file.write_all(", "a torn one counts as missing, of a log without records"),
    ("leader-epoch-checkpoint.tmp", "checkpoint.write(epochs)", "a torn one is read from the log again, all of it"),
    ("directory", "try_step: fs::sync_dir(", "until another one, the next start finishes the swap once more"),
    (
        "directory",
        "finish: fs::sync_dir(directory).at(directory)",
        "until then, the next start finishes the swap once more",
    ),
    ("cleaner-offset-checkpoint.tmp", "checkpoints.cleaner_checkpoint.lower(", "a torn one begins anew"),
    ("directory", "checkpoints.cleaner_checkpoint.lower(", "an older one has some records compacted later"),
    ("leader-epoch-checkpoint.tmp", "self.epoch_checkpoint.write(", "a torn one is read from the log again, all of it"),
    ("directory", "self.epoch_checkpoint.write(", "beyond the recovery point an older one does not count"),
    (
        "index",
        "checkpoint_recovery_points: index.sync_data()",
        "without an entry there is no anchor, and the segment is scanned",
    ),
    ("directory", "self.recovery_points.update(", OLDER_IS_AS_GOOD),
    ("directory", "self.high_watermarks.update(", OLDER_IS_AS_GOOD),
    ("directory", "self.cleaned.update(", OLDER_IS_AS_GOOD),
    ("cleaner-offset-checkpoint.tmp", "self.cleaned.update(", "a torn one begins anew, and all is compacted again"),
    ("cleaner-offset-checkpoint.tmp", "self.cleaned.remove(", "a torn one begins anew, and all is compacted again"),
    ("directory", "self.recovery_points.remove(", ANOTHER_FOLLOWS),
    ("directory", "self.high_watermarks.remove(", ANOTHER_FOLLOWS),
    ("directory", "self.cleaned.remove(", ANOTHER_FOLLOWS),
    ("directory", "self.log_start_offsets.remove(", ANOTHER_FOLLOWS),
    ("directory", "self.log_start_offsets.update([(", ANOTHER_FOLLOWS),
    ("directory", "self.high_watermarks.update([(", ANOTHER_FOLLOWS),
    ("directory", "self.recovery_points.update([(", ANOTHER_FOLLOWS),
    ("directory", "take_clean_shutdown_marker: fs::sync_dir(", ANOTHER_FOLLOWS),
    ("directory", "find_partitions: fs::sync_dir(", "it takes a process that ends between a rename and its sync"),
];

fn run(seed: u64) -> Run {
    Run::new(seed, TROUBLES[seed as usize % TROUBLES.len()])
}

fn sites() -> BTreeSet<SyncSite> {
    let of_seed = |seed| {
        let mut run = run(seed);
        run.disk.watch_syncs();
        run.run(STEPS);
        run.disk.sync_sites()
    };
    (0..300).flat_map(of_seed).collect()
}

/// The seed that misses the sync.
fn missed_by(site: &SyncSite) -> Option<u64> {
    seeds().find(|seed| {
        let outcome = std::panic::catch_unwind(|| {
            let mut run = run(*seed);
            run.disk.leave_out_syncs_of(site.clone());
            run.run(STEPS);
        });
        outcome.is_err()
    })
}

/// Why nothing misses it, if that is known.
fn excuse(site: &SyncSite) -> Option<&'static str> {
    let code = line_of(site);
    NOT_MISSED.iter().find(|(what, line, _)| site.what == *what && code.contains(line)).map(|(_, _, why)| *why)
}

fn line_of(site: &SyncSite) -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies among others");
    let path = crates.join(site.path());
    let source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<&str> = source.lines().take(site.line as usize).collect();
    let named =
        lines.iter().rev().find_map(|line| Some(line.split_once("fn ")?.1.split(['(', '<']).next()?.to_owned()));
    format!("{} {}: {}", site.path(), named.unwrap_or_default(), lines.last().expect("the line").trim())
}

#[test]
fn every_sync_is_missed_when_it_is_left_out() {
    let scripts: Vec<_> = scripts::ALL.iter().map(|script| (*script, scripts::sites(*script))).collect();
    let of_scripts = scripts.iter().flat_map(|(_, sites)| sites.clone());
    let all = of_scripts.chain(sites()).filter(|site| site.path().starts_with("storage"));
    let mut unmissed = vec![];
    for site in all.collect::<BTreeSet<SyncSite>>() {
        if scripts.iter().any(|(script, sites)| sites.contains(&site) && scripts::misses(*script, &site)) {
            println!("{site}: a script");
        } else if let Some(why) = excuse(&site) {
            println!("{site}: {why}");
        } else if let Some(seed) = missed_by(&site) {
            println!("{site}: seed {seed}");
        } else {
            unmissed.push(format!("{site}: {}", line_of(&site)));
        }
    }
    assert!(unmissed.is_empty(), "nobody misses {unmissed:#?}");
}
