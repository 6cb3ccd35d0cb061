//! Holds the replication traps that must be told as tests against the tests that there are, by their numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The numbers of the traps that a test must tell of. 21 to 23 and 25 are about transactions and compaction, which are not
/// built yet.
const REQUIRED: [std::ops::RangeInclusive<u32>; 3] = [1..=20, 24..=24, 26..=32];

/// The numbers that there are.
const KNOWN: std::ops::RangeInclusive<u32> = 1..=32;

/// Every test called `trap_NN_…`, by the number.
fn told(root: &Path) -> BTreeMap<u32, Vec<String>> {
    let mut files = vec![];
    sources(&root.join("crates"), &mut files);
    let mut told: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("sources are readable");
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (i, line) in lines.iter().enumerate() {
            let line = line.strip_prefix("async ").unwrap_or(line);
            let Some(name) = line.strip_prefix("fn trap_") else { continue };
            let name = name.split_once('(').expect("a function has parameters").0;
            let number = name.split_once('_').and_then(|(number, _)| number.parse().ok());
            let number = number.unwrap_or_else(|| panic!("trap_{name} in {} has no number", file.display()));
            let is_run = lines[..i].iter().rev().take_while(|line| line.starts_with('#')).any(|line| is_test(line));
            assert!(is_run, "trap_{name} in {} is not run", file.display());
            told.entry(number).or_default().push(format!("trap_{name}"));
        }
    }
    told
}

fn is_test(attribute: &str) -> bool {
    attribute.starts_with("#[test]") || attribute.starts_with("#[tokio::test")
}

fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("directories are readable") {
        let path = entry.expect("directories are readable").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_trap_that_can_be_fallen_into_is_told() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate stands two levels deep");
    let told = told(root);
    let missing: Vec<u32> = REQUIRED.into_iter().flatten().filter(|number| !told.contains_key(number)).collect();
    assert!(missing.is_empty(), "no test is named after the traps {missing:?}");
    let unknown: Vec<_> = told.iter().filter(|(number, _)| !KNOWN.contains(number)).collect();
    assert!(unknown.is_empty(), "these tests are named after no trap: {unknown:?}");
}
