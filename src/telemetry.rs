//! What the gateway tells of itself.

mod call;
mod export;
mod log;
mod metrics;
pub mod names;
mod process;
mod trace;

pub use call::{Call, Decision, REQUEST_ID, RateLimit};
pub use export::Telemetry;
pub use log::{LogLevel, init};
pub use metrics::{Metrics, Reloadable};
pub use trace::{Attempted, Span, Tracing};
