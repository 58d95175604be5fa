//! Finds the master through sentinels: the first that knows it wins.

use std::sync::atomic::Ordering;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{ConnectionInfo, ErrorKind, RedisError, TlsCertificates, TlsMode};

use super::login::Login;
use super::{Dialer, Wire, tcp};
use crate::error::Cause;

/// The login at a sentinel: a user and a password, or nothing.
type Said = Option<(Option<String>, String)>;

impl Dialer {
    /// Asks all sentinels at once. If none knows the master, the error holds the errors of all.
    pub(super) async fn sentinel(
        &self,
        master: &str,
        certificates: Option<TlsCertificates>,
    ) -> Result<Wire, Cause> {
        let login = match Login::of_servers(&self.settings) {
            Some(login) => Some((login.username().map(str::to_owned), login.password().await?)),
            None => None,
        };
        let own = &self.settings.sentinel;
        let own = match Login::new(own.username.clone(), own.password_file.clone()) {
            Some(login) => Some((login.username().map(str::to_owned), login.password().await?)),
            None => None,
        };
        let asked = self.nodes.iter().enumerate();
        let mut asked: FuturesUnordered<_> = asked
            .map(|(index, node)| {
                let tries = logins(node, own.as_ref(), login.as_ref());
                self.by_one(index, master, tries, &login, &certificates)
            })
            .collect();
        let mut errors = Vec::new();
        while let Some(led) = asked.next().await {
            match led {
                Ok(wire) => return Ok(wire),
                Err(error) => errors.push(error.to_string()),
            }
        }
        errors.dedup();
        Err(errors.join("; ").into())
    }

    /// Asks one sentinel, with the login that it accepted last, or else with each.
    async fn by_one(
        &self,
        index: usize,
        master: &str,
        tries: Vec<Said>,
        login: &Said,
        certificates: &Option<TlsCertificates>,
    ) -> Result<Wire, RedisError> {
        let taken = &self.taken[index];
        let first = taken.load(Ordering::Relaxed).min(tries.len() - 1);
        let mut refused = None;
        for number in 0..tries.len() {
            let number = (first + number) % tries.len();
            match self.led(index, master, &tries[number], login, certificates).await {
                Ok(wire) => {
                    taken.store(number, Ordering::Relaxed);
                    return Ok(wire);
                }
                Err(error) if asks_for_login(&error) => {
                    // The error of the first try is the most useful: the other tries are guesses.
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused.unwrap_or_else(|| (ErrorKind::AuthenticationFailed, "no login").into()))
    }

    async fn led(
        &self,
        index: usize,
        master: &str,
        said: &Said,
        login: &Said,
        certificates: &Option<TlsCertificates>,
    ) -> Result<Wire, RedisError> {
        let sentinel = self.nodes[index].addr().clone();
        let mut builder =
            SentinelClientBuilder::new([sentinel], master, SentinelServerType::Master)?
                .set_client_to_redis_tcp_settings(tcp())
                .set_client_to_sentinel_tcp_settings(tcp());
        if let Some((username, password)) = said {
            if let Some(username) = username {
                builder = builder.set_client_to_sentinel_username(username);
            }
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let Some((username, password)) = login {
            if let Some(username) = username {
                builder = builder.set_client_to_redis_username(username);
            }
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        let mut client = builder.build()?;
        Ok(Wire::One(client.get_async_connection_with_config(&self.config()).await?))
    }
}

/// The possible logins at this sentinel. Often servers and sentinels share one password, but a
/// sentinel without a password refuses any. A sentinel may also know the password and not the user.
fn logins(
    node: &ConnectionInfo,
    own: Option<&(Option<String>, String)>,
    servers: Option<&(Option<String>, String)>,
) -> Vec<Said> {
    let url = node.redis_settings();
    if url.username().is_some() || url.password().is_some() {
        let password = url.password().unwrap_or_default().to_owned();
        return vec![Some((url.username().map(str::to_owned), password))];
    }
    if let Some(own) = own {
        return vec![Some(own.clone())];
    }
    let mut tries = vec![None];
    if let Some((username, password)) = servers {
        tries.push(Some((username.clone(), password.clone())));
        if username.is_some() && !password.is_empty() {
            tries.push(Some((None, password.clone())));
        }
    }
    tries
}

fn asks_for_login(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "NOPERM" | "WRONGPASS"))
}
