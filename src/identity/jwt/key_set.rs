//! A JSON Web Key Set (RFC 7517): the keys that can verify, and the choice of the keys for a token.

use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

use super::verified::Verified;

/// The public keys of an issuer. Immutable: a refresh replaces the whole set.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    skipped: usize,
    verified: Verified,
}

/// Why a text is not a key set.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or without a list of keys.
    #[error("not a JSON Web Key Set: {0}")]
    Malformed(serde_json::Error),
    /// No key of the set can verify a token.
    #[error("none of its {0} keys is a public signature key of a supported kind")]
    NoKeys(usize),
}

/// The keys that may verify a token.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    /// At least one key, and at most [`MOST_TRIED`].
    Keys(Vec<&'a DecodingKey>),
    /// No key has that id, or no key is fit. A newer set may have one.
    Unknown,
    /// The key of that id is for other algorithms.
    Unfit,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    kind: Kind,
    /// The one algorithm that the key is for, where it names one.
    only: Option<String>,
    decoding: DecodingKey,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeySet {
    /// Reads a set. A key that cannot verify tokens is passed over: a set may also hold keys of
    /// other kinds and uses.
    ///
    /// # Errors
    /// If no key is left.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let Set { keys: listed } = serde_json::from_slice(text).map_err(KeySetError::Malformed)?;
        let total = listed.len();
        let keys: Vec<Key> = listed.into_iter().filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoKeys(total));
        }
        Ok(Self { skipped: total - keys.len(), keys, verified: Verified::default() })
    }

    /// The number of keys that can verify.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Always false: [`KeySet::parse`] refuses a set without keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of keys that were passed over.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// The tokens whose signature this set has verified.
    pub(super) const fn verified(&self) -> &Verified {
        &self.verified
    }

    pub(super) fn choose(&self, id: Option<&str>, algorithm: Algorithm) -> Choice<'_> {
        let mut named = self
            .keys
            .iter()
            .filter(|key| id.is_none() || key.id.as_deref() == id)
            .peekable();
        if named.peek().is_none() {
            return Choice::Unknown;
        }
        let fitting = named.filter(|key| key.fits(algorithm)).map(|key| &key.decoding);
        let fitting: Vec<_> = fitting.take(MOST_TRIED).collect();
        match (fitting.is_empty(), id) {
            (false, _) => Choice::Keys(fitting),
            (true, Some(_)) => Choice::Unfit,
            (true, None) => Choice::Unknown,
        }
    }
}

impl Key {
    fn of(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        // `jwt-svid` is SPIFFE's (SPIFFE Trust Domain and Bundle, section 4.2.2).
        let signs = jwk
            .public_key_use
            .as_deref()
            .is_none_or(|purpose| matches!(purpose, "sig" | "jwt-svid"));
        let verifies = jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        if !(signs && verifies) {
            return None;
        }
        let (kind, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (Kind::Rsa, rsa(&jwk.n?, &jwk.e?)?),
            ("EC", Some("P-256")) => {
                (Kind::P256, DecodingKey::from_ec_components(&jwk.x?, &jwk.y?).ok()?)
            }
            ("EC", Some("P-384")) => {
                (Kind::P384, DecodingKey::from_ec_components(&jwk.x?, &jwk.y?).ok()?)
            }
            ("OKP", Some("Ed25519")) => {
                (Kind::Ed25519, DecodingKey::from_ed_components(&jwk.x?).ok()?)
            }
            _ => return None,
        };
        Some(Self { id: jwk.kid, kind, only: jwk.alg, decoding })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        let (kind, name) = match algorithm {
            Algorithm::RS256 => (Kind::Rsa, "RS256"),
            Algorithm::RS384 => (Kind::Rsa, "RS384"),
            Algorithm::RS512 => (Kind::Rsa, "RS512"),
            Algorithm::PS256 => (Kind::Rsa, "PS256"),
            Algorithm::PS384 => (Kind::Rsa, "PS384"),
            Algorithm::PS512 => (Kind::Rsa, "PS512"),
            Algorithm::ES256 => (Kind::P256, "ES256"),
            Algorithm::ES384 => (Kind::P384, "ES384"),
            Algorithm::EdDSA => (Kind::Ed25519, "EdDSA"),
            _ => return false,
        };
        self.kind == kind && self.only.as_deref().is_none_or(|only| only == name)
    }
}

/// The library refuses every signature by a shorter modulus. Such a key is therefore passed over,
/// and counted.
fn rsa(modulus: &str, exponent: &str) -> Option<DecodingKey> {
    let key = DecodingKey::from_rsa_components(modulus, exponent).ok()?;
    let long_enough = matches!(key.kind(), DecodingKeyKind::RsaModulusExponent { n, .. } if n.len() >= MODULUS_BYTES);
    long_enough.then_some(key)
}

/// One key (RFC 7517, section 4; RFC 7518, section 6).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    public_key_use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// The most keys that one token is tried against. It bounds the cost of a call
/// (docs/design/contract.md, "Key ids").
const MOST_TRIED: usize = 16;

/// 2,048 bits: the minimum for the RSA algorithms (RFC 7518, section 3.3).
const MODULUS_BYTES: usize = 256;
