//! A store of either kind on a clock set by hand, and calls to it in few words.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use participant_gateway::admission::memory::MemoryStore;
use participant_gateway::admission::redis::{RedisSettings, RedisStore};
use participant_gateway::admission::{
    Answer, Ask, Decision, ManualClock, Moment, Nonce, Quota, RecordAsk, Refused, Scope, Settled,
    Settlement, Stage, Store, StoreError, StoreLevels, Verdict,
};
use participant_gateway::domain::{Enforcement, Name, Rate, TenantLimits, UpstreamToken};
use participant_gateway::error::Limit;

use crate::support::redis::RedisServer;

/// An arbitrary day, in microseconds since the epoch: as many digits as a real one.
pub const START: u64 = 1_763_700_000_123_456;

pub struct World {
    pub store: Arc<AnyStore>,
    pub clock: ManualClock,
    pub scope: Scope,
    pub prefix: String,
    pub server: Option<Arc<RedisServer>>,
}

/// A store of either kind.
pub enum AnyStore {
    Memory(MemoryStore),
    Redis(RedisStore),
}

/// What a call was granted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grant {
    pub at: Moment,
    /// An earlier claim, or an earlier attempt, may have been executed.
    pub takeover: bool,
}

/// How a call ends.
#[derive(Debug, Clone, Copy)]
pub enum Ending {
    /// With a result whose credentials end this long after it.
    Done {
        expires_s: Option<u64>,
    },
    Release {
        refund: bool,
    },
    Uncertain,
}

impl Ending {
    /// At this time, in microseconds since the epoch, with this result.
    pub fn at(self, now: u64, sealed: &[u8]) -> Verdict {
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(now);
        match self {
            Self::Done { expires_s } => Verdict::Done {
                sealed: sealed.to_owned(),
                expires: expires_s.map(|seconds| now + Duration::from_secs(seconds)),
            },
            Self::Release { refund } => Verdict::Release { refund },
            Self::Uncertain => Verdict::Uncertain,
        }
    }
}

impl AnyStore {
    pub async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        match self {
            Self::Memory(store) => store.admit(ask).await,
            Self::Redis(store) => store.admit(ask).await,
        }
    }

    pub async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        match self {
            Self::Memory(store) => store.settle(settlement).await,
            Self::Redis(store) => store.settle(settlement).await,
        }
    }

    pub async fn quota(&self, scope: &Scope) -> Result<Quota, StoreError> {
        match self {
            Self::Memory(store) => store.quota(scope).await,
            Self::Redis(store) => store.quota(scope).await,
        }
    }

    pub async fn has_record(&self, scope: &Scope, name: &str) -> Result<bool, StoreError> {
        match self {
            Self::Memory(store) => store.has_record(scope, name).await,
            Self::Redis(store) => store.has_record(scope, name).await,
        }
    }

    pub async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        match self {
            Self::Memory(store) => store.levels_of(scope).await,
            Self::Redis(store) => store.levels_of(scope).await,
        }
    }

    pub async fn probe(&self) -> Result<(), StoreError> {
        match self {
            Self::Memory(store) => store.probe().await,
            Self::Redis(store) => store.probe().await,
        }
    }
}

impl World {
    pub async fn memory() -> Self {
        let clock = ManualClock::at(START);
        let store = Arc::new(AnyStore::Memory(MemoryStore::with_clock(clock.clone())));
        Self { store, clock, scope: scope(), prefix: String::new(), server: None }
    }

    /// On a server that others use too, under a prefix of its own.
    pub async fn redis() -> Self {
        Self::on(RedisServer::shared().await)
    }

    pub fn on(server: Arc<RedisServer>) -> Self {
        let clock = ManualClock::at(START);
        let prefix = unique_prefix();
        let mut settings = RedisSettings::standalone(server.url());
        settings.key_prefix.clone_from(&prefix);
        settings.timeout = Duration::from_secs(10);
        let store = RedisStore::new(settings).unwrap().with_clock(clock.clone());
        let store = Arc::new(AnyStore::Redis(store));
        Self { store, clock, scope: scope(), prefix, server: Some(server) }
    }

    /// The tenant's rate, in calls a second, and its burst.
    pub fn tenant_limit(&mut self, rate_s: f64, burst: u32) {
        (self.scope.limits.rate, self.scope.limits.burst) = (rate(rate_s), burst);
    }

    /// The upstream's rate, in calls a second, and its burst.
    pub fn budget(&mut self, rate_s: f64, burst: u32) {
        (self.scope.rate, self.scope.burst) = (rate(rate_s), burst);
    }

    pub fn pass(&self, seconds: f64) {
        self.clock.advance(Duration::from_secs_f64(seconds));
    }

    pub async fn admit(&self, ask: &Ask) -> Answer {
        self.store.admit(ask).await.unwrap()
    }

    pub async fn decide(&self, ask: &Ask) -> Decision {
        self.admit(ask).await.decision
    }

    /// Expects a grant.
    pub async fn granted(&self, ask: &Ask) -> Grant {
        match self.decide(ask).await {
            Decision::Granted { at, takeover, upstream_token, .. } => {
                assert_eq!(
                    upstream_token,
                    ask.record.as_ref().map(|record| record.upstream_token.clone())
                );
                Grant { at, takeover }
            }
            other => panic!("not granted: {other:?}"),
        }
    }

