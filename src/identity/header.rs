//! A header whose value is a tenant's name. Only for use where something in front sets it, and
//! removes the caller's.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::config::Settings;
use crate::domain::Tenant;
use crate::error::Error;

/// Reads the tenant's name from a header.
#[derive(Debug)]
pub struct Header {
    name: HeaderName,
}

impl Header {
    pub(super) const fn new(name: HeaderName) -> Self {
        Self { name }
    }

    pub(super) fn tenant(
        &self,
        headers: &HeaderMap,
        settings: &Settings,
    ) -> Result<Arc<Tenant>, Error> {
        let mut values = headers.get_all(&self.name).iter();
        let value = values.next().ok_or(Error::Unauthenticated("no identity header"))?;
        if values.next().is_some() {
            return Err(Error::Unauthenticated("more than one identity header"));
        }
        let name = value
            .to_str()
            .map_err(|_| Error::Unauthenticated("the identity header is not ASCII"))?;
        if name.is_empty() {
            return Err(Error::Unauthenticated("an empty identity header"));
        }
        settings
            .tenants
            .get(name)
            .cloned()
            .ok_or(Error::TenantUnknown("the identity header names no tenant"))
    }
}
