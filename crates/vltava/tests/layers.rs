//! Holds the layer table of docs/ARCHITECTURE.md against the dependencies that the crates really declare.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

type Layers = BTreeMap<String, BTreeSet<String>>;

fn folder(package: &str) -> &str {
    package.strip_prefix("vltava-").unwrap_or(package)
}

/// What the table allows, by crate folder.
fn documented(root: &Path) -> Layers {
    let text = std::fs::read_to_string(root.join("docs/ARCHITECTURE.md")).expect("the document is readable");
    let (_, table) = text.split_once("<!-- layers:begin -->").expect("the table has its begin mark");
    let (table, _) = table.split_once("<!-- layers:end -->").expect("the table has its end mark");
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let name = cells[0].split('`').nth(1).expect("the first cell names a crate").to_owned();
            let may_use = cells[2].split(", ").filter(|cell| *cell != "–").map(str::to_owned).collect();
            (name, may_use)
        })
        .collect()
}

/// What the manifests declare (without development dependencies), by crate folder.
fn declared(root: &Path) -> Layers {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages are a list");
    let ours = |name: &str| name == "vltava" || name.starts_with("vltava-");
    packages
        .iter()
        .filter(|package| ours(package["name"].as_str().expect("a name")))
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies are a list");
            let used = dependencies
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .map(|dependency| dependency["name"].as_str().expect("a name"))
                .filter(|name| ours(name))
                .map(|name| folder(name).to_owned())
                .collect();
            (folder(package["name"].as_str().expect("a name")).to_owned(), used)
        })
        .collect()
}

#[test]
fn crates_depend_only_on_what_the_layer_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate stands two levels deep");
    let mut documented = documented(root);
    // The simulator is a workspace of its own and may use everything.
    documented.remove("sim");
    let declared = declared(root);
    assert_eq!(
        documented.keys().collect::<Vec<_>>(),
        declared.keys().collect::<Vec<_>>(),
        "table and workspace differ"
    );
    for (name, used) in &declared {
        let forbidden: Vec<_> = used.difference(&documented[name]).collect();
        assert!(forbidden.is_empty(), "{name} uses {forbidden:?}, which docs/ARCHITECTURE.md does not allow");
    }
}

#[test]
fn pure_crates_name_no_runtime_and_no_host() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate stands two levels deep");
    for name in ["types", "metadata", "replication", "coordinator"] {
        let manifest = std::fs::read_to_string(root.join("crates").join(name).join("Cargo.toml")).expect("a manifest");
        let (_, dependencies) = manifest.split_once("[dependencies]").expect("dependencies are declared");
        let dependencies = dependencies.split("[dev-dependencies]").next().expect("split gives at least one part");
        for impure in ["tokio", "vltava-host", "getrandom", "rustix"] {
            assert!(!dependencies.contains(impure), "{name} must stay pure but depends on {impure}");
        }
    }
}
