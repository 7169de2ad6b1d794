//! One disturbance and what came of it.

use std::fmt;
use std::fs;
use std::path::Path;

use crate::lab::Bench;
use crate::program::{Ended, Program};
use crate::tree::Tree;

/// What is done at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The process group is ended by SIGKILL before the call.
    Kill,
    /// The call fails with EIO.
    Fail,
    /// The call and all later ones that need space fail with ENOSPC, a write after half of its bytes.
    Full,
}

impl Deed {
    /// Every deed.
    pub const ALL: [Self; 3] = [Self::Kill, Self::Fail, Self::Full];

    /// Its name on the command line and to the shim.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Fail => "fail",
            Self::Full => "full",
        }
    }
}

/// A deed at a call of a scenario, and what was wrong after it.
#[derive(Debug)]
pub struct Trial {
    /// Name of the scenario.
    pub scenario: &'static str,
    /// What was done.
    pub deed: Deed,
    /// At which call, from 1 on.
    pub point: usize,
    /// The call as the shim saw it: number, name, subject.
    pub call: String,
    /// What was wrong; `None` when all was as it must be.
    pub wrong: Option<String>,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { scenario, deed, point, call, wrong } = self;
        write!(f, "one --scenario {scenario} --deed {} --point {point}  # at {call}: ", deed.name())?;
        f.write_str(wrong.as_deref().unwrap_or("as it must be"))
    }
}

impl Trial {
    /// Runs a scenario in `folder`, disturbed by `deed` at `point`, and checks what is left and how it goes on.
    pub(crate) fn run(
        program: &Program,
        bench: &Bench,
        deed: Deed,
        point: usize,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        bench.lay_out(folder)?;
        let (ended, call) = program.disturb(folder, bench.scenario.command, deed, point)?;
        let here = format!("{}/", folder.display());
        let call = call.map_or("no call".to_owned(), |call| call.replace(&here, ""));
        let wrong = wrong(program, bench, deed, &call, &ended, folder)?;
        Ok(Self { scenario: bench.scenario.name, deed, point, call, wrong })
    }
}

fn wrong(
    program: &Program,
    bench: &Bench,
    deed: Deed,
    call: &str,
    ended: &Ended,
    folder: &Path,
) -> anyhow::Result<Option<String>> {
    if deed != Deed::Kill
        && let Some(wrong) = badly_told(ended, call)
    {
        return Ok(Some(format!("{wrong}: {}", ended.told())));
    }
    let left = Tree::read(folder)?;
    if ended.well() {
        // Where tidying up failed, the same command may do it later.
        let difference = left.without_hidden().difference(&bench.after.without_hidden());
        if let Some(what) = difference {
            return Ok(Some(format!("exit 0, but {what}")));
        }
        if left.difference(&bench.after).is_none() {
            return Ok(None);
        }
    }
    if let Some(what) = left.half_written(&bench.before, &bench.after, &bench.model) {
        return Ok(Some(what));
    }
    let again = bench.scenario.again(folder);
    let ended = program.run(folder, &again)?;
    let difference = Tree::read(folder)?.difference(&bench.after);
    // What was complete already may be refused rather than written twice.
    if !ended.well() && (difference.is_some() || !ended.stderr.contains("exists")) {
        return Ok(Some(format!("again, `{again}` ended with {}", ended.told())));
    }
    Ok(difference.map(|what| format!("after `{again}` {what}")))
}

/// An end that is neither success nor one line and an exit code of our own.
fn badly_told(ended: &Ended, call: &str) -> Option<&'static str> {
    let Some(status) = ended.status else { return Some("a hang") };
    let errors = ended.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    let unsaid = call.ends_with(".err") || call.ends_with(".out");
    match status.code() {
        None => Some("ended by a signal"),
        Some(0) => None,
        Some(1 | 2) if errors == 1 || unsaid => {
            ended.stderr.contains("panicked").then_some("a panic under an error of ours")
        }
        Some(1 | 2) => Some("not one line"),
        Some(_) => Some("an exit code that is not ours"),
    }
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
