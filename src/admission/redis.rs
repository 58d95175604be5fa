//! The store that all replicas share: two scripts on Redis or Valkey, 6.2 or later.
//!
//! An upstream is one hash slot, so that one script may decide over its budget, a tenant's levels
//! and leases, and a record together, on a cluster too. The keys, their fields and the scripts'
//! arguments are documented in `admit.lua`.

mod dial;
mod link;
mod reply;
mod settings;

use std::sync::Arc;

use async_trait::async_trait;
use redis::{Cmd, Script, Value};

use super::clock::{Clock, unix_micros};
use super::figures::{lease_micros, micros};
use super::{
    Answer, Ask, EXPIRY_SKEW, Moment, Nonce, Quota, Scope, Settled, Settlement, Stage, Store,
    StoreError, Verdict,
};
use crate::domain::Name;
use dial::Dialer;
use link::Link;
pub use settings::{RedisSettings, SettingsError, TlsFiles, Topology};

/// Claims, levels and leases in Redis.
pub struct RedisStore {
    link: Link,
    prefix: String,
    /// Whose slot is probed.
    probed: String,
    admit: Prepared,
    settle: Prepared,
    clock: Option<Arc<dyn Clock>>,
}

/// A script and its digest.
struct Prepared {
    source: &'static str,
    digest: String,
}

impl RedisStore {
    /// A store by these settings. Connects when it is first asked; must be asked inside a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`SettingsError`] where they can never work.
    pub fn new(settings: RedisSettings) -> Result<Self, SettingsError> {
        let prefix = settings.key_prefix.clone();
        Ok(Self {
            link: Link::new(Dialer::new(settings)?),
            prefix,
            probed: "_probe".to_owned(),
            admit: Prepared::new(concat!(
                include_str!("redis/common.lua"),
                include_str!("redis/admit.lua")
            )),
            settle: Prepared::new(concat!(
                include_str!("redis/common.lua"),
                include_str!("redis/settle.lua")
            )),
            clock: None,
        })
    }

    /// The same store, whose probes go to the node that has this upstream's slot.
    #[must_use]
    pub fn probing(mut self, upstream: &Name) -> Self {
        self.probed = upstream.to_string();
        self
    }

    /// For tests: the scripts take their time from here, not from Redis. No setting leads to this.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The keys of an upstream share the part in braces, and with it the cluster's slot.
    fn keys(&self, upstream: &str, tenant: &str, record: Option<&str>) -> Vec<String> {
        let prefix = &self.prefix;
        let mut keys = vec![
            format!("{prefix}:{{{upstream}}}:u"),
            format!("{prefix}:{{{upstream}}}:t:{tenant}"),
            format!("{prefix}:{{{upstream}}}:f:{tenant}"),
        ];
        keys.extend(record.map(|name| format!("{prefix}:{{{upstream}}}:r:{name}")));
        keys
    }

    async fn run(
        &self,
        script: &Prepared,
        keys: &[String],
        args: impl Fn(&mut Cmd),
    ) -> Result<Value, StoreError> {
        let command = |name, script: &str| {
            let mut command = redis::cmd(name);
            command.arg(script).arg(keys.len()).arg(keys);
            args(&mut command);
            command
        };
        let by_digest = command("EVALSHA", &script.digest);
        // EVAL keeps the script, on the very node that forgot it.
        self.link.send(&by_digest, || command("EVAL", script.source)).await
    }

    /// The scripts' clock, in tests.
    fn clock(&self) -> f64 {
        self.clock.as_ref().map_or(NONE, |clock| clock.now() as f64)
    }

    /// The first eleven figures of `admit.lua`.
    fn scope_figures(&self, scope: &Scope, throttled: Option<Moment>) -> [f64; 11] {
        let limits = &scope.limits;
        [
            self.clock(),
            scope.rate.per_second(),
            scope.burst.into(),
            scope.reserve(),
            moment(throttled),
            limits.rate.per_second(),
            limits.burst.into(),
            limits.committed.per_second(),
            limits.committed_burst().into(),
            limits.max_in_flight.into(),
            f64::from(u8::from(scope.shadow())),
        ]
    }

