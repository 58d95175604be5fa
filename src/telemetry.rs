//! What the gateway tells of itself.

mod bound;
mod export;
mod gauges;
mod json;
mod log;
mod metrics;
pub mod names;
mod otlp;
mod process;
mod propagation;
mod trace;
mod writer;

pub use export::Telemetry;
pub use gauges::LimitFigures;
pub use log::{LogLevel, flush as flush_log, init};
pub use metrics::{Distrust, Metrics, Reloadable};
pub use trace::{Attempted, Operation, Span, Tracing};
