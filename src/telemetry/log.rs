//! The log, as JSON or text, on standard output. The log of a command is on standard error.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use super::directives::{Directives, OWN};
use super::json::Json;
use super::writer::Lines;
use crate::config::Level;
use crate::config::shape::LogFormat;

/// Changes the level of the running log.
#[derive(Clone)]
pub struct LogLevel {
    handle: Option<reload::Handle<Targets, Registry>>,
    directives: Directives,
}

impl LogLevel {
    /// From now on, this level.
    pub(crate) fn set(&self, level: Level) {
        if let Some(handle) = &self.handle {
            // The handle fails only if the subscriber is gone, and then there is no log to change.
            let _ = handle.reload(self.directives.filter(level));
        }
    }
}

/// Starts the log of this process, with the directives of `RUST_LOG`. If a log already runs, as in
/// tests, that log stays.
#[must_use]
pub fn init(format: LogFormat, level: Level) -> LogLevel {
    let is_terminal = io::stdout().is_terminal();
    start(format, level, LINES.get_or_init(|| Lines::to(io::stdout())), is_terminal)
}

/// The same log on standard error, for a command whose answer is on standard output.
#[must_use]
pub fn init_on_stderr(format: LogFormat, level: Level) -> LogLevel {
    let is_terminal = io::stderr().is_terminal();
    start(format, level, LINES.get_or_init(|| Lines::to(io::stderr())), is_terminal)
}

fn start(format: LogFormat, level: Level, lines: &Lines, is_terminal: bool) -> LogLevel {
    let lines = lines.clone();
    let directives = Directives::from_env();
    let (filter, handle) = reload::Layer::new(directives.filter(level));
    // Only the span of a call is kept: a library's span may hold fields that its lines do not.
    let own_spans = filter_fn(|metadata| metadata.is_event() || metadata.target().starts_with(OWN));
    let lines = match format {
        LogFormat::Json => Json(lines).boxed(),
        LogFormat::Text => fmt::layer()
            .with_ansi(is_terminal)
            .with_target(false)
            .with_writer(lines)
            .boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(own_spans)
        .with(lines)
        .try_init();
    for bad in directives.bad() {
        tracing::warn!("{bad}");
    }
    LogLevel { handle: started.ok().map(|()| handle), directives }
}

/// Waits until the log is written, for a second at most, at the end of the process.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// Lines of the log that could not be written.
pub(super) fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

/// The process has one log.
static LINES: OnceLock<Lines> = OnceLock::new();
