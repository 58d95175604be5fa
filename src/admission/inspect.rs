//! What operators may see of a store: levels that nothing is charged for, and what a record says.

use std::time::SystemTime;

/// An upstream's levels, and those of some tenants on it.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamLevels {
    /// When, by the store's own clock.
    pub now: SystemTime,
    /// V, the level of the budget's bucket, in calls. It may be below 0, where committed calls have
    /// started ahead of it.
    pub level: f64,
    /// The factor f: 1/16 to 1.
    pub factor: f64,
    /// Calls that wait for their slot, over all replicas and tenants.
    pub queue: u32,
    /// One for each tenant that was asked for, in that order.
    pub tenants: Vec<TenantLevels>,
}

/// A tenant's levels on an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TenantLevels {
    /// The level of its ceiling's bucket, in calls.
    pub level: f64,
    /// cᵢ, what its committed share has saved up, in calls.
    pub share: f64,
    /// Its calls in flight, over all replicas.
    pub in_flight: u32,
    /// Its calls that wait for their slot, over all replicas.
    pub queue: u32,
}

/// A record, as it stands in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordSeen {
    /// When, by the store's own clock.
    pub now: SystemTime,
    /// What became of the call.
    pub state: RecordState,
    /// When the record is forgotten; `None` where there is none, or none that can be read.
    pub ends: Option<SystemTime>,
    /// Names just this state of the record.
    pub stamp: Vec<u8>,
    /// What proves that a gateway with the same root wrote it: absent where the shape says already
    /// that none did.
    pub proof: Option<RecordProof>,
}

/// The parts of a record that its MAC goes over.
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

/// What became of a call, as its record says.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordState {
    /// There is no record: a call with this token runs anew.
    Absent,
    /// A gateway has the call.
    InFlight {
        /// When its lease ends, unless it is renewed.
        until: SystemTime,
    },
    /// The call has a result.
    Done {
        /// Until when it is replayed.
        until: SystemTime,
        /// The result, as it was sealed.
        sealed: Vec<u8>,
    },
    /// It may have been executed: the next call takes it over.
    Uncertain,
    /// The result is gone for good.
    Expired,
}

/// What came of the wish to forget a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It is gone.
    Gone,
    /// There was none.
    Absent,
    /// A gateway has the call: the record stands.
    InFlight,
    /// It is not what was seen any more: the record stands.
    Changed,
}
