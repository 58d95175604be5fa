//! The operator's view of a store: levels, read without a charge, and the content of a record.

use std::time::SystemTime;

/// An upstream's levels, and those of some tenants on it.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamLevels {
    /// The time, by the store's own clock.
    pub now: SystemTime,
    /// V, the level of the budget's bucket, in calls. It may be below 0 if committed calls have
    /// started ahead of it.
    pub level: f64,
    /// The factor f: 1/16 to 1.
    pub factor: f64,
    /// The calls that wait for their slots, over all replicas and tenants.
    pub queue: u32,
    /// The tenants that were asked for, in that order.
    pub tenants: Vec<TenantLevels>,
}

/// A tenant's levels on an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TenantLevels {
    /// The level of its ceiling's bucket, in calls.
    pub level: f64,
    /// cᵢ, the calls that its committed share has saved up.
    pub share: f64,
    /// Its calls in flight, over all replicas.
    pub in_flight: u32,
    /// Its calls that wait for their slot, over all replicas.
    pub queue: u32,
}

/// A record in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSeen {
    /// The time, by the store's own clock.
    pub now: SystemTime,
    /// The state of the call.
    pub state: RecordState,
    /// When the record is forgotten; `None` if there is no record, or none that can be read.
    pub ends: Option<SystemTime>,
    /// Identifies this state of the record.
    pub stamp: Vec<u8>,
    /// Proves that a gateway with the same root wrote the record. `None` if the form of the record
    /// already shows that no gateway wrote it.
    pub proof: Option<RecordProof>,
}

/// The parts of a record that its MAC covers.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordProof {
    /// The version of the encoding under the fingerprint.
    pub version: u8,
    /// The keyed hash of the call's content.
    pub fingerprint: String,
    /// The derived `ClientToken` for Connect.
    pub upstream_token: String,
    /// The MAC.
    pub mac: String,
}

/// The state of a call, by its record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordState {
    /// There is no record: a call with this token runs as a new one.
    Absent,
    /// A gateway works on the call.
    InFlight {
        /// When its lease ends, unless it is renewed.
        until: SystemTime,
    },
    /// The call has a result.
    Done {
        /// When its replay ends.
        until: SystemTime,
        /// The sealed result.
        sealed: Vec<u8>,
    },
    /// The call may have been executed: the next call takes it over.
    Uncertain,
    /// The result has expired, and cannot come back.
    Expired,
}

/// The result of forgetting a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// The record is deleted.
    Gone,
    /// There was no record.
    Absent,
    /// A gateway works on the call: the record stays.
    InFlight,
    /// The record has changed since it was read: it stays.
    Changed,
}
