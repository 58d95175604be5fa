//! Wires all modules: makes a serving process of the settings, and ends it.

mod console;
mod health;
mod measured;
mod operator;
mod reloads;
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
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::config::{Problem, Server, ServerTls, Settings, shape};
use crate::connect::{Client, Endpoint, StaticCredentials};
use crate::console::Readings;
use crate::domain::Name;
use crate::gateway::Gateway;
use crate::identity::{ClientNames, Identity};
use crate::net;
use crate::net::tls::{Tls, TlsFiles};
use crate::telemetry::{LimitFigures, LogLevel, Metrics, Telemetry};
use console::Console;
use health::Health;
pub use operator::{CallRecord, Fate, LevelTable, Operator, OperatorError};
pub use reloads::Reloading;
use reloads::{keep_current, start_series_at_zero, watch};
use stack::Stack;
use stores::Stores;

/// The input for an app.
pub struct Plan {
    /// The config.
    pub settings: Settings,
    /// `None`: the config is not reloaded.
    pub reload: Option<Reloading>,
    /// Keys that are used without the credential chain, for the simulator.
    pub credentials: Option<StaticCredentials>,
    /// The level of the running log, which a reload may change.
    pub log_level: LogLevel,
}

/// A gateway that is bound to its ports, and serves with [`App::run`].
pub struct App {
    plan: Plan,
    grpc: TcpListener,
    admin: TcpListener,
}

/// A gateway that serves.
struct Running {
    drain_timeout: Duration,
    telemetry: Telemetry,
    store: Stores,
    gateway: Arc<Gateway<Stores>>,
    readiness: Arc<Readiness>,
    health: Health,
    /// One permit per call in flight.
    permits: Arc<Semaphore>,
    max_in_flight: usize,
    callers: JoinHandle<()>,
    operators: JoinHandle<io::Result<()>>,
    watchers: Vec<JoinHandle<()>>,
    ends: Ends,
}

/// The steps of the process's end.
#[derive(Clone, Default)]
struct Ends {
    /// Every connection gets GOAWAY.
    draining: CancellationToken,
    /// `server.drain_timeout` has ended: the remaining calls are answered SHUTTING_DOWN.
    expired: CancellationToken,
    /// Connections are closed.
    closing: CancellationToken,
    /// The admin port closes.
    ended: CancellationToken,
}

impl App {
    /// Binds both ports.
    ///
    /// # Errors
    /// If an address cannot be bound; the text names it.
    pub async fn bind(plan: Plan) -> io::Result<Self> {
        let grpc = bind(plan.settings.server.listen)?;
        let admin = bind(plan.settings.admin_listen)?;
        Ok(Self { plan, grpc, admin })
    }

    /// The address of the gRPC port.
    ///
    /// # Errors
    /// If the socket is closed.
    pub fn addr(&self) -> io::Result<SocketAddr> {
        self.grpc.local_addr()
    }

    /// The address of the admin port.
    ///
    /// # Errors
    /// If the socket is closed.
    pub fn admin_addr(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `shutdown`, then drains. Health reports NOT_SERVING, every connection gets
    /// GOAWAY, and calls in flight finish. The calls that remain when `drain_timeout` ends are
    /// answered SHUTTING_DOWN.
    ///
    /// # Errors
    /// If telemetry, the store, identity, TLS or reflection cannot be set up.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let running = self.start().await?;
        shutdown.await;
        running.drain().await;
        Ok(())
    }

