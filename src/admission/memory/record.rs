//! One idempotency record: its answer to an ask, and its states.

use std::sync::Arc;

use super::super::{Decision, Nonce, RecordAsk, Verdict};
use crate::domain::UpstreamToken;

/// A claim's content and state.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub state: State,
    version: u8,
    pub fingerprint: Arc<str>,
    token: UpstreamToken,
    mac: Arc<str>,
    /// Once uncertain, always uncertain.
    pub sticky: bool,
    /// When the record is forgotten, in µs of m.
    pub until: u64,
    /// The result. It is kept while a takeover only seals it anew.
    pub body: Option<Body>,
}

#[derive(Debug, Clone)]
pub(super) struct Body {
    pub sealed: Vec<u8>,
    pub until: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum State {
    InFlight { nonce: Nonce, lease: u64 },
    Done,
    Tombstone,
    Uncertain,
}

/// The record's position on an ask.
#[derive(Debug)]
pub(super) enum Standing {
    /// The record answers the ask.
    Answer(Decision),
    /// The claim is already this nonce's. The fields are the end of its lease, and its sticky bit.
    Ours { lease: u64, sticky: bool },
    /// The record may be claimed.
    Free,
    /// The record may be claimed by a takeover. `keep`: the record stays, with its body.
    Takeover { keep: bool },
}

impl Record {
    /// The record's position on an ask. Drops a body that has expired.
    pub(crate) fn standing(&mut self, ask: &RecordAsk, nonce: Nonce, m: u64) -> Standing {
        if self.until <= m {
            return Standing::Free;
        }
        if self.version != ask.version || self.fingerprint != ask.fingerprint {
            return if ask.distrust.as_deref() == Some(self.mac.as_bytes()) {
                Standing::Takeover { keep: false }
            } else {
                Standing::Answer(self.mismatch())
            };
        }
        if self.token != ask.upstream_token || self.mac != ask.mac {
            // The same content has the same token and MAC, so another program wrote this record.
            return Standing::Takeover { keep: false };
        }
        match (self.state, &self.body) {
            (State::InFlight { nonce: held, lease }, _) if held == nonce => {
                Standing::Ours { lease, sticky: self.sticky }
            }
            (State::InFlight { lease, .. }, _) if lease > m => Standing::Answer(Decision::Busy {
                lease: std::time::Duration::from_micros(lease - m),
            }),
            // The state is done, or a takeover to seal the body anew never ended: the body is still
            // valid.
            (State::InFlight { .. } | State::Done | State::Uncertain, Some(body))
                if body.until > m =>
            {
                if ask.distrust.as_ref() == Some(&body.sealed) {
                    Standing::Takeover { keep: true }
                } else {
                    Standing::Answer(Decision::Replay { sealed: body.sealed.clone() })
                }
            }
            (State::Tombstone, _) | (_, Some(_)) => {
                self.bury();
                Standing::Answer(Decision::Tombstone)
            }
            (State::InFlight { .. } | State::Done | State::Uncertain, None) => {
                Standing::Takeover { keep: true }
            }
        }
    }

    fn mismatch(&self) -> Decision {
        Decision::Mismatch {
            mac: self.mac.to_string(),
            fingerprint: self.fingerprint.to_string(),
            upstream_token: self.token.as_str().to_owned(),
            version: self.version,
        }
    }

    /// A claim of a free record, or in place of a foreign one.
    pub(crate) fn claimed(
        ask: &RecordAsk,
        nonce: Nonce,
        lease: u64,
        until: u64,
        sticky: bool,
    ) -> Self {
        Self {
            state: State::InFlight { nonce, lease },
            version: ask.version,
            fingerprint: ask.fingerprint.clone(),
            token: ask.upstream_token.clone(),
            mac: ask.mac.clone(),
            sticky,
            until,
            body: None,
        }
    }

    /// Claims the record again, or renews the claim. The record lasts at least as long as its
    /// lease.
    pub(crate) fn claim(&mut self, nonce: Nonce, lease: u64, sticky: bool) {
        self.state = State::InFlight { nonce, lease };
        self.sticky = sticky;
        self.until = self.until.max(lease);
    }

    /// Whether this nonce holds the claim.
    pub(crate) fn is_held_by(&self, nonce: Nonce, m: u64) -> bool {
        self.until > m && matches!(self.state, State::InFlight { nonce: held, .. } if held == nonce)
    }

    /// Ends a claim. `life` is the rest of the result's own life, if it has an end. Returns false
    /// if the record must be forgotten.
    pub(crate) fn settle(&mut self, verdict: &Verdict, life: Option<u64>, m: u64) -> bool {
        match verdict {
            Verdict::Done { sealed, .. } => {
                let until = life.map_or(self.until, |life| self.until.min(m + life));
                self.body = Some(Body { sealed: sealed.clone(), until });
                self.state = State::Done;
            }
            Verdict::Release { .. } if !self.sticky && self.body.is_none() => return false,
            Verdict::Release { .. } | Verdict::Uncertain => {
                self.sticky = true;
                self.state = if self.body.is_some() { State::Done } else { State::Uncertain };
            }
        }
        if self.body.as_ref().is_some_and(|body| body.until <= m) {
            self.bury();
        }
        true
    }

    /// Drops an expired body. The record stays as a tombstone.
    pub(crate) fn expire(&mut self, m: u64) {
        if self.state == State::Done && self.body.as_ref().is_some_and(|body| body.until <= m) {
            self.bury();
        }
    }

    /// When the record next needs a purge.
    pub(crate) fn next_purge(&self) -> u64 {
        match (self.state, &self.body) {
            (State::Done, Some(body)) => body.until.min(self.until),
            _ => self.until,
        }
    }

    fn bury(&mut self) {
        self.state = State::Tombstone;
        self.body = None;
    }
}
