//! Admission: one round trip decides a call, and one settles it.
//!
//! [`Store::admit`] decides together, atomically, over the rate limits, the upstream's budget, the
//! calls in flight and the idempotency record. [`Store::settle`] closes the call. One contract
//! suite tests every store. The design and its reasons are in docs/design/admission.md.

mod clock;
mod fingerprint;
mod guarded;
mod inspect;
mod keys;
pub mod memory;
pub mod redis;
mod rounding;
mod seal;
mod store_error;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::domain::{Name, Rate, TenantLimits, UpstreamToken};

pub use clock::ManualClock;
pub(crate) use fingerprint::random_token;
pub(crate) use guarded::{Guarded, OnLoss, StoreHealth};
pub(crate) use inspect::RecordProof;
pub use inspect::{Forgotten, RecordSeen, RecordState, TenantLevels, UpstreamLevels};
pub(crate) use keys::KeyFile;
pub use keys::{Keys, NoRandomness, keygen};

pub use store_error::{ServerWord, StoreError};

/// The store of claims, levels and leases. Every answer is atomic over all that it decides.
pub trait Store: Send + Sync + 'static {
    /// Decides a call, the next ask of a queued call, or a further attempt.
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time: the claim may or may not stand. A second ask with
    /// the same nonce gets the same grant without a charge.
    fn admit(&self, ask: &Ask) -> impl Future<Output = Result<Answer, StoreError>> + Send;

    /// Closes a granted call. Idempotent: acts only where the claim is still this nonce's.
    ///
    /// [`StoreError`] if no answer came in time. Settling again is harmless.
    fn settle(
        &self,
        settlement: &Settlement,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// Whether the store has a record of that name, whatever it says: a call without one cannot be
    /// a replay. It is cheaper than an ask, and changes nothing. A store that does not know says
    /// true.
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time.
    fn has_record(
        &self,
        scope: &Scope,
        name: &str,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The levels of a tenant on an upstream, and of the upstream itself; charges nothing.
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time.
    fn levels_of(
        &self,
        scope: &Scope,
    ) -> impl Future<Output = Result<StoreLevels, StoreError>> + Send;

    /// The tenant's part of [`Store::levels_of`].
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time.
    fn quota(&self, scope: &Scope) -> impl Future<Output = Result<Quota, StoreError>> + Send {
        async { Ok(self.levels_of(scope).await?.quota) }
    }

    /// Whether the reply to one of the call's asks was lost, so that a claim may stand. The call is
    /// then settled, however it ends. A store that cannot be lost loses no reply.
    fn may_stand(&self, _ask: &Ask) -> bool {
        false
    }

    /// Whether the store answers and accepts writes. It is cheap, and uses no key of a call. A
    /// store that cannot be lost always succeeds.
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time.
    fn probe(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { Ok(()) }
    }
}

impl<S: Store> Store for Arc<S> {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        (**self).admit(ask).await
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        (**self).settle(settlement).await
    }

    async fn has_record(&self, scope: &Scope, name: &str) -> Result<bool, StoreError> {
        (**self).has_record(scope, name).await
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        (**self).levels_of(scope).await
    }

    fn may_stand(&self, ask: &Ask) -> bool {
        (**self).may_stand(ask)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        (**self).probe().await
    }
}

/// The tenant, the upstream and their limits: the same for every call of a tenant to an upstream
/// under one config.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// The tenant.
    pub tenant: Name,
    /// Its limits.
    pub limits: TenantLimits,
    /// The upstream.
    pub upstream: Name,
    /// The upstream's rate: R.
    pub rate: Rate,
    /// The upstream's burst: B, at least 1.
    pub burst: u32,
    /// Σbᵢ over all tenants that may use the upstream: the most tokens that the committed shares
    /// can save up together.
    pub committed_burst: u32,
}

/// 128 random bits that fence one call; compared for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub u128);

