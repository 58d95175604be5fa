//! The gateway's own credentials, loaded outside the calls that need them.
//!
//! The SDK's cache loads inside the call that finds it empty. The timeout of the attempt then ends
//! the load, and credentials that load slowly never arrive. The SDK also stops using credentials
//! shortly before their end. Here the load is a task of its own. All calls wait for the same load,
//! and credentials that are still valid serve meanwhile.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::sync::lock;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// A provider that caches its credentials while they are valid.
#[derive(Debug, Clone)]
pub(crate) struct Kept(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    provider: SharedCredentialsProvider,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Valid>,
    loading: Option<watch::Receiver<Option<Loaded>>>,
    failing: Option<Failing>,
}

#[derive(Debug, Clone)]
struct Valid {
    credentials: Credentials,
    /// When they are loaded again.
    renew: SystemTime,
    /// `None` if the credentials have no end.
    end: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialsState {
    /// The next call loads them.
    NotLoaded,
    /// They are valid.
    Valid {
        /// When they end; `None` if they have no end.
        end: Option<SystemTime>,
        /// Their successors could not be loaded.
        is_failing: bool,
    },
    /// The last load failed, or takes longer than its callers waited.
    Failing,
}

/// The last load failed, or takes longer than its callers waited.
#[derive(Debug)]
struct Failing {
    error: Arc<CredentialsError>,
    /// When the next load may begin.
    again: Instant,
    /// The pause before it.
    pause: Duration,
}

/// All waiting calls share the error, because the SDK's own error cannot be cloned.
type Loaded = Result<Credentials, Arc<CredentialsError>>;

impl Kept {
    /// Caches the credentials of this provider. The first call loads them. That call must run
    /// inside a tokio runtime.
    pub(crate) fn new(provider: SharedCredentialsProvider) -> Self {
        Self(Arc::new(Inner { provider, state: Mutex::default() }))
    }

    /// What there is of them.
    pub(crate) fn state(&self) -> CredentialsState {
        let (now, state) = (SystemTime::now(), lock(&self.0.state));
        let is_failing = state.failing.is_some();
        match state.current.as_ref().filter(|valid| valid.serves(now)) {
            Some(Valid { end, .. }) => CredentialsState::Valid { end: *end, is_failing },
            None if is_failing => CredentialsState::Failing,
            None => CredentialsState::NotLoaded,
        }
    }

    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let mut loading = {
            let (now, mut state) = (SystemTime::now(), lock(&self.0.state));
            let is_due =
                state.failing.as_ref().is_none_or(|failing| failing.again <= Instant::now());
            if let Some(valid) = state.current.clone().filter(|valid| valid.serves(now)) {
                if now >= valid.renew && is_due {
                    self.load(&mut state);
                }
                return Ok(valid.credentials);
            }
            match &state.failing {
                // If a caller has waited in vain for a load, no other call waits for it.
                Some(failing) if state.loading.is_some() || !is_due => {
                    return Err(again(Arc::clone(&failing.error)));
                }
                _ => self.load(&mut state),
            }
        };
        let waiting = Waiting { kept: self, heard: false };
        let loaded = loading.wait_for(Option::is_some).await.map(|loaded| loaded.clone());
        waiting.hears();
        match loaded {
            Ok(Some(Ok(credentials))) => Ok(credentials),
            Ok(Some(Err(error))) => Err(again(error)),
            Ok(None) | Err(_) => Err(CredentialsError::provider_error("loading broke off")),
        }
    }

