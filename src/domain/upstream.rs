//! Where calls go.

use std::time::Duration;

use super::{Instances, Name, Rate};

/// One AWS account and region, with the quota that all tenants share.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name, as configured.
    pub name: Name,
    /// The AWS region.
    pub region: String,
    /// The instances it owns.
    pub instances: Instances,
    /// Another endpoint than AWS's own: a simulator or a VPC endpoint.
    pub endpoint_url: Option<String>,
    /// A role to assume before calling.
    pub role_arn: Option<String>,
    /// The external id that the role's trust policy asks for.
    pub external_id: Option<String>,
    /// The account's quota for `CreateParticipant`.
    pub rate: Rate,
    /// The account's burst for it; at least 1.
    pub burst: u32,
    /// How long an admitted call may queue for its slot; may be zero.
    pub max_wait: Duration,
    /// For establishing a connection, TLS included.
    pub connect_timeout: Duration,
    /// For one attempt, from its first byte to the answer's last.
    pub attempt_timeout: Duration,
    /// The most attempts of one call; at least 1.
    pub max_attempts: u32,
}
