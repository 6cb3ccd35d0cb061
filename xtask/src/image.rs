//! The container image, built from this machine's toolchain: no registry is asked for a base image.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cluster::build_release;
use crate::{root, run, target};

/// The bound that the image is held to.
const MAX_BYTES: u64 = 30_000_000;

/// Builds `vltava:latest` with the same contents and settings as `deploy/Dockerfile` gives it.
pub fn build() -> anyhow::Result<()> {
    let directory = target().join("image");
    if directory.exists() {
        std::fs::remove_dir_all(&directory)?;
    }
    std::fs::create_dir_all(&directory)?;
    let binary = directory.join("vltava");
    std::fs::copy(build_release()?, &binary)?;
    run(Command::new("strip").arg(&binary))?;
    let files = directory.join("root");
    run(Command::new(root().join("deploy/image/assemble")).arg(&binary).arg(&files))?;
    let context = directory.join("context");
    std::fs::create_dir(&context)?;
    // An archive keeps the owners of directories, which copying files from here would not.
    run(Command::new("tar").arg("-C").arg(&files).arg("-cf").arg(context.join("root.tar")).arg("."))?;
    std::fs::write(context.join("Dockerfile"), runtime_stage()?)?;
    run(Command::new("docker").args(["build", "--quiet", "--tag", "vltava"]).arg(&context))
        .context("a docker engine is needed (on Debian: apt-get install docker.io, then dockerd)")?;
    let bytes = size(&files)?;
    println!("vltava:latest has {:.1} MB", bytes as f64 / 1e6);
    ensure!(bytes < MAX_BYTES, "the image has {bytes} bytes, and should have less than {MAX_BYTES}");
    Ok(())
}

/// The last stage of the Dockerfile, which copies from this machine instead of the stage before.
fn runtime_stage() -> anyhow::Result<String> {
    let dockerfile = std::fs::read_to_string(root().join("deploy/Dockerfile"))?;
    let (_, stage) = dockerfile.split_once("FROM scratch\n").context("deploy/Dockerfile has no last stage")?;
    let from_build = "COPY --from=build /image /";
    ensure!(stage.contains(from_build), "deploy/Dockerfile does not say `{from_build}`");
    Ok(format!("FROM scratch\n{}", stage.replace(from_build, "ADD root.tar /")))
}

fn size(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
