//! Progress on stderr, and Ctrl-C.

use crate::output::Printer;
use crate::table::duration;
use anyhow::Context as _;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use weft::Event;

/// Installs the handler of Ctrl-C and returns the flag that it sets.
///
/// The first asks the work to stop where it can go on later, the second ends the program at once.
pub(crate) fn stop_on_interrupt() -> anyhow::Result<&'static AtomicBool> {
    static STOP: AtomicBool = AtomicBool::new(false);
    ctrlc::set_handler(|| {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(1);
        }
        let _ = std::io::stderr().write_all(b"\nstopping after the current step; Ctrl-C again stops at once\n");
    })
    .context("cannot handle Ctrl-C")?;
    Ok(&STOP)
}

/// A task that has begun.
struct Task {
    name: String,
    unit: &'static str,
    since: Instant,
    done: u64,
    bar: Option<ProgressBar>,
}

/// Shows events: as bars on a terminal, as a line a task elsewhere.
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    quiet: bool,
    verbose: bool,
    tasks: Mutex<Vec<Task>>,
}

impl Progress {
    pub(crate) fn new(printer: &Printer) -> Self {
        let bars = (std::io::stderr().is_terminal() && !printer.is_quiet()).then(MultiProgress::new);
        Self { bars, quiet: printer.is_quiet(), verbose: printer.is_verbose(), tasks: Mutex::new(Vec::new()) }
    }

    /// Hears one event.
    pub(crate) fn hear(&self, event: Event) {
        // A panic elsewhere leaves the list of tasks whole.
        let mut tasks = self.tasks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match event {
            Event::Started { task, total, unit } => {
                if self.verbose {
                    self.line(&format!("{task}: {total} {unit} …"));
                }
                let bar = self
                    .bars
                    .as_ref()
                    .map(|bars| bars.add(ProgressBar::new(total).with_style(style(unit)).with_message(task.clone())));
                tasks.push(Task { name: task, unit, since: Instant::now(), done: 0, bar });
            }
            Event::Progress { done } => {
                if let Some(task) = tasks.last_mut() {
                    task.done = done;
                    if let Some(bar) = &task.bar {
                        bar.set_position(done);
                    }
                }
            }
            Event::Finished => {
                if let Some(task) = tasks.pop() {
                    if let Some(bar) = &task.bar {
                        bar.finish_and_clear();
                    }
                    self.line(&summary(&task));
                }
            }
            Event::Note(text) => self.line(&text),
        }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        let _ = match &self.bars {
            Some(bars) => bars.println(text),
            None => writeln!(std::io::stderr(), "{text}"),
        };
    }
}

fn summary(task: &Task) -> String {
    let secs = task.since.elapsed().as_secs_f64();
    let rate = task.done as f64 / secs.max(1e-9);
    format!("{}: {} {} in {} ({})", task.name, task.done, task.unit, duration(secs), per_second(rate))
}

fn per_second(rate: f64) -> String {
    let digits = if rate < 10.0 { 2 } else { 0 };
    format!("{rate:.digits$}/s")
}

fn style(unit: &str) -> ProgressStyle {
    let template = format!("{{msg}} {{wide_bar:.cyan}} {{pos}}/{{len}} {unit} · {{rate}} · {{eta}} left");
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A bar that cannot be drawn is no reason to stop.
        let _ = out.write_str(&per_second(state.per_sec()));
    };
    ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("rate", rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_task_is_summed_up() {
        let since = Instant::now().checked_sub(std::time::Duration::from_secs(4)).expect("the clock is past its start");
        let task = Task { name: "train zoo".to_owned(), unit: "networks", since, done: 100, bar: None };
        assert_eq!(summary(&task), "train zoo: 100 networks in 4.00 s (25/s)");
    }
}
