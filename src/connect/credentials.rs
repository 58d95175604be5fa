//! The gateway's own credentials, loaded beside the calls that need them.
//!
//! The SDK's cache loads inside the call that finds it empty. An attempt's timeout then cuts the
//! load off, and where loading takes longer than an attempt, no attempt ever has credentials; and
//! what is about to end is not used while its successor is on the way. Here loading goes on by
//! itself: whoever needs it waits for it, once, together, and what is still valid serves meanwhile.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use crate::sync::lock;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// A provider whose credentials are kept while they are valid.
#[derive(Debug, Clone)]
pub struct Kept(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    provider: SharedCredentialsProvider,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Valid>,
    loading: Option<watch::Receiver<Option<Loaded>>>,
    /// When the last load began.
    tried: Option<Instant>,
}

#[derive(Debug, Clone)]
struct Valid {
    credentials: Credentials,
    until: SystemTime,
}

/// Shared by all who wait; the SDK's own error cannot be cloned.
type Loaded = Result<Credentials, Arc<CredentialsError>>;

impl Kept {
    /// Keeps what this provider hands out. Loads when it is first asked; must be asked inside a
    /// tokio runtime.
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self(Arc::new(Inner { provider, state: Mutex::default() }))
    }

    async fn credentials(&self) -> Result<Credentials, CredentialsError> {
        let now = SystemTime::now();
        let mut loading = {
            let mut state = self.0.state();
            let valid = state.current.clone().filter(|valid| now + SKEW < valid.until);
            match valid {
                Some(Valid { credentials, until }) => {
                    if now + AHEAD >= until
                        && state.tried.is_none_or(|tried| tried.elapsed() >= RETRY)
                    {
                        self.load(&mut state);
                    }
                    return Ok(credentials);
                }
                None => self.load(&mut state),
            }
        };
        match loading.wait_for(Option::is_some).await.map(|loaded| loaded.clone()) {
            Ok(Some(Ok(credentials))) => Ok(credentials),
            Ok(Some(Err(error))) => Err(again(error)),
            Ok(None) | Err(_) => Err(CredentialsError::provider_error("loading broke off")),
        }
    }

    /// Joins the load under way, or begins one, which goes on by itself.
    fn load(&self, state: &mut State) -> watch::Receiver<Option<Loaded>> {
        if let Some(loading) =
            state.loading.as_ref().filter(|loading| loading.has_changed().is_ok())
        {
            return loading.clone();
        }
        let (tell, loading) = watch::channel(None);
        state.loading = Some(loading.clone());
        state.tried = Some(Instant::now());
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let loaded = timeout(LOAD_TIMEOUT, inner.provider.provide_credentials()).await;
            let loaded =
                loaded.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(LOAD_TIMEOUT)));
            let mut state = inner.state();
            match &loaded {
                Ok(credentials) => {
                    let until =
                        credentials.expiry().unwrap_or_else(|| SystemTime::now() + WITHOUT_END);
                    state.current = Some(Valid { credentials: credentials.clone(), until });
                }
                Err(error) => tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "credentials not loaded"
                ),
            }
            state.loading = None;
            drop(state);
            let _ = tell.send(Some(loaded.map_err(Arc::new)));
        });
        loading
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
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

/// The error once more, of the same kind as far as that matters: whether there are none, or they
/// cannot be had.
fn again(error: Arc<CredentialsError>) -> CredentialsError {
    match *error {
        CredentialsError::CredentialsNotLoaded(_) => CredentialsError::not_loaded(error),
        CredentialsError::InvalidConfiguration(_) => CredentialsError::invalid_configuration(error),
        _ => CredentialsError::provider_error(error),
    }
}

/// Before their end, credentials are loaded anew: AWS's own rotate at least this long before.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// What says nothing of its end is loaded anew after this time, as the SDK does.
const WITHOUT_END: Duration = Duration::from_secs(15 * 60);

/// What ends this soon may have ended when Connect looks.
const SKEW: Duration = Duration::from_secs(10);

/// Between two tries to replace what still serves.
const RETRY: Duration = Duration::from_secs(10);

/// For one load: a provider that hangs is given up, so that the next try may find it well.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

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
    async fn a_load_that_takes_longer_than_its_caller_waits_serves_the_next_one() {
        let (provider, kept) = Scripted::kept(Duration::from_secs(4), &[Some(HOUR)]);
        timeout(Duration::from_secs(3), kept.provide_credentials()).await.unwrap_err();
        let started = Instant::now();
        kept.provide_credentials().await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(1), "the load began anew");
        kept.provide_credentials().await.unwrap();
        assert_eq!(provider.loads(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_need_credentials_wait_for_one_load() {
        let (provider, kept) = Scripted::kept(Duration::from_secs(1), &[Some(HOUR)]);
        let (one, other) = tokio::join!(kept.provide_credentials(), kept.provide_credentials());
        assert_eq!((one.is_ok(), other.is_ok(), provider.loads()), (true, true, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_still_valid_serves_while_its_successor_hangs_or_fails() {
        let (provider, kept) = Scripted::kept(Duration::from_secs(20), &[Some(AHEAD / 2), None]);
        kept.provide_credentials().await.unwrap();
        for _ in 0..30 {
            let started = Instant::now();
            kept.provide_credentials().await.unwrap();
            assert_eq!(started.elapsed(), Duration::ZERO);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(provider.loads(), 3, "the first, one that failed, and one under way");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_is_never_handed_out_and_a_failure_keeps_its_kind() {
        let (_, kept) = Scripted::kept(Duration::ZERO, &[Some(SKEW / 2), None]);
        kept.provide_credentials().await.unwrap();
        let error = kept.provide_credentials().await.unwrap_err();
        assert!(matches!(error, CredentialsError::ProviderError(_)), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_hangs_is_given_up_and_tried_again() {
        let (provider, kept) = Scripted::kept(HOUR, &[Some(HOUR)]);
        for loads in 1..=2 {
            let error = kept.provide_credentials().await.unwrap_err();
            assert!(matches!(error, CredentialsError::ProviderError(_)), "{error:?}");
            assert_eq!(provider.loads(), loads);
        }
    }
}