    async fn read_quota(&self, keys: &[String], scope: [f64; 11]) -> Result<Value, StoreError> {
        self.run(&self.admit, keys, |command| {
            command.arg("q").arg(packed(scope.into_iter().chain([0.0; 4])));
        })
        .await
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let scope = &ask.scope;
        let record = ask.record.as_ref();
        let keys = self.keys(
            scope.upstream.as_str(),
            scope.tenant.as_str(),
            record.map(|record| record.name.as_str()),
        );
        let (what, uncertain) = match ask.stage {
            Stage::First => ("f", false),
            Stage::Again => ("a", false),
            Stage::Look => ("p", false),
            Stage::Attempt { uncertain, again } => (if again { "T" } else { "t" }, uncertain),
        };
        let retention = record.map_or(0, |record| micros(record.retention));
        let own = [lease_micros(ask.lease), micros(ask.wait), retention, u64::from(uncertain)];
        let figures = self
            .scope_figures(scope, ask.throttled)
            .into_iter()
            .chain(own.map(|figure| figure as f64));
        let figures = packed(figures);
        let reply = self.run(&self.admit, &keys, |command| {
            command.arg(what).arg(figures.as_slice()).arg(hex(ask.nonce));
            if let Some(record) = record {
                command
                    .arg(record.version)
                    .arg(&record.fingerprint)
                    .arg(record.upstream_token.as_str())
                    .arg(&record.mac)
                    .arg(record.distrust.as_deref().unwrap_or_default());
            }
        });
        reply::answer(scope, reply.await?)
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        let scope = &settlement.scope;
        let keys =
            self.keys(scope.upstream.as_str(), scope.tenant.as_str(), settlement.record.as_deref());
        let verdict = match settlement.verdict {
            Verdict::Done { .. } => "d",
            Verdict::Release { refund: false } => "r",
            Verdict::Release { refund: true } => "R",
            Verdict::Uncertain => "u",
        };
        let sealed = match &settlement.verdict {
            Verdict::Done { sealed, expires } => Some((sealed.as_slice(), *expires)),
            Verdict::Release { .. } | Verdict::Uncertain => None,
        };
        let ends = sealed.and_then(|(_, expires)| expires);
        let ends = ends.map_or(NONE, |expires| {
            unix_micros(expires).saturating_sub(micros(EXPIRY_SKEW)) as f64
        });
        let limits = &scope.limits;
        let figures = packed([
            self.clock(),
            scope.rate.per_second(),
            scope.burst.into(),
            moment(settlement.throttled),
            limits.rate.per_second(),
            limits.burst.into(),
            ends,
        ]);
        let reply = self.run(&self.settle, &keys, |command| {
            command.arg(verdict).arg(figures.as_slice()).arg(hex(settlement.nonce));
            if let Some((sealed, _)) = sealed {
                command.arg(sealed);
            }
        });
        Ok(if reply::settled(&reply.await?)? { Settled::Closed } else { Settled::NotOurs })
    }

    async fn quota(&self, scope: &Scope) -> Result<Quota, StoreError> {
        let keys = self.keys(scope.upstream.as_str(), scope.tenant.as_str(), None);
        reply::quota(scope, self.read_quota(&keys, self.scope_figures(scope, None)).await?)
    }

    /// Runs the script on keys of its own in the upstream's slot: a PING is answered by a replica,
    /// by a full server and by one that lets us run nothing, too.
    async fn probe(&self) -> Result<(), StoreError> {
        let (prefix, upstream) = (&self.prefix, &self.probed);
        let keys = ["u", "t", "f"].map(|key| format!("{prefix}:{{{upstream}}}:probe:{key}"));
        self.read_quota(&keys, [NONE, 1.0, 1.0, 0.0, NONE, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
            .await?;
        // A settlement of nobody's: so that the server knows both scripts before the first call.
        let settled = self.run(&self.settle, &keys, |command| {
            command
                .arg("r")
                .arg(packed([NONE, 1.0, 1.0, NONE, 1.0, 1.0, NONE]))
                .arg(hex(Nonce(0)));
        });
        settled.await.map(drop)
    }
}

impl Prepared {
    fn new(source: &'static str) -> Self {
        Self { source, digest: Script::new(source).get_hash().to_owned() }
    }
}

fn moment(moment: Option<Moment>) -> f64 {
    moment.map_or(NONE, |moment| moment.micros() as f64)
}

/// As the scripts unpack them.
fn packed(figures: impl IntoIterator<Item = f64>) -> Vec<u8> {
    figures.into_iter().flat_map(f64::to_le_bytes).collect()
}

fn hex(nonce: Nonce) -> String {
    format!("{:032x}", nonce.0)
}

/// Stands for an absent time in the scripts' figures.
const NONE: f64 = -1.0;
