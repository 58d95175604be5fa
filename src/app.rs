//! The only wiring: from settings to a process that serves, and back down again.

mod measured;
mod stores;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::ServiceBuilder;

use crate::admin::{self, Readiness};
use crate::admission::Keys;
use crate::config::{Problem, Reload, Reloaded, Settings, shape};
use crate::connect::{Attempts, Client, StaticCredentials};
use crate::domain::{Enforcement, Name};
use crate::error::Error;
use crate::gateway::{Gateway, Levels, Places};
use crate::grpc::layers::{self, Answering, Deadlines, Identities, Reading, Shedding};
use crate::grpc::{CREATE_PARTICIPANT, GET_QUOTA, Participants, Quotas, status};
use crate::identity::jwt::Refreshed;
use crate::identity::{ClientNames, Identity};
use crate::net;
use crate::net::tls::{Tls, TlsFiles, TlsReloaded};
use crate::proto::DESCRIPTOR_SET;
use crate::proto::participant_service_server::{self, ParticipantServiceServer};
use crate::proto::quota_service_server::{self, QuotaServiceServer};
use crate::telemetry::{LogLevel, Metrics, Reloadable, Telemetry};

/// The health service's own names for "everything" and for the services.
const HEALTH_NAMES: [&str; 3] = ["", participant_service_server::SERVICE_NAME, quota_service_server::SERVICE_NAME];

/// One more name, for liveness probes: SERVING for as long as the process serves. A store that cannot be reached, or a
/// drain, is no reason to start it anew.
const LIVENESS: &str = "liveness";

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

/// Where the config came from, and what asks for it to be read again.
pub struct Reloading {
    /// The file.
    pub file: PathBuf,
    /// SIGHUP.
    pub hangup: tokio::signal::unix::Signal,
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

    /// Serves until `shutdown`, then drains: health says NOT_SERVING, connections are told to go away, calls in flight
    /// finish, those that are left when `drain_timeout` runs out are answered SHUTTING_DOWN.
    ///
    /// # Errors
    /// Where telemetry, the store, identity, TLS or reflection cannot be set up.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { parts: Parts { settings, reload, credentials, log_level }, grpc, admin } = self;
        let server = settings.shape.server.clone();
        let telemetry = Telemetry::start(settings.shape.telemetry.otlp.as_ref()).map_err(io::Error::other)?;
        let metrics = Arc::clone(&telemetry.metrics);
        expect(&settings, &metrics);
        let upstreams = connect(&settings, credentials, &metrics).await;
        let store = stores::Stores::start(&settings.shape.store, settings.upstreams.keys(), &metrics).await?;
        let identity = Identity::new(&settings).map_err(io::Error::other)?;
        let tls = tls(&settings.shape)?;
        let watchers = watch(&identity, tls.as_ref(), &metrics);
        let keys = Arc::new(ArcSwap::from_pointee(settings.keys.clone()));
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let levels = Arc::new(Levels::default());
        let gateway =
            Gateway::new(upstreams, store.store(), Arc::clone(&keys), Arc::clone(&levels), Arc::clone(&metrics));
        let gateway = Arc::new(gateway);
        let (draining, expired) = (CancellationToken::new(), CancellationToken::new());
        let closing = expired.child_token();
        let readiness = Arc::new(Readiness::new(store.readiness()));
        let (health, health_service) = tonic_health::server::health_reporter();
        report(&health, ServingStatus::NotServing).await;
        health.set_service_status(LIVENESS, ServingStatus::Serving).await;

        let reading = Reading { places: Places::default(), most: (server.max_in_flight.get() / 2).max(1) };
        let identities = Arc::new(Identities {
            identity,
            settings: Arc::clone(&settings),
            levels,
            metrics: Arc::clone(&metrics),
            reading,
        });
        let deadlines = Deadlines { default: server.default_timeout.get(), max: server.max_timeout.get() };
        let permits = Arc::new(Semaphore::new(server.max_in_flight.get() as usize));
        let (in_flight, most) = (Arc::clone(&permits), server.max_in_flight.get());
        metrics.show_in_flight(move || u64::from(most).saturating_sub(in_flight.available_permits() as u64));
        let shedding = Shedding { permits: Arc::clone(&permits), metrics: Arc::clone(&metrics) };
        let max_bytes = server.max_request_bytes.get() as usize;
        let participants =
            ParticipantServiceServer::new(Participants::new(Arc::clone(&settings), Arc::clone(&gateway)))
                .max_decoding_message_size(max_bytes);
        let quotas = QuotaServiceServer::new(Quotas::new(Arc::clone(&settings), Arc::clone(&gateway)))
            .max_decoding_message_size(max_bytes);

