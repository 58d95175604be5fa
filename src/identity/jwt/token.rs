//! One token against one set of keys, at one time. Pure, so that every case can be tested and
//! fuzzed.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, crypto, dangerous, decode_header};
use serde_json::{Map, Value};

use super::key_set::{Choice, KeySet};
use crate::config;
use crate::config::shape;

/// What a token must be.
#[derive(Debug)]
pub struct Rules {
    issuer: String,
    audience: String,
    subject_claim: String,
    algorithms: Vec<Algorithm>,
}

/// Why a token is not taken; the texts are for the log, one a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No other key set would change that.
    Final(&'static str),
    /// The set does not have the key that it names, or there is no set yet: a newer one may.
    UnknownKey(&'static str),
}

impl Refusal {
    /// The cause, for the log.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Final(reason) | Self::UnknownKey(reason) => reason,
        }
    }
}

impl Rules {
    /// The rules of these settings.
    #[must_use]
    pub fn new(settings: &config::Jwt) -> Self {
        Self {
            issuer: settings.issuer.clone(),
            audience: settings.audience.clone(),
            subject_claim: settings.subject_claim.clone(),
            algorithms: settings.algorithms.iter().copied().map(algorithm).collect(),
        }
    }

    /// The subject of a good token.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn subject(
        &self,
        token: &str,
        keys: Option<&KeySet>,
        now: SystemTime,
    ) -> Result<String, Refusal> {
        let header = decode_header(token).map_err(|error| match error.kind() {
            ErrorKind::InvalidToken => Refusal::Final("not a JSON Web Token"),
            _ => Refusal::Final("the token's header cannot be read, or its algorithm is unknown"),
        })?;
        if header.crit.is_some() {
            return Err(Refusal::Final("the token has critical extensions"));
        }
        if !self.algorithms.contains(&header.alg) {
            return Err(Refusal::Final("the token's algorithm is not allowed"));
        }
        let keys = keys.ok_or(Refusal::UnknownKey("no key set is loaded yet"))?;
        let key = match keys.choose(header.kid.as_deref(), header.alg) {
            Choice::Key(key) => key,
            Choice::Unknown => {
                return Err(Refusal::UnknownKey("the token is signed by an unknown key"));
            }
            Choice::Unfit => {
                return Err(Refusal::Final("the token's key is not for its algorithm"));
            }
            Choice::Ambiguous => {
                return Err(Refusal::Final("the token names no key, and several would do"));
            }
        };
        let (message, signature) =
            token.rsplit_once('.').ok_or(Refusal::Final("not a JSON Web Token"))?;
        if crypto::verify(signature, message.as_bytes(), key, header.alg) != Ok(true) {
            return Err(Refusal::Final("the token's signature is wrong"));
        }
        // Not dangerous here: the signature has just been verified, over these very bytes.
        let claims = dangerous::insecure_decode::<Map<String, Value>>(token)
            .map_err(|_| Refusal::Final("the token's claims cannot be read"))?
            .claims;
        self.judge(&claims, now).map_err(Refusal::Final)
    }

    fn judge(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<String, &'static str> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs_f64();
        let leeway = LEEWAY.as_secs_f64();
        match claims.get("exp").map(Value::as_f64) {
            None => return Err("the token has no expiry"),
            Some(None) => return Err("the token's expiry is no time"),
            Some(Some(exp)) if now >= exp + leeway => return Err("the token has expired"),
            Some(Some(_)) => {}
        }
        match claims.get("nbf").map(Value::as_f64) {
            Some(None) => return Err("the token's not-before is no time"),
            Some(Some(nbf)) if now + leeway < nbf => return Err("the token is not valid yet"),
            None | Some(Some(_)) => {}
        }
        match claims.get("iss") {
            None => return Err("the token has no issuer"),
            Some(issuer) if *issuer != self.issuer => return Err("the token is another issuer's"),
            Some(_) => {}
        }
        match claims.get("aud") {
            None => return Err("the token has no audience"),
            Some(audience) if !names(audience, &self.audience) => {
                return Err("the token is for another audience");
            }
            Some(_) => {}
        }
        match claims.get(&self.subject_claim) {
            None => Err("the token has no subject"),
            Some(Value::String(subject)) if !subject.is_empty() => Ok(subject.clone()),
            Some(_) => Err("the token's subject is no text, or empty"),
        }
    }
}

/// An audience is one text or a list of them (RFC 7519, section 4.1.3).
fn names(audience: &Value, expected: &str) -> bool {
    match audience {
        Value::Array(audiences) => audiences.iter().any(|audience| audience == expected),
        audience => audience == expected,
    }
}

/// Only asymmetric ones can be configured, so that no public key can ever serve as a shared secret.
const fn algorithm(algorithm: shape::Algorithm) -> Algorithm {
    match algorithm {
        shape::Algorithm::RS256 => Algorithm::RS256,
        shape::Algorithm::RS384 => Algorithm::RS384,
        shape::Algorithm::RS512 => Algorithm::RS512,
        shape::Algorithm::PS256 => Algorithm::PS256,
        shape::Algorithm::PS384 => Algorithm::PS384,
        shape::Algorithm::PS512 => Algorithm::PS512,
        shape::Algorithm::ES256 => Algorithm::ES256,
        shape::Algorithm::ES384 => Algorithm::ES384,
        shape::Algorithm::EdDsa => Algorithm::EdDSA,
    }
}

/// For clocks that differ: docs/design/contract.md, "Identity".
const LEEWAY: Duration = Duration::from_secs(60);
