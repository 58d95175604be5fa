//! The environment's settings of the egress and of the endpoints.

use std::sync::Arc;

use super::{Check, Environment};
use crate::config::Problem;
use crate::config::shape::Config;
use crate::egress::Egress;

impl Check {
    /// The proxies and certificates. With problems, requests leave directly.
    pub(super) fn egress(&mut self, environment: &Environment) -> Arc<Egress> {
        let egress = Egress::new(|name| environment.get(name).map(str::to_owned));
        let egress = egress.unwrap_or_else(|unusable| {
            for unusable in unusable {
                self.add(unusable.variable, None, unusable.expected);
            }
            Egress::default()
        });
        Arc::new(egress)
    }

    /// Warns of an endpoint beside a wish for FIPS or dual-stack endpoints: the SDK cannot combine
    /// them.
    pub(super) fn endpoints(&mut self, config: &Config, environment: &Environment) {
        let wishes = ["AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT"];
        for wish in wishes.into_iter().filter(|wish| environment.is_true(wish)) {
            let without = format!("no {wish} beside it: this endpoint is used as it is");
            for (name, upstream) in &config.upstreams {
                if upstream.endpoint_url.is_some() {
                    let path = format!("upstreams.{name}.endpoint_url");
                    self.warnings.push(Problem::new(path, None, without.clone()));
                }
            }
            if environment.is_true("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") {
                continue;
            }
            for variable in ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CONNECT", "AWS_ENDPOINT_URL_STS"]
            {
                if environment.get(variable).is_some() {
                    self.warnings.push(Problem::new(variable, None, without.clone()));
                }
            }
        }
    }
}
