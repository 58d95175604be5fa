//! The log: JSON or text, on standard output.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::json::Json;
use super::writer::Lines;
use crate::config::Level;
use crate::config::shape::LogFormat;

/// Changes the level of the running log.
#[derive(Clone)]
pub struct LogLevel(Option<reload::Handle<EnvFilter, Registry>>);

impl LogLevel {
    /// From now on, this level.
    pub fn set(&self, level: Level) {
        if let Some(handle) = &self.0 {
            // The handle fails only where the subscriber is gone, and then there is no log to
            // change.
            let _ = handle.reload(filter(level));
        }
    }
}

/// Starts the log of this process. Where one runs already, as in tests, that one stays.
#[must_use]
pub fn init(format: LogFormat, level: Level) -> LogLevel {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = LINES.get_or_init(|| Lines::to(io::stdout())).clone();
    let lines = match format {
        LogFormat::Json => Json(lines).boxed(),
        LogFormat::Text => fmt::layer()
            .with_ansi(io::stdout().is_terminal())
            .with_target(false)
            .with_writer(lines)
            .boxed(),
    };
    match tracing_subscriber::registry().with(filter).with(lines).try_init() {
        Ok(()) => LogLevel(Some(handle)),
        Err(_) => LogLevel(None),
    }
}

/// Waits until the log is written, a second at most: for the end of the process.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush();
    }
}

/// Lines of the log that could not be written.
pub(super) fn dropped() -> u64 {
    LINES.get().map_or(0, Lines::dropped)
}

fn filter(level: Level) -> EnvFilter {
    match level {
        // Below the caps, which would raise it.
        Level::Error | Level::Warn => EnvFilter::new(level.as_str()),
        Level::Info | Level::Debug | Level::Trace => {
            EnvFilter::new(format!("{},{CAPPED}", level.as_str()))
        }
    }
}

/// The process has one standard output.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Libraries that print what must not be printed, and the level at which they do not: the AWS SDK
/// prints bodies and the request that it signs at TRACE, HTTP/2 prints frames.
const CAPPED: &str = "aws_config=info,aws_credential_types=info,aws_runtime=info,aws_sdk_connect=info,\
    aws_sdk_sso=info,aws_sdk_ssooidc=info,aws_sdk_sts=info,aws_sigv4=info,aws_smithy_http_client=info,\
    aws_smithy_runtime=info,aws_smithy_runtime_api=info,h2=info,hyper=info,hyper_util=info,rustls=info,tonic=info";
