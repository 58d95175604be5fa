//! A gRPC gateway to Amazon Connect's `CreateParticipant`.
//!
//! The flow; each arrow changes the type, so that the compiler checks the order:
//!
//! ```text
//! http::Request ─[answer, deadline, shed, identify]→ + Call, Deadline, Permit, Tenant
//!   ─decode→ CreateParticipant ─gateway→ attempts → sdk → translate → Participant | Error
//!   ─status→ http::Response
//! ```
//!
//! Who may import whom; `tests/integration/layout.rs` holds it:
//!
//! ```text
//! domain     nothing
//! sync       nothing
//! error      domain
//! config     domain, admission
//! telemetry  domain, sync, config
//! identity   domain, sync, error, config, telemetry
//! admission  domain, sync, error
//! connect    domain, sync, error, telemetry
//! gateway    domain, sync, error, telemetry, admission, connect
//! net        config
//! admin      config, telemetry
//! grpc       domain, error, config, telemetry, identity, gateway, net, proto
//! simulator  nothing of ours: it cannot share our bugs
//! app        everything
//! ```

pub mod admin;
pub mod admission;
pub mod app;
pub mod config;
pub mod connect;
pub mod domain;
pub mod error;
pub mod gateway;
pub mod grpc;
pub mod identity;
pub mod net;
pub mod proto;
#[cfg(feature = "simulator")]
pub mod simulator;
pub mod sync;
pub mod telemetry;
