//! How to reach Redis.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::layout::Layout;
use crate::error::Cause;

/// Where Redis is, and how to talk to it. Files are read again for every new connection, so that
/// they can rotate.
#[derive(Clone)]
pub struct RedisSettings {
    /// What the URLs lead to.
    pub topology: Topology,
    /// `redis://host:port` or `rediss://host:port` for TLS, or the same with `valkey`: the server,
    /// the sentinels, or some nodes of the cluster.
    pub urls: Vec<String>,
    /// The user; absent: Redis's default user.
    pub username: Option<String>,
    /// A file that holds the password; white space around it does not count.
    pub password_file: Option<PathBuf>,
    /// Makes a password for each connection, instead of the file. Only for a server or a cluster:
    /// no sentinel knows such passwords.
    pub tokens: Option<Arc<dyn Tokens>>,
    /// What a sentinel asks for. Credentials in a sentinel's own URL go before it.
    pub sentinel: SentinelLogin,
    /// For `rediss://`.
    pub tls: TlsFiles,
    /// In front of every key.
    pub key_prefix: String,
    /// For one round trip, whatever the connection is doing.
    pub timeout: Duration,
    /// For tests: the release that is to be. The config has no key for it.
    #[doc(hidden)]
    pub layout: Layout,
}

/// What a sentinel asks for. Where neither is set, the user and the password of Redis itself are
/// tried at a sentinel that asks for any.
#[derive(Debug, Clone, Default)]
pub struct SentinelLogin {
    /// The sentinels' user; absent: their default user.
    pub username: Option<String>,
    /// A file that holds the sentinels' password; white space around it does not count.
    pub password_file: Option<PathBuf>,
}

/// Makes passwords that are good for a short time only.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// A fresh one.
    ///
    /// # Errors
    /// Where none can be made now; the text is for the log.
    async fn token(&self) -> Result<String, Cause>;
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
    /// What a URL may begin with, before `://`. Valkey speaks Redis's protocol.
    pub const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

    /// Whether the URL is for TLS.
    #[must_use]
    pub fn is_tls(url: &str) -> bool {
        url.starts_with("rediss://") || url.starts_with("valkeys://")
    }

    /// Whether this is a URL that can be dialled: its scheme, its database, and nothing that would
    /// be passed over.
    #[must_use]
    pub fn is_url(url: &str) -> bool {
        let speaks_tcp = Self::SCHEMES
            .iter()
            .any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| rest.starts_with("://")));
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
            tokens: None,
            sentinel: SentinelLogin::default(),
            tls: TlsFiles::default(),
            key_prefix: "pg".into(),
            timeout: Duration::from_millis(250),
            layout: Layout::default(),
        }
    }
}

/// Without the URLs, which may hold a password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            topology,
            urls,
            username,
            password_file,
            tokens,
            sentinel,
            tls,
            key_prefix,
            timeout,
            layout,
        } = self;
        f.debug_struct("RedisSettings")
            .field("topology", topology)
            .field("urls", &format_args!("{} [redacted]", urls.len()))
            .field("username", username)
            .field("password_file", password_file)
            .field("has_tokens", &tokens.is_some())
            .field("sentinel", sentinel)
            .field("tls", tls)
            .field("key_prefix", key_prefix)
            .field("timeout", timeout)
            .field("layout", layout)
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
    #[error("urls mix redis:// and rediss:// (or valkey:// and valkeys://)")]
    MixedTls,
    /// Braces would move the hash tag, and with it the slot.
    #[error("key_prefix holds a brace")]
    KeyPrefix,
    /// A sentinel knows no tokens, and with them there is no password.
    #[error("tokens go with neither sentinels nor a password file")]
    Tokens,
    /// A certificate without its key, or the reverse.
    #[error("tls.cert_file and tls.key_file go together")]
    HalfIdentity,
}