impl Nonce {
    /// A new nonce.
    #[must_use]
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

/// A call asks to be admitted.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The tenant and the upstream.
    pub scope: Scope,
    /// The fence of the call, the same for all its asks and attempts.
    pub nonce: Nonce,
    /// The idempotency record, if the call has a client token.
    pub record: Option<RecordAsk>,
    /// How long the claim and the place in flight last, unless they are renewed.
    pub lease: Duration,
    /// The longest time that the call may still queue: the rest of `max_wait`, and not beyond its
    /// deadline.
    pub wait: Duration,
    /// The longest time that the caller can wait for a store that is well, but must be asked again.
    pub patience: Duration,
    /// The usual time of a call to the upstream: the hint for the limit of calls in flight.
    pub typical: Duration,
    /// The stage of the call.
    pub stage: Stage,
    /// Set if Connect throttled the call's last attempt: when that attempt was granted, by the
    /// upstream's clock.
    pub throttled: Option<Moment>,
}

/// The stage of a call at which it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first ask, or a later one after [`Decision::AskAgain`]: the store knows the call's
    /// place.
    Call,
    /// A further attempt of a granted call: charges the budget only and renews the lease.
    Attempt {
        /// An earlier attempt may have been executed: the record stays uncertain for good.
        uncertain: bool,
    },
    /// Renews the leases of a granted call, and charges nothing.
    Renew,
    /// Reads the record only: the call may not be sent now, because its upstream's circuit is open.
    /// If the record has no answer, the decision is [`Decision::Lost`].
    Look,
}

/// The identity and the required content of an idempotency record.
#[derive(Debug, Clone)]
pub struct RecordAsk {
    /// The record's name: a keyed hash of tenant, upstream and client token.
    pub name: Arc<str>,
    /// The version of the canonical encoding under the fingerprint.
    pub version: u8,
    /// The keyed hash of the call's content at that version.
    pub fingerprint: Arc<str>,
    /// The derived `ClientToken` for Connect.
    pub upstream_token: UpstreamToken,
    /// A keyed hash over the four fields above. The record keeps it, so that a foreign or corrupt
    /// record is recognised.
    pub mac: Arc<str>,
    /// The time from the first claim until the record is forgotten.
    pub retention: Duration,
    /// The record of the last answer was not trusted: take it over if it still answers the same.
    /// The value is the `sealed` of a [`Decision::Replay`] that could not be opened. Or it is the
    /// `mac` of a [`Decision::Mismatch`] that could not be verified.
    pub distrust: Option<Vec<u8>>,
}

/// A point of an upstream's own clock, which only moves forward. Seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Moment(pub f64);

/// The decision of [`Store::admit`], and the tenant's levels after it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The decision.
    pub decision: Decision,
    /// The tenant's own limits that were exceeded and let through (`enforcement: shadow`).
    pub shadowed: Option<Refused>,
    /// The levels after the decision.
    pub quota: Quota,
}

/// The possible answers to an ask. An answer other than a grant or "ask again" has charged, claimed
/// and leased nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The call may go on.
    Granted {
        /// The time of the grant, by the upstream's clock.
        at: Moment,
        /// The token for Connect: the record's own, which a takeover must keep. `None` without a
        /// record.
        upstream_token: Option<UpstreamToken>,
        /// An earlier claim of the record, or an earlier attempt of this one, may have been
        /// executed: the sticky bit.
        takeover: bool,
        /// Whether the stored record was not of the form that a gateway writes.
        distrusted: bool,
    },
    /// The call has already run: this is its sealed result.
    Replay {
        /// The bytes of [`Verdict::Done`].
        sealed: Vec<u8>,
    },
    /// The record holds another fingerprint.
    Mismatch {
        /// The record's own MAC. It covers the fingerprint and the token below, by which it can be
        /// verified.
        mac: String,
        /// The record's fingerprint.
        fingerprint: String,
        /// The record's upstream token.
        upstream_token: String,
        /// The version of the record's encoding.
        version: u8,
    },
    /// Another claim is in flight.
    Busy {
        /// The rest of its lease.
        lease: Duration,
    },
    /// The result has expired, and cannot come back.
    Tombstone,
    /// For [`Stage::Look`]: the record has no answer. For [`Stage::Attempt`] and [`Stage::Renew`]:
    /// the claim is no longer this call's, and no other call holds it. Send nothing: end the call
    /// with the error of its last attempt. If the record has a live owner or a result, the stale
    /// attempt gets the answer of a duplicate: busy, replay, tombstone or mismatch.
    Lost,
    /// A limit refuses the call.
    Refused(Refused),
    /// The call has a place in the queue. It asks again after this time, at most 250 ms later than
    /// that. A call that does not ask again is settled with [`Verdict::Release`].
    AskAgain {
        /// How long to wait.
        after: Duration,
    },
}

