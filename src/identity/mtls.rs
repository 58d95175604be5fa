//! Client certificates. The handshake has verified them against `server.tls.client_ca_file`; here
//! their names become a tenant. The subject's common name is no name: only URI and DNS names of the
//! subject alternative names are.

use std::sync::Arc;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::domain::Tenant;
use crate::error::Error;

/// The names of a connection's verified client certificate. Read once, when the connection begins.
#[derive(Debug, Clone)]
pub struct ClientNames(Result<Arc<[String]>, Unreadable>);

#[derive(Debug, Clone, Copy)]
struct Unreadable;

impl ClientNames {
    /// The URI and DNS names of a certificate (DER), byte for byte.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
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

/// The one tenant whose subjects hold a name of the certificate. `find` maps a name, exactly, to
/// its tenant.
///
/// # Errors
/// [`Error::Unauthenticated`] without a certificate, [`Error::TenantUnknown`] where its names are
/// nobody's, or two tenants'.
pub fn tenant(
    names: Option<&ClientNames>,
    find: impl Fn(&str) -> Option<Arc<Tenant>>,
) -> Result<Arc<Tenant>, Error> {
    let names = names.ok_or(Error::Unauthenticated("no client certificate"))?;
    let names = names
        .0
        .as_ref()
        .map_err(|_| Error::Unauthenticated("the client certificate cannot be read"))?;
    if names.is_empty() {
        return Err(Error::TenantUnknown("the client certificate has neither URI nor DNS names"));
    }
    let mut tenants = names.iter().filter_map(|name| find(name));
    let tenant = tenants
        .next()
        .ok_or(Error::TenantUnknown("the client certificate's names are no tenant's"))?;
    if tenants.any(|other| other.name != tenant.name) {
        return Err(Error::TenantUnknown("the client certificate's names are two tenants'"));
    }
    Ok(tenant)
}

#[cfg(test)]
mod tests;
