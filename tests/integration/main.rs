//! One test binary: the SDK is large, and each more would cost a link. A module a topic.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod admin;
mod admission;
mod admission_store;
mod assumed_role;
mod calls;
mod chaos;
mod command;
mod config;
mod console;
mod deadlines;
mod debugging;
mod descriptors;
mod drain;
mod errors;
mod faults;
mod floods;
mod fuzz_corpus;
mod grpcurl;
mod idempotency;
mod identity_tls;
mod layout;
mod logs;
mod operator;
mod overload;
mod panics;
mod papers;
mod profile;
mod redis_loss;
mod redis_use;
mod refused_early;
mod reload;
mod replicas;
mod support;
mod telemetry;
mod upgrades;
mod ways_out;