/// A limit that refused, and the time until it would admit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refused {
    /// The limit.
    pub limit: crate::error::Limit,
    /// The time until it would admit: rounded up to a millisecond, never zero.
    pub retry_after: Duration,
}

/// A tenant's levels on an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// The calls that the tenant's rate admits now.
    pub remaining: u32,
    /// The time until the tenant's bucket is full.
    pub until_full: Duration,
    /// The tenant's calls in flight, over all replicas.
    pub in_flight: u32,
    /// The upstream's factor f: 1/16 to 1.
    pub factor: f64,
}

/// What the store holds now of a tenant on an upstream, and of the upstream's budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoreLevels {
    /// What its caller may know.
    pub quota: Quota,
    /// The tenant's bucket, in calls: -1 to its burst.
    pub tenant: f64,
    /// What its committed share has saved up, in calls.
    pub share: f64,
    /// The upstream's budget, in calls: -1 to its burst.
    pub budget: f64,
    /// Calls of all tenants and replicas that wait for their slots on the upstream.
    pub queued: u32,
}

/// How a granted call ended.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The tenant and the upstream.
    pub scope: Scope,
    /// The fence of the call.
    pub nonce: Nonce,
    /// The record's name, if the call has a record.
    pub record: Option<Arc<str>>,
    /// The effect on the record.
    pub verdict: Verdict,
    /// Set if Connect throttled the call's last attempt: when that attempt was granted, by the
    /// upstream's clock.
    pub throttled: Option<Moment>,
}

/// The effect of a call's end on its claim.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The call has a result.
    Done {
        /// The sealed response.
        sealed: Vec<u8>,
        /// When the credentials in the response expire. The result ends [`EXPIRY_SKEW`] earlier,
        /// and the tombstone begins. `None`: the result ends with the retention.
        expires: Option<SystemTime>,
    },
    /// Provably not executed: forget the record, unless an attempt was ever uncertain.
    Release {
        /// Gives the tenant's charge back: nothing was sent, and the caller did not hang up.
        refund: bool,
    },
    /// It may have been executed: the next call takes over at once, with the same upstream token.
    Uncertain,
}

/// The state of the claim when it was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The claim was still this nonce's. It is now closed.
    Closed,
    /// The claim had passed to another call, or was already closed. The lease is freed in both
    /// cases.
    NotOurs,
}

/// A result ends this long before its credentials: no caller gets credentials that are about to
/// expire.
pub const EXPIRY_SKEW: Duration = Duration::from_secs(30);

/// How long a claim and a place in flight last. Another gateway can take over from a dead one after
/// this time.
pub(crate) const LEASE: Duration = Duration::from_secs(3);

/// How often a lease is renewed while its call runs.
pub(crate) const RENEW_EVERY: Duration = Duration::from_secs(1);

/// How long a lease may be renewed after the caller's deadline and one attempt: for the settlement.
pub(crate) const SETTLE_ALLOWANCE: Duration = Duration::from_secs(2);

/// The longest lease that a store grants; longer ones are cut to it. Only a broken clock keeps a
/// call in flight for longer.
pub(crate) const MAX_LEASE: Duration = Duration::from_secs(3600);
