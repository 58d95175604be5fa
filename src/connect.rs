//! Amazon Connect: one client an upstream, and a call's attempts at it.
//!
//! Only this module names the AWS SDK.

mod attempts;
mod breaker;
mod credentials;
mod http;
mod sdk;
mod translate;

pub use attempts::{Attempts, Payer, Terms, is_worth_it};
pub use breaker::{Breaker, Pass};
pub use sdk::{Client, StaticCredentials};
