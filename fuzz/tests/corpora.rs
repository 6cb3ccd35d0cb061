//! Every input that the fuzzers keep, and every one that ever made them stop, once: on any toolchain, with `cargo test`.

#![allow(clippy::disallowed_methods, reason = "corpora lie on the real machine")]

use std::path::{Path, PathBuf};

use vltava_fuzz::TARGETS;

fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths
}

/// `corpus/` is what the fuzzers begin with; `regressions/` holds what was found, named after what went wrong.
#[test]
fn every_input_is_answered() {
    for (target, run) in TARGETS {
        let inputs = [inputs("corpus", target), inputs("regressions", target)].concat();
        assert!(!inputs.is_empty(), "{target} has a corpus");
        for path in &inputs {
            let data = std::fs::read(path).expect("readable");
            println!("{}", path.display());
            run(&data);
        }
        println!("{target}: {} inputs", inputs.len());
    }
}