    async fn start(self) -> io::Result<Running> {
        let Self { plan: Plan { settings, reload, credentials, log_level }, grpc, admin } = self;
        let server = settings.server.clone();
        let telemetry = Telemetry::start(&settings.otlp).map_err(io::Error::other)?;
        let metrics = Arc::clone(&telemetry.metrics);
        start_series_at_zero(&settings, &metrics);

        // From the inside to the outside: the store, the gateway, the steps before it.
        let store = Stores::start(&settings, &metrics).await?;
        let endpoints = endpoints(&settings, credentials, &metrics).await?;
        let identity = Identity::new(&settings).map_err(io::Error::other)?;
        let tls = tls(server.tls.as_ref())?;
        let shown_endpoints = endpoints.clone();
        let mut watchers = watch(&identity, tls.as_ref(), &metrics);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let shown = Arc::clone(&settings);
        metrics.show_limits(move || limits(&shown.load()));
        let ends = Ends::default();
        let expired = ends.expired.clone();
        let gateway = Gateway::new(endpoints, store.clone(), Arc::clone(&metrics), expired.clone());
        let gateway = Arc::new(gateway);
        let max_in_flight = server.max_in_flight as usize;
        let permits = Arc::new(Semaphore::new(max_in_flight));
        show_in_flight(&metrics, &permits, max_in_flight);
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let parts = stack::Parts {
            server: &server,
            settings: Arc::clone(&settings),
            gateway: Arc::clone(&gateway),
            identity,
            metrics: Arc::clone(&metrics),
            tracing: telemetry.tracing.clone(),
            permits: Arc::clone(&permits),
            expired,
        };
        let stack = Arc::new(Stack::new(parts, health_service)?);

        // Both ports are open. From here on, health follows readiness.
        let (address, admin_address) = (grpc.local_addr()?, admin.local_addr()?);
        let (store_ready, shown) = (store.clone(), Arc::clone(&settings));
        let readiness = Arc::new(Readiness::new(move || store_ready.is_ready()));
        let console = settings.load().console.then(|| {
            crate::console::router(Arc::new(Console {
                settings: Arc::clone(&settings),
                readiness: Arc::clone(&readiness),
                metrics: Arc::clone(&metrics),
                endpoints: shown_endpoints,
                store: store.clone(),
                readings: Readings::new(store.clone()),
                tls: tls.clone(),
                permits: Arc::clone(&permits),
                max_in_flight,
            }))
        });
        let operators = admin::serve(
            admin,
            Arc::clone(&readiness),
            shown,
            Arc::clone(&metrics),
            console,
            ends.ended.clone(),
        );
        let operators = tokio::spawn(operators);
        let service = service(&server, stack, tls);
        let callers = net::serve(grpc, service, ends.draining.clone(), ends.closing.clone());
        let callers = tokio::spawn(callers);
        if let Some(from) = reload {
            let current = keep_current(from, Arc::clone(&settings), log_level, metrics);
            watchers.push(tokio::spawn(current));
        }
        let mut health = Health::starting(reporter).await;
        readiness.note_listening();
        health.follows(Arc::clone(&readiness));
        let config_version = settings.load().version.clone();
        tracing::info!(%address, %admin_address, config_version, "ready");
        let drain_timeout = server.drain_timeout;
        Ok(Running {
            drain_timeout,
            telemetry,
            store,
            gateway,
            readiness,
            health,
            permits,
            max_in_flight,
            callers,
            operators,
            watchers,
            ends,
        })
    }
}

impl Running {
    async fn drain(self) {
        let Self { drain_timeout, store, gateway, permits, max_in_flight, ends, .. } = self;
        let limit = humantime::format_duration(drain_timeout);
        tracing::info!(drain_timeout = %limit, "draining");
        self.readiness.note_draining();
        self.health.draining().await;
        ends.draining.cancel();
        let mut callers = self.callers;
        let drained = async {
            quiet(&permits, max_in_flight).await;
            ends.closing.cancel();
            let _ = (&mut callers).await;
            gateway.idle().await;
            store.drain(drain_timeout).await;
        };
        let mut drained = std::pin::pin!(drained);
        if timeout(drain_timeout, drained.as_mut()).await.is_err() {
            tracing::warn!("drain timeout ran out with calls in flight or unsettled");
            ends.expired.cancel();
            let cut_off = async {
                tokio::time::sleep(LAST_ANSWERS / 4).await;
                ends.closing.cancel();
                drained.await;
            };
            let _ = timeout(LAST_ANSWERS, cut_off).await;
        }
        self.watchers.iter().for_each(JoinHandle::abort);
        // After the last call, while the admin port still answers.
        self.telemetry.shut_down().await;
        ends.ended.cancel();
        let _ = timeout(LAST_ANSWERS, self.operators).await;
        tracing::info!("stopped");
    }
}

/// Waits until no call has been in flight for a while. Health watches and silent peers also keep
/// connections open. This does not wait for them.
async fn quiet(permits: &Semaphore, all: usize) {
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        tokio::time::sleep(QUIET / 20).await;
        if permits.available_permits() < all {
            since = Instant::now();
        }
    }
}

