//! Amazon Connect: one endpoint an upstream, and a plan of what is tried again.
//!
//! This room offers one attempt at a time. The gateway owns the loop: an attempt is paid for
//! before it is made. Only this module names the AWS SDK.

mod aws;
mod breaker;
mod credentials;
mod endpoint;
mod http;
mod retry;
mod route;
mod sdk;
mod tempo;
mod tokens;
mod translate;

pub use breaker::Pass;
pub use credentials::CredentialsState;
pub use endpoint::{Attempts, Endpoint};
pub use retry::{LEAST_LEFT, Retry, is_worth_it};
pub use sdk::{Client, StaticCredentials};
pub use tempo::Tempo;
pub use tokens::{Cache, CacheTokens};
