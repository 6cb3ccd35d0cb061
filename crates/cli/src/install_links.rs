//! `vltava install-links`: the names of Kafka's tools, as links to this program.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use vltava_host::fs;

use crate::console::Console;
use crate::kafka::Tool;

#[derive(Debug, Args)]
pub struct InstallLinks {
    /// Where the links are made.
    directory: PathBuf,
    /// What they point to; this program if not given.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Replace files and links of these names.
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: &InstallLinks, console: &mut Console<'_>) -> anyhow::Result<()> {
    let program = match &arguments.program {
        Some(program) => std::path::absolute(program)?,
        None => std::env::current_exe().context("cannot find this program's own file")?,
    };
    let directory = &arguments.directory;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for name in names() {
        link(&directory.join(&name), &program, arguments.force)?;
    }
    console.line(format_args!("{} links to {} in {}", names().count(), program.display(), directory.display()))?;
    Ok(())
}

/// Each tool with and without `.sh`.
fn names() -> impl Iterator<Item = String> {
    Tool::ALL.iter().flat_map(|tool| [tool.name().to_owned(), format!("{}.sh", tool.name())])
}

/// Makes one link. One that is there already and right is left alone; anything else is replaced only on demand.
fn link(link: &Path, program: &Path, force: bool) -> anyhow::Result<()> {
    if let Ok(target) = std::fs::read_link(link)
        && target == program
    {
        return Ok(());
    }
    if link.symlink_metadata().is_ok() {
        if !force {
            bail!("{} is there already; --force replaces it", link.display());
        }
        fs::remove_file(link).with_context(|| format!("cannot replace {}", link.display()))?;
    }
    std::os::unix::fs::symlink(program, link).with_context(|| format!("cannot make {}", link.display()))
}

#[cfg(test)]
mod tests {
    use super::{InstallLinks, names, run};
    use crate::console::Console;

    #[test]
    fn links_are_made_once_and_never_over_something_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let install = |force| {
            let (mut out, mut err) = (vec![], vec![]);
            let arguments =
                InstallLinks { directory: directory.path().join("bin"), program: Some("/opt/vltava".into()), force };
            run(&arguments, &mut Console::into_buffers(&mut out, &mut err))
        };
        install(false).expect("nothing is in the way");
        install(false).expect("the links are right already");
        let one = directory.path().join("bin/kafka-topics.sh");
        assert_eq!(std::fs::read_link(&one).expect("a link"), std::path::Path::new("/opt/vltava"));
        assert!(names().any(|name| name == "kafka-topics"));
        vltava_host::fs::remove_file(&one).expect("it is there");
        std::os::unix::fs::symlink("/elsewhere", &one).expect("a link");
        assert!(install(false).is_err());
        install(true).expect("replaced");
        assert_eq!(std::fs::read_link(&one).expect("a link"), std::path::Path::new("/opt/vltava"));
    }
}
