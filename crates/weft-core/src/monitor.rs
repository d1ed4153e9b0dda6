//! How long work tells its caller how far it is, and learns that it should stop.

use std::sync::atomic::{AtomicBool, Ordering};

/// Something that happened in a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A task begins; `total` units are ahead of it.
    Started {
        /// What is done, such as `train zoo`.
        task: String,
        /// Units of work.
        total: u64,
        /// What a unit is, in the plural, such as `networks`.
        unit: &'static str,
    },
    /// `done` units are complete.
    Progress {
        /// Units of work done.
        done: u64,
    },
    /// The task that was started last is complete.
    Finished,
    /// A sentence for the user.
    Note(String),
}

/// A sink of events and a flag that asks for a stop.
///
/// It is shared by reference across threads; the one who runs the work owns both.
#[derive(Clone, Copy)]
pub struct Monitor<'a> {
    sink: &'a (dyn Fn(Event) + Sync),
    stop: &'a AtomicBool,
}

impl std::fmt::Debug for Monitor<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Monitor {{ stop: {} }}", self.should_stop())
    }
}

impl<'a> Monitor<'a> {
    /// Makes a monitor of a sink and a stop flag.
    #[must_use]
    pub fn new(sink: &'a (dyn Fn(Event) + Sync), stop: &'a AtomicBool) -> Self {
        Self { sink, stop }
    }

    /// A monitor that hears nothing and never asks for a stop.
    #[must_use]
    pub fn silent() -> Monitor<'static> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Monitor { sink: &|_| {}, stop: &NEVER }
    }

    /// Announces a task.
    pub fn start(&self, task: &str, total: u64, unit: &'static str) {
        (self.sink)(Event::Started { task: task.to_owned(), total, unit });
    }

    /// Reports that `done` units of the task are complete.
    pub fn progress(&self, done: u64) {
        (self.sink)(Event::Progress { done });
    }

    /// Ends the task.
    pub fn finish(&self) {
        (self.sink)(Event::Finished);
    }

    /// Tells the user something.
    pub fn note(&self, text: impl Into<String>) {
        (self.sink)(Event::Note(text.into()));
    }

    /// The flag that asks for a stop, for a monitor of another sink over the same work.
    #[must_use]
    pub fn stop_flag(&self) -> &'a AtomicBool {
        self.stop
    }

    /// Whether the user asked for a stop.
    #[must_use]
    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
