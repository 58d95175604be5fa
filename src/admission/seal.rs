//! Seals a finished call's result for the store, because it holds a live credential.
//!
//! `format version (1 byte) | key id (8) | nonce (12) | ciphertext and tag`, by AES-256-GCM with a
//! random nonce. The associated data are the format version, the key id, the record's name and its
//! fingerprint. A result therefore opens in its own record only. A result that does not open is not
//! the caller's error: the record counts as uncertain and is taken over.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce};
use aws_lc_rs::error::Unspecified;
use prost::Message;
use zeroize::Zeroizing;

use super::keys::{KEY_ID_BYTES, Keys, NoRandomness, length};
use crate::domain::{Participant, ParticipantToken};

/// Why a sealed result does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum OpenError {
    /// It was sealed by a key that is not on the list: the key was dropped too early, or is not yet
    /// here.
    #[error("sealed by an unknown key")]
    UnknownKey,
    /// It was sealed for another record or by another key of the same id, or it was altered.
    #[error("not authentic")]
    NotAuthentic,
    /// It is not of a form that this gateway knows.
    #[error("malformed")]
    Malformed,
}

impl Keys {
    /// Seals a result for the record of that name and fingerprint, with the first of the sealing
    /// keys.
    ///
    /// # Errors
    /// [`NoRandomness`] if the system gave no nonce: the call's verdict is then uncertain, not
    /// lost.
    pub fn seal(
        &self,
        name: &str,
        fingerprint: &str,
        participant: &Participant,
    ) -> Result<Vec<u8>, NoRandomness> {
        let payload = Payload::of(participant);
        let mut bytes = Vec::with_capacity(payload.encoded_len() + AES_256_GCM.tag_len());
        payload.encode_raw(&mut bytes);
        self.seal_bytes(name, fingerprint, bytes)
    }

    /// Opens the result of [`Keys::seal`] with any of the sealing keys.
    ///
    /// # Errors
    /// [`OpenError`], which the caller counts.
    pub fn open(
        &self,
        name: &str,
        fingerprint: &str,
        sealed: &[u8],
    ) -> Result<Participant, OpenError> {
        let (head, rest) = sealed.split_at_checked(HEAD_BYTES).ok_or(OpenError::Malformed)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_LEN).ok_or(OpenError::Malformed)?;
        let (&version, id) = head.split_first().ok_or(OpenError::Malformed)?;
        if version != FORMAT_VERSION {
            return Err(OpenError::Malformed);
        }
        let key = self.opens().find(|key| key.id == id).ok_or(OpenError::UnknownKey)?;
        let nonce =
            Nonce::try_assume_unique_for_key(nonce).map_err(|Unspecified| OpenError::Malformed)?;
        let mut bytes = Zeroizing::new(ciphertext.to_vec());
        let payload = key
            .cipher
            .open_in_place(nonce, associated(head, name, fingerprint), &mut bytes)
            .map_err(|Unspecified| OpenError::NotAuthentic)?;
        Payload::decode(&*payload)
            .ok()
            .and_then(Payload::participant)
            .ok_or(OpenError::Malformed)
    }

    fn seal_bytes(
        &self,
        name: &str,
        fingerprint: &str,
        mut bytes: Vec<u8>,
    ) -> Result<Vec<u8>, NoRandomness> {
        let key = self.seals();
        let head = [&[FORMAT_VERSION], key.id.as_slice()].concat();
        let nonce = key
            .cipher
            .seal_in_place_append_tag(associated(&head, name, fingerprint), &mut bytes)
            .map_err(|Unspecified| NoRandomness)?;
        Ok([&head, nonce.as_ref().as_slice(), &bytes].concat())
    }
}

/// The sealed content. Fields may be added, but never renumbered: results last for the retention,
/// across releases.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Payload {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    token: String,
    #[prost(message, optional, tag = "3")]
    expiry: Option<Time>,
    #[prost(message, optional, tag = "4")]
    create_time: Option<Time>,
}

/// A point of time since 1970, with its nanoseconds always counted forwards.
#[derive(Clone, Copy, PartialEq, Message)]
struct Time {
    #[prost(sint64, tag = "1")]
    seconds: i64,
    #[prost(uint32, tag = "2")]
    nanos: u32,
}

impl Payload {
    fn of(participant: &Participant) -> Self {
        Self {
            id: participant.id.clone(),
            token: participant.token.expose().to_owned(),
            expiry: participant.expiry.map(Time::of),
            create_time: Some(Time::of(participant.create_time)),
        }
    }

    fn participant(self) -> Option<Participant> {
        let expiry = match self.expiry {
            Some(time) => Some(time.system_time()?),
            None => None,
        };
        let create_time = self.create_time?.system_time()?;
        (!self.id.is_empty() && !self.token.is_empty()).then(|| Participant {
            id: self.id,
            token: ParticipantToken::new(self.token),
            expiry,
            create_time,
        })
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Time {
    fn of(time: SystemTime) -> Self {
        let whole = |seconds| i64::try_from(seconds).unwrap_or(i64::MAX);
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => Self { seconds: whole(since.as_secs()), nanos: since.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                match before.subsec_nanos() {
                    0 => Self { seconds: -whole(before.as_secs()), nanos: 0 },
                    nanos => {
                        Self { seconds: -whole(before.as_secs()) - 1, nanos: 1_000_000_000 - nanos }
                    }
                }
            }
        }
    }

    fn system_time(self) -> Option<SystemTime> {
        let seconds = Duration::from_secs(self.seconds.unsigned_abs());
        let whole = if self.seconds < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(seconds)?
        } else {
            SystemTime::UNIX_EPOCH.checked_add(seconds)?
        };
        (self.nanos < 1_000_000_000)
            .then(|| whole.checked_add(Duration::from_nanos(self.nanos.into())))
            .flatten()
    }
}

fn associated(head: &[u8], name: &str, fingerprint: &str) -> Aad<Vec<u8>> {
    let (name, fingerprint) = (name.as_bytes(), fingerprint.as_bytes());
    Aad::from([head, &length(name), name, &length(fingerprint), fingerprint].concat())
}

const FORMAT_VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + KEY_ID_BYTES;

#[cfg(test)]
mod tests;
