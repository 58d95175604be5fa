//! One idempotency record: what it says to an ask, and what becomes of it.

use super::super::{Decision, Nonce, RecordAsk, Verdict};
use crate::domain::UpstreamToken;

/// A claim's content and state.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub state: State,
    version: u8,
    pub fingerprint: String,
    token: UpstreamToken,
    mac: String,
    /// Once uncertain, always uncertain.
    pub sticky: bool,
    /// When it is forgotten, in µs of m.
    pub until: u64,
    /// The result; kept while it is only to be sealed anew.
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

/// What the record says to an ask.
#[derive(Debug)]
pub(super) enum Standing {
    /// The answer is the record's.
    Answer(Decision),
    /// The claim is this nonce's already; when its lease ends, and its sticky bit.
    Ours { lease: u64, sticky: bool },
    /// May be claimed, as it is.
    Free,
    /// May be claimed, and the claim is a takeover. `keep`: of this very record, whose body stays.
    Takeover { keep: bool },
}

impl Record {
    /// What the record says to an ask; ends a body's life on the way.
    pub fn standing(&mut self, ask: &RecordAsk, nonce: Nonce, m: u64) -> Standing {
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
            // The same content has the same token and mac: this record was not written by us.
            return Standing::Takeover { keep: false };
        }
        match (self.state, &self.body) {
            (State::InFlight { nonce: held, lease }, _) if held == nonce => {
                Standing::Ours { lease, sticky: self.sticky }
            }
            (State::InFlight { lease, .. }, _) if lease > m => Standing::Answer(Decision::Busy {
                lease: std::time::Duration::from_micros(lease - m),
            }),
            // Done; or taken over to be sealed anew, and that never ended: the body is what it was.
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
            mac: self.mac.clone(),
            fingerprint: self.fingerprint.clone(),
            upstream_token: self.token.as_str().to_owned(),
            version: self.version,
        }
    }

    /// A claim of what was free, or in place of what is not ours.
    pub fn claimed(ask: &RecordAsk, nonce: Nonce, lease: u64, until: u64, sticky: bool) -> Self {
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

    /// Claims it anew, or renews the claim. It lives as long as its lease at least.
    pub fn claim(&mut self, nonce: Nonce, lease: u64, sticky: bool) {
        self.state = State::InFlight { nonce, lease };
        self.sticky = sticky;
        self.until = self.until.max(lease);
    }

    /// Whether the claim is this nonce's.
    pub fn is_held_by(&self, nonce: Nonce, m: u64) -> bool {
        self.until > m && matches!(self.state, State::InFlight { nonce: held, .. } if held == nonce)
    }

    /// Ends a claim; `life` is what is left of the result's own, where it has an end. False: forget
    /// the record.
    pub fn settle(&mut self, verdict: &Verdict, life: Option<u64>, m: u64) -> bool {
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

    /// Drops a body whose life is over; its record stays as a tombstone.
    pub fn expire(&mut self, m: u64) {
        if self.state == State::Done && self.body.as_ref().is_some_and(|body| body.until <= m) {
            self.bury();
        }
    }

    /// When there is something to purge.
    pub fn next_purge(&self) -> u64 {
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
