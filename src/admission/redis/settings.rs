//! How to reach Redis.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where Redis is, and how to talk to it. Files are read again for every new connection, so that
/// they can rotate.
#[derive(Clone)]
pub struct RedisSettings {
    /// What the URLs lead to.
    pub topology: Topology,
    /// `redis://host:port` or `rediss://host:port` for TLS: the server, the sentinels, or some
    /// nodes of the cluster. A sentinel's own credentials, where it has any, are in its URL.
    pub urls: Vec<String>,
    /// The user; absent: Redis's default user.
    pub username: Option<String>,
    /// A file that holds the password; white space around it does not count.
    pub password_file: Option<PathBuf>,
    /// For `rediss://`.
    pub tls: TlsFiles,
    /// In front of every key.
    pub key_prefix: String,
    /// For one round trip, whatever the connection is doing.
    pub timeout: Duration,
}

/// What the URLs lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server, or a proxy or name that always leads to the present one.
    Standalone,
    /// Sentinels, that know where the master of this name is.
    Sentinel {
        /// The master's name.
        master: String,
    },
    /// Some nodes of a cluster.
    Cluster,
}

/// PEM files. Without a CA file the system's own roots count; without a certificate and its key
/// none is shown.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Who may have signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl RedisSettings {
    /// Whether this is a URL that can be dialled: its scheme, its database, and nothing that would
    /// be passed over.
    #[must_use]
    pub fn is_url(url: &str) -> bool {
        let speaks_tcp = url.starts_with("redis://") || url.starts_with("rediss://");
        // Behind `#insecure` the client would trust any certificate.
        speaks_tcp
            && !url.contains('#')
            && redis::IntoConnectionInfo::into_connection_info(url).is_ok()
    }

    /// One server, with the defaults of the config.
    #[must_use]
    pub fn standalone(url: impl Into<String>) -> Self {
        Self::new(Topology::Standalone, vec![url.into()])
    }

    /// Any topology, with the defaults of the config.
    #[must_use]
    pub fn new(topology: Topology, urls: Vec<String>) -> Self {
        Self {
            topology,
            urls,
            username: None,
            password_file: None,
            tls: TlsFiles::default(),
            key_prefix: "pg".into(),
            timeout: Duration::from_millis(250),
        }
    }
}

/// Without the URLs, which may hold a password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topology, urls, username, password_file, tls, key_prefix, timeout } = self;
        f.debug_struct("RedisSettings")
            .field("topology", topology)
            .field("urls", &format_args!("{} [redacted]", urls.len()))
            .field("username", username)
            .field("password_file", password_file)
            .field("tls", tls)
            .field("key_prefix", key_prefix)
            .field("timeout", timeout)
            .finish()
    }
}

/// Settings that can never work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// No URL at all.
    #[error("no url")]
    NoUrl,
    /// Not a Redis URL. The text is not shown: it may hold a password.
    #[error("url {number} is not of the form redis://host:port or rediss://host:port")]
    Url {
        /// Which, from 1.
        number: usize,
    },
    /// Some URLs are for TLS and some are not.
    #[error("urls mix redis:// and rediss://")]
    MixedTls,
    /// Braces would move the hash tag, and with it the slot.
    #[error("key_prefix holds a brace")]
    KeyPrefix,
    /// A certificate without its key, or the reverse.
    #[error("tls.cert_file and tls.key_file go together")]
    HalfIdentity,
}
