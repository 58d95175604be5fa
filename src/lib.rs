//! A gRPC gateway to Amazon Connect's `CreateParticipant`. The map of the code, the path of a call
//! and a glossary: docs/design/architecture.md.
//!
//! The flow of a call; each arrow changes the type, so that the compiler checks the order:
//!
//! ```text
//! http::Request ─[app/stack.rs: answer, shed, deadline, identify]→ + Notes, Permit, Tenant
//!   ─[grpc/decode.rs]→ CreateParticipant ─[gateway/call.rs: circuit, asks, attempts, settlement]→
//!   Participant | Error ─[grpc/status.rs]→ http::Response
//! ```
//!
//! Who may import whom; `tests/integration/layout.rs` checks it:
//!
//! ```text
//! domain     nothing
//! sync       nothing
//! egress     nothing
//! places     sync
//! error      domain
//! call       domain, sync
//! config     domain, admission, egress
//! telemetry  domain, sync, call, config
//! identity   domain, sync, error, config, telemetry, egress
//! admission  domain, sync, error
//! connect    domain, sync, error, call, telemetry, egress
//! gateway    domain, sync, places, error, call, telemetry, admission, connect
//! net        error, config
//! console    domain, sync, admission, telemetry
//! admin      config, telemetry
//! grpc       domain, places, error, call, config, telemetry, identity, admission, gateway, net, proto
//! simulator  nothing of ours: it cannot share our bugs
//! app        everything
//! ```

#![warn(unreachable_pub, reason = "`pub` is what the program, the tests or the benches use")]

pub(crate) mod admin;
pub mod admission;
pub mod app;
pub mod call;
pub mod config;
pub mod connect;
pub mod console;
pub mod domain;
pub mod egress;
pub mod error;
pub(crate) mod gateway;
pub mod grpc;
pub mod identity;
pub mod net;
pub(crate) mod places;
pub mod proto;
#[cfg(feature = "simulator")]
pub mod simulator;
pub(crate) mod sync;
pub mod telemetry;
