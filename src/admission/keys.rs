//! The operator's keys, and everything that is derived from them.
//!
//! The *root* never changes: record names, fingerprints and upstream tokens come from it, so that a
//! caller's retry meets the same token after any loss of the store. The *sealing* keys rotate: the
//! first seals, all of them open. Every use has a key of its own, by HKDF-SHA256 with a label each,
//! so that no value can serve in another's place.

mod file;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::{hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub use file::{KeyFault, KeyFile, KeyProblem};
use file::{in_file, parse_lines, parse_root, read};

/// All keys of one config: immutable and cheap to clone, so that a reload swaps the whole. Nothing
/// of it can be printed.
#[derive(Clone)]
pub struct Keys(Arc<Derived>);

struct Derived {
    root_id: [u8; KEY_ID_BYTES],
    built_in: bool,
    record_name: hmac::Key,
    fingerprint: hmac::Key,
    upstream_token: hmac::Key,
    record_mac: hmac::Key,
    seals: SealingKey,
    opens_too: Vec<SealingKey>,
}

/// One key that seals results, with the id that stands in front of what it sealed.
pub(super) struct SealingKey {
    pub(super) id: [u8; KEY_ID_BYTES],
    pub(super) cipher: RandomizedNonceKey,
}

/// What a keyed hash is for; each has a key of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    RecordName,
    Fingerprint,
    UpstreamToken,
    RecordMac,
}

/// The system's source of randomness failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct NoRandomness;

impl Keys {
    /// Reads the key files. Without a root file a built-in constant serves (see
    /// [`Keys::built_in`]); without a sealing file, a key derived from the root.
    ///
    /// # Errors
    /// Every problem of both files.
    pub fn load(root: Option<&Path>, sealing: Option<&Path>) -> Result<Self, Vec<KeyProblem>> {
        Self::build(root.map(read).transpose(), sealing.map(read).transpose())
    }

    /// The keys of the files' texts: one base64 key of 32 bytes a line. Blank lines, and spaces
    /// around a key, are passed over.
    ///
    /// # Errors
    /// Every problem of both texts.
    pub fn parse(root: Option<&str>, sealing: Option<&str>) -> Result<Self, Vec<KeyProblem>> {
        Self::build(Ok(root), Ok(sealing))
    }

    /// No root file was given: the built-in constant serves, and record names and upstream tokens
    /// are predictable to anybody who reads this program. For the in-memory store only, and worth a
    /// warning.
    #[must_use]
    pub fn built_in(&self) -> bool {
        self.0.built_in
    }

    /// Both come from the same root. Where they do not, swapping one for the other is a reset of
    /// idempotency.
    #[must_use]
    pub fn same_root(&self, other: &Self) -> bool {
        self.0.root_id == other.0.root_id
    }

    /// A keyed hash over the parts; each goes in behind its length, so that no two lists of parts
    /// read the same.
    pub(super) fn hash(&self, purpose: Purpose, parts: &[&[u8]]) -> hmac::Tag {
        let mut text = Vec::with_capacity(parts.iter().map(|part| LENGTH_BYTES + part.len()).sum());
        for part in parts {
            text.extend_from_slice(&length(part));
            text.extend_from_slice(part);
        }
        hmac::sign(self.key(purpose), &text)
    }

    /// The one key that seals.
    pub(super) fn seals(&self) -> &SealingKey {
        &self.0.seals
    }

