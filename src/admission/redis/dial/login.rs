//! The user and the password, read again for every connection, so that passwords can rotate.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, stream};
use redis::auth::{BasicAuth, StreamingCredentialsProvider};
use redis::{ErrorKind, RedisError, RedisResult};

use super::super::settings::{RedisSettings, Tokens};
use super::read;
use crate::error::{Cause, chain};

/// A user, and the source of its password.
#[derive(Clone)]
pub(super) struct Login {
    username: Option<String>,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    /// A user without a password. Without this, the client would stay the default user.
    None,
    File(PathBuf),
    Tokens(Arc<dyn Tokens>),
}

impl Login {
    /// The login at the servers and the nodes of a cluster; `None` if none is configured.
    pub(crate) fn of_servers(settings: &RedisSettings) -> Option<Self> {
        let username = settings.username.clone();
        match &settings.tokens {
            Some(tokens) => Some(Self { username, secret: Secret::Tokens(Arc::clone(tokens)) }),
            None => Self::new(username, settings.password_file.clone()),
        }
    }

    /// A login by a password file; `None` if neither is given.
    pub(crate) fn new(username: Option<String>, password_file: Option<PathBuf>) -> Option<Self> {
        match (&username, password_file) {
            (None, None) => None,
            (_, Some(file)) => Some(Self { username, secret: Secret::File(file) }),
            (Some(_), None) => Some(Self { username, secret: Secret::None }),
        }
    }

    pub(crate) fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    pub(crate) fn has_tokens(&self) -> bool {
        matches!(self.secret, Secret::Tokens(_))
    }

    /// The password that is valid now.
    pub(crate) async fn password(&self) -> Result<String, Cause> {
        match &self.secret {
            Secret::None => Ok(String::new()),
            Secret::File(file) => Ok(String::from_utf8(read(file).await?)?.trim().to_owned()),
            Secret::Tokens(tokens) => tokens.token().await,
        }
    }

    async fn auth(&self) -> RedisResult<BasicAuth> {
        let username = self.username.clone().unwrap_or_else(|| DEFAULT_USER.to_owned());
        match self.password().await {
            Ok(password) => Ok(BasicAuth::new(username, password)),
            Err(error) => Err(RedisError::from((
                ErrorKind::AuthenticationFailed,
                "no password",
                chain(error.as_ref()),
            ))),
        }
    }

    /// Waits until a connection should authenticate again; for ever if the password does not end.
    async fn wait(&self, was_good: bool) {
        match (&self.secret, was_good) {
            (Secret::None | Secret::File(_), _) => std::future::pending().await,
            (Secret::Tokens(_), true) => tokio::time::sleep(AUTHENTICATE_AGAIN).await,
            (Secret::Tokens(_), false) => tokio::time::sleep(TRY_AGAIN).await,
        }
    }
}

impl StreamingCredentialsProvider for Login {
    fn subscribe(&self) -> Pin<Box<dyn Stream<Item = RedisResult<BasicAuth>> + Send + 'static>> {
        let start = (self.clone(), None);
        Box::pin(stream::unfold(start, async |(login, last)| {
            if let Some(was_good) = last {
                login.wait(was_good).await;
            }
            let auth = login.auth().await;
            let was_good = auth.is_ok();
            Some((auth, (login, Some(was_good))))
        }))
    }
}

/// The user of `AUTH password`.
const DEFAULT_USER: &str = "default";

/// ElastiCache and MemoryDB end a connection 12 h after its last IAM authentication (ElastiCache
/// User Guide, "Authenticating with IAM", Limitations). One hour is left for further tries.
const AUTHENTICATE_AGAIN: Duration = Duration::from_secs(11 * 60 * 60);

/// The pause after a token could not be made.
const TRY_AGAIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use futures_util::StreamExt;
    use tokio::time::Instant;

    use super::*;

    /// The second token cannot be made.
    #[derive(Default)]
    struct Numbered(AtomicUsize);

    #[async_trait]
    impl Tokens for Numbered {
        async fn token(&self) -> Result<String, Cause> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                1 => Err("no credentials".into()),
                number => Ok(format!("token-{number}")),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_tokens_a_connection_authenticates_again_before_its_twelve_hours_end() {
        let secret = Secret::Tokens(Arc::new(Numbered::default()));
        let login = Login { username: Some("gateway".into()), secret };
        let (mut stream, started) = (login.subscribe(), Instant::now());
        let first = stream.next().await.unwrap().unwrap();
        assert_eq!((first.username(), first.password()), ("gateway", "token-0"));
        assert_eq!(started.elapsed(), Duration::ZERO);
        stream.next().await.unwrap().unwrap_err();
        let third = stream.next().await.unwrap().unwrap();
        assert_eq!(third.password(), "token-2");
        let hours = started.elapsed().as_secs_f64() / 3600.0;
        assert!((10.0..12.0).contains(&hours), "{hours} h");
    }

    #[tokio::test]
    async fn a_password_is_read_anew_for_each_connection_and_never_ends() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        let login = Login::new(None, Some(file.clone())).unwrap();
        for password in ["old", "new"] {
            std::fs::write(&file, format!("{password}\n")).unwrap();
            let mut stream = login.subscribe();
            let auth = stream.next().await.unwrap().unwrap();
            assert_eq!((auth.username(), auth.password()), ("default", password));
            let again = tokio::time::timeout(Duration::from_millis(20), stream.next()).await;
            assert!(again.is_err(), "it authenticates again");
        }
    }
}
