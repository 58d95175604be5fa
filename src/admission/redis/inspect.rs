//! The operator's commands: reads levels and records without any write, and forgets a record.

use std::time::{Duration, SystemTime};

use redis::Value;

use super::figures::{RecordFigures, TenantFigures, UpstreamFigures};
use super::reply::ReplyParts;
use super::{Prepared, RedisStore};
use crate::admission::{
    Forgotten, RecordProof, RecordSeen, RecordState, StoreError, TenantLevels, UpstreamLevels,
};
use crate::domain::{Name, Tenant, Upstream};

impl RedisStore {
    /// The upstream's levels, and those of these tenants on it. Charges and writes nothing. All
    /// figures are of one moment.
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time.
    pub async fn levels(
        &self,
        upstream: &Upstream,
        tenants: &[&Tenant],
    ) -> Result<UpstreamLevels, StoreError> {
        let key = |kind, of| self.key(upstream.name.as_str(), kind, of);
        let mut keys = vec![key("upstream", ""), key("queue", ""), key("drops", "")];
        let mut of_tenants = Vec::new();
        for Tenant { name, limits, .. } in tenants {
            keys.extend(["tenant:", "flights:"].map(|kind| key(kind, name.as_str())));
            of_tenants.extend(TenantFigures::of(limits).packed());
        }
        let figures = UpstreamFigures::of(upstream, self.clock()).packed();
        let script = Prepared::new(
            self.layout.of(concat!(include_str!("common.lua"), include_str!("levels.lua"))),
        );
        let reply = self.run(&script, &keys, |command| {
            command.arg(figures.as_flattened()).arg(of_tenants.as_flattened());
            tenants.iter().for_each(|tenant| {
                command.arg(tenant.name.as_str());
            });
        });
        levels(&reply.await?).ok_or(StoreError::Unreadable)
    }

    /// The content of the record with that name. Writes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time.
    pub async fn record(&self, upstream: &Name, name: &str) -> Result<RecordSeen, StoreError> {
        let reply = self.run_record(upstream, name, "look", &[]).await?;
        record(reply).ok_or(StoreError::Unreadable)
    }

    /// Forgets the record of that name, but never one in flight. `stamp`: the [`RecordSeen::stamp`]
    /// that the record must still have; empty: any state.
    ///
    /// # Errors
    /// [`StoreError`] if no answer came in time: the record may be gone.
    pub async fn forget(
        &self,
        upstream: &Name,
        name: &str,
        stamp: &[u8],
    ) -> Result<Forgotten, StoreError> {
        let reply = self.run_record(upstream, name, "forget", stamp).await?;
        let (_, word) = ReplyParts::of(reply).ok_or(StoreError::Unreadable)?;
        match word.as_slice() {
            b"forgotten" => Ok(Forgotten::Gone),
            b"absent" => Ok(Forgotten::Absent),
            b"in_flight" => Ok(Forgotten::InFlight),
            b"changed" => Ok(Forgotten::Changed),
            _ => Err(StoreError::Unreadable),
        }
    }

    async fn run_record(
        &self,
        upstream: &Name,
        name: &str,
        ask: &str,
        stamp: &[u8],
    ) -> Result<Value, StoreError> {
        let script = Prepared::new(
            self.layout.of(concat!(include_str!("common.lua"), include_str!("record.lua"))),
        );
        let upstream = upstream.as_str();
        let keys = [self.key(upstream, "upstream", ""), self.key(upstream, "record:", name)];
        let figures = RecordFigures::of(self.clock()).packed();
        self.run(&script, &keys, |command| {
            command.arg(figures.as_flattened()).arg(ask).arg(stamp);
        })
        .await
    }
}

fn levels(reply: &Value) -> Option<UpstreamLevels> {
    let Value::BulkString(packed) = reply else { return None };
    let (doubles, rest) = packed.as_chunks::<8>();
    let figures: Vec<f64> = doubles.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let (&[now, level, factor, queue], of_tenants) = figures.split_first_chunk()?;
    let (tenants, more) = of_tenants.as_chunks::<4>();
    let tenant = |&[level, share, in_flight, queue]: &[f64; 4]| TenantLevels {
        level,
        share,
        in_flight: in_flight as u32,
        queue: queue as u32,
    };
    let now = time(now)?;
    let tenants = tenants.iter().map(tenant).collect();
    let whole = rest.is_empty() && more.is_empty();
    whole.then_some(UpstreamLevels { now, level, factor, queue: queue as u32, tenants })
}

fn record(reply: Value) -> Option<RecordSeen> {
    let (mut parts, word) = ReplyParts::of(reply)?;
    let [now, until, ends] = parts.figures()?;
    let stamp = parts.bytes()?;
    let [version, fingerprint, upstream_token, mac, sealed] =
        [parts.bytes()?, parts.bytes()?, parts.bytes()?, parts.bytes()?, parts.bytes()?];
    let state = match word.as_slice() {
        b"absent" => RecordState::Absent,
        b"in_flight" => RecordState::InFlight { until: time(until)? },
        b"done" => RecordState::Done { until: time(until)?, sealed },
        b"uncertain" | b"foreign" => RecordState::Uncertain,
        b"expired" => RecordState::Expired,
        _ => return None,
    };
    // Bytes that are not UTF-8 were written by no gateway.
    let text = |bytes| String::from_utf8(bytes).ok();
    let proof = || {
        Some(RecordProof {
            version: text(version)?.parse().ok()?,
            fingerprint: text(fingerprint)?,
            upstream_token: text(upstream_token)?,
            mac: text(mac)?,
        })
    };
    let proof = (word != b"foreign").then(proof).flatten();
    Some(RecordSeen { now: time(now)?, state, ends: time(ends), stamp, proof })
}

/// From microseconds of Redis `TIME`; `None` for -1.
fn time(micros: f64) -> Option<SystemTime> {
    let is_time = (0.0..9e15).contains(&micros);
    is_time.then(|| SystemTime::UNIX_EPOCH + Duration::from_micros(micros as u64))
}
