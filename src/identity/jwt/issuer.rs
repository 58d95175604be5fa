//! One issuer of tokens: its rules, and its own keys.

use std::sync::Arc;
use std::time::SystemTime;

use super::cache::{KeyCache, Pace, Refreshed};
use super::source::Fetcher;
use super::token::{NotTaken, Rules, Token};
use crate::config::{self, KeySource};
use crate::egress::Egress;
use crate::error::Refusal;

/// One issuer of tokens.
#[derive(Debug)]
pub(crate) struct Issuer {
    name: Option<String>,
    rules: Rules,
    keys: KeyCache,
    fetcher: Fetcher,
}

impl Issuer {
    /// The issuer of this entry. Its key set is empty until [`Issuer::run`] has loaded it.
    ///
    /// # Errors
    /// As [`Fetcher::new`].
    pub(crate) fn new(entry: &config::Jwt, egress: &Arc<Egress>) -> Result<Self, rustls::Error> {
        let pace = match &entry.keys {
            KeySource::Url(..) | KeySource::Discovery(..) => Pace::URL,
            KeySource::File(_) => Pace::FILE,
        };
        Self::with_pace(entry, egress, pace)
    }

    /// The same as [`Issuer::new`], at another pace.
    ///
    /// # Errors
    /// As [`Fetcher::new`].
    pub(crate) fn with_pace(
        entry: &config::Jwt,
        egress: &Arc<Egress>,
        pace: Pace,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            name: entry.issuer.clone(),
            rules: Rules::new(entry),
            keys: KeyCache::new(pace),
            fetcher: Fetcher::new(&entry.keys, egress)?,
        })
    }

    /// The `iss` of its tokens. `None`: any `iss` that no other issuer has.
    #[must_use]
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Loads the key set and keeps it current, for as long as it is polled; tells `observe` of
    /// every change.
    pub(crate) async fn run(&self, observe: impl FnMut(Refreshed)) {
        self.keys.run(|| self.fetcher.fetch(), observe).await;
    }

    #[cfg(test)]
    pub(super) const fn keys(&self) -> &KeyCache {
        &self.keys
    }

    /// The subject of a valid token.
    pub(super) async fn subject(
        &self,
        token: &Token<'_>,
        now: SystemTime,
    ) -> Result<String, Refusal> {
        let keys = self.keys.current();
        let refused = match self.rules.subject(token, keys.as_deref(), now) {
            Ok(subject) => return Ok(subject),
            Err(NotTaken::Final(refusal)) => return Err(refusal),
            Err(NotTaken::ByTheseKeys(refusal)) => refusal,
        };
        // Boxed: otherwise calls that need no refresh would carry its memory.
        Box::pin(self.keys.refreshed()).await;
        let newer = self.keys.current();
        if newer.as_ref().map(Arc::as_ptr) == keys.as_ref().map(Arc::as_ptr) {
            return Err(refused);
        }
        self.rules.subject(token, newer.as_deref(), now).map_err(NotTaken::into_refusal)
    }
}
