//! Client certificates. The handshake has verified them against `server.tls.client_ca_file`. This
//! module finds the tenant of their names. Only URI and DNS names of the subject alternative names
//! count. The common name does not.

use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names;
use crate::domain::Tenant;
use crate::error::{Refusal, RefusalKind};

/// The names of a connection's verified client certificate. Read once, when the connection begins.
#[derive(Debug, Clone)]
pub(crate) struct ClientNames(Result<Arc<[String]>, Unreadable>);

#[derive(Debug, Clone, Copy)]
struct Unreadable;

impl ClientNames {
    /// The URI and DNS names of a certificate (DER), byte for byte.
    #[must_use]
    pub(crate) fn of(certificate: &[u8]) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return Self(Err(Unreadable));
        };
        let names = match certificate.subject_alternative_name() {
            Ok(Some(names)) => &names.value.general_names[..],
            Ok(None) => &[],
            Err(_) => return Self(Err(Unreadable)),
        };
        let names = names.iter().filter_map(|name| match name {
            GeneralName::URI(name) | GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        Self(Ok(names.collect()))
    }
}

/// The one tenant whose subjects hold a name of the certificate. `find` maps a name to its tenant.
///
/// # Errors
/// Without a certificate, or if its names belong to no tenant or to two tenants.
pub(crate) fn tenant(
    names: Option<&ClientNames>,
    find: impl Fn(&str) -> Option<Arc<Tenant>>,
) -> Result<Arc<Tenant>, Refusal> {
    let names = names
        .ok_or(Refusal::new(RefusalKind::NoCertificate, "no client certificate"))?
        .0
        .as_ref()
        .map_err(|_| {
            Refusal::new(RefusalKind::Malformed, "the client certificate cannot be read")
        })?;
    if names.is_empty() {
        let detail = "the client certificate has neither URI nor DNS names";
        return Err(Refusal::new(RefusalKind::UnknownTenant, detail));
    }
    names::tenant(names, find).map_err(|kind| {
        let detail = match kind {
            RefusalKind::Ambiguous => "the client certificate's names are two tenants'",
            _ => "the client certificate's names are no tenant's",
        };
        Refusal::new(kind, detail).of(names::shown(names))
    })
}

#[cfg(test)]
mod tests;