    /// Joins the load that runs, or begins one. The load does not depend on its callers.
    fn load(&self, state: &mut State) -> watch::Receiver<Option<Loaded>> {
        if let Some(loading) =
            state.loading.as_ref().filter(|loading| loading.has_changed().is_ok())
        {
            return loading.clone();
        }
        let (tell, loading) = watch::channel(None);
        state.loading = Some(loading.clone());
        let inner = Arc::clone(&self.0);
        let load = async move {
            let started = Instant::now();
            tracing::debug!("loading credentials");
            let loaded = timeout(LOAD_TIMEOUT, inner.provider.provide_credentials()).await;
            let loaded =
                loaded.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(LOAD_TIMEOUT)));
            let loaded = loaded.map_err(Arc::new);
            let mut state = lock(&inner.state);
            state.loading = None;
            match &loaded {
                Ok(credentials) => {
                    state.failing = None;
                    let end =
                        credentials.expiry().and_then(|end| jiff::Timestamp::try_from(end).ok());
                    let end = end.map(tracing::field::display);
                    let duration = started.elapsed().as_secs_f64();
                    tracing::debug!(end, duration, "credentials loaded");
                    state.current = Some(Valid::new(credentials.clone(), SystemTime::now()));
                }
                Err(error) => {
                    tracing::warn!(
                        error = error as &dyn std::error::Error,
                        "credentials not loaded"
                    );
                    state.fail(Arc::clone(error));
                }
            }
            drop(state);
            let _ = tell.send(Some(loaded));
        };
        tokio::spawn(load.in_current_span());
        loading
    }
}

impl Valid {
    fn new(credentials: Credentials, now: SystemTime) -> Self {
        let end = credentials.expiry();
        let renew = end.map_or(now + WITHOUT_END, |end| end - AHEAD);
        Self { credentials, renew, end }
    }

    /// They serve until their end. AWS answers credentials that end on the way as expired, and the
    /// call sends again.
    fn serves(&self, now: SystemTime) -> bool {
        self.end.is_none_or(|end| now < end)
    }
}

impl State {
    /// The pause doubles from failure to failure.
    fn fail(&mut self, error: Arc<CredentialsError>) {
        let pause = match &self.failing {
            // A load that was too slow for a caller has ended now.
            Some(failing) => (failing.pause * 2).min(LONGEST_PAUSE),
            None => SHORTEST_PAUSE,
        };
        self.failing = Some(Failing { error, again: Instant::now() + pause, pause });
    }
}

/// Notes that a caller left before the load ended. No other call then waits for this load.
struct Waiting<'a> {
    kept: &'a Kept,
    heard: bool,
}

impl Waiting<'_> {
    fn hears(mut self) {
        self.heard = true;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.heard {
            return;
        }
        let mut state = lock(&self.kept.0.state);
        if state.loading.is_some() && state.failing.is_none() {
            let error = CredentialsError::provider_error("loading takes longer than a call waits");
            state.failing = Some(Failing {
                error: Arc::new(error),
                again: Instant::now(),
                pause: SHORTEST_PAUSE / 2,
            });
        }
    }
}

impl ProvideCredentials for Kept {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

/// A copy of the error, of the same kind as far as callers need it: no credentials exist, or they
/// cannot be loaded.
fn again(error: Arc<CredentialsError>) -> CredentialsError {
    match *error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsError::not_loaded(error),
        CredentialsError::InvalidConfiguration(_) => CredentialsError::invalid_configuration(error),
        _ => CredentialsError::provider_error(error),
    }
}

/// Credentials are loaded again this long before their end. AWS rotates its own at least this
/// early.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// Credentials without an end are loaded again after this time, as in the SDK.
const WITHOUT_END: Duration = Duration::from_secs(15 * 60);

