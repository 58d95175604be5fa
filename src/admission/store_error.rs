//! The reasons for a missing answer of the store, as one closed set.

use crate::domain::Name;
use crate::error::Source;

/// Why the store gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The answer did not come within the store's timeout.
    #[error("store: no answer in time")]
    TimedOut,
    /// There is no connection, and none could be made in time.
    #[error("store: not connected")]
    NotConnected(#[source] Source),
    /// The connection broke during the command.
    #[error("store: the connection broke")]
    Broken(#[source] Source),
    /// The store is known to be lost, and was not asked.
    #[error("store: lost")]
    Lost,
    /// Redis Cluster moves the upstream's slot to another node: the store is well, and cannot
    /// answer for a moment.
    #[error("store: the slot is being moved")]
    Moving,
    /// The answer has none of the forms that a script gives.
    #[error("store: unreadable answer")]
    Unreadable,
    /// No store was set up for this upstream: a bug.
    #[error("store: none for upstream {0}")]
    NoUpstream(Name),
    /// The server refuses the command.
    #[error("store: {}", .word.as_str())]
    Server {
        /// The first word of the server's error.
        word: ServerWord,
        /// The server's whole error.
        #[source]
        source: Source,
    },
}

/// The first word of a Redis error, as far as it makes a difference to operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerWord {
    /// The server is a replica, or a master that was demoted.
    ReadOnly,
    /// `maxmemory` is reached, and nothing may be evicted.
    OutOfMemory,
    /// The server still loads its data.
    Loading,
    /// A script runs for too long.
    Busy,
    /// The user may not run a command, or not on this key.
    NoPermission,
    /// The server wants a password.
    NoAuth,
    /// The server has another password.
    WrongPassword,
    /// The server is a replica without its master.
    MasterDown,
    /// The cluster lacks slots.
    ClusterDown,
    /// The server cannot save its data, and so refuses writes.
    Misconfigured,
    /// The master has too few replicas.
    NoReplicas,
    /// `ERR`: any error without a word of its own.
    Plain,
    /// Another word.
    Other,
}

impl StoreError {
    /// Whether the store is well, and only cannot answer for a moment.
    #[must_use]
    pub(crate) const fn is_passing(&self) -> bool {
        matches!(self, Self::Moving)
    }

    /// The `error.type` of metrics and spans, one of a closed set.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::TimedOut => "timeout",
            Self::NotConnected(_) | Self::Broken(_) => "connection",
            Self::Moving => "TRYAGAIN",
            Self::Lost | Self::Unreadable | Self::NoUpstream(_) => "_OTHER",
            Self::Server { word, .. } => word.as_str(),
        }
    }
}

impl ServerWord {
    /// The word of a server's error.
    #[must_use]
    pub(crate) fn of(word: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == word)
            .unwrap_or(Self::Other)
    }

    /// The word as the server writes it; `_OTHER` for a word that makes no difference.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "READONLY",
            Self::OutOfMemory => "OOM",
            Self::Loading => "LOADING",
            Self::Busy => "BUSY",
            Self::NoPermission => "NOPERM",
            Self::NoAuth => "NOAUTH",
            Self::WrongPassword => "WRONGPASS",
            Self::MasterDown => "MASTERDOWN",
            Self::ClusterDown => "CLUSTERDOWN",
            Self::Misconfigured => "MISCONF",
            Self::NoReplicas => "NOREPLICAS",
            Self::Plain => "ERR",
            Self::Other => "_OTHER",
        }
    }

    /// All words that make a difference.
    pub(super) const ALL: [Self; 12] = [
        Self::ReadOnly,
        Self::OutOfMemory,
        Self::Loading,
        Self::Busy,
        Self::NoPermission,
        Self::NoAuth,
        Self::WrongPassword,
        Self::MasterDown,
        Self::ClusterDown,
        Self::Misconfigured,
        Self::NoReplicas,
        Self::Plain,
    ];
}
