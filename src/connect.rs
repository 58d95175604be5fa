//! Amazon Connect: one endpoint per upstream, and a plan for further attempts.
//!
//! This module makes one attempt at a time. The gateway owns the loop, because the store charges
//! each attempt before it is made. Only this module uses the AWS SDK.

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

pub(crate) use breaker::Pass;
pub(crate) use credentials::CredentialsState;
pub(crate) use endpoint::Endpoint;
pub(crate) use retry::{LEAST_LEFT, Retry, is_worth_it};
pub use sdk::{Client, StaticCredentials};

pub(crate) use tokens::{Cache, CacheTokens};
