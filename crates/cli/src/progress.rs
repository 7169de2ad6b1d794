//! One calm line on stderr while something takes long; nothing where stderr is not a terminal.

use std::fmt::Display;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress line. It is wiped when dropped.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A line that begins with `verb` and counts to `total` of `unit`.
    pub fn new(verb: &str, total: usize, unit: &str) -> Self {
        let template = format!(
            "{{prefix:>10.green.bold}} [{{bar:12}}] {{pos}}/{{len}} {unit} {{per_sec}}, {{eta}} left{{wide_msg}}"
        );
        let style =
            ProgressStyle::with_template(&template).expect("the template is constant").progress_chars("=> ");
        Self::start(ProgressBar::new(total as u64).with_style(style).with_prefix(verb.to_owned()))
    }

    /// A line that says what is being waited for, where no count is known.
    pub fn waiting(verb: &str, what: String) -> Self {
        let style = ProgressStyle::with_template("{prefix:>10.green.bold} {msg} {elapsed}")
            .expect("the template is constant");
        let bar =
            ProgressBar::new_spinner().with_style(style).with_prefix(verb.to_owned()).with_message(what);
        Self::start(bar)
    }

    fn start(bar: ProgressBar) -> Self {
        // Hidden by itself where stderr is not a terminal; the level is that of --quiet.
        if !tracing::enabled!(tracing::Level::INFO) {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar }
    }

    /// Starts counting at `position`, which does not enter the rate.
    pub fn start_at(&self, position: usize) {
        self.bar.set_position(position as u64);
        self.bar.reset_eta();
    }

    /// Moves to `position`.
    pub fn set(&self, position: usize) {
        self.bar.set_position(position as u64);
    }

    /// Says more at the end of the line.
    pub fn say(&self, message: impl Display) {
        self.bar.set_message(format!(", {message}"));
    }

    /// Lets something be written to stderr without a tear in the line.
    pub fn pause<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