    /// All keys that open, the one that seals first.
    pub(super) fn opens(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.0.seals).chain(&self.0.opens_too)
    }

    fn key(&self, purpose: Purpose) -> &hmac::Key {
        match purpose {
            Purpose::RecordName => &self.0.record_name,
            Purpose::Fingerprint => &self.0.fingerprint,
            Purpose::UpstreamToken => &self.0.upstream_token,
            Purpose::RecordMac => &self.0.record_mac,
        }
    }

    fn build<T: AsRef<str>>(root: Text<T>, sealing: Text<T>) -> Result<Self, Vec<KeyProblem>> {
        let built_in = matches!(root, Ok(None));
        let root = root.and_then(|text| {
            text.map_or(Ok(Zeroizing::new(*BUILT_IN)), |text| parse_root(text.as_ref()))
        });
        let sealing =
            sealing.and_then(|text| text.map(|text| parse_lines(text.as_ref())).transpose());
        match (root.map_err(in_file(KeyFile::Root)), sealing.map_err(in_file(KeyFile::Sealing))) {
            (Ok(root), Ok(sealing)) => {
                Self::derive(&root, sealing, built_in).map_err(|Unspecified| {
                    vec![KeyProblem { file: KeyFile::Root, fault: KeyFault::Library }]
                })
            }
            (root, sealing) => Err(root.err().into_iter().chain(sealing.err()).flatten().collect()),
        }
    }

    fn derive(root: &Raw, sealing: Option<Vec<Raw>>, built_in: bool) -> Result<Self, Unspecified> {
        let mut sealing = sealing.unwrap_or_default().into_iter();
        let first = sealing.next().map_or_else(|| derived(root, b"sealing"), Ok)?;
        Ok(Self(Arc::new(Derived {
            root_id: *derived(root, b"root-id")?,
            built_in,
            record_name: hmac_key(root, b"record-name")?,
            fingerprint: hmac_key(root, b"fingerprint")?,
            upstream_token: hmac_key(root, b"upstream-token")?,
            record_mac: hmac_key(root, b"record-mac")?,
            seals: SealingKey::derive(&first)?,
            opens_too: sealing.map(|key| SealingKey::derive(&key)).collect::<Result<_, _>>()?,
        })))
    }
}

impl SealingKey {
    // The cipher's key is derived too: a line that is also the root, by an operator's mistake, does
    // no harm.
    fn derive(line: &Raw) -> Result<Self, Unspecified> {
        let cipher: Raw = derived(line, b"aes-256-gcm")?;
        let id: Zeroizing<[u8; KEY_ID_BYTES]> = derived(line, b"sealing-key-id")?;
        Ok(Self { id: *id, cipher: RandomizedNonceKey::new(&AES_256_GCM, &*cipher)? })
    }
}

/// A fresh key line for either file: 32 random bytes in base64.
///
/// # Errors
/// [`NoRandomness`] where the system has none.
pub fn keygen() -> Result<Zeroizing<String>, NoRandomness> {
    random::<KEY_BYTES>().map(|key| Zeroizing::new(STANDARD.encode(key.as_slice())))
}

/// Bytes that nobody can guess.
pub(super) fn random<const BYTES: usize>() -> Result<Zeroizing<[u8; BYTES]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    SystemRandom::new().fill(&mut *bytes).map_err(|Unspecified| NoRandomness)?;
    Ok(bytes)
}

/// A part's length, as it goes in front of the part in whatever is hashed or authenticated.
pub(super) fn length(part: &[u8]) -> [u8; LENGTH_BYTES] {
    (part.len() as u64).to_be_bytes()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys([redacted])")
    }
}

/// A file's text, where there is a file.
type Text<T> = Result<Option<T>, Vec<KeyFault>>;

type Raw = Zeroizing<[u8; KEY_BYTES]>;

fn hmac_key(root: &Raw, label: &[u8]) -> Result<hmac::Key, Unspecified> {
    let key: Raw = derived(root, label)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &*key))
}

fn derived<const BYTES: usize>(
    secret: &Raw,
    label: &[u8],
) -> Result<Zeroizing<[u8; BYTES]>, Unspecified> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut key = Zeroizing::new([0; BYTES]);
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&**secret);
    extracted.expand(&[label], Length(BYTES))?.fill(&mut *key)?;
    Ok(key)
}

/// The bytes of every key.
const KEY_BYTES: usize = 32;

/// The bytes of a part's length, in front of the part.
const LENGTH_BYTES: usize = 8;

/// The bytes of a sealing key's id.
pub(super) const KEY_ID_BYTES: usize = 8;
const SALT: &[u8] = b"participant-gateway/v1";

// The root of a store that needs no secrecy: it lives and dies with the process.
const BUILT_IN: &[u8; KEY_BYTES] = b"participant-gateway built-in key";

#[cfg(test)]
mod tests;
