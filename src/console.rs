//! The console: one page for a person on call, and the same as JSON at `/status`.
//!
//! The figures are gathered for each request, from counters that exist anyway. The store is read
//! once a second at most (`readings.rs`). No credential, token, contact id or display name is
//! shown.

mod page;
mod readings;
mod status;
mod troubles;

pub use page::{StatusSource, router};
pub(crate) use readings::{MOST_ROWS, Readings};
pub(crate) use status::{
    AttemptCounts, CallsStatus, CertificateStatus, CircuitState, CredentialsStatus,
    CredentialsWord, DecisionCounts, FailedCallStatus, ReasonCount, StoreStatus, TenantStatus,
    TenantsStatus, UpstreamStatus, time,
};
pub use status::{Status, json_schema};