/// Every problem of the files that the config names and that only their own modules can judge.
#[must_use]
pub fn examine(config: &shape::Config) -> Vec<Problem> {
    if let Some(tls) = config.server.tls.as_ref().and_then(ServerTls::of) {
        return tls_files(&tls).check();
    }
    // Some keys may be missing, but the files of the others can be checked.
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

fn tls_files(ServerTls { cert, key, client_ca }: &ServerTls) -> TlsFiles {
    TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: client_ca.clone() }
}

fn tls(config: Option<&ServerTls>) -> io::Result<Option<Arc<Tls>>> {
    let load = |files| {
        Tls::load(files).map(Arc::new).map_err(|problems| {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            io::Error::other(problems.join("; "))
        })
    };
    config.map(tls_files).map(load).transpose()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    net::listen::on(address).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

async fn endpoints(
    settings: &Settings,
    keys: Option<StaticCredentials>,
    metrics: &Arc<Metrics>,
) -> io::Result<BTreeMap<Name, Arc<Endpoint>>> {
    let mut endpoints = BTreeMap::new();
    for (name, upstream) in &settings.upstreams {
        let client = Client::new(upstream, &settings.egress, keys.clone()).await;
        let client = client.map_err(io::Error::other)?;
        let region = upstream.region.clone();
        let endpoint = Endpoint::new(name.clone(), region, client, Arc::clone(metrics));
        endpoints.insert(name.clone(), Arc::new(endpoint));
    }
    // Weak references, because each endpoint holds the metrics.
    let circuits: Vec<_> = endpoints
        .iter()
        .map(|(name, endpoint)| (name.clone(), Arc::downgrade(endpoint)))
        .collect();
    metrics.show_circuits(move || {
        let state = |(name, endpoint): &(Name, Weak<Endpoint>)| {
            Some((name.clone(), endpoint.upgrade()?.circuit()))
        };
        circuits.iter().filter_map(state).collect()
    });
    let queues: Vec<_> = endpoints
        .iter()
        .map(|(name, endpoint)| (name.clone(), Arc::downgrade(endpoint)))
        .collect();
    metrics.show_queues(move || {
        let length = |(name, endpoint): &(Name, Weak<Endpoint>)| {
            Some((name.clone(), endpoint.upgrade()?.queue()))
        };
        queues.iter().filter_map(length).collect()
    });
    Ok(endpoints)
}

/// The limits that the settings name.
fn limits(settings: &Settings) -> LimitFigures {
    let mut limits = LimitFigures::default();
    for (tenant, upstream) in settings.routes().take(reloads::MOST_EXPECTED) {
        let of = &tenant.limits;
        for (limit, figure) in [
            ("rate", of.rate.per_second()),
            ("burst", f64::from(of.burst)),
            ("committed", of.committed.per_second()),
            ("in_flight", f64::from(of.max_in_flight)),
        ] {
            limits.tenants.push((tenant.name.clone(), upstream.clone(), limit, figure));
        }
    }
    for (name, upstream) in &settings.upstreams {
        limits.upstreams.push((name.clone(), "rate", upstream.rate.per_second()));
        limits.upstreams.push((name.clone(), "burst", f64::from(upstream.burst)));
    }
    limits
}

fn show_in_flight(metrics: &Metrics, permits: &Arc<Semaphore>, most: usize) {
    let permits = Arc::clone(permits);
    metrics.show_in_flight(move || most.saturating_sub(permits.available_permits()) as u64);
}

fn service(
    server: &Server,
    handler: Arc<Stack<Stores>>,
    tls: Option<Arc<Tls>>,
) -> net::Service<Arc<Stack<Stores>>> {
    let limits = net::Limits {
        max_concurrent_streams: server.max_concurrent_streams,
        // Up to twice the limit is read, so that a larger list is refused like any other request.
        max_header_list_bytes: server.max_header_bytes * 2,
        max_age: server.max_connection_age,
        grace: server.max_timeout + Duration::from_secs(5),
    };
    let client = |certificate: &[u8], shown: &mut http::Extensions| {
        shown.insert(ClientNames::of(certificate));
    };
    net::Service { handler, limits, tls, client }
}

/// The time after the end of `drain_timeout` in which SHUTTING_DOWN reaches the callers. Calls that
/// were cut off are settled meanwhile.
const LAST_ANSWERS: Duration = Duration::from_millis(400);

/// After this long without a call, every caller that listens has received GOAWAY.
const QUIET: Duration = Duration::from_millis(500);
