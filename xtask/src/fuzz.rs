//! The fuzzers of `/fuzz`, by cargo-fuzz. What they keep is replayed by a plain `cargo test`.

use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::{root, run, target};

/// Above what any input within the length limit has a right to, below what would starve a machine.
const LIMITS: &[&str] = &["-rss_limit_mb=2048", "-malloc_limit_mb=512", "-timeout=30", "-max_len=16384"];

/// All targets, in their order in `fuzz/fuzz_targets`.
pub fn targets() -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root().join("fuzz/fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Runs these targets one after another, for so many minutes each. What makes one stop lies in `fuzz/artifacts`.
pub fn fuzz(names: &[String], minutes: u64) -> anyhow::Result<()> {
    let known = targets()?;
    for name in names {
        ensure!(known.contains(name), "there is no fuzzer {name}, but {}", known.join(", "));
    }
    let seconds = minutes * 60;
    for name in if names.is_empty() { &known } else { names } {
        // What is found goes beside the corpus, which stays small.
        let found = target().join("fuzz-found").join(name);
        std::fs::create_dir_all(&found)?;
        let mut command = Command::new("cargo");
        command.args(["+nightly", "fuzz", "run", "--fuzz-dir", "fuzz", "--features", "fuzzer", "--target-dir"]);
        command.arg(target().join("fuzz"));
        command.arg(name).arg(&found).arg(format!("fuzz/corpus/{name}"));
        command.arg("--").args(LIMITS).arg(format!("-max_total_time={seconds}"));
        // Instrumented code takes long to optimise and to link.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
        // The toolchain of this task must not choose that one's.
        command.current_dir(root()).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTFLAGS");
        run(&mut command).context(
            "fuzzing takes a nightly toolchain and cargo-fuzz (rustup toolchain install nightly; cargo install cargo-fuzz)",
        )?;
    }
    Ok(())
}
