//! What the gateway tells of itself.

mod call;
mod log;

pub use call::{Call, Decision, REQUEST_ID, RateLimit};
pub use log::{LogLevel, init};
