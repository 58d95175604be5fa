//! New connections: their targets, their TLS and their logins.

mod login;
mod names;
mod sentinel;

use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionInfo, IntoConnectionInfo,
    RedisResult, TlsCertificates, TlsMode, Value,
};

use super::settings::{RedisSettings, SettingsError, Topology};
use crate::error::Cause;
use login::Login;

/// A connection of any topology. Cheap to clone; commands of all clones are pipelined.
#[derive(Clone)]
pub(super) enum Wire {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Wire {
    pub(crate) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        }
    }
}

/// Settings that have been checked once, and can be dialled any number of times.
pub(super) struct Dialer {
    settings: RedisSettings,
    nodes: Vec<ConnectionInfo>,
    tls: bool,
    /// The last login that each sentinel accepted.
    taken: Vec<AtomicUsize>,
    /// The last warning about certificates that lack a node's name.
    told: Arc<Mutex<String>>,
}

impl Dialer {
    pub(crate) fn new(settings: RedisSettings) -> Result<Self, SettingsError> {
        if settings.key_prefix.contains(['{', '}']) {
            return Err(SettingsError::KeyPrefix);
        }
        if settings.tls.cert_file.is_some() != settings.tls.key_file.is_some() {
            return Err(SettingsError::HalfIdentity);
        }
        let of_sentinels = matches!(settings.topology, Topology::Sentinel { .. });
        if settings.tokens.is_some() && (of_sentinels || settings.password_file.is_some()) {
            return Err(SettingsError::Tokens);
        }
        let mut nodes = Vec::new();
        for (index, url) in settings.urls.iter().enumerate() {
            let number = index + 1;
            let node =
                url.as_str().into_connection_info().ok().filter(|_| RedisSettings::is_url(url));
            nodes.push(node.ok_or(SettingsError::Url { number })?);
        }
        let secure = settings.urls.iter().filter(|url| RedisSettings::is_tls(url)).count();
        match (nodes.len(), secure) {
            (0, _) => return Err(SettingsError::NoUrl),
            (all, secure) if secure != 0 && secure != all => return Err(SettingsError::MixedTls),
            _ => {}
        }
        if secure > 0 {
            // One TLS stack in the whole process. A provider that is already installed is as good.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let taken = nodes.iter().map(|_| AtomicUsize::new(0)).collect();
        Ok(Self { settings, nodes, tls: secure > 0, taken, told: Arc::default() })
    }

    pub(crate) fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// The longest time for a whole dial: some nodes may be silent.
    pub(crate) fn patience(&self) -> Duration {
        self.connect_timeout() * 4
    }

    /// The longest time for one node: a handshake, and more round trips than a command has.
    fn connect_timeout(&self) -> Duration {
        (self.settings.timeout * 3).max(Duration::from_millis(500))
    }

    /// Whether there are many nodes. The answers of other nodes then say nothing about a silent
    /// one.
    pub(crate) fn has_many_nodes(&self) -> bool {
        self.settings.topology == Topology::Cluster
    }

    pub(crate) async fn dial(&self) -> Result<Wire, Cause> {
        let certificates = if self.tls { Some(self.certificates().await?) } else { None };
        let dialled = match &self.settings.topology {
            Topology::Standalone => self.standalone(certificates).await,
            Topology::Sentinel { master } => self.sentinel(master, certificates).await,
            Topology::Cluster => self.cluster(certificates).await,
        };
        dialled.map_err(|error| names::explain(error, &self.settings.topology))
    }

    async fn standalone(&self, certificates: Option<TlsCertificates>) -> Result<Wire, Cause> {
        let login = Login::of_servers(&self.settings);
        let mut config = self.config();
        if let Some(login) = login.clone().filter(Login::has_tokens) {
            config = config.set_credentials_provider(login);
        }
        let password = match login.filter(|login| !login.has_tokens()) {
            Some(login) => Some(login.password().await?),
            None => None,
        };
        let mut last = None;
        for node in &self.nodes {
            let mut redis = node.redis_settings().clone().set_skip_set_lib_name();
            if let Some(username) = &self.settings.username {
                redis = redis.set_username(username);
            }
            if let Some(password) = &password {
                redis = redis.set_password(password);
            }
            let node = node.clone().set_tcp_settings(tcp()).set_redis_settings(redis);
            match open(node, &certificates)?
                .get_multiplexed_async_connection_with_config(&config)
                .await
            {
                Ok(connection) => return Ok(Wire::One(connection)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| "no url".into(), Cause::from))
    }

    async fn cluster(&self, certificates: Option<TlsCertificates>) -> Result<Wire, Cause> {
        let timeout = self.settings.timeout;
        let mut builder = ClusterClient::builder(self.nodes.iter().cloned())
            .tcp_settings(tcp())
            .connection_timeout(self.connect_timeout())
            .response_timeout(timeout)
            .overall_response_timeout(Some(timeout))
            // The first redirection must not use up the caller's deadline. A slot that moves must
            // not use up the timeout.
            .retries(5)
            .min_retry_wait(5)
            .max_retry_wait(50);
        // The client connects to nodes by itself when one appears or returns. Each of these
        // connections needs the password that is valid then.
        if let Some(login) = Login::of_servers(&self.settings) {
            builder = builder.set_credentials_provider(login);
        }
        let mut named = names::NodeNames::default();
        if let Some(certificates) = &certificates {
            named = names::NodeNames::of(&self.nodes).await;
            builder = builder
                .tls(TlsMode::Secure)
                .certs(certificates.clone())
                .node_address_map(named.map());
        }
        let connection = builder.build()?.get_async_connection().await?;
        if let Some(certificates) = certificates {
            let (watched, patience) = (connection.clone(), self.connect_timeout());
            let told = Arc::clone(&self.told);
            // A task of its own: the calls need not wait for a silent node.
            tokio::spawn(async move {
                let lacking = named.lacking(watched, &certificates, patience).await;
                names::tell(&told, lacking);
            });
        }
        Ok(Wire::Cluster(connection))
    }

    /// The gateway bounds every wait: a timeout of the connection's own would only come second.
    fn config(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(self.connect_timeout()))
    }

    async fn certificates(&self) -> Result<TlsCertificates, Cause> {
        let files = &self.settings.tls;
        let client_tls = match (&files.cert_file, &files.key_file) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: read(cert).await?,
                client_key: read(key).await?,
            }),
            _ => None,
        };
        let root_cert = match &files.ca_file {
            Some(ca) => Some(read(ca).await?),
            None => None,
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

fn open(node: ConnectionInfo, certificates: &Option<TlsCertificates>) -> RedisResult<Client> {
    match certificates {
        Some(certificates) => Client::build_with_tls(node, certificates.clone()),
        None => Client::open(node),
    }
}

/// Without NODELAY two thirds of the throughput are lost. Without the other two settings a
/// half-open socket stays for minutes. Linux counts the user timeout from the last sign of life, so
/// two questions fit into it.
fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(1))
        .with_interval(Duration::from_secs(1));
    TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive)
        .set_user_timeout(Duration::from_secs(3))
}

async fn read(path: &Path) -> Result<Vec<u8>, Cause> {
    tokio::fs::read(path)
        .await
        .map_err(|error| format!("{}: {error}", path.display()).into())
}
