//! How far something is that takes long, on stderr: one calm line on a terminal, a line a minute elsewhere.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Between two lines where nothing can be drawn over.
const A_LINE: Duration = Duration::from_secs(60);

/// A progress line. It is wiped when dropped.
pub struct Progress {
    bar: ProgressBar,
    first: First,
    lines: Option<Lines>,
}

/// The position that counting began at.
type First = Arc<AtomicU64>;

impl Progress {
    /// A line that begins with `verb` and counts to `total` of `unit`.
    pub fn new(verb: &str, total: usize, unit: &'static str) -> Self {
        let template =
            format!("{{prefix:>10.green.bold}} [{{bar:12}}] {{pos}}/{{len}} {unit}{{pace}}{{wide_msg}}");
        let first = First::default();
        let of_style = first.clone();
        let style = ProgressStyle::with_template(&template)
            .expect("the template is constant")
            .progress_chars("=> ")
            .with_key("pace", move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let pace = Pace::of(state.pos(), state.len(), state.elapsed(), &of_style);
                // What is drawn is drawn again half a second later.
                let _ = pace.map(|pace| write!(out, " {}, {} left", pace.rate(), HumanDuration(pace.left())));
            });
        let bar = ProgressBar::new(total as u64).with_style(style).with_prefix(verb.to_owned());
        let of_line = first.clone();
        Self::start(bar, first, move |bar| counted(bar, unit, &of_line))
    }

    /// A line that says what is being waited for, where no count is known.
    pub fn waiting(verb: &str, what: String) -> Self {
        let style = ProgressStyle::with_template("{prefix:>10.green.bold} {msg} {elapsed}")
            .expect("the template is constant");
        let bar =
            ProgressBar::new_spinner().with_style(style).with_prefix(verb.to_owned()).with_message(what);
        Self::start(bar, First::default(), waited)
    }

    fn start(bar: ProgressBar, first: First, line: impl Fn(&ProgressBar) -> String + Send + 'static) -> Self {
        // The level is that of --quiet.
        if !tracing::enabled!(tracing::Level::INFO) {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            return Self { bar, first, lines: None };
        }
        // Hidden by itself where stderr is no terminal, or one that cannot move its cursor.
        if bar.is_hidden() {
            let of_bar = bar.clone();
            let lines = Lines::every(A_LINE, move || tracing::info!("{}", line(&of_bar)));
            return Self { bar, first, lines: Some(lines) };
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, first, lines: None }
    }

    /// Starts counting at `position`, which does not enter the rate.
    pub fn start_at(&self, position: usize) {
        self.first.store(position as u64, Ordering::Relaxed);
        self.bar.set_position(position as u64);
        self.bar.reset_elapsed();
    }

    /// Moves to `position`.
    pub fn set(&self, position: usize) {
        self.bar.set_position(position as u64);
    }

    /// Says more at the end of the line.
    pub fn say(&self, message: impl Display) {
        self.bar.set_message(format!(", {message}"));
    }

    /// Lets something be written to stderr without a tear in the line; the next line of progress is then a minute off.
    pub fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        self.lines.iter().for_each(Lines::put_off);
        self.bar.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How fast it went since counting began: the mean, as a recent rate says nothing of steps that take minutes.
struct Pace {
    done: u64,
    left: u64,
    elapsed: Duration,
}

impl Pace {
    /// None before the first step.
    fn of(position: u64, length: Option<u64>, elapsed: Duration, first: &First) -> Option<Self> {
        let done = position.saturating_sub(first.load(Ordering::Relaxed));
        (done > 0).then(|| Self { done, left: length.unwrap_or(position).saturating_sub(position), elapsed })
    }

    fn left(&self) -> Duration {
        let seconds = self.elapsed.as_secs_f64() * self.left as f64 / self.done as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    fn rate(&self) -> String {
        let seconds = self.elapsed.as_secs_f64() / self.done as f64;
        if seconds > 1.0 { format!("{seconds:.1} s each") } else { format!("{:.1}/s", 1.0 / seconds) }
    }
}

fn counted(bar: &ProgressBar, unit: &str, first: &First) -> String {
    let (done, all) = (HumanCount(bar.position()), HumanCount(bar.length().unwrap_or_default()));
    let left = Pace::of(bar.position(), bar.length(), bar.elapsed(), first)
        .map(|pace| format!(", {} left", HumanDuration(pace.left())))
        .unwrap_or_default();
    format!("{}: {done} of {all} {unit}{left}{}", bar.prefix().trim(), bar.message())
}

fn waited(bar: &ProgressBar) -> String {
    format!("{}: {}, {} so far", bar.prefix(), bar.message(), HumanDuration(bar.elapsed()))
}

/// A thread that tells a line now and then until it is dropped.
struct Lines {
    put_off: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Lines {
    fn every(time: Duration, tell: impl Fn() + Send + 'static) -> Self {
        let (put_off, told) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            loop {
                match told.recv_timeout(time) {
                    Ok(()) => {}
                    Err(RecvTimeoutError::Timeout) => tell(),
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        });
        Self { put_off: Some(put_off), thread: Some(thread) }
    }

    /// Begins to wait anew: something was just told.
    fn put_off(&self) {
        if let Some(put_off) = &self.put_off {
            // The thread ends with this sender alone.
            let _ = put_off.send(());
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        drop(self.put_off.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_is_done_of_how_much() {
        let bar = ProgressBar::hidden().with_prefix("Encoding");
        bar.set_length(20_000);
        bar.set_position(1_500);
        let first = First::default();
        assert!(counted(&bar, "texts", &first).starts_with("Encoding: 1,500 of 20,000 texts"));
        bar.set_message(", evaluating");
        assert!(counted(&bar, "texts", &first).ends_with(", evaluating"));
    }

    #[test]
    fn what_is_left_takes_as_long_a_step_as_those_done_since_counting_began() {
        let first = First::new(AtomicU64::new(100));
        let pace = |position| Pace::of(position, Some(400), Duration::from_secs(600), &first);
        assert!(pace(100).is_none());
        let pace = pace(102).unwrap();
        assert_eq!((pace.left().as_secs(), pace.rate()), (300 * 298, "300.0 s each".into()));
    }

    #[test]
    fn lines_come_again_and_again_and_end_with_their_progress() {
        let (sender, told) = mpsc::channel();
        let lines = Lines::every(Duration::from_millis(1), move || {
            let _ = sender.send(());
        });
        assert!(told.recv().is_ok() && told.recv().is_ok());
        drop(lines);
        while told.try_recv().is_ok() {}
        assert_eq!(told.recv(), Err(mpsc::RecvError));
    }
}
