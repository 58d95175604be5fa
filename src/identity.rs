//! Who is calling. In every mode the answer is a tenant of the config, or an error. A tenant's name
//! comes only from the caller's credentials.

mod header;
pub mod jwt;
mod mtls;
mod names;
pub mod xfcc;

use std::sync::Arc;

use http::{Extensions, HeaderMap};

use crate::config::{self, Settings};
use crate::domain::Tenant;
use crate::error::Error;

pub(crate) use mtls::ClientNames;

/// Finds the tenant behind a call.
#[derive(Debug)]
pub(crate) enum Identity {
    /// By a header that a proxy in front sets.
    Header(header::Header),
    /// By a bearer token.
    Jwt(jwt::Jwt),
    /// By the client certificate of the connection.
    Mtls,
}

impl Identity {
    /// The mode that the config has chosen.
    ///
    /// # Errors
    /// If the TLS that fetches a key set cannot be set up.
    pub(crate) fn new(settings: &Settings) -> Result<Self, rustls::Error> {
        Ok(match &settings.identity {
            config::Identity::Header { name, format } => {
                Self::Header(header::Header::new(name.clone(), *format))
            }
            config::Identity::Jwt(entries) => Self::Jwt(jwt::Jwt::new(entries, &settings.egress)?),
            config::Identity::Mtls => Self::Mtls,
        })
    }

    /// The tenant behind a call with these headers, on a connection with these extensions.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without exactly one credential. [`Error::TenantUnknown`] if the
    /// credential belongs to no tenant.
    pub(crate) async fn tenant(
        &self,
        headers: &HeaderMap,
        connection: &Extensions,
        settings: &Settings,
    ) -> Result<Arc<Tenant>, Error> {
        let find = |subject: &str| settings.tenant_of(subject);
        let tenant = match self {
            Self::Header(header) => header.tenant(headers, find),
            Self::Jwt(jwt) => jwt.tenant(headers, find).await,
            Self::Mtls => mtls::tenant(connection.get::<ClientNames>(), find),
        };
        tenant.map_err(Error::from)
    }
}
