//! Bearer tokens: `authorization: Bearer …`, one JSON Web Token, signed by a key of the configured
//! set.
//!
//! Calls are judged against the keys at hand; nothing here waits for the network but a call whose
//! token names a key that the set does not have. Such a call waits for the one refresh on its way,
//! where there may be one ([`KeyCache`] says when); the rest of them are refused at once.

mod cache;
mod fetch;
mod key_set;
mod token;

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config;
use crate::domain::Tenant;
use crate::error::Error;

pub use cache::{KeyCache, Pace, Refreshed};
pub use fetch::{FetchError, Fetcher};
pub use key_set::{KeySet, KeySetError};
pub use token::{Refusal, Rules};

/// Finds the tenant behind a bearer token.
#[derive(Debug)]
pub struct Jwt {
    rules: Rules,
    keys: KeyCache,
    fetcher: Fetcher,
}

impl Jwt {
    /// Judges by these settings. The key set is empty until [`Jwt::run`] has loaded it.
    ///
    /// # Errors
    /// As [`Fetcher::new`].
    pub fn new(settings: &config::Jwt) -> Result<Self, rustls::Error> {
        let pace = match &settings.keys {
            config::KeySource::Url(_) => Pace::URL,
            config::KeySource::File(_) => Pace::FILE,
        };
        Self::with_pace(settings, pace)
    }

    /// The same at another pace.
    ///
    /// # Errors
    /// As [`Fetcher::new`].
    pub fn with_pace(settings: &config::Jwt, pace: Pace) -> Result<Self, rustls::Error> {
        Ok(Self {
            rules: Rules::new(settings),
            keys: KeyCache::new(pace),
            fetcher: Fetcher::new(&settings.keys)?,
        })
    }

    /// Loads the key set and keeps it current, for as long as it is polled; tells `observe` of
    /// every change.
    pub async fn run(&self, observe: impl FnMut(Refreshed)) {
        self.keys.run(|| self.fetcher.fetch(), observe).await;
    }

    /// The tenant behind a call with these headers. `find` maps a subject, exactly, to its tenant.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without exactly one good token, [`Error::TenantUnknown`] where
    /// its subject is nobody's.
    pub async fn tenant(
        &self,
        headers: &HeaderMap,
        find: impl Fn(&str) -> Option<Arc<Tenant>>,
    ) -> Result<Arc<Tenant>, Error> {
        self.tenant_at(headers, SystemTime::now(), find).await
    }

    /// The same at a given time.
    ///
    /// # Errors
    /// As [`Jwt::tenant`].
    pub async fn tenant_at(
        &self,
        headers: &HeaderMap,
        now: SystemTime,
        find: impl Fn(&str) -> Option<Arc<Tenant>>,
    ) -> Result<Arc<Tenant>, Error> {
        let subject = self.subject(bearer(headers)?, now).await?;
        find(&subject).ok_or(Error::TenantUnknown("the token's subject is no tenant's"))
    }

    async fn subject(&self, token: &str, now: SystemTime) -> Result<String, Error> {
        let keys = self.keys.current();
        let refused = match self.rules.subject(token, keys.as_deref(), now) {
            Ok(subject) => return Ok(subject),
            Err(Refusal::Final(reason)) => return Err(Error::Unauthenticated(reason)),
            Err(Refusal::UnknownKey(reason)) => reason,
        };
        self.keys.refreshed().await;
        let newer = self.keys.current();
        if newer.as_ref().map(Arc::as_ptr) == keys.as_ref().map(Arc::as_ptr) {
            return Err(Error::Unauthenticated(refused));
        }
        self.rules
            .subject(token, newer.as_deref(), now)
            .map_err(|refusal| Error::Unauthenticated(refusal.reason()))
    }
}

/// The token of exactly one `authorization: Bearer …` (RFC 6750, section 2.1; the scheme in any
/// case).
///
/// # Errors
/// [`Error::Unauthenticated`] where there is none, or another.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Error::Unauthenticated("no authorization header"))?;
    if values.next().is_some() {
        return Err(Error::Unauthenticated("more than one authorization header"));
    }
    let value = value
        .to_str()
        .map_err(|_| Error::Unauthenticated("the authorization header is not ASCII"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Error::Unauthenticated("the authorization is no bearer token"));
    }
    match token.trim_matches(' ') {
        "" => Err(Error::Unauthenticated("an empty bearer token")),
        token => Ok(token),
    }
}

#[cfg(test)]
mod tests;
