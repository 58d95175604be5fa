//! One tenant from several names of one caller.

use std::sync::Arc;

use crate::domain::Tenant;
use crate::error::RefusalKind;

/// The one tenant whose subjects hold any of the names. `find` maps a name to its tenant.
///
/// # Errors
/// Unknown if the names belong to no tenant. Ambiguous if they belong to two tenants.
pub(super) fn tenant(
    names: &[impl AsRef<str>],
    find: impl Fn(&str) -> Option<Arc<Tenant>>,
) -> Result<Arc<Tenant>, RefusalKind> {
    let mut tenants = names.iter().filter_map(|name| find(name.as_ref()));
    let tenant = tenants.next().ok_or(RefusalKind::UnknownTenant)?;
    if tenants.any(|other| other.name != tenant.name) {
        return Err(RefusalKind::Ambiguous);
    }
    Ok(tenant)
}

/// The names as the log shows them.
pub(super) fn shown(names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().take(MOST_SHOWN).map(AsRef::as_ref).collect();
    names.join(", ")
}

/// The most names in the log: a certificate may have hundreds.
const MOST_SHOWN: usize = 8;
