//! Signals: the first asks to stop where nothing is lost, and so does a hangup; a second one ends the program at once.
//!
//! A hangup is never the second: a terminal that is closed sends several. One that is ignored (`nohup`, a shell's
//! background job) stays ignored.

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use contaccum_study::Stop;
#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGABRT, SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code of a program that a signal ended, less the signal.
const SIGNALLED: i32 = 128;

/// Signals caught from here on.
pub struct Signals {
    received: Arc<AtomicUsize>,
}

impl Signals {
    /// Catches the signals that ask a program to end.
    pub fn catch() -> anyhow::Result<Self> {
        let (received, again) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGINT, SIGTERM].into_iter().filter(|&signal| !ignored(signal)) {
            flag::register_conditional_shutdown(signal, SIGNALLED + signal, Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            flag::register_usize(signal, Arc::clone(&received), signal as usize)?;
        }
        #[cfg(unix)]
        if !ignored(SIGHUP) {
            flag::register_usize(SIGHUP, Arc::clone(&received), SIGHUP as usize)?;
        }
        Ok(Self { received })
    }

    /// Ends the work as a signal asked for: what was done, and how to go on.
    ///
    /// # Errors
    /// Always: the program ends with the signal's exit code.
    pub fn interrupted(&self, what: String) -> anyhow::Result<()> {
        let signal = self.received.load(Ordering::Relaxed) as i32;
        Err(Interrupted { what, code: (SIGNALLED + signal) as u8 }.into())
    }
}

impl Stop for Signals {
    fn requested(&self) -> bool {
        self.received.load(Ordering::Relaxed) != 0
    }

    /// By a hangup: a terminal or a job's end may have sent the process the same signal already.
    #[cfg(unix)]
    fn pass_on(&self, child: &Child) {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if ignored(SIGHUP) { Signal::TERM } else { Signal::HUP };
        // A process that is gone needs no signal.
        let _ = kill_process(Pid::from_child(child), signal);
    }

    #[cfg(not(unix))]
    fn pass_on(&self, _: &Child) {}
}

/// Work that a signal ended where nothing is lost.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Interrupted {
    what: String,
    /// The program's exit code.
    pub code: u8,
}

/// Makes an abort a plain failure. The standard library says in a line what memory it could not get and aborts; a file
/// that may not grow is an error of its write, not the end of the program.
pub fn fail_calmly() {
    let always = Arc::new(AtomicBool::new(true));
    // Without it the program works all the same.
    let _ = flag::register_conditional_shutdown(SIGABRT, 1, Arc::clone(&always));
    #[cfg(unix)]
    let _ = flag::register(signal_hook::consts::SIGXFSZ, always);
}

/// Whether the program was started with `signal` ignored; known on Linux alone.
fn ignored(signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
