//! The scripts' replies, as the store's own types. Each script documents its own.

use std::time::Duration;

use redis::Value;

use super::super::rounding::up_to_micros;
use super::super::{Answer, Decision, Moment, Quota, Refused, Scope, StoreError, StoreLevels};
use crate::domain::UpstreamToken;
use crate::error::Limit;

/// What is left of a reply of `admit.lua`.
struct Packed<'a>(&'a [u8]);

/// The parts of a reply of `record.lua`, in order.
pub(super) struct ReplyParts(std::vec::IntoIter<Value>);

/// Reads the reply of `admit.lua` to anything but a quota.
pub(super) fn answer(scope: &Scope, reply: &Value) -> Result<Answer, StoreError> {
    read_answer(scope, reply).ok_or(StoreError::Unreadable)
}

/// Reads the reply of `admit.lua` to a quota.
pub(super) fn levels(scope: &Scope, reply: &Value) -> Result<StoreLevels, StoreError> {
    read_levels(scope, reply).ok_or(StoreError::Unreadable)
}

/// Reads the reply of `settle.lua`, or of EXISTS.
pub(super) fn is_one(reply: &Value) -> Result<bool, StoreError> {
    match reply {
        Value::Int(number) => Ok(*number == 1),
        _ => Err(StoreError::Unreadable),
    }
}

fn read_levels(scope: &Scope, reply: &Value) -> Option<StoreLevels> {
    let (_, mut reply) = Packed::of(reply)?;
    let (quota, _) = reply.head(scope)?;
    let [tenant, share, budget, queued] = reply.figures()?;
    Some(StoreLevels { quota, tenant, share, budget, queued: whole(queued)? as u32 })
}

fn read_answer(scope: &Scope, reply: &Value) -> Option<Answer> {
    let (word, mut reply) = Packed::of(reply)?;
    let (quota, shadowed) = reply.head(scope)?;
    let decision = match word {
        "granted" => {
            let [at, takeover, distrusted] = reply.figures()?;
            let token = reply.text()?;
            let upstream_token =
                if token.is_empty() { None } else { Some(UpstreamToken::new(token).ok()?) };
            let (takeover, distrusted) = (takeover == 1.0, distrusted == 1.0);
            Decision::Granted {
                at: Moment::from_micros(whole(at)?),
                upstream_token,
                takeover,
                distrusted,
            }
        }
        "replay" => Decision::Replay { sealed: std::mem::take(&mut reply.0).to_vec() },
        "mismatch" => Decision::Mismatch {
            mac: reply.text()?.to_owned(),
            fingerprint: reply.text()?.to_owned(),
            upstream_token: reply.text()?.to_owned(),
            version: reply.text()?.parse().ok()?,
        },
        "busy" => {
            let [lease] = reply.figures()?;
            Decision::Busy { lease: Duration::from_micros(whole(lease)?) }
        }
        "tombstone" => Decision::Tombstone,
        "lost" => Decision::Lost,
        "refused" => {
            let [wait] = reply.figures()?;
            Decision::Refused(Refused::micros(limit(reply.text()?)??, wait * 1e6))
        }
        "ask_again" => {
            let [after] = reply.figures()?;
            Decision::AskAgain { after: up_to_micros(after) }
        }
        _ => return None,
    };
    reply.0.is_empty().then_some(Answer { decision, shadowed, quota })
}

impl<'a> Packed<'a> {
    /// The first word, and what follows it.
    fn of(reply: &'a Value) -> Option<(&'a str, Self)> {
        let Value::BulkString(packed) = reply else { return None };
        let mut reply = Self(packed);
        Some((reply.text()?, reply))
    }

    /// The levels, and the limit that was let through.
    fn head(&mut self, scope: &Scope) -> Option<(Quota, Option<Refused>)> {
        let [level, factor, in_flight, wait] = self.figures()?;
        let quota = scope.quota(level, whole(in_flight)?, factor);
        let limit = limit(self.text()?)?;
        Some((quota, limit.map(|limit| Refused::micros(limit, wait * 1e6))))
    }

    /// Doubles, exactly this many. NaN makes the reply unreadable.
    fn figures<const N: usize>(&mut self) -> Option<[f64; N]> {
        let (packed, rest) = self.0.split_at_checked(8 * N)?;
        self.0 = rest;
        let mut figures = [0.0; N];
        for (figure, bytes) in figures.iter_mut().zip(packed.as_chunks().0) {
            *figure = f64::from_le_bytes(*bytes);
        }
        (!figures.iter().any(|figure| figure.is_nan())).then_some(figures)
    }

    /// A text, up to its NUL.
    fn text(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (text, rest) = (&self.0[..end], &self.0[end + 1..]);
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

impl ReplyParts {
    /// All parts, and the first of them.
    pub(crate) fn of(reply: Value) -> Option<(Self, Vec<u8>)> {
        let Value::Array(parts) = reply else { return None };
        let mut parts = Self(parts.into_iter());
        let decision = parts.bytes()?;
        Some((parts, decision))
    }

    pub(crate) fn bytes(&mut self) -> Option<Vec<u8>> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes),
            Value::SimpleString(text) => Some(text.into_bytes()),
            _ => None,
        }
    }

    /// Packed doubles, exactly this many. NaN makes the reply unreadable.
    pub(crate) fn figures<const N: usize>(&mut self) -> Option<[f64; N]> {
        let packed = self.bytes()?;
        let mut packed = Packed(&packed);
        let figures = packed.figures()?;
        packed.0.is_empty().then_some(figures)
    }
}

/// A figure that counts, or a time in µs: not negative.
fn whole(figure: f64) -> Option<u64> {
    (figure >= 0.0).then_some(figure as u64)
}

/// The limit of a word; the outer `None` if the word is unknown.
fn limit(word: &str) -> Option<Option<Limit>> {
    match word {
        "none" => Some(None),
        "rate" => Some(Some(Limit::TenantRate)),
        "in_flight" => Some(Some(Limit::TenantInFlight)),
        "budget" => Some(Some(Limit::UpstreamBudget)),
        _ => None,
    }
}