/// The pause between a failed load and the next; it doubles with each failure.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The most time for one load. A provider that hangs is given up, and the next load may succeed.
const LOAD_TIMEOUT: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out one answer after another, each after a while.
    #[derive(Debug, Clone)]
    struct Scripted {
        takes: Duration,
        /// How long each is valid from its load; the last goes on.
        lives: Arc<Mutex<Vec<Option<Duration>>>>,
        loads: Arc<Mutex<u32>>,
    }

    impl Scripted {
        fn kept(takes: Duration, lives: &[Option<Duration>]) -> (Self, Kept) {
            let lives = Arc::new(Mutex::new(lives.to_vec()));
            let this = Self { takes, lives, loads: Arc::default() };
            (this.clone(), Kept::new(SharedCredentialsProvider::new(this)))
        }

        fn loads(&self) -> u32 {
            *lock(&self.loads)
        }
    }

    impl ProvideCredentials for Scripted {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                *lock(&self.loads) += 1;
                tokio::time::sleep(self.takes).await;
                let mut lives = lock(&self.lives);
                let life = if lives.len() > 1 { lives.remove(0) } else { lives[0] };
                let life = life.ok_or_else(|| CredentialsError::provider_error("refused"))?;
                Ok(Credentials::new("id", "secret", None, Some(SystemTime::now() + life), "test"))
            })
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_load_that_takes_longer_than_its_caller_waits_is_waited_for_once() {
        let (provider, kept) = Scripted::kept(Duration::from_secs(4), &[Some(HOUR)]);
        timeout(Duration::from_secs(3), kept.provide_credentials()).await.unwrap_err();
        let started = Instant::now();
        let error = kept.provide_credentials().await.unwrap_err();
        assert!(matches!(error, CredentialsError::ProviderError(_)), "{error:?}");
        assert_eq!(started.elapsed(), Duration::ZERO, "it was waited for again");
        tokio::time::sleep(Duration::from_secs(2)).await;
        kept.provide_credentials().await.unwrap();
        assert_eq!(provider.loads(), 1, "the load began anew");
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_need_credentials_wait_for_one_load() {
        let (provider, kept) = Scripted::kept(Duration::from_secs(1), &[Some(HOUR)]);
        let (one, other) = tokio::join!(kept.provide_credentials(), kept.provide_credentials());
        assert_eq!((one.is_ok(), other.is_ok(), provider.loads()), (true, true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_still_valid_serves_while_its_successor_hangs_or_fails() {
        let (provider, kept) = Scripted::kept(Duration::from_secs(15), &[Some(AHEAD / 2), None]);
        kept.provide_credentials().await.unwrap();
        for _ in 0..30 {
            let started = Instant::now();
            kept.provide_credentials().await.unwrap();
            assert_eq!(started.elapsed(), Duration::ZERO);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(provider.loads(), 3, "the first, one that failed, and one under way");
    }

    #[tokio::test]
    async fn what_has_ended_is_never_handed_out_and_what_is_about_to_end_is() {
        let soon = Duration::from_millis(300);
        let (_, kept) = Scripted::kept(Duration::ZERO, &[Some(soon), None]);
        kept.provide_credentials().await.unwrap();
        kept.provide_credentials().await.unwrap();
        tokio::time::sleep(soon).await;
        let error = kept.provide_credentials().await.unwrap_err();
        assert!(matches!(error, CredentialsError::ProviderError(_)), "{error:?}");
    }

    /// A silent metadata service: of five calls one after another, one waits.
    #[tokio::test(start_paused = true)]
    async fn a_load_that_fails_is_tried_again_after_one_second_to_thirty() {
        let (provider, kept) = Scripted::kept(Duration::from_secs(1), &[None]);
        let started = Instant::now();
        for _ in 0..5 {
            kept.provide_credentials().await.unwrap_err();
        }
        assert_eq!((provider.loads(), started.elapsed()), (1, Duration::from_secs(1)));
        let mut tries = Vec::new();
        while tries.len() < 7 {
            let (before, loads) = (Instant::now(), provider.loads());
            kept.provide_credentials().await.unwrap_err();
            if provider.loads() > loads {
                tries.push(before.duration_since(started).as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let pauses: Vec<_> = tries.windows(2).map(|two| two[1] - two[0] - 1).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30], "{tries:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_is_given_up_and_tried_again() {
        let (provider, kept) = Scripted::kept(HOUR, &[Some(HOUR)]);
        for loads in 1..=2 {
            let error = kept.provide_credentials().await.unwrap_err();
            assert!(matches!(error, CredentialsError::ProviderError(_)), "{error:?}");
            assert_eq!(provider.loads(), loads);
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }
}
