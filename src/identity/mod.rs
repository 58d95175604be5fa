//! Who is calling. Whatever the mode, the answer is a tenant of the config or an error; a tenant's name never comes
//! from anywhere but its credentials.

mod header;

use std::sync::Arc;

use http::HeaderMap;

use crate::config::{self, Settings};
use crate::domain::Tenant;
use crate::error::Error;

/// Finds the tenant behind a call.
#[derive(Debug)]
pub enum Identity {
    /// By a header that something in front sets.
    Header(header::Header),
}

impl Identity {
    /// The mode that the config has chosen.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        match &settings.identity {
            config::Identity::Header { name } => Self::Header(header::Header::new(name.clone())),
        }
    }

    /// The tenant behind a call with these headers.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] without exactly one credential, [`Error::TenantUnknown`] where it is nobody's.
    pub fn tenant(&self, headers: &HeaderMap, settings: &Settings) -> Result<Arc<Tenant>, Error> {
        match self {
            Self::Header(header) => header.tenant(headers, settings),
        }
    }
}
