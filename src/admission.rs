//! Admission: one round trip decides, one settles.
//!
//! Rate limits, the upstream's budget, calls in flight and the idempotency record are decided
//! together, atomically, by [`Store::admit`], and closed by [`Store::settle`]. Every store is held
//! to one contract suite. The design, with its reasons: docs/design/admission.md.

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

pub use clock::{Clock, ManualClock, SystemClock};
pub use fingerprint::random_token;
pub use guarded::{Fresh, Guarded, OnLoss, StoreHealth};
pub use inspect::{Forgotten, RecordProof, RecordSeen, RecordState, TenantLevels, UpstreamLevels};
pub use keys::{KeyFault, KeyFile, KeyProblem, Keys, NoRandomness, keygen};
pub use seal::OpenError;
pub use store_error::{ServerWord, StoreError};

/// Where claims, levels and leases live. Every answer is atomic over all that it decides.
pub trait Store: Send + Sync + 'static {
    /// Decides a call, a waiting call's next ask, or a further attempt.
    ///
    /// # Errors
    /// [`StoreError`] where no answer was had in time: the claim may or may not stand. Asking again
    /// with the same nonce gives the same grant, uncharged.
    fn admit(&self, ask: &Ask) -> impl Future<Output = Result<Answer, StoreError>> + Send;

    /// Closes a granted call. Idempotent: acts only where the claim is still this nonce's.
    ///
    /// # Errors
    /// [`StoreError`] where no answer was had in time; settling again is harmless.
    fn settle(
        &self,
        settlement: &Settlement,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// The levels of a tenant on an upstream, and of the upstream itself; charges nothing.
    ///
    /// # Errors
    /// [`StoreError`] where no answer was had in time.
    fn levels_of(
        &self,
        scope: &Scope,
    ) -> impl Future<Output = Result<StoreLevels, StoreError>> + Send;

    /// The tenant's part of [`Store::levels_of`].
    ///
    /// # Errors
    /// [`StoreError`] where no answer was had in time.
    fn quota(&self, scope: &Scope) -> impl Future<Output = Result<Quota, StoreError>> + Send {
        async { Ok(self.levels_of(scope).await?.quota) }
    }

    /// Whether the reply of one of the call's asks was lost, so that something of it may stand: then
    /// the call is settled, however it ends. A store that cannot be lost loses no reply.
    fn may_stand(&self, _ask: &Ask) -> bool {
        false
    }

    /// Whether the store answers and takes writes; cheap, and touches no key of a call. A store
    /// that cannot be lost always does.
    ///
    /// # Errors
    /// [`StoreError`] where no answer was had in time.
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

/// Whose limits and which budget: the same for every call of a tenant to an upstream under one
/// config.
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
    /// Σbᵢ over all tenants that may use the upstream: the tokens that the committed shares may
    /// hold together.
    pub committed_burst: u32,
}

/// 128 random bits that fence one call; compared for equality only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub u128);

impl Nonce {
    /// A fresh one.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        Ok(Self(u128::from_ne_bytes(bytes)))
    }
}

/// A call asks to be admitted.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Whose, and where.
    pub scope: Scope,
    /// The call's fence, the same over its asks and attempts.
    pub nonce: Nonce,
    /// The idempotency record, where the call has a client token.
    pub record: Option<RecordAsk>,
    /// How long the claim and the place in flight hold, unless they are renewed.
    pub lease: Duration,
    /// The longest that the call may still queue: what is left of `max_wait`, deadline permitting.
    pub wait: Duration,
    /// The longest that its caller can wait for a store that is well, but asks to be asked again.
    pub patience: Duration,
    /// What a call to the upstream usually takes: the hint for the limit of calls in flight.
    pub typical: Duration,
    /// Which ask of the call this is.
    pub stage: Stage,
    /// The call's last attempt was throttled by Connect; it had been granted at this time of the
    /// upstream's clock.
    pub throttled: Option<Moment>,
}

/// Which ask of a call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The first, or once more after [`Decision::AskAgain`]: the store knows the call's place.
    Call,
    /// A further attempt of a granted call: charges the budget only and renews the lease.
    Attempt {
        /// An earlier attempt may have been executed: the record stays uncertain for good.
        uncertain: bool,
    },
    /// Renews the leases of a granted call, and charges nothing.
    Renew,
    /// Only the record: the call may not be sent for now, as its upstream's circuit is open. If the
    /// record has no answer, the decision is [`Decision::Lost`].
    Look,
}

/// What identifies an idempotency record, and what it must hold.
#[derive(Debug, Clone)]
pub struct RecordAsk {
    /// The record's name: a keyed hash of tenant, upstream and client token.
    pub name: String,
    /// The version of the canonical encoding under the fingerprint.
    pub version: u8,
    /// The keyed hash of the call's content at that version.
    pub fingerprint: String,
    /// The derived `ClientToken` for Connect.
    pub upstream_token: UpstreamToken,
    /// A keyed hash over the four above, kept in the record so that a foreign or corrupt one is
    /// recognised.
    pub mac: String,
    /// From the first claim until the record is forgotten.
    pub retention: Duration,
    /// The last answer's record could not be trusted: take it over, where it still answers the
    /// same. After [`Decision::Replay`] that could not be opened, its `sealed`; after
    /// [`Decision::Mismatch`] that could not be verified, its `mac`.
    pub distrust: Option<Vec<u8>>,
}

