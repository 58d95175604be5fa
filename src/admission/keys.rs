//! The operator's keys, and every key that is derived from them.
//!
//! The *root* never changes. Record names, fingerprints and upstream tokens come from it. So a
//! caller's retry has the same token after any loss of the store. The *sealing* keys rotate: the
//! first seals, and all of them open. HKDF-SHA256 derives a key of its own for every use, each with
//! its own label. A value of one use is therefore never valid for another.

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

pub(crate) use file::{KeyFault, KeyFile, KeyProblem};
use file::{in_file, parse_lines, parse_root, read};

/// All keys of one config. They are immutable and cheap to clone, so that a reload replaces them
/// all. They cannot be printed.
#[derive(Clone)]
pub struct Keys(Arc<Derived>);

struct Derived {
    root_id: [u8; KEY_ID_BYTES],
    record_name: hmac::Key,
    fingerprint: hmac::Key,
    upstream_token: hmac::Key,
    record_mac: hmac::Key,
    seals: SealingKey,
    opens_too: Vec<SealingKey>,
}

/// One key that seals results, with the id that precedes the results that it sealed.
pub(super) struct SealingKey {
    pub(super) id: [u8; KEY_ID_BYTES],
    pub(super) cipher: RandomizedNonceKey,
}

/// The use of a keyed hash; each use has its own key.
#[derive(Debug, Clone, Copy)]
pub(super) enum HashUse {
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
    /// Reads the key files. Without a root file, a built-in constant is used: anyone who reads this
    /// program can then predict record names and upstream tokens, so it is for the in-memory store
    /// only. Without a sealing file, a key is derived from the root.
    ///
    /// # Errors
    /// Every problem of both files.
    pub(crate) fn load(
        root: Option<&Path>,
        sealing: Option<&Path>,
    ) -> Result<Self, Vec<KeyProblem>> {
        Self::build(root.map(read).transpose(), sealing.map(read).transpose())
    }

    /// The keys of the files' texts: one base64 key of 32 bytes per line. Blank lines, and spaces
    /// around a key, are ignored.
    ///
    /// # Errors
    /// Every problem of both texts.
    pub fn parse(root: Option<&str>, sealing: Option<&str>) -> Result<Self, Vec<KeyProblem>> {
        Self::build(Ok(root), Ok(sealing))
    }

    /// Whether both come from the same root. If not, a change from one to the other loses every
    /// idempotency record.
    #[must_use]
    pub(crate) fn same_root(&self, other: &Self) -> bool {
        self.0.root_id == other.0.root_id
    }

    /// A keyed hash over the parts. The length of each part precedes it, so that no two lists of
    /// parts give the same bytes.
    pub(super) fn hash(&self, hash_use: HashUse, parts: &[&[u8]]) -> hmac::Tag {
        let mut hash = hmac::Context::with_key(self.key(hash_use));
        for part in parts {
            hash.update(&length(part));
            hash.update(part);
        }
        hash.sign()
    }

    pub(super) fn seals(&self) -> &SealingKey {
        &self.0.seals
    }

    /// All keys that open, with the sealing key first.
    pub(super) fn opens(&self) -> impl Iterator<Item = &SealingKey> {
        std::iter::once(&self.0.seals).chain(&self.0.opens_too)
    }

    fn key(&self, hash_use: HashUse) -> &hmac::Key {
        match hash_use {
            HashUse::RecordName => &self.0.record_name,
            HashUse::Fingerprint => &self.0.fingerprint,
            HashUse::UpstreamToken => &self.0.upstream_token,
            HashUse::RecordMac => &self.0.record_mac,
        }
    }

    fn build<T: AsRef<str>>(root: Text<T>, sealing: Text<T>) -> Result<Self, Vec<KeyProblem>> {
        let root = root.and_then(|text| {
            text.map_or(Ok(Zeroizing::new(*BUILT_IN)), |text| parse_root(text.as_ref()))
        });
        let sealing =
            sealing.and_then(|text| text.map(|text| parse_lines(text.as_ref())).transpose());
        match (root.map_err(in_file(KeyFile::Root)), sealing.map_err(in_file(KeyFile::Sealing))) {
            (Ok(root), Ok(sealing)) => Self::derive(&root, sealing).map_err(|Unspecified| {
                vec![KeyProblem { file: KeyFile::Root, fault: KeyFault::Library }]
            }),
            (root, sealing) => Err(root.err().into_iter().chain(sealing.err()).flatten().collect()),
        }
    }

    fn derive(root: &Raw, sealing: Option<Vec<Raw>>) -> Result<Self, Unspecified> {
        let mut sealing = sealing.unwrap_or_default().into_iter();
        let first = sealing.next().map_or_else(|| derived(root, b"sealing"), Ok)?;
        Ok(Self(Arc::new(Derived {
            root_id: *derived(root, b"root-id")?,
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
    // The cipher's key is derived, too. It is then harmless if an operator puts the root into this
    // file by mistake.
    fn derive(line: &Raw) -> Result<Self, Unspecified> {
        let cipher: Raw = derived(line, b"aes-256-gcm")?;
        let id: Zeroizing<[u8; KEY_ID_BYTES]> = derived(line, b"sealing-key-id")?;
        Ok(Self { id: *id, cipher: RandomizedNonceKey::new(&AES_256_GCM, &*cipher)? })
    }
}

/// A new key line for either file: 32 random bytes in base64.
///
/// # Errors
/// [`NoRandomness`] if the system has none.
pub fn keygen() -> Result<Zeroizing<String>, NoRandomness> {
    random::<KEY_BYTES>().map(|key| Zeroizing::new(STANDARD.encode(key.as_slice())))
}

/// Bytes that cannot be guessed.
pub(super) fn random<const BYTES: usize>() -> Result<Zeroizing<[u8; BYTES]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    SystemRandom::new().fill(&mut *bytes).map_err(|Unspecified| NoRandomness)?;
    Ok(bytes)
}

/// The length of a part, as it precedes the part in hashed or authenticated bytes.
pub(super) fn length(part: &[u8]) -> [u8; LENGTH_BYTES] {
    (part.len() as u64).to_be_bytes()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys([redacted])")
    }
}

/// The text of a file; `None` without a file.
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

/// The length of every key, in bytes.
const KEY_BYTES: usize = 32;

/// The size of the length field before a part, in bytes.
const LENGTH_BYTES: usize = 8;

/// The size of a sealing key's id, in bytes.
pub(super) const KEY_ID_BYTES: usize = 8;
const SALT: &[u8] = b"participant-gateway/v1";

// The root of a store that needs no secrecy: the store ends with the process.
const BUILT_IN: &[u8; KEY_BYTES] = b"participant-gateway built-in key";

#[cfg(test)]
mod tests;
