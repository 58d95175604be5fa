//! The last key set, and one refresh at a time.
//!
//! Only [`KeyCache::run`] fetches, and never a call: a caller that leaves cannot cut a fetch off.
//! The old set stays in use until a new one arrives. A call may ask for a refresh and wait for it.
//! Calls cause at most one fetch per [`Pace::asked`], and at most [`MAX_WAITING`] calls wait. A
//! flood of invented key ids before a slow endpoint can then not take the places of honest calls.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::fetch::FetchError;
use super::key_set::KeySet;
use crate::sync::lock;

/// How often the set is fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two regular refreshes.
    pub(crate) regular: Duration,
    /// Between a refresh that failed and the next.
    pub retry: Duration,
    /// Between two refreshes that calls asked for.
    pub asked: Duration,
    /// How long a call waits for a refresh.
    pub patience: Duration,
}

impl Pace {
    /// For a set that is fetched. A revoked key is out of use after `regular` if the endpoint
    /// answers. Without an answer, the old set stays in use.
    pub(crate) const URL: Self = Self {
        regular: Duration::from_secs(300),
        retry: Duration::from_secs(5),
        // An unknown key id refreshes the set once in 10 s at most: docs/design/contract.md,
        // "Identity".
        asked: Duration::from_secs(10),
        patience: Duration::from_secs(5),
    };

    /// For a set that is read from a file, as often as every other file.
    pub(crate) const FILE: Self =
        Self { regular: Duration::from_secs(2), retry: Duration::from_secs(2), ..Self::URL };
}

/// The result of a refresh. The same result twice in a row is reported once.
#[derive(Debug)]
pub(crate) enum Refreshed {
    /// A set is in use: a new one, or the old one again after failures.
    Loaded {
        /// How many keys can verify.
        keys: usize,
        /// How many keys of the set were passed over: for another use, of another kind, or too
        /// short.
        skipped: usize,
    },
    /// No set could be loaded. The old one, if any, stays in use.
    Failed(FetchError),
}

/// The last key set.
#[derive(Debug)]
pub(crate) struct KeyCache {
    current: ArcSwapOption<KeySet>,
    fetching: Mutex<Fetching>,
    asked: Notify,
    fetched: watch::Sender<()>,
    waiting: Semaphore,
    pace: Pace,
}

#[derive(Debug)]
struct Fetching {
    /// A fetch runs, or is about to begin.
    is_running: bool,
    last_asked: Option<Instant>,
}

/// The last answer of the source: the same answer is neither parsed nor reported twice.
type Seen = Option<Result<Bytes, String>>;

impl KeyCache {
    /// An empty cache whose first fetch is about to begin.
    #[must_use]
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            fetching: Mutex::new(Fetching { is_running: true, last_asked: None }),
            asked: Notify::new(),
            fetched: watch::Sender::new(()),
            waiting: Semaphore::new(MAX_WAITING),
            pace,
        }
    }

    /// The set at hand.
    #[must_use]
    pub(crate) fn current(&self) -> Option<Arc<KeySet>> {
        self.current.load_full()
    }

    /// Returns after a refresh, or at once if none is due or too many calls already wait.
    pub(crate) async fn refreshed(&self) {
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let mut fetched = self.fetched.subscribe();
        if self.ask() {
            let _ = tokio::time::timeout(self.pace.patience, fetched.changed()).await;
        }
    }

    /// Fetches the set again and again, for as long as it is polled.
    pub(crate) async fn run<F>(
        &self,
        mut fetch: impl FnMut() -> F,
        mut observe: impl FnMut(Refreshed),
    ) where
        F: Future<Output = Result<Bytes, FetchError>>,
    {
        let mut seen = None;
        loop {
            self.fetching().is_running = true;
            let fetched = fetch().await;
            let refreshed = self.take(fetched, &mut seen);
            self.fetching().is_running = false;
            self.fetched.send_replace(());
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

    /// Whether a fetch runs. Asks for one where it may.
    fn ask(&self) -> bool {
        let mut fetching = self.fetching();
        if fetching.is_running {
            return true;
        }
        let now = Instant::now();
        if fetching.last_asked.is_some_and(|last| now - last < self.pace.asked) {
            return false;
        }
        fetching.is_running = true;
        fetching.last_asked = Some(now);
        self.asked.notify_one();
        true
    }

    fn fetching(&self) -> MutexGuard<'_, Fetching> {
        lock(&self.fetching)
    }
}

/// Far below `server.max_in_flight`: the other places are left for calls that need no refresh.
pub(crate) const MAX_WAITING: usize = 64;
