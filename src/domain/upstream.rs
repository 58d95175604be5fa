//! The upstreams: the accounts that calls go to.

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
    /// An endpoint instead of AWS's own: a simulator or a VPC endpoint.
    pub endpoint_url: Option<String>,
    /// A role to assume before calling.
    pub role_arn: Option<String>,
    /// The external id that the role's trust policy asks for.
    pub external_id: Option<String>,
    /// The account's quota for `CreateParticipant`.
    pub rate: Rate,
    /// The account's burst for `CreateParticipant`; at least 1.
    pub burst: u32,
    /// The longest time that an admitted call may queue for its slot; may be zero.
    pub max_wait: Duration,
    /// The most time to establish a connection, TLS included.
    pub connect_timeout: Duration,
    /// The most time for one attempt, from its first byte to the last byte of the answer.
    pub attempt_timeout: Duration,
    /// The most attempts of one call; at least 1.
    pub max_attempts: u32,
}
