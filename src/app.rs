//! The only wiring: from settings to a process that serves, and back down again.

mod current;
mod health;
mod measured;
mod stack;
mod stores;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::config::{Problem, Settings, shape};
use crate::connect::{Attempts, Client, StaticCredentials};
use crate::domain::Name;
use crate::gateway::{Gateway, Levels};
use crate::identity::{ClientNames, Identity};
use crate::net;
use crate::net::tls::{Tls, TlsFiles};
use crate::telemetry::{LogLevel, Metrics, Telemetry};
pub use current::Reloading;
use current::{expect, keep_current, watch};
use health::Health;
use stack::Stack;

/// What an app is built from.
pub struct Parts {
    /// The config.
    pub settings: Settings,
    /// Absent: the config is not reloaded.
    pub reload: Option<Reloading>,
    /// Keys that need no chain: the simulator's.
    pub credentials: Option<StaticCredentials>,
    /// The running log's level, for reloads.
    pub log_level: LogLevel,
}

/// A gateway that is bound to its ports, and serves with [`App::run`].
pub struct App {
    parts: Parts,
    grpc: TcpListener,
    admin: TcpListener,
}

impl App {
    /// Binds both ports.
    ///
    /// # Errors
    /// Where an address cannot be bound; the text names it.
    pub async fn bind(parts: Parts) -> io::Result<Self> {
        let grpc = bind(parts.settings.shape.server.listen.get()).await?;
        let admin = bind(parts.settings.shape.admin.listen.get()).await?;
        Ok(Self { parts, grpc, admin })
    }

    /// Where callers find it.
    ///
    /// # Errors
    /// Where the socket is gone.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// Where operators find it.
    ///
    /// # Errors
    /// Where the socket is gone.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `shutdown`, then drains: health says NOT_SERVING, connections are told to go
    /// away, calls in flight finish, those that are left when `drain_timeout` runs out are answered
    /// SHUTTING_DOWN.
    ///
    /// # Errors
    /// Where telemetry, the store, identity, TLS or reflection cannot be set up.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { parts: Parts { settings, reload, credentials, log_level }, grpc, admin } = self;
        let server = settings.shape.server.clone();
        let telemetry =
            Telemetry::start(settings.shape.telemetry.otlp.as_ref()).map_err(io::Error::other)?;
        let metrics = Arc::clone(&telemetry.metrics);
        expect(&settings, &metrics);
        let upstreams = connect(&settings, credentials, &metrics).await;
        let store =
            stores::Stores::start(&settings.shape.store, settings.upstreams.keys(), &metrics)
                .await?;
        let identity = Identity::new(&settings).map_err(io::Error::other)?;
        let tls = tls(&settings.shape)?;
        let watchers = watch(&identity, tls.as_ref(), &metrics);
        let keys = Arc::new(ArcSwap::from_pointee(settings.keys.clone()));
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let levels = Arc::new(Levels::default());
        let gateway = Gateway::new(
            upstreams,
            store.store(),
            Arc::clone(&keys),
            Arc::clone(&levels),
            Arc::clone(&metrics),
        );
        let gateway = Arc::new(gateway);
        let (draining, expired) = (CancellationToken::new(), CancellationToken::new());
        let closing = expired.child_token();
        let readiness = Arc::new(Readiness::new(store.readiness()));
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let mut health = Health::starting(reporter).await;
        let most = server.max_in_flight.get() as usize;
        let permits = Arc::new(Semaphore::new(most));
        let in_flight = Arc::clone(&permits);
        metrics.show_in_flight(move || most.saturating_sub(in_flight.available_permits()) as u64);
        let stack = Stack {
            server: &server,
            settings: Arc::clone(&settings),
            gateway: Arc::clone(&gateway),
            identity,
            levels,
            metrics: Arc::clone(&metrics),
            tracing: telemetry.tracing.clone(),
            permits: Arc::clone(&permits),
            expired: expired.clone(),
        };
        let router = stack.router(health_service)?;

        let limits = net::Limits {
            max_concurrent_streams: server.max_concurrent_streams.get(),
            max_age: server.max_connection_age.get(),
            grace: server.max_timeout.get() + Duration::from_secs(5),
        };
        let admin_address = admin.local_addr()?;
        let ended = CancellationToken::new();
        let operators = tokio::spawn(admin::serve(
            admin,
            Arc::clone(&readiness),
            Arc::clone(&settings),
            Arc::clone(&metrics),
            ended.clone(),
        ));
        let reloads = reload.map(|from| {
            tokio::spawn(keep_current(from, Arc::clone(&settings), keys, log_level, metrics))
        });
        health.follows(Arc::clone(&readiness));
        let address = grpc.local_addr()?;
        let client = |certificate: &[u8], shown: &mut http::Extensions| {
            shown.insert(ClientNames::of(certificate));
        };
        let service = net::Service { router, limits, tls, client };
        let callers = tokio::spawn(net::serve(grpc, service, draining.clone(), closing.clone()));
        readiness.note_listening();
        tracing::info!(%address, %admin_address, config_version = settings.load().version, "ready");

