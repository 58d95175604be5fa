//! The log, the metrics and the traces.

mod bound;
mod directives;
mod export;
mod gauges;
mod history;
mod json;
mod log;
mod metrics;
pub(crate) mod names;
mod openmetrics;
mod otlp;
mod process;
mod propagation;
mod trace;
mod writer;

pub use directives::Directives;
pub use export::Telemetry;
pub(crate) use gauges::LimitFigures;
pub(crate) use history::{Counted, FailedCall, History, POINT};
pub use log::{LogLevel, flush as flush_log, init, init_on_stderr};
pub use metrics::Metrics;
pub(crate) use metrics::{Distrust, Reloadable};
pub use trace::Span;
pub(crate) use trace::{Attempted, Operation, Tracing};