    pub async fn refused(&self, ask: &Ask) -> Refused {
        match self.decide(ask).await {
            Decision::Refused(refused) => refused,
            other => panic!("not refused: {other:?}"),
        }
    }

    pub async fn told_to_ask_again(&self, ask: &Ask) -> Duration {
        match self.decide(ask).await {
            Decision::AskAgain { after } => after,
            other => panic!("not told to ask again: {other:?}"),
        }
    }

    pub async fn settle(&self, ask: &Ask, verdict: Verdict) -> Settled {
        self.store.settle(&settlement(ask, verdict)).await.unwrap()
    }

    pub async fn throttle(&self, ask: &Ask, at: Moment) {
        let throttled = Settlement { throttled: Some(at), ..settlement(ask, release()) };
        self.store.settle(&throttled).await.unwrap();
    }

    pub async fn quota(&self) -> Quota {
        self.store.quota(&self.scope).await.unwrap()
    }

    pub async fn store_levels(&self) -> StoreLevels {
        self.store.levels_of(&self.scope).await.unwrap()
    }

    /// A call without a client token.
    pub fn call(&self) -> Ask {
        Ask {
            scope: self.scope.clone(),
            nonce: nonce(),
            record: None,
            lease: Duration::from_secs(15),
            wait: Duration::ZERO,
            patience: Duration::ZERO,
            typical: Duration::from_millis(300),
            stage: Stage::Call,
            throttled: None,
        }
    }

    /// A call with this client token and this content.
    pub fn keyed(&self, client_token: &str, content: &str) -> Ask {
        Ask { record: Some(record(client_token, content)), ..self.call() }
    }
}

/// Generous limits: what a test is about, it tightens.
pub fn scope() -> Scope {
    Scope {
        tenant: name("acme"),
        limits: TenantLimits {
            rate: rate(100.0),
            burst: 100,
            committed: rate(0.0),
            max_in_flight: 100,
            enforcement: Enforcement::Enforce,
        },
        upstream: name("main"),
        rate: rate(100.0),
        burst: 100,
        committed_burst: 0,
    }
}

/// A call that may queue for so long.
pub fn waiting(ask: Ask, millis: u64) -> Ask {
    Ask { wait: Duration::from_millis(millis), ..ask }
}

/// What the keys' owner would derive, in clear.
pub fn record(client_token: &str, content: &str) -> RecordAsk {
    RecordAsk {
        name: format!("record-of-{client_token}").into(),
        version: 1,
        fingerprint: format!("print-of-{content}").into(),
        upstream_token: UpstreamToken::new(format!("upstream-token-of-{client_token}-{content}"))
            .unwrap(),
        mac: format!("mac-of-{client_token}-{content}").into(),
        retention: Duration::from_secs(86_400),
        distrust: None,
    }
}

pub fn settlement(ask: &Ask, verdict: Verdict) -> Settlement {
    Settlement {
        scope: ask.scope.clone(),
        nonce: ask.nonce,
        record: ask.record.as_ref().map(|record| record.name.clone()),
        verdict,
        throttled: None,
    }
}

pub fn attempt(ask: &Ask) -> Ask {
    Ask { stage: Stage::Attempt { uncertain: false }, ..ask.clone() }
}

pub fn uncertain_attempt(ask: &Ask) -> Ask {
    Ask { stage: Stage::Attempt { uncertain: true }, ..ask.clone() }
}

/// A queued call's next ask: the store knows its place.
pub fn again(ask: &Ask) -> Ask {
    ask.clone()
}

pub fn distrusting(ask: &Ask, what: &[u8]) -> Ask {
    let mut ask = ask.clone();
    if let Some(record) = &mut ask.record {
        record.distrust = Some(what.to_owned());
    }
    ask
}

pub fn done(sealed: &str) -> Verdict {
    Verdict::Done { sealed: sealed.into(), expires: None }
}

/// A result whose credentials end this long after the clock's start.
pub fn done_until(sealed: &str, expires_s: u64) -> Verdict {
    let expires =
        SystemTime::UNIX_EPOCH + Duration::from_micros(START) + Duration::from_secs(expires_s);
    Verdict::Done { sealed: sealed.into(), expires: Some(expires) }
}

pub fn release() -> Verdict {
    Verdict::Release { refund: false }
}

pub fn refund() -> Verdict {
    Verdict::Release { refund: true }
}

pub fn replay(sealed: &str) -> Decision {
    Decision::Replay { sealed: sealed.into() }
}

pub fn refused_for(limit: Limit, millis: u64) -> Refused {
    Refused { limit, retry_after: Duration::from_millis(millis) }
}

pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

pub fn rate(per_second: f64) -> Rate {
    Rate::new(per_second).unwrap()
}

pub fn nonce() -> Nonce {
    static LAST: AtomicU64 = AtomicU64::new(1);
    Nonce(u128::from(LAST.fetch_add(1, Ordering::Relaxed)) << 64 | 0xfeed)
}

fn unique_prefix() -> String {
    static LAST: AtomicU64 = AtomicU64::new(1);
    format!("t{}-{}", std::process::id(), LAST.fetch_add(1, Ordering::Relaxed))
}

/// Runs every case over both stores.
macro_rules! store_contract {
    ($($case:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $case() {
                super::$case($crate::admission_store::world::World::memory().await).await;
            })+
        }
        mod redis {
            $(#[tokio::test]
            async fn $case() {
                super::$case($crate::admission_store::world::World::redis().await).await;
            })+
        }
    };
}
pub(crate) use store_contract;
