//! The settings of Redis.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::layout::Layout;
use crate::error::Cause;

/// The servers, and how to reach them. Files are read again for every new connection, so that they
/// can rotate.
#[derive(Clone)]
pub struct RedisSettings {
    /// The kind of servers behind the URLs.
    pub topology: Topology,
    /// `redis://host:port` or `rediss://host:port` for TLS, or the same with `valkey`: the server,
    /// the sentinels, or some nodes of the cluster.
    pub urls: Vec<String>,
    /// The user; absent: Redis's default user.
    pub username: Option<String>,
    /// A file that holds the password; white space around it does not count.
    pub password_file: Option<PathBuf>,
    /// Makes a password for each connection, instead of the file. Only for a server or a cluster:
    /// sentinels do not support such passwords.
    pub tokens: Option<Arc<dyn Tokens>>,
    /// The sentinels' login. Credentials in a sentinel's own URL have priority.
    pub sentinel: SentinelLogin,
    /// The TLS files for `rediss://`.
    pub tls: TlsFiles,
    /// The prefix of every key.
    pub key_prefix: String,
    /// The most time for one round trip, whatever the state of the connection.
    pub timeout: Duration,
    /// For tests: the release that is to be. The config has no key for it.
    #[doc(hidden)]
    pub layout: Layout,
}

/// The sentinels' login. If neither is set, a sentinel that asks for a login gets the user and the
/// password of Redis.
#[derive(Debug, Clone, Default)]
pub struct SentinelLogin {
    /// The sentinels' user; absent: their default user.
    pub username: Option<String>,
    /// A file that holds the sentinels' password; white space around it does not count.
    pub password_file: Option<PathBuf>,
}

/// Makes passwords that are valid for a short time only.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// A new password.
    ///
    /// # Errors
    /// If no password can be made now; the text is for the log.
    async fn token(&self) -> Result<String, Cause>;
}

/// The kind of servers behind the URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server, or a proxy or name that always leads to the present master.
    Standalone,
    /// Sentinels that know the address of the master with this name.
    Sentinel {
        /// The master's name.
        master: String,
    },
    /// Some nodes of a cluster.
    Cluster,
}

/// PEM files. Without a CA file, the system's own roots apply. Without a certificate and its key,
/// no client certificate is sent.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The CA that signed the server's certificate.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

impl RedisSettings {
    /// The schemes of a URL, before `://`. Valkey speaks Redis's protocol.
    pub(crate) const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

    #[must_use]
    pub(crate) fn is_tls(url: &str) -> bool {
        url.starts_with("rediss://") || url.starts_with("valkeys://")
    }

    /// Whether the URL can be dialled: its scheme and database are valid, and no part of it would
    /// be ignored.
    #[must_use]
    pub(crate) fn is_url(url: &str) -> bool {
        let speaks_tcp = Self::SCHEMES
            .iter()
            .any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| rest.starts_with("://")));
        // With `#insecure` the client would trust any certificate.
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

/// Leaves out the URLs, which may hold a password.
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
    /// The text is not a Redis URL. It is not shown, because it may hold a password.
    #[error("url {number} is not of the form redis://host:port or rediss://host:port")]
    Url {
        /// The position of the URL, from 1.
        number: usize,
    },
    /// Some URLs are for TLS and some are not.
    #[error("urls mix redis:// and rediss:// (or valkey:// and valkeys://)")]
    MixedTls,
    /// Braces would change the hash tag, and so the slot.
    #[error("key_prefix holds a brace")]
    KeyPrefix,
    /// Sentinels support no tokens, and tokens replace a password file.
    #[error("tokens go with neither sentinels nor a password file")]
    Tokens,
    /// A certificate without its key, or a key without its certificate.
    #[error("tls.cert_file and tls.key_file go together")]
    HalfIdentity,
}
