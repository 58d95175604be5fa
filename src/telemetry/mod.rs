//! What the gateway tells of itself.

mod call;
mod log;

pub use call::{Call, REQUEST_ID};
pub use log::{LogLevel, init};
