//! The tenants: who calls, and what each may do.

use std::collections::BTreeSet;
use std::fmt;

use super::{InstanceId, Name, Role};

/// An internal service, or a group of them, with limits of its own.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Its name, as configured.
    pub name: Name,
    /// The Connect instances it may name.
    pub instances: Instances,
    /// The roles it may ask for.
    pub roles: BTreeSet<Role>,
    /// Whether a call without a `client_token` is refused: a repeat of it could create a second
    /// participant.
    pub requires_client_token: bool,
    /// Its limits, which count per upstream, over all replicas.
    pub limits: TenantLimits,
}

/// A tenant's limits on one upstream, over all replicas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TenantLimits {
    /// The tenant's ceiling.
    pub rate: Rate,
    /// The most calls it may start at once after a pause; at least 1.
    pub burst: u32,
    /// Its guaranteed share of the upstream's budget; may be zero.
    pub committed: Rate,
    /// The most calls it may have in flight; at least 1.
    pub max_in_flight: u32,
    /// Whether the rate and in-flight limits refuse calls, or only report.
    pub enforcement: Enforcement,
}

/// bᵢ, the most calls that a committed share can save up: one second of its rate, and at least one
/// call. Without a share it is zero (docs/design/admission.md, "The budget").
#[must_use]
pub fn share_burst(committed: Rate) -> u32 {
    let rate = committed.per_second();
    if rate > 0.0 { (rate - 1e-9).ceil().clamp(1.0, f64::from(u32::MAX)) as u32 } else { 0 }
}

impl TenantLimits {
    /// The most calls that the committed share can save up: see [`share_burst`].
    #[must_use]
    pub fn committed_burst(&self) -> u32 {
        share_burst(self.committed)
    }
}

/// Whether a tenant's own limits refuse calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforcement {
    /// The limits refuse calls.
    Enforce,
    /// The limits are decided, counted and logged, but the call goes on.
    Shadow,
}

/// A set of Connect instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instances {
    /// Every instance: `["*"]` in the config.
    Any,
    /// Exactly these instances.
    Only(BTreeSet<InstanceId>),
}

impl Instances {
    /// Whether the set holds the instance.
    #[must_use]
    pub fn contains(&self, instance: &InstanceId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(instances) => instances.contains(instance),
        }
    }
}

/// Calls per second. Never negative, never infinite.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Rate(f64);

impl Rate {
    /// The rate; `None` if the figure is negative or not finite.
    #[must_use]
    pub fn new(per_second: f64) -> Option<Self> {
        (per_second.is_finite() && per_second >= 0.0).then_some(Self(per_second))
    }

    /// Calls per second.
    #[must_use]
    pub const fn per_second(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}
