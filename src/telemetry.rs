//! The log, the metrics and the traces.

mod bound;
mod directives;
mod export;
mod gauges;
mod history;
mod json;
mod log;
mod metrics;
pub mod names;
mod openmetrics;
mod otlp;
mod process;
mod propagation;
mod trace;
mod writer;

pub use directives::Directives;
pub use export::Telemetry;
pub use gauges::LimitFigures;
pub use history::{Counted, FailedCall, History, POINT, POINTS};
pub use log::{LogLevel, flush as flush_log, init, init_on_stderr};
pub use metrics::{Distrust, Metrics, Reloadable};
pub use trace::{Attempted, Operation, Span, Tracing};
