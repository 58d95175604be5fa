//! The store that all replicas share: two scripts on Redis or Valkey, 6.2 or later, and two more
//! for the operator's commands.
//!
//! An upstream has one hash slot, also on a cluster. One script can then decide over its budget, a
//! tenant's levels and leases, and a record together. `admit.lua` documents the keys, their fields
//! and the scripts' arguments.

mod dial;
mod figures;
mod inspect;
mod layout;
mod link;
mod reply;
mod settings;

use std::io::Write;
use std::sync::Arc;

use redis::{Cmd, RedisWrite, Script, ToRedisArgs, Value};

use super::clock::Clock;
use super::{
    Answer, Ask, Nonce, Scope, Settled, Settlement, Stage, Store, StoreError, StoreLevels, Verdict,
};
use crate::domain::Name;
use dial::Dialer;
use figures::{AdmitFigures, SettleFigures};
pub use layout::Layout;
use link::Link;
pub use settings::{RedisSettings, SentinelLogin, SettingsError, TlsFiles, Tokens, Topology};

/// Claims, levels and leases in Redis.
pub struct RedisStore {
    link: Link,
    prefix: String,
    /// The upstream whose slot is probed.
    probed: String,
    admit: Prepared,
    settle: Prepared,
    layout: Layout,
    clock: Option<Arc<dyn Clock>>,
}

/// A script and its digest.
struct Prepared {
    source: String,
    digest: String,
}

impl RedisStore {
    /// A store with these settings. The first ask connects, and must run inside a tokio runtime.
    ///
    /// # Errors
    /// [`SettingsError`] for settings that can never work.
    pub fn new(settings: RedisSettings) -> Result<Self, SettingsError> {
        let (prefix, layout) = (settings.key_prefix.clone(), settings.layout);
        Ok(Self {
            link: Link::new(Dialer::new(settings)?),
            prefix,
            probed: "_probe".to_owned(),
            admit: Prepared::new(layout.of(concat!(
                include_str!("redis/common.lua"),
                include_str!("redis/queue.lua"),
                include_str!("redis/admit.lua")
            ))),
            settle: Prepared::new(
                layout.of(concat!(
                    include_str!("redis/common.lua"),
                    include_str!("redis/settle.lua")
                )),
            ),
            layout,
            clock: None,
        })
    }

    /// The same store; its probes go to the node that has this upstream's slot.
    #[must_use]
    pub(crate) fn probing(mut self, upstream: &Name) -> Self {
        self.probed = upstream.to_string();
        self
    }

