//! Tests with a scripted primary under paused time.

mod holding;
mod looking;
mod losing;
mod settling;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::admission::{Moment, Nonce, Quota, ServerWord, Verdict};
use crate::domain::{Enforcement, Name, Rate, TenantLimits};
use crate::sync::lock;

/// How the scripted store behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Up,
    Refuses(ServerWord),
    /// Reports that it moves a slot.
    Moves,
    Hangs,
    /// Applies the timeout itself.
    GivesUp,
    /// Answers probes and looks, and refuses everything else.
    ReadOnly,
    /// Panics in probes and refuses everything else.
    Panics,
}

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Admit(Stage, Option<Moment>, Scope),
    Settle(Nonce, Option<Moment>),
    Exists,
    Quota,
    Probe,
}

struct Scripted {
    mood: Mutex<Mood>,
    seen: Mutex<Vec<Seen>>,
    /// Operations other than probes, answered or not.
    asked: AtomicU64,
    at: Moment,
}

impl Scripted {
    fn new(mood: Mood, at: f64) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(mood),
            seen: Mutex::default(),
            asked: AtomicU64::new(0),
            at: Moment(at),
        })
    }

    fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }

    fn turns(&self, mood: Mood) {
        *lock(&self.mood) = mood;
    }

    fn seen(&self) -> Vec<Seen> {
        lock(&self.seen).iter().filter(|seen| **seen != Seen::Probe).cloned().collect()
    }

    fn settled(&self) -> usize {
        self.seen().iter().filter(|seen| matches!(seen, Seen::Settle(..))).count()
    }

    async fn meets(&self, seen: Seen) -> Result<(), StoreError> {
        let probe = seen == Seen::Probe;
        let reads = probe || seen == Seen::Exists;
        if !probe {
            self.asked.fetch_add(1, Relaxed);
        }
        let mood = *lock(&self.mood);
        match mood {
            Mood::Up => {}
            Mood::ReadOnly if reads => {}
            Mood::Panics if probe => panic!("on purpose"),
            Mood::Hangs => std::future::pending().await,
            Mood::GivesUp => {
                sleep(TIMEOUT).await;
                return Err(StoreError::TimedOut);
            }
            Mood::Refuses(word) => return Err(refusal(word)),
            Mood::Moves => return Err(StoreError::Moving),
            Mood::ReadOnly | Mood::Panics => {
                return Err(refusal(ServerWord::ReadOnly));
            }
        }
        lock(&self.seen).push(seen);
        Ok(())
    }
}

impl Store for Scripted {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        self.meets(Seen::Admit(ask.stage, ask.throttled, ask.scope.clone())).await?;
        let decision = Decision::Granted {
            at: self.at,
            upstream_token: None,
            takeover: false,
            distrusted: false,
        };
        Ok(Answer { decision, shadowed: None, quota: quota() })
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        self.meets(Seen::Settle(settlement.nonce, settlement.throttled)).await?;
        Ok(Settled::Closed)
    }

    async fn has_record(&self, _: &Scope, _: &str) -> Result<bool, StoreError> {
        self.meets(Seen::Exists).await.map(|()| false)
    }

    async fn levels_of(&self, _: &Scope) -> Result<StoreLevels, StoreError> {
        self.meets(Seen::Quota).await?;
        Ok(StoreLevels { quota: quota(), tenant: 1.0, share: 0.0, budget: 1.0, queued: 0 })
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.meets(Seen::Probe).await
    }
}

fn refusal(word: ServerWord) -> StoreError {
    StoreError::Server { word, source: Arc::new(std::io::Error::other("in more words")) }
}

/// A guarded store over a scripted primary, with every local store it made.
struct Bench {
    primary: Arc<Scripted>,
    locals: Arc<Mutex<Vec<Arc<Scripted>>>>,
    store: Guarded<Arc<Scripted>, Scripted>,
}

impl Bench {
    async fn local(mood: Mood) -> Self {
        let locals: Arc<Mutex<Vec<Arc<Scripted>>>> = Arc::default();
        let made = Arc::clone(&locals);
        let fresh: Fresh<Scripted> = Box::new(move || {
            let store = Scripted::new(Mood::Up, 7.0);
            lock(&made).push(Arc::clone(&store));
            store
        });
        let replicas = NonZeroU32::new(3).unwrap();
        Self::over(mood, OnLoss::Local { replicas, fresh }, locals).await
    }

    async fn reject(mood: Mood) -> Self {
        Self::over(mood, OnLoss::Reject, Arc::default()).await
    }

    async fn over(
        mood: Mood,
        on_loss: OnLoss<Scripted>,
        locals: Arc<Mutex<Vec<Arc<Scripted>>>>,
    ) -> Self {
        let primary = Scripted::new(mood, 1000.0);
        let store = Guarded::start(Arc::clone(&primary), TIMEOUT, on_loss).await;
        Self { primary, locals, store }
    }

    /// Loses the primary, and waits until the loss is noticed.
    async fn lost(self, mood: Mood) -> Self {
        self.primary.turns(mood);
        for nonce in 900..903 {
            let _whatever = self.store.admit(&ask(nonce)).await;
        }
        assert!(self.store.health().degraded());
        self
    }

    async fn admits(&self, nonce: u128) -> Moment {
        granted(&self.store.admit(&ask(nonce)).await.unwrap())
    }

    fn locals(&self) -> usize {
        lock(&self.locals).len()
    }

    fn last_local(&self) -> Arc<Scripted> {
        Arc::clone(lock(&self.locals).last().unwrap())
    }
}

fn granted(answer: &Answer) -> Moment {
    match answer.decision {
        Decision::Granted { at, .. } => at,
        ref other => panic!("{other:?}"),
    }
}

fn quota() -> Quota {
    Quota { remaining: 1, until_full: Duration::ZERO, in_flight: 0, factor: 1.0 }
}

fn scope() -> Scope {
    let rate = |per_second| Rate::new(per_second).unwrap();
    Scope {
        tenant: Name::parse("acme").unwrap(),
        limits: TenantLimits {
            rate: rate(20.0),
            burst: 40,
            committed: rate(2.0),
            max_in_flight: 2,
            enforcement: Enforcement::Shadow,
        },
        upstream: Name::parse("main").unwrap(),
        rate: rate(2.0),
        burst: 5,
        committed_burst: 2,
    }
}

fn ask(nonce: u128) -> Ask {
    Ask {
        scope: scope(),
        nonce: Nonce(nonce),
        record: None,
        lease: LEASE,
        wait: Duration::ZERO,
        patience: Duration::from_secs(1),
        typical: Duration::ZERO,
        stage: Stage::Call,
        throttled: None,
    }
}

fn attempt(nonce: u128, throttled: Option<Moment>) -> Ask {
    Ask { stage: Stage::Attempt { uncertain: true }, throttled, ..ask(nonce) }
}

fn settlement(nonce: u128) -> Settlement {
    Settlement {
        scope: scope(),
        nonce: Nonce(nonce),
        record: None,
        verdict: Verdict::Uncertain,
        throttled: None,
    }
}

const TIMEOUT: Duration = Duration::from_millis(250);

/// The time that a store costs if it does not apply the timeout itself.
const CUT_OFF: Duration = Duration::from_millis(300);
const LEASE: Duration = Duration::from_secs(10);
const PRIMARY: Moment = Moment(1000.0);
const LOCAL: Moment = Moment(7.0);