/// A point of an upstream's own clock, which only moves forward. Seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Moment(pub f64);

/// What [`Store::admit`] decided, and the tenant's levels after it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The decision.
    pub decision: Decision,
    /// The tenant's own limits that were exceeded and let through (`enforcement: shadow`).
    pub shadowed: Option<Refused>,
    /// The levels after the decision.
    pub quota: Quota,
}

/// The ways an ask can end. An answer that is neither granted nor "ask again" has charged, claimed
/// and leased nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Go ahead.
    Granted {
        /// When, by the upstream's clock.
        at: Moment,
        /// The token for Connect: the record's own, which a takeover must keep; nothing without a
        /// record.
        upstream_token: Option<UpstreamToken>,
        /// An earlier claim of the record, or an earlier attempt of this one, may have been
        /// executed: the sticky bit.
        takeover: bool,
        /// The record that stood there was not of the shape that a gateway writes.
        distrusted: bool,
    },
    /// The call has run: its sealed result.
    Replay {
        /// As it was handed to [`Verdict::Done`].
        sealed: Vec<u8>,
    },
    /// The record holds another fingerprint.
    Mismatch {
        /// The record's own mac, over its own fingerprint and token (which are handed back to be
        /// verified).
        mac: String,
        /// The record's fingerprint.
        fingerprint: String,
        /// The record's upstream token.
        upstream_token: String,
        /// The version of its encoding.
        version: u8,
    },
    /// Another claim is in flight.
    Busy {
        /// What is left of its lease.
        lease: Duration,
    },
    /// The result is gone for good.
    Tombstone,
    /// To [`Stage::Look`]: the record has no answer. To [`Stage::Attempt`] and [`Stage::Renew`]: the
    /// claim is not this call's any more, and nobody else's either. Send nothing: end the call with
    /// its last attempt's error. A stale attempt whose record has a live owner or a result gets what
    /// any duplicate gets: busy, replay, tombstone, mismatch.
    Lost,
    /// A limit refuses.
    Refused(Refused),
    /// The call has a place in the queue: ask again after this long, not later than 250 ms after
    /// that. Whoever does not ask again settles with [`Verdict::Release`].
    AskAgain {
        /// How long to wait.
        after: Duration,
    },
}

/// A limit, and how long until it would admit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refused {
    /// Which.
    pub limit: crate::error::Limit,
    /// Rounded up to a millisecond, never zero.
    pub retry_after: Duration,
}

/// A tenant's levels on an upstream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Calls that the tenant's rate admits now.
    pub remaining: u32,
    /// Until the tenant's bucket is full.
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
    /// Whose, and where.
    pub scope: Scope,
    /// The call's fence.
    pub nonce: Nonce,
    /// The record's name, where the call has one.
    pub record: Option<String>,
    /// What becomes of the record.
    pub verdict: Verdict,
    /// The call's last attempt was throttled by Connect; it had been granted at this moment.
    pub throttled: Option<Moment>,
}

/// What becomes of a claim.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The call has a result.
    Done {
        /// The sealed response.
        sealed: Vec<u8>,
        /// When the credentials in it end, by absolute time: the result ends [`EXPIRY_SKEW`]
        /// earlier, and the tombstone begins. Never: the result ends with the retention.
        expires: Option<SystemTime>,
    },
    /// Provably not executed: forget the record, unless anything of it was ever uncertain.
    Release {
        /// Give the tenant's rate back: nothing was sent, and it was not the caller who hung up.
        refund: bool,
    },
    /// It may have been executed: the next caller takes over at once, with the same upstream token.
    Uncertain,
}

/// What settling found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The claim was still this nonce's, and is closed.
    Closed,
    /// The claim had passed to somebody else, or was closed before; the lease is freed all the
    /// same.
    NotOurs,
}

/// A result ends this long before its credentials do, so that nobody is handed one that is about to
/// end.
pub const EXPIRY_SKEW: Duration = Duration::from_secs(30);

/// How long a claim and a place in flight hold: a gateway that died is taken over from within this
/// time.
pub const LEASE: Duration = Duration::from_secs(3);

/// How often a lease is renewed while its call runs.
pub const RENEW_EVERY: Duration = Duration::from_secs(1);

/// Beyond the caller's deadline and one attempt, a lease may be renewed for this much longer: for
/// the settlement.
pub const SETTLE_ALLOWANCE: Duration = Duration::from_secs(2);

/// The longest lease a store grants; longer ones are cut to it. What is in flight for longer is a
/// broken clock's doing.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);
