//! Why a caller was refused for its identity, as one closed set.

use super::Error;

/// A caller that was refused for its identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The kind, for the log, the metrics and sometimes the caller.
    pub(crate) kind: RefusalKind,
    /// A sentence for the log. It is static: nothing that the caller sent is in it.
    pub detail: &'static str,
    /// The caller's subject, if its credential was verified; for the log.
    pub subject: Option<String>,
}

/// The kinds of refusal (docs/design/contract.md, "Logs").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RefusalKind {
    /// No credential.
    Missing,
    /// More than one credential.
    Duplicate,
    /// A credential that cannot be read.
    Malformed,
    /// A token with an algorithm that is not allowed, or that is not its key's.
    Algorithm,
    /// A token with a key that the key set lacks.
    UnknownKey,
    /// No key set is loaded yet.
    NoKeys,
    /// A token whose signature is wrong.
    Signature,
    /// A token that has expired.
    Expired,
    /// A token that is not valid yet.
    NotYetValid,
    /// A token of an issuer that is not configured.
    Issuer,
    /// A token for another audience.
    Audience,
    /// A credential without a subject.
    Subject,
    /// No client certificate.
    NoCertificate,
    /// A good credential that belongs to no tenant.
    UnknownTenant,
    /// A good credential with names of two tenants, or with names that leave the tenant open.
    Ambiguous,
}

impl Refusal {
    /// A refusal of a credential that was not verified.
    #[must_use]
    pub(crate) const fn new(kind: RefusalKind, detail: &'static str) -> Self {
        Self { kind, detail, subject: None }
    }

    /// The same refusal, of a verified subject.
    #[must_use]
    pub(crate) fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}

impl From<Refusal> for Error {
    /// A good credential that belongs to no tenant is [`Error::TenantUnknown`]. Any other refusal
    /// is [`Error::Unauthenticated`].
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::UnknownTenant | RefusalKind::Ambiguous => Self::TenantUnknown(refusal),
            RefusalKind::Missing
            | RefusalKind::Duplicate
            | RefusalKind::Malformed
            | RefusalKind::Algorithm
            | RefusalKind::UnknownKey
            | RefusalKind::NoKeys
            | RefusalKind::Signature
            | RefusalKind::Expired
            | RefusalKind::NotYetValid
            | RefusalKind::Issuer
            | RefusalKind::Audience
            | RefusalKind::Subject
            | RefusalKind::NoCertificate => Self::Unauthenticated(refusal),
        }
    }
}

impl RefusalKind {
    pub(crate) const ALL: [Self; 15] = [
        Self::Missing,
        Self::Duplicate,
        Self::Malformed,
        Self::Algorithm,
        Self::UnknownKey,
        Self::NoKeys,
        Self::Signature,
        Self::Expired,
        Self::NotYetValid,
        Self::Issuer,
        Self::Audience,
        Self::Subject,
        Self::NoCertificate,
        Self::UnknownTenant,
        Self::Ambiguous,
    ];

    /// Its name in the log and in metrics.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Duplicate => "duplicate",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::NoKeys => "no_keys",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Subject => "subject",
            Self::NoCertificate => "no_certificate",
            Self::UnknownTenant => "unknown_tenant",
            Self::Ambiguous => "ambiguous",
        }
    }

    /// Its name in `ErrorInfo`, if the caller may know it. The token's signature was good, and the
    /// client must fetch a new token (docs/design/contract.md, "Errors").
    #[must_use]
    pub(crate) const fn shown(self) -> Option<&'static str> {
        match self {
            Self::Expired | Self::NotYetValid | Self::Audience => Some(self.as_str()),
            Self::Missing
            | Self::Duplicate
            | Self::Malformed
            | Self::Algorithm
            | Self::UnknownKey
            | Self::NoKeys
            | Self::Signature
            | Self::Issuer
            | Self::Subject
            | Self::NoCertificate
            | Self::UnknownTenant
            | Self::Ambiguous => None,
        }
    }
}
