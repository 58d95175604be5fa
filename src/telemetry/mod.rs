//! What the gateway tells of itself.

mod call;
mod log;
mod metrics;
pub mod names;
mod process;

pub use call::{Call, Decision, REQUEST_ID, RateLimit};
pub use log::{LogLevel, init};
pub use metrics::Metrics;
