//! Verifies one token by one set of keys at one time. Pure: every case can be tested and fuzzed.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, crypto, dangerous, decode_header};
use serde_json::{Map, Value};

use super::key_set::{Choice, KeySet};
use crate::config;
use crate::config::shape;
use crate::error::{Refusal, RefusalKind};

/// A token that has been read, but not verified.
#[derive(Debug)]
pub struct Token<'a> {
    text: &'a str,
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Map<String, Value>,
}

/// The rules for a token.
#[derive(Debug)]
pub struct Rules {
    audiences: Vec<String>,
    audience_claim: String,
    subject_claim: String,
    algorithms: Vec<Algorithm>,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotTaken {
    /// No other key set would change the refusal.
    Final(Refusal),
    /// The set lacks the key of the token, or no set is loaded yet. A newer set may accept it.
    ByTheseKeys(Refusal),
}

impl NotTaken {
    /// The refusal, also where a newer key set could change it.
    #[must_use]
    pub(crate) fn into_refusal(self) -> Refusal {
        match self {
            Self::Final(refusal) | Self::ByTheseKeys(refusal) => refusal,
        }
    }
}

impl<'a> Token<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// If it is no JSON Web Token, or its algorithm is unknown.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        let malformed = |detail| Refusal::new(RefusalKind::Malformed, detail);
        let header = decode_header(text).map_err(|error| match error.kind() {
            ErrorKind::InvalidToken => malformed("not a JSON Web Token"),
            ErrorKind::Json(error) if error.to_string().starts_with("unknown variant") => {
                Refusal::new(RefusalKind::Algorithm, "the token's algorithm is unknown")
            }
            _ => malformed("the token's header cannot be read"),
        })?;
        if header.crit.is_some() {
            return Err(malformed("the token has critical extensions"));
        }
        // Not dangerous here: only the issuer is used before `Rules` verify the signature over
        // these same bytes.
        let claims = dangerous::insecure_decode_claims(text)
            .map_err(|_| malformed("the token's claims cannot be read"))?;
        Ok(Self { text, algorithm: header.alg, key_id: header.kid, claims })
    }

    /// Its `iss`, if that is a text.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    fn is_signed_by(&self, keys: &[&jsonwebtoken::DecodingKey]) -> bool {
        let Some((message, signature)) = self.text.rsplit_once('.') else { return false };
        keys.iter().any(|key| {
            crypto::verify(signature, message.as_bytes(), key, self.algorithm) == Ok(true)
        })
    }
}

impl Rules {
    /// The rules of these settings.
    #[must_use]
    pub fn new(settings: &config::Jwt) -> Self {
        Self {
            audiences: settings.audiences.clone(),
            audience_claim: settings.audience_claim.clone(),
            subject_claim: settings.subject_claim.clone(),
            algorithms: settings.algorithms.iter().copied().map(algorithm).collect(),
        }
    }

    /// The subject of a valid token. The caller has matched the token's issuer with these rules.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn subject(
        &self,
        token: &Token<'_>,
        keys: Option<&KeySet>,
        now: SystemTime,
    ) -> Result<String, NotTaken> {
        use RefusalKind as Kind;
        let last = |kind, detail| NotTaken::Final(Refusal::new(kind, detail));
        let by_these_keys = |kind, detail| NotTaken::ByTheseKeys(Refusal::new(kind, detail));
        if !self.algorithms.contains(&token.algorithm) {
            return Err(last(Kind::Algorithm, "the token's algorithm is not allowed"));
        }
        let set = keys.ok_or(by_these_keys(Kind::NoKeys, "no key set is loaded yet"))?;
        let id = token.key_id.as_deref();
        let keys = match set.choose(id, token.algorithm) {
            Choice::Keys(keys) => keys,
            Choice::Unknown => {
                let detail = "the token is signed by an unknown key";
                return Err(by_these_keys(Kind::UnknownKey, detail));
            }
            Choice::Unfit => {
                return Err(last(Kind::Algorithm, "the token's key is not for its algorithm"));
            }
        };
        if !set.verified().or_else(token.text, || token.is_signed_by(&keys)) {
            let detail = "the token's signature is wrong";
            return Err(match id {
                Some(_) => last(Kind::Signature, detail),
                None => by_these_keys(Kind::Signature, detail),
            });
        }
        let subject = self.named(&token.claims);
        match self.judge(&token.claims, now) {
            Err((kind, detail)) => {
                let refusal = Refusal::new(kind, detail);
                Err(NotTaken::Final(match subject {
                    Ok(subject) => refusal.of(subject),
                    Err(_) => refusal,
                }))
            }
            Ok(()) => subject.map(ToOwned::to_owned).map_err(|detail| last(Kind::Subject, detail)),
        }
    }

    /// Checks the claims of a token whose signature is good, except its subject.
    fn judge(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<(), (RefusalKind, &'static str)> {
        use RefusalKind as Kind;
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO)
            .as_secs_f64();
        let leeway = LEEWAY.as_secs_f64();
        match claims.get("exp").map(Value::as_f64) {
            None => return Err((Kind::Malformed, "the token has no expiry")),
            Some(None) => return Err((Kind::Malformed, "the token's expiry is no time")),
            Some(Some(exp)) if now >= exp + leeway => {
                return Err((Kind::Expired, "the token has expired"));
            }
            Some(Some(_)) => {}
        }
        match claims.get("nbf").map(Value::as_f64) {
            Some(None) => return Err((Kind::Malformed, "the token's not-before is no time")),
            Some(Some(nbf)) if now + leeway < nbf => {
                return Err((Kind::NotYetValid, "the token is not valid yet"));
            }
            None | Some(Some(_)) => {}
        }
        match claims.get(&self.audience_claim) {
            None => Err((Kind::Audience, "the token has no audience")),
            Some(audience) if !self.names_one(audience) => {
                Err((Kind::Audience, "the token is for another audience"))
            }
            Some(_) => Ok(()),
        }
    }

    /// An audience is one text or a list of them (RFC 7519, section 4.1.3).
    fn names_one(&self, audience: &Value) -> bool {
        let is_ours = |audience: &Value| {
            audience
                .as_str()
                .is_some_and(|audience| self.audiences.iter().any(|own| own == audience))
        };
        match audience {
            Value::Array(audiences) => audiences.iter().any(is_ours),
            audience => is_ours(audience),
        }
    }

    fn named<'a>(&self, claims: &'a Map<String, Value>) -> Result<&'a str, &'static str> {
        match claims.get(&self.subject_claim) {
            None => Err("the token has no subject"),
            Some(Value::String(subject)) if !subject.is_empty() => Ok(subject),
            Some(_) => Err("the token's subject is no text, or empty"),
        }
    }
}

/// Only asymmetric algorithms can be configured: a public key can then never serve as a shared
/// secret.
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

/// The tolerance for clocks that differ: docs/design/contract.md, "Identity".
const LEEWAY: Duration = Duration::from_secs(60);