        // What only calls of ours pass, from the outside in.
        let calls =
            Router::new().route_service(CREATE_PARTICIPANT, participants).route_service(GET_QUOTA, quotas).layer(
                ServiceBuilder::new()
                    // First, so that it bounds everything behind it, a slow body included.
                    .layer(from_fn_with_state(deadlines, layers::deadline))
                    // Before any work is done: shedding must cost next to nothing.
                    .layer(from_fn_with_state(shedding, layers::shed))
                    // Last, so that the request is only read for callers that we know.
                    .layer(from_fn_with_state(identities, layers::identify)),
            );
        let health_service = health_service.max_decoding_message_size(max_bytes);
        // Bounded as calls are: nobody is asked for an identity here. A watch goes on for as long as it is listened to.
        let check = Router::new().route_service("/grpc.health.v1.Health/Check", health_service.clone());
        let open = Shedding { permits: Arc::new(Semaphore::new(OPEN_STREAMS)), metrics: Arc::clone(&metrics) };
        let router = calls.merge(check.layer(from_fn_with_state(deadlines, layers::deadline))).merge(
            open_streams(health_service, server.reflection, max_bytes)?.layer(from_fn_with_state(open, layers::open)),
        );
        // What everything passes: it names the call, and gives each error of whatever is inside its face.
        let answering =
            Answering { expired: expired.clone(), metrics: Arc::clone(&metrics), tracing: telemetry.tracing.clone() };
        let router = router
            .fallback(async || status::refuse(Error::UnknownMethod).map(axum::body::Body::new))
            .layer(from_fn_with_state(answering, layers::answer));

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
        let reloads =
            reload.map(|from| tokio::spawn(keep_current(from, Arc::clone(&settings), keys, log_level, metrics)));
        let becoming_ready = tokio::spawn(serving_once_ready(Arc::clone(&readiness), health.clone()));
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
        becoming_ready.abort();
        let _ = becoming_ready.await;
        report(&health, ServingStatus::NotServing).await;
        draining.cancel();
        let drained = async {
            quiet(&permits, server.max_in_flight.get() as usize).await;
            closing.cancel();
            let _ = callers.await;
            gateway.idle().await;
            store.drain(server.drain_timeout.get()).await;
        };
        let mut drained = std::pin::pin!(drained);
        if tokio::time::timeout(server.drain_timeout.get(), drained.as_mut()).await.is_err() {
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

/// Health watches and reflection streams that may be open at a time: by far more than probes and people need.
const OPEN_STREAMS: usize = 1024;

/// For SHUTTING_DOWN to reach the callers, once `drain_timeout` has run out.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Without a call for this long, every caller that listens has heard that it should go away.
const QUIET: Duration = Duration::from_millis(500);

/// Waits until no call of ours has been in flight for a while. What else may keep a connection open, as a health watch or
/// a peer that says nothing, is not waited for.
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
    let named = [("cert_file", &tls.cert_file), ("key_file", &tls.key_file), ("client_ca_file", &tls.client_ca_file)];
    let unreadable = named.into_iter().filter_map(|(key, file)| {
        let error = std::fs::File::open(file.as_ref()?).err()?;
        let value = serde_json::Value::from(file.as_deref());
        Some(Problem::new(format!("server.tls.{key}"), Some(&value), format!("a readable file: {error}")))
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

/// Keeps certificates and key sets current.
fn watch(identity: &Identity, tls: Option<&Arc<Tls>>, metrics: &Arc<Metrics>) -> Vec<JoinHandle<()>> {
    let mut watchers = Vec::new();
    if let Some(tls) = tls.cloned() {
        let shown = Arc::clone(&tls);
        metrics.show_certificate(move || shown.not_after());
        let metrics = Arc::clone(metrics);
        let observe = move |reloaded| match reloaded {
            TlsReloaded::Applied { .. } => {
                metrics.reloaded(Reloadable::Certificate, true);
                tracing::info!("certificate reloaded");
            }
            TlsReloaded::Refused(problems) => {
                metrics.reloaded(Reloadable::Certificate, false);
                for problem in problems {
                    tracing::error!(%problem, "certificate not reloaded");
                }
            }
        };
        watchers.push(tokio::spawn(async move { tls.run(observe).await }));
    }
    if let Identity::Jwt(jwt) = identity {
        let jwt = Arc::clone(jwt);
        let metrics = Arc::clone(metrics);
        let mut is_first = true;
        let observe = move |refreshed| match refreshed {
            Refreshed::Loaded { keys, skipped } => {
                if !std::mem::take(&mut is_first) {
                    metrics.reloaded(Reloadable::KeySet, true);
                }
                tracing::info!(keys, skipped, "key set loaded");
            }
            Refreshed::Failed(error) => {
                is_first = false;
                metrics.reloaded(Reloadable::KeySet, false);
                tracing::warn!(%error, "key set not loaded");
            }
        };
        watchers.push(tokio::spawn(async move { jwt.run(observe).await }));
    }
    watchers
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
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
            Arc::new(Attempts::new(name.clone(), upstream.region.clone(), client, Arc::clone(metrics))),
        );
    }
    // Weak, since each holds the metrics.
    let circuits: Vec<_> = upstreams.iter().map(|(name, attempts)| (name.clone(), Arc::downgrade(attempts))).collect();
    metrics.show_circuits(move || {
        let state = |(name, attempts): &(Name, Weak<Attempts>)| Some((name.clone(), attempts.upgrade()?.circuit()));
        circuits.iter().filter_map(state).collect()
    });
    upstreams
}

/// Counts from 0 whatever may be decided by these settings.
fn expect(settings: &Settings, metrics: &Metrics) {
    for (tenant, upstream) in settings.routes() {
        metrics.expects(&tenant.name, upstream, tenant.limits.enforcement == Enforcement::Shadow);
    }
}

async fn report(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

/// The health service says what `/readyz` says, for probes that speak gRPC.
async fn serving_once_ready(readiness: Arc<Readiness>, health: HealthReporter) {
    while !readiness.is_ready() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    report(&health, ServingStatus::Serving).await;
}

/// What is streamed to anybody: health watches and, where it is on, server reflection in both versions, since older
/// clients know `v1alpha` only.
fn open_streams(
    health: tonic_health::pb::health_server::HealthServer<impl tonic_health::pb::health_server::Health>,
    reflection: bool,
    max_bytes: usize,
) -> io::Result<Router> {
    let router = Router::new().route_service("/grpc.health.v1.Health/{*method}", health);
    if !reflection {
        return Ok(router);
    }
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl prints the details of errors instead of their bytes.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1().map_err(io::Error::other)?.max_decoding_message_size(max_bytes);
    let v1alpha = builder().build_v1alpha().map_err(io::Error::other)?.max_decoding_message_size(max_bytes);
    Ok(router
        .route_service("/grpc.reflection.v1.ServerReflection/{*method}", v1)
        .route_service("/grpc.reflection.v1alpha.ServerReflection/{*method}", v1alpha))
}

async fn keep_current(
    from: Reloading,
    settings: Arc<ArcSwap<Settings>>,
    keys: Arc<ArcSwap<Keys>>,
    log_level: LogLevel,
    metrics: Arc<Metrics>,
) {
    let Reloading { file, mut hangup } = from;
    let asked = async move || {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    };
    let observe = |reloaded| match reloaded {
        Reloaded::Applied { settings, needs_restart } => {
            metrics.reloaded(Reloadable::Config, true);
            expect(&settings, &metrics);
            log_level.set(settings.shape.telemetry.log.level);
            keys.store(Arc::new(settings.keys.clone()));
            tracing::info!(config_version = settings.version, "config reloaded");
            for warning in &settings.warnings {
                tracing::warn!(%warning, "config");
            }
            for path in needs_restart {
                tracing::warn!(path, "changed, but needs a restart");
            }
        }
        Reloaded::Refused { problems, needs_restart } => {
            metrics.reloaded(Reloadable::Config, false);
            for problem in problems.sorted() {
                tracing::error!(%problem, "config not reloaded");
            }
            for path in needs_restart {
                tracing::warn!(path, "its old value was judged with the new config: the change needs a restart");
            }
        }
    };
    // Certificates are watched by themselves; between the changes of two files they need not match.
    Reload::new(file, |_| Vec::new(), settings).run(asked, observe).await;
}
