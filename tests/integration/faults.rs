//! Faults as an operator meets them: each gateway is a process of its own, and all is seen from
//! outside. The rows: docs/design/guarantees.md.

mod claims;
mod connect;
mod credentials;
