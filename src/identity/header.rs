//! A header that a proxy in front sets. The proxy must remove the caller's own header. Only then
//! does the value count as verified.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use super::names;
use super::xfcc::ForwardedClient;
use crate::config::shape::HeaderFormat;
use crate::domain::Tenant;
use crate::error::{Refusal, RefusalKind};

/// Reads who calls from a header.
#[derive(Debug)]
pub(crate) struct Header {
    name: HeaderName,
    format: HeaderFormat,
}

impl Header {
    pub(super) const fn new(name: HeaderName, format: HeaderFormat) -> Self {
        Self { name, format }
    }

    pub(super) fn tenant(
        &self,
        headers: &HeaderMap,
        find: impl Fn(&str) -> Option<Arc<Tenant>>,
    ) -> Result<Arc<Tenant>, Refusal> {
        let mut values = headers.get_all(&self.name).iter();
        let value =
            values.next().ok_or(Refusal::new(RefusalKind::Missing, "no identity header"))?;
        if values.next().is_some() {
            return Err(Refusal::new(RefusalKind::Duplicate, "more than one identity header"));
        }
        let malformed = |detail| Refusal::new(RefusalKind::Malformed, detail);
        let value = value.to_str().map_err(|_| malformed("the identity header is not ASCII"))?;
        if value.is_empty() {
            return Err(malformed("an empty identity header"));
        }
        let subjects = match self.format {
            HeaderFormat::Plain => vec![Cow::Borrowed(value)],
            HeaderFormat::Xfcc => {
                let client = ForwardedClient::parse(value).map_err(|_| {
                    malformed("the identity header is not x-forwarded-client-cert's")
                })?;
                subjects(client)?
            }
        };
        let tenant = names::tenant(&subjects, find);
        tenant.map_err(|kind| {
            let detail = match kind {
                RefusalKind::Ambiguous => "the identity header's names are two tenants'",
                _ => "the identity header names no tenant",
            };
            Refusal::new(kind, detail).of(names::shown(&subjects))
        })
    }
}

/// The one URI of the client, or else its DNS names.
fn subjects(client: ForwardedClient<'_>) -> Result<Vec<Cow<'_, str>>, Refusal> {
    let ForwardedClient { uris, dns } = client;
    match uris.len() {
        0 if dns.is_empty() => Err(Refusal::new(
            RefusalKind::Subject,
            "the identity header's last element has neither a URI nor a DNS name",
        )),
        0 => Ok(dns),
        1 => Ok(uris),
        _ => Err(Refusal::new(
            RefusalKind::Ambiguous,
            "the identity header's last element has several URIs",
        )
        .of(names::shown(&uris))),
    }
}

#[cfg(test)]
mod tests;
