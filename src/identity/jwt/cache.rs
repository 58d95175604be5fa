//! The key set as it was last had, and one refresh at a time.
//!
//! All fetching is done by [`KeyCache::run`], never by a call, so that no caller's leaving can cut
//! a fetch off. The old set stays while a new one cannot be had. A call may ask for a refresh, and
//! wait for it: at most once per [`Pace::asked`] a fetch is made for that, and at most
//! [`MAX_WAITING`] calls wait, so that a flood of made-up key ids with a slow endpoint behind it
//! cannot use up the places of honest calls.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::fetch::FetchError;
use super::key_set::KeySet;
use crate::sync::lock;

/// How often the set is had anew.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between refreshes that nobody asked for.
    pub regular: Duration,
    /// After one that failed.
    pub retry: Duration,
    /// Between two that calls asked for.
    pub asked: Duration,
    /// How long a call waits for one.
    pub patience: Duration,
}

impl Pace {
    /// For a set that is fetched. A revoked key is out of use after `regular`, where the endpoint
    /// answers; the old set stays for as long as it does not.
    pub const URL: Self = Self {
        regular: Duration::from_secs(300),
        retry: Duration::from_secs(5),
        // An unknown key id refreshes the set once in 10 s at most: docs/design/contract.md,
        // "Identity".
        asked: Duration::from_secs(10),
        patience: Duration::from_secs(5),
    };

    /// For a set that is read: looked at like every other file.
    pub const FILE: Self =
        Self { regular: Duration::from_secs(2), retry: Duration::from_secs(2), ..Self::URL };
}

/// What came of a refresh. The same outcome twice in a row is told once.
#[derive(Debug)]
pub enum Refreshed {
    /// A set is in use: a new one, or again the old one after failures.
    Loaded {
        /// How many keys can verify.
        keys: usize,
        /// How many of the set's keys were passed over: other uses, other kinds, too short.
        skipped: usize,
    },
    /// None could be had; the old one, if any, stays in use.
    Failed(FetchError),
}

/// The key set as it was last had.
#[derive(Debug)]
pub struct KeyCache {
    current: ArcSwapOption<KeySet>,
    flight: Mutex<Flight>,
    asked: Notify,
    landed: watch::Sender<()>,
    waiting: Semaphore,
    pace: Pace,
}

#[derive(Debug)]
struct Flight {
    /// A fetch is under way, or about to be.
    is_up: bool,
    last_asked: Option<Instant>,
}

/// What the source last said, as far as it matters: the same is neither parsed nor told twice.
type Seen = Option<Result<Bytes, String>>;

impl KeyCache {
    /// An empty cache, whose first fetch is about to be made.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            flight: Mutex::new(Flight { is_up: true, last_asked: None }),
            asked: Notify::new(),
            landed: watch::Sender::new(()),
            waiting: Semaphore::new(MAX_WAITING),
            pace,
        }
    }

    /// The set at hand.
    #[must_use]
    pub fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Returns once a refresh has ended, or at once where none is due or too many wait already.
    pub async fn refreshed(&self) {
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let mut landed = self.landed.subscribe();
        if self.ask() {
            let _ = tokio::time::timeout(self.pace.patience, landed.changed()).await;
        }
    }

    /// Fetches, and fetches again, for as long as it is polled.
    pub async fn run<F>(&self, mut fetch: impl FnMut() -> F, mut observe: impl FnMut(Refreshed))
    where
        F: Future<Output = Result<Bytes, FetchError>>,
    {
        let mut seen = None;
        loop {
            self.flight().is_up = true;
            let fetched = fetch().await;
            let refreshed = self.take(fetched, &mut seen);
            self.flight().is_up = false;
            self.landed.send_replace(());
            if let Some(refreshed) = refreshed {
                observe(refreshed);
            }
            let pause =
                if matches!(seen, Some(Ok(_))) { self.pace.regular } else { self.pace.retry };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.asked.notified() => {}
            }
        }
    }

    fn take(&self, fetched: Result<Bytes, FetchError>, seen: &mut Seen) -> Option<Refreshed> {
        if let (Ok(text), Some(Ok(old))) = (&fetched, &*seen)
            && text == old
        {
            return None;
        }
        let parsed = fetched
            .and_then(|text| KeySet::parse(&text).map(|set| (text, set)).map_err(FetchError::from));
        match parsed {
            Ok((text, set)) => {
                let refreshed = Refreshed::Loaded { keys: set.len(), skipped: set.skipped() };
                self.current.store(Some(Arc::new(set)));
                *seen = Some(Ok(text));
                Some(refreshed)
            }
            Err(error) => {
                let outcome = Some(Err(error.to_string()));
                let is_new = *seen != outcome;
                *seen = outcome;
                is_new.then_some(Refreshed::Failed(error))
            }
        }
    }

    /// Whether a fetch is under way, or is now.
    fn ask(&self) -> bool {
        let mut flight = self.flight();
        if flight.is_up {
            return true;
        }
        let now = Instant::now();
        if flight.last_asked.is_some_and(|last| now - last < self.pace.asked) {
            return false;
        }
        flight.is_up = true;
        flight.last_asked = Some(now);
        self.asked.notify_one();
        true
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        lock(&self.flight)
    }
}

/// Far below `server.max_in_flight`: the rest is left for calls that need no refresh.
pub const MAX_WAITING: usize = 64;
