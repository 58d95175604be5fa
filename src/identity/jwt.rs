//! Bearer tokens: `authorization: Bearer …`, one JSON Web Token that a key of its issuer's set has
//! signed.
//!
//! The `iss` of the token, not yet verified, chooses the entry of the config. Only the keys of that
//! entry verify the token. A call is judged by the keys at hand, and does not wait for the network.
//! The one exception is a token whose key is not in the set: such a call waits for a refresh, where
//! one is due ([`cache::KeyCache`] says when). Other such calls are refused at once.

mod cache;
pub mod discovery;
mod fetch;
mod issuer;
mod key_set;
mod source;
mod token;
mod verified;

use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::config;
use crate::domain::Tenant;
use crate::egress::Egress;
use crate::error::{Refusal, RefusalKind};

pub(crate) use cache::Refreshed;
pub(crate) use issuer::Issuer;
pub use key_set::KeySet;
pub use token::{NotTaken, Rules, Token};

/// Finds the tenant behind a bearer token.
#[derive(Debug)]
pub struct Jwt {
    issuers: Vec<Arc<Issuer>>,
}

impl Jwt {
    /// Judges tokens by these entries, of which no two have the same issuer. Their key sets are
    /// empty until [`Issuer::run`] has loaded them.
    ///
    /// # Errors
    /// As [`source::Fetcher::new`].
    pub fn new(entries: &[config::Jwt], egress: &Arc<Egress>) -> Result<Self, rustls::Error> {
        let issuers = entries.iter().map(|entry| Issuer::new(entry, egress).map(Arc::new));
        Ok(Self { issuers: issuers.collect::<Result<_, _>>()? })
    }

    /// The issuers, each with a key set of its own, in the order of the config.
    #[must_use]
    pub(crate) fn issuers(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    /// The tenant behind a call with these headers. `find` maps a subject to its tenant.
    ///
    /// # Errors
    /// Without exactly one good token, or if its subject belongs to no tenant.
    pub(crate) async fn tenant(
        &self,
        headers: &HeaderMap,
        find: impl Fn(&str) -> Option<Arc<Tenant>>,
    ) -> Result<Arc<Tenant>, Refusal> {
        let token = Token::parse(bearer(headers)?)?;
        let subject = self.issuer(&token)?.subject(&token, SystemTime::now()).await?;
        find(&subject).ok_or_else(|| {
            let detail = "the token's subject is no tenant's";
            Refusal::new(RefusalKind::UnknownTenant, detail).of(subject)
        })
    }

    /// The entry of the token's issuer, or else the entry without an issuer.
    fn issuer(&self, token: &Token<'_>) -> Result<&Issuer, Refusal> {
        let named = token.issuer();
        let own = self.issuers.iter().find(|issuer| named.is_some() && issuer.name() == named);
        let any = || self.issuers.iter().find(|issuer| issuer.name().is_none());
        own.or_else(any)
            .map(|issuer| &**issuer)
            .ok_or(Refusal::new(RefusalKind::Issuer, "the token is another issuer's, or has none"))
    }
}

/// The token of exactly one `authorization: Bearer …` (RFC 6750, section 2.1; the scheme in any
/// case).
///
/// # Errors
/// If there is no such header, more than one, or another scheme.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values
        .next()
        .ok_or(Refusal::new(RefusalKind::Missing, "no authorization header"))?;
    if values.next().is_some() {
        return Err(Refusal::new(RefusalKind::Duplicate, "more than one authorization header"));
    }
    let malformed = |detail| Refusal::new(RefusalKind::Malformed, detail);
    let value = value.to_str().map_err(|_| malformed("the authorization header is not ASCII"))?;
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed("the authorization is no bearer token"));
    }
    match token.trim_matches(' ') {
        "" => Err(malformed("an empty bearer token")),
        token => Ok(token),
    }
}

#[cfg(test)]
mod tests;
