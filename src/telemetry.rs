//! What the gateway tells of itself.

mod export;
mod log;
mod metrics;
pub mod names;
mod process;
mod trace;

pub use export::Telemetry;
pub use log::{LogLevel, init};
pub use metrics::{Distrust, Metrics, Reloadable};
pub use trace::{Attempted, Operation, Span, Tracing};
