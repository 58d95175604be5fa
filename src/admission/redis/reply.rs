//! The scripts' replies, as the store's own types. `admit.lua` documents their forms.

use std::time::Duration;

use redis::Value;

use super::super::rounding::up_to_micros;
use super::super::{Answer, Decision, Moment, Quota, Refused, Scope, StoreError, StoreLevels};
use crate::domain::UpstreamToken;
use crate::error::Limit;

/// The parts of a reply, in order.
pub(super) struct ReplyParts(std::vec::IntoIter<Value>);

/// Reads the reply of `admit.lua` to anything but a quota.
pub(super) fn answer(scope: &Scope, reply: Value) -> Result<Answer, StoreError> {
    read_answer(scope, reply).ok_or(StoreError::Unreadable)
}

/// Reads the reply of `admit.lua` to a quota.
pub(super) fn levels(scope: &Scope, reply: Value) -> Result<StoreLevels, StoreError> {
    read_levels(scope, reply).ok_or(StoreError::Unreadable)
}

/// Reads the reply of `settle.lua`.
pub(super) fn settled(reply: &Value) -> Result<bool, StoreError> {
    match reply {
        Value::Int(closed) => Ok(*closed == 1),
        _ => Err(StoreError::Unreadable),
    }
}

fn read_levels(scope: &Scope, reply: Value) -> Option<StoreLevels> {
    let (mut parts, _) = ReplyParts::of(reply)?;
    let (quota, _) = parts.head(scope)?;
    let [tenant, share, budget] = parts.figures()?;
    let queued = u32::try_from(parts.whole()?).ok()?;
    Some(StoreLevels { quota, tenant, share, budget, queued })
}

fn read_answer(scope: &Scope, reply: Value) -> Option<Answer> {
    let (mut parts, decision) = ReplyParts::of(reply)?;
    let (quota, shadowed) = parts.head(scope)?;
    let decision = match decision.as_slice() {
        b"granted" => {
            let at = Moment::from_micros(parts.whole()?);
            let takeover = parts.whole()? == 1;
            let token = parts.text()?;
            let upstream_token =
                if token.is_empty() { None } else { Some(UpstreamToken::new(token).ok()?) };
            let distrusted = parts.whole()? == 1;
            Decision::Granted { at, upstream_token, takeover, distrusted }
        }
        b"replay" => Decision::Replay { sealed: parts.bytes()? },
        b"mismatch" => Decision::Mismatch {
            mac: parts.text()?,
            fingerprint: parts.text()?,
            upstream_token: parts.text()?,
            version: parts.text()?.parse().ok()?,
        },
        b"busy" => Decision::Busy { lease: Duration::from_micros(parts.whole()?) },
        b"tombstone" => Decision::Tombstone,
        b"lost" => Decision::Lost,
        b"refused" => {
            let limit = limit(&parts.bytes()?)??;
            let wait = parts.seconds()?;
            Decision::Refused(Refused::micros(limit, wait * 1e6))
        }
        b"ask_again" => Decision::AskAgain { after: up_to_micros(parts.seconds()?) },
        _ => return None,
    };
    Some(Answer { decision, shadowed, quota })
}

impl ReplyParts {
    /// All parts, and the first of them.
    pub(crate) fn of(reply: Value) -> Option<(Self, Vec<u8>)> {
        let Value::Array(parts) = reply else { return None };
        let mut parts = Self(parts.into_iter());
        let decision = parts.bytes()?;
        Some((parts, decision))
    }

    /// The start of every reply: the levels, and the limit that was let through.
    fn head(&mut self, scope: &Scope) -> Option<(Quota, Option<Refused>)> {
        let [level, factor, wait] = self.figures()?;
        let quota = scope.quota(level, self.whole()?, factor);
        let limit = limit(&self.bytes()?)?;
        Some((quota, limit.map(|limit| Refused::micros(limit, wait * 1e6))))
    }

    pub(crate) fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.into_bytes()),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn seconds(&mut self) -> Option<f64> {
        self.figures().map(|[seconds]| seconds)
    }

    /// Packed doubles, exactly this many. NaN makes the reply unreadable.
    pub(crate) fn figures<const N: usize>(&mut self) -> Option<[f64; N]> {
        let packed = self.bytes()?;
        let (doubles, rest) = packed.as_chunks::<8>();
        let figures: [f64; N] = doubles
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect::<Vec<_>>()
            .try_into()
            .ok()?;
        (rest.is_empty() && !figures.iter().any(|figure| figure.is_nan())).then_some(figures)
    }

    fn whole(&mut self) -> Option<u64> {
        match self.0.next()? {
            Value::Int(whole) => u64::try_from(whole).ok(),
            _ => None,
        }
    }
}

/// The limit of a word; the outer `None` if the word is unknown.
fn limit(word: &[u8]) -> Option<Option<Limit>> {
    match word {
        b"none" => Some(None),
        b"rate" => Some(Some(Limit::TenantRate)),
        b"in_flight" => Some(Some(Limit::TenantInFlight)),
        b"budget" => Some(Some(Limit::UpstreamBudget)),
        _ => None,
    }
}