    /// For tests: the scripts take their time from here, not from Redis. No setting uses this.
    #[doc(hidden)]
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// The keys of a call's scripts, in the order of `admit.lua`.
    fn keys<'a>(&'a self, scope: &'a Scope, record: Option<&'a str>) -> Vec<Key<'a>> {
        let upstream = scope.upstream.as_str();
        let of = |kind: &str| if kind.ends_with(':') { scope.tenant.as_str() } else { "" };
        let record = record.map(|name| self.key(upstream, "record:", name));
        KEYS.iter()
            .map(|kind| self.key(upstream, kind, of(kind)))
            .chain(record)
            .collect()
    }

    fn key<'a>(&'a self, upstream: &'a str, kind: &'a str, of: &'a str) -> Key<'a> {
        Key { prefix: &self.prefix, upstream, kind, of }
    }

    async fn run(&self, script: &Prepared, keys: &[Key<'_>], args: impl Fn(&mut Cmd)) -> Reply {
        let command = |name, script: &str| {
            let mut command = Cmd::with_capacity(ARGS, BYTES + script.len());
            command.arg(name).arg(script).arg(keys.len());
            keys.iter().for_each(|key| {
                command.arg(key);
            });
            args(&mut command);
            command
        };
        let by_digest = command("EVALSHA", &script.digest);
        // EVAL loads the script on the same node that did not have it.
        self.link.send(&by_digest, || command("EVAL", &script.source)).await
    }

    /// The scripts' clock, in tests.
    fn clock(&self) -> Option<u64> {
        self.clock.as_ref().map(|clock| clock.now())
    }

    async fn read_quota(&self, keys: &[Key<'_>], tenant: &str, figures: AdmitFigures) -> Reply {
        self.run(&self.admit, keys, |command| {
            command.arg("quota").arg(figures.packed().as_flattened()).arg("").arg(tenant);
        })
        .await
    }
}

impl Store for RedisStore {
    async fn admit(&self, ask: &Ask) -> Result<Answer, StoreError> {
        let scope = &ask.scope;
        let record = ask.record.as_ref();
        let keys = self.keys(scope, record.map(|record| &*record.name));
        let word = match ask.stage {
            Stage::Call => "call",
            Stage::Attempt { .. } => "attempt",
            Stage::Renew => "renew",
            Stage::Look => "look",
        };
        let figures = AdmitFigures::of(ask, self.clock()).packed();
        let reply = self.run(&self.admit, &keys, |command| {
            command.arg(word).arg(figures.as_flattened()).arg(ask.nonce);
            command.arg(scope.tenant.as_str());
            if let Some(record) = record {
                command
                    .arg(record.version)
                    .arg(&*record.fingerprint)
                    .arg(record.upstream_token.as_str())
                    .arg(&*record.mac)
                    .arg(record.distrust.as_deref().unwrap_or_default());
            }
        });
        reply::answer(scope, &reply.await?)
    }

    async fn settle(&self, settlement: &Settlement) -> Result<Settled, StoreError> {
        let Settlement { scope, nonce, verdict, .. } = settlement;
        let keys = self.keys(scope, settlement.record.as_deref());
        let (word, sealed) = match verdict {
            Verdict::Done { sealed, .. } => ("done", Some(sealed.as_slice())),
            Verdict::Release { refund: false } => ("release", None),
            Verdict::Release { refund: true } => ("refund", None),
            Verdict::Uncertain => ("uncertain", None),
        };
        let figures = SettleFigures::of(settlement, self.clock()).packed();
        let reply = self.run(&self.settle, &keys, |command| {
            command.arg(word).arg(figures.as_flattened()).arg(*nonce);
            command.arg(scope.tenant.as_str());
            if let Some(sealed) = sealed {
                command.arg(sealed);
            }
        });
        let closed = reply::is_one(&reply.await?)?;
        Ok(if closed { Settled::Closed } else { Settled::NotOurs })
    }

    async fn has_record(&self, scope: &Scope, name: &str) -> Result<bool, StoreError> {
        let mut command = Cmd::with_capacity(2, BYTES);
        command.arg("EXISTS").arg(self.key(scope.upstream.as_str(), "record:", name));
        // No script, so nothing to load.
        reply::is_one(&self.link.send(&command, Cmd::new).await?)
    }

    async fn levels_of(&self, scope: &Scope) -> Result<StoreLevels, StoreError> {
        let keys = self.keys(scope, None);
        let figures = AdmitFigures::of_scope(scope, self.clock());
        reply::levels(scope, &self.read_quota(&keys, scope.tenant.as_str(), figures).await?)
    }

    /// Runs the script on its own keys in the upstream's slot. A PING is not enough: a replica, a
    /// full server and a server without permissions answer it, too.
    async fn probe(&self) -> Result<(), StoreError> {
        let keys = KEYS.map(|kind| self.key(&self.probed, "probe:", kind.trim_end_matches(':')));
        self.read_quota(&keys, "", AdmitFigures::of_probe()).await?;
        // A settlement of no call: the server then knows both scripts before the first call.
        let figures = SettleFigures::of_probe().packed();
        let settled = self.run(&self.settle, &keys, |command| {
            command.arg("uncertain").arg(figures.as_flattened()).arg(Nonce(0)).arg("");
        });
        settled.await.map(drop)
    }
}

impl Prepared {
    fn new(source: String) -> Self {
        let digest = Script::new(&source).get_hash().to_owned();
        Self { source, digest }
    }
}

/// A key of an upstream. All of them share the part in braces, and with it the cluster's slot.
struct Key<'a> {
    prefix: &'a str,
    upstream: &'a str,
    /// One of [`KEYS`], `record:` or `probe:`.
    kind: &'a str,
    /// Follows a kind that ends with a colon.
    of: &'a str,
}

impl ToRedisArgs for Key<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        let Self { prefix, upstream, kind, of } = self;
        let mut key = out.writer_for_next_arg();
        for part in [prefix, ":{", upstream, "}:", kind, of] {
            let _always_fits = key.write_all(part.as_bytes());
        }
    }
}

impl ToRedisArgs for Nonce {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        out.write_arg_fmt(format_args!("{:032x}", self.0));
    }
}

/// The reply of a script.
type Reply = Result<Value, StoreError>;

/// The size of a command, so that it is allocated once: arguments, and bytes besides the script's.
const ARGS: usize = 20;
const BYTES: usize = 1024;

/// The keys of every script except the record's, in the order of `admit.lua`. The tenant's name
/// follows a colon.
const KEYS: [&str; 6] = ["upstream", "tenant:", "flights:", "queue", "drops", "starts"];
