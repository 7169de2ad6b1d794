//! The program under test, run in a folder, with or without the shim.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::Deed;

/// No command of a scenario takes seconds.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// The program, and the shim that is preloaded to disturb it.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    shim: PathBuf,
}

/// What a process left.
#[derive(Debug)]
pub struct Ended {
    /// `None` when it had to be ended because it hung.
    pub status: Option<ExitStatus>,
    pub stderr: String,
}

impl Ended {
    /// Whether all went well.
    pub fn well(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// How it ended, in a few words.
    pub fn told(&self) -> String {
        let how = self.status.map_or("hung".to_owned(), |status| status.to_string());
        format!("{how}: {}", self.stderr.trim().replace('\n', " | "))
    }
}

impl Program {
    /// Compiles the shim into `folder`.
    ///
    /// # Errors
    /// A program that is not there, or a compiler that fails.
    pub fn new(path: &Path, folder: &Path) -> anyhow::Result<Self> {
        let path = fs::canonicalize(path).with_context(|| format!("the program {}", path.display()))?;
        let source = folder.join("shim.c");
        fs::write(&source, include_str!("shim.c"))?;
        let shim = folder.join("shim.so");
        let mut compiler = Command::new("cc");
        let compiled = compiler
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(&shim)
            .arg(&source)
            .output()
            .context("cc")?;
        anyhow::ensure!(compiled.status.success(), "shim.c: {}", String::from_utf8_lossy(&compiled.stderr));
        Ok(Self { path, shim })
    }

    /// Runs the words of `line` in `folder`, undisturbed.
    ///
    /// # Errors
    /// When no process can be started.
    pub fn run(&self, folder: &Path, line: &str) -> anyhow::Result<Ended> {
        self.end(folder, self.command(folder, line))
    }

    /// Runs `line` and returns its calls beside how it ended: `number name subject`.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn count(&self, folder: &Path, line: &str) -> anyhow::Result<(Ended, Vec<String>)> {
        self.watched(folder, line, None)
    }

    /// Runs `line` with `deed` done at call `point`, and returns that call beside how it ended.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn disturb(
        &self,
        folder: &Path,
        line: &str,
        deed: Deed,
        point: usize,
    ) -> anyhow::Result<(Ended, Option<String>)> {
        let (ended, mut calls) = self.watched(folder, line, Some((deed, point)))?;
        Ok((ended, calls.pop()))
    }

    fn watched(
        &self,
        folder: &Path,
        line: &str,
        deed: Option<(Deed, usize)>,
    ) -> anyhow::Result<(Ended, Vec<String>)> {
        let (counter, log) = (folder.with_extension("counter"), folder.with_extension("log"));
        fs::write(&counter, [0; 8])?;
        fs::write(&log, "")?;
        let mut command = self.command(folder, line);
        command.env("LD_PRELOAD", &self.shim).env("CAMPAIGN_COUNTER", &counter).env("CAMPAIGN_LOG", &log);
        if let Some((deed, point)) = deed {
            command.env("CAMPAIGN_DEED", deed.name()).env("CAMPAIGN_POINT", point.to_string());
        }
        let ended = self.end(folder, command)?;
        let calls = String::from_utf8_lossy(&fs::read(&log)?).lines().map(str::to_owned).collect();
        Ok((ended, calls))
    }

    fn command(&self, folder: &Path, line: &str) -> Command {
        let mut command = Command::new(&self.path);
        command.args(line.split_whitespace()).arg("--quiet").current_dir(folder).process_group(0);
        command
    }

    fn end(&self, folder: &Path, mut command: Command) -> anyhow::Result<Ended> {
        let (out, err) = (folder.with_extension("out"), folder.with_extension("err"));
        command.stdout(File::create(&out)?).stderr(File::create(&err)?);
        let mut child = command.spawn()?;
        let started = Instant::now();
        let status = loop {
            match child.try_wait()? {
                Some(status) => break Some(status),
                None if started.elapsed() > HANGS_AFTER => {
                    let group = format!("kill -9 -{}", child.id());
                    Command::new("sh").args(["-c", &group]).status()?;
                    child.wait()?;
                    break None;
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        wait_for_group(child.id())?;
        Ok(Ended { status, stderr: String::from_utf8_lossy(&fs::read(&err)?).into_owned() })
    }
}

/// Waits until no process of the group is left: a killed child may hold its locks a moment longer than its parent.
fn wait_for_group(group: u32) -> anyhow::Result<()> {
    let alive = format!("kill -0 -{group} 2>/dev/null");
    let started = Instant::now();
    while started.elapsed() < HANGS_AFTER && Command::new("sh").args(["-c", &alive]).status()?.success() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