        shutdown.await;

        tracing::info!(drain_timeout = %server.drain_timeout, "draining");
        readiness.note_draining();
        health.draining().await;
        draining.cancel();
        let drained = async {
            quiet(&permits, most).await;
            closing.cancel();
            let _ = callers.await;
            gateway.idle().await;
            store.drain(server.drain_timeout.get()).await;
        };
        let mut drained = std::pin::pin!(drained);
        if tokio::time::timeout(server.drain_timeout.get(), drained.as_mut())
            .await
            .is_err()
        {
            tracing::warn!("drain timeout ran out with calls in flight or unsettled");
            expired.cancel();
            let _ = tokio::time::timeout(LAST_ANSWERS, drained).await;
        }
        watchers.into_iter().chain(reloads).for_each(|watcher| watcher.abort());
        // While the operators' port still answers, and after the last call.
        telemetry.shut_down().await;
        ended.cancel();
        let _ = tokio::time::timeout(LAST_ANSWERS, operators).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Waits until no call of ours has been in flight for a while. What else may keep a connection
/// open, as a health watch or a peer that says nothing, is not waited for.
async fn quiet(permits: &Semaphore, all: usize) {
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        tokio::time::sleep(QUIET / 20).await;
        if permits.available_permits() < all {
            since = Instant::now();
        }
    }
}

/// Every problem of the files that the config names and that only their users can judge.
#[must_use]
pub fn examine(config: &shape::Config) -> Vec<Problem> {
    if let Some(files) = tls_files(config) {
        return files.check();
    }
    // Not all are named, but those that are can be looked for.
    let Some(tls) = &config.server.tls else { return Vec::new() };
    let named = [
        ("cert_file", &tls.cert_file),
        ("key_file", &tls.key_file),
        ("client_ca_file", &tls.client_ca_file),
    ];
    let unreadable = named.into_iter().filter_map(|(key, file)| {
        let error = std::fs::File::open(file.as_ref()?).err()?;
        let value = serde_json::Value::from(file.as_deref());
        Some(Problem::new(
            format!("server.tls.{key}"),
            Some(&value),
            format!("a readable file: {error}"),
        ))
    });
    unreadable.collect()
}

fn tls_files(config: &shape::Config) -> Option<TlsFiles> {
    let tls = config.server.tls.as_ref()?;
    Some(TlsFiles {
        cert: tls.cert_file.as_ref()?.into(),
        key: tls.key_file.as_ref()?.into(),
        client_ca: tls.client_ca_file.as_ref().map(Into::into),
    })
}

fn tls(config: &shape::Config) -> io::Result<Option<Arc<Tls>>> {
    let load = |files| {
        Tls::load(files).map(Arc::new).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            io::Error::other(problems.join("; "))
        })
    };
    tls_files(config).map(load).transpose()
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

async fn connect(
    settings: &Settings,
    keys: Option<StaticCredentials>,
    metrics: &Arc<Metrics>,
) -> BTreeMap<Name, Arc<Attempts>> {
    let mut upstreams = BTreeMap::new();
    for (name, upstream) in &settings.upstreams {
        let client = Client::new(upstream, keys.clone()).await;
        upstreams.insert(
            name.clone(),
            Arc::new(Attempts::new(
                name.clone(),
                upstream.region.clone(),
                client,
                Arc::clone(metrics),
            )),
        );
    }
    // Weak, since each holds the metrics.
    let circuits: Vec<_> = upstreams
        .iter()
        .map(|(name, attempts)| (name.clone(), Arc::downgrade(attempts)))
        .collect();
    metrics.show_circuits(move || {
        let state = |(name, attempts): &(Name, Weak<Attempts>)| {
            Some((name.clone(), attempts.upgrade()?.circuit()))
        };
        circuits.iter().filter_map(state).collect()
    });
    upstreams
}

/// For SHUTTING_DOWN to reach the callers, once `drain_timeout` has run out.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Without a call for this long, every caller that listens has heard that it should go away.
const QUIET: Duration = Duration::from_millis(500);
