//! From the typed shape to settings: what is required, what crosses keys, what only looks right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::problem::{Problem, Problems};
use super::shape::{self, Config, IdentityMode};
use super::values::Share;
use super::{Identity, Routes, Settings};
use crate::domain::{Enforcement, InstanceId, Instances, Name, Rate, Role, Tenant, TenantLimits, Upstream};

/// Settings of the shape, or every problem: those found while it was typed, and these.
pub fn settings(shape: Config, version: String, problems: Problems) -> Result<Settings, Problems> {
    let mut check = Check { problems, warnings: Vec::new() };
    let identity = check.identity(&shape.identity);
    let tenants = check.tenants(&shape);
    let upstreams = check.upstreams(&shape.upstreams);
    check.server(&shape);
    check.store(&shape);
    check.committed(&tenants, &upstreams);

    let routes = Routes::new(upstreams.values());
    match identity {
        Some(identity) if check.problems.is_empty() => {
            Ok(Settings { shape, identity, tenants, upstreams, version, warnings: check.warnings, routes })
        }
        _ => Err(check.problems),
    }
}

struct Check {
    problems: Problems,
    warnings: Vec<Problem>,
}

impl Check {
    fn add(&mut self, path: impl Into<String>, value: impl Into<Option<Value>>, expected: impl Into<String>) {
        self.problems.add(Problem::new(path, value.into().as_ref(), expected));
    }

    /// The value, or a problem where it is missing (and not just left out for a problem of its own).
    fn required<'a, T>(&mut self, value: &'a Option<T>, path: &str, expected: &str) -> Option<&'a T> {
        if value.is_none() && !self.problems.touch(path) {
            self.add(path, None, format!("{expected}; it is required"));
        }
        value.as_ref()
    }

    fn identity(&mut self, identity: &shape::Identity) -> Option<Identity> {
        let mode = *self.required(&identity.mode, "identity.mode", "header")?;
        match mode {
            IdentityMode::Header => {}
            IdentityMode::Jwt | IdentityMode::Mtls => {
                self.add("identity.mode", json!(mode), "header: this version has no other mode");
            }
        }
        let path = "identity.header.name";
        let name = http::HeaderName::from_bytes(identity.header.name.as_bytes()).ok();
        match name {
            Some(name) if !name.as_str().ends_with("-bin") && !name.as_str().starts_with("grpc-") => {
                Some(Identity::Header { name })
            }
            _ => {
                let expected = "a header name such as x-tenant-id, neither grpc-… nor …-bin";
                self.add(path, json!(identity.header.name), expected);
                None
            }
        }
    }

    fn tenants(&mut self, config: &Config) -> BTreeMap<Name, Arc<Tenant>> {
        if config.tenants.is_empty() && !self.problems.touch("tenants") {
            self.add("tenants", None, "at least one tenant");
        }
        let subjects_count =
            config.identity.mode != Some(IdentityMode::Header) && !self.problems.touch("identity.mode");
        let mut owners: HashMap<&str, &str> = HashMap::new();
        let mut tenants = BTreeMap::new();
        for (key, tenant) in &config.tenants {
            if subjects_count {
                self.subjects(key, tenant, &mut owners);
            }
            if let Some(tenant) = self.tenant(key, tenant) {
                tenants.insert(tenant.name.clone(), Arc::new(tenant));
            }
        }
        tenants
    }

    fn subjects<'a>(&mut self, key: &'a str, tenant: &'a shape::Tenant, owners: &mut HashMap<&'a str, &'a str>) {
        let path = format!("tenants.{key}.subjects");
        if tenant.subjects.is_empty() && !self.problems.touch(&path) {
            self.add(&path, None, "at least one subject; it is required outside header mode");
        }
        for (index, subject) in tenant.subjects.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if subject.is_empty() {
                self.add(path, json!(subject), "a subject that is not empty");
            } else if let Some(other) = owners.insert(subject, key).filter(|other| *other != key) {
                self.add(path, json!(subject), format!("a subject of one tenant only: tenants.{other} has it, too"));
            }
        }
    }

    fn tenant(&mut self, key: &str, tenant: &shape::Tenant) -> Option<Tenant> {
        let path = format!("tenants.{key}");
        let name = self.name(&path, key);
        let instances = self.instances(&format!("{path}.instances"), tenant.instances.as_ref());
        let rate = self.positive(&format!("{path}.rate"), tenant.rate.as_ref());
        let burst = self.required(&tenant.burst, &format!("{path}.burst"), "a whole number of at least 1");
        if tenant.roles.is_empty() && !self.problems.touch(&format!("{path}.roles")) {
            self.add(format!("{path}.roles"), json!([]), "at least one of CUSTOM_BOT, CUSTOMER");
        }
        let enforcement = match tenant.enforcement {
            shape::Enforcement::Enforce => Enforcement::Enforce,
            shape::Enforcement::Shadow => {
                self.add(format!("{path}.enforcement"), json!("shadow"), "enforce: this version has no other");
                Enforcement::Shadow
            }
        };
        let roles = tenant.roles.iter().map(|role| match role {
            shape::Role::CustomBot => Role::CustomBot,
            shape::Role::Customer => Role::Customer,
        });
        let (rate, burst) = (rate?, burst?.get());
        let (committed, max_in_flight) = (tenant.committed.get(), tenant.max_in_flight.get());
        let limits = TenantLimits { rate, burst, committed, max_in_flight, enforcement };
        Some(Tenant { name: name?, instances: instances?, roles: roles.collect(), limits })
    }

    fn upstreams(&mut self, shapes: &BTreeMap<String, shape::Upstream>) -> BTreeMap<Name, Arc<Upstream>> {
        if shapes.is_empty() && !self.problems.touch("upstreams") {
            self.add("upstreams", None, "at least one upstream");
        }
        let mut owners: HashMap<InstanceId, &str> = HashMap::new();
        let mut of_any = None;
        let mut upstreams = BTreeMap::new();
        for (key, shape) in shapes {
            let Some(upstream) = self.upstream(key, shape) else { continue };
            let path = format!("upstreams.{key}.instances");
            match &upstream.instances {
                Instances::Any => {
                    if let Some(other) = of_any.replace(key) {
                        self.add(path, json!(["*"]), format!("[\"*\"] on one upstream only: upstreams.{other} has it"));
                    }
                }
                Instances::Only(instances) => {
                    for instance in instances {
                        if let Some(other) = owners.insert(instance.clone(), key) {
                            let expected = format!("an instance of one upstream only: upstreams.{other} has it, too");
                            self.add(&path, json!(instance.as_str()), expected);
                        }
                    }
                }
            }
            upstreams.insert(upstream.name.clone(), Arc::new(upstream));
        }
        upstreams
    }

    fn upstream(&mut self, key: &str, shape: &shape::Upstream) -> Option<Upstream> {
        let path = format!("upstreams.{key}");
        let name = self.name(&path, key);
        let instances = self.instances(&format!("{path}.instances"), shape.instances.as_ref());
        let region_path = format!("{path}.region");
        let region = self.required(&shape.region, &region_path, "an AWS region such as us-east-1").cloned();
        let is_region = |r: &String| !r.is_empty() && r.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if let Some(region) = region.as_ref().filter(|region| !is_region(region)) {
            self.add(&region_path, json!(region), "an AWS region such as us-east-1");
        }
        let rate = self.positive(&format!("{path}.rate"), Some(&shape.rate));
        self.url(&format!("{path}.endpoint_url"), shape.endpoint_url.as_deref(), &["http", "https"]);
        if let Some(arn) = shape.role_arn.as_ref().filter(|arn| !(arn.starts_with("arn:") && arn.contains(":role/"))) {
            self.add(format!("{path}.role_arn"), json!(arn), "an ARN such as arn:aws:iam::123456789012:role/name");
        }
        if shape.external_id.is_some() && shape.role_arn.is_none() && !self.problems.touch(&format!("{path}.role_arn"))
        {
            self.add(format!("{path}.external_id"), None, "role_arn beside it: an external id is for assuming a role");
        }
        Some(Upstream {
            name: name?,
            region: region?,
            instances: instances?,
            endpoint_url: shape.endpoint_url.clone(),
            role_arn: shape.role_arn.clone(),
            external_id: shape.external_id.clone(),
            rate: rate?,
            burst: shape.burst.get(),
            max_wait: shape.max_wait.get(),
            connect_timeout: shape.connect_timeout.get(),
            attempt_timeout: shape.attempt_timeout.get(),
            max_attempts: shape.max_attempts.get(),
        })
    }

    fn server(&mut self, config: &Config) {
        let server = &config.server;
        if server.default_timeout > server.max_timeout {
            let expected = format!("at most server.max_timeout, {}", server.max_timeout);
            self.add("server.default_timeout", json!(server.default_timeout), expected);
        }
        if server.listen == config.admin.listen && server.listen.get().port() != 0 {
            self.add("admin.listen", json!(config.admin.listen), "another address than server.listen");
        }
        if server.tls.is_some() {
            self.add("server.tls", None, "no TLS: this version serves plaintext only, for use behind a mesh");
        }
        if config.telemetry.otlp.is_some() {
            self.add("telemetry.otlp", None, "no OTLP: this version does not export traces or metrics");
        }
    }

    fn store(&mut self, config: &Config) {
        let store = &config.store;
        if store.kind == shape::StoreKind::Redis {
            self.add("store.kind", json!("redis"), "memory: this version has no other store");
        }
        if store.kind == shape::StoreKind::Memory && store.replicas.get() > 1 {
            let expected = "1 with store.kind memory: replicas share nothing without Redis";
            self.add("store.replicas", json!(store.replicas), expected);
        }
        let attempt = config.upstreams.values().map(|upstream| upstream.attempt_timeout.get()).max();
        let lease = config.server.max_timeout.get() + attempt.unwrap_or_default() + Duration::from_secs(2);
        if config.idempotency.retention.get() <= lease {
            let lease = humantime::format_duration(lease);
            let expected = format!("more than the longest lease (max_timeout + attempt_timeout + 2s): {lease}");
            self.add("idempotency.retention", json!(config.idempotency.retention), expected);
        }
    }

    /// ΣCᵢ ≤ R on every upstream, over the tenants that may use it.
    fn committed(&mut self, tenants: &BTreeMap<Name, Arc<Tenant>>, upstreams: &BTreeMap<Name, Arc<Upstream>>) {
        for (name, upstream) in upstreams {
            let users = tenants.values().filter(|tenant| may_use(tenant, upstream));
            let sum: f64 = users.map(|tenant| tenant.limits.committed.per_second()).sum();
            let budget = upstream.rate.per_second();
            if sum > budget * (1.0 + 1e-9) {
                let path = format!("upstreams.{name}.rate");
                let expected = format!("at least the sum of its tenants' committed rates, {sum}/s");
                self.add(path, json!(upstream.rate.to_string()), expected);
            }
        }
    }

    fn name(&mut self, path: &str, key: &str) -> Option<Name> {
        let name = Name::parse(key);
        if name.is_none() {
            self.add(path, None, format!("a name of the form {}", Name::PATTERN));
        }
        name
    }

    fn instances(&mut self, path: &str, list: Option<&Vec<String>>) -> Option<Instances> {
        let expected = "a list of Connect instance ids, or [\"*\"]";
        let Some(list) = list.filter(|list| !list.is_empty()) else {
            if !self.problems.touch(path) {
                self.add(path, list.map(|list| json!(list)), format!("{expected}; it is required"));
            }
            return None;
        };
        if list.iter().any(|id| id == "*") {
            if list.len() > 1 {
                self.add(path, json!(list), format!("{expected}, not both"));
            }
            return Some(Instances::Any);
        }
        let mut instances = BTreeSet::new();
        for (index, id) in list.iter().enumerate() {
            match InstanceId::new(id.as_str()) {
                Ok(id) => {
                    instances.insert(id);
                }
                Err(_) => self.add(format!("{path}[{index}]"), json!(id), "an instance id of 1 to 100 characters"),
            }
        }
        Some(Instances::Only(instances))
    }

    fn positive(&mut self, path: &str, rate: Option<&Share>) -> Option<Rate> {
        let expected = "a rate above zero, such as 20/s, 0.5/s or 300/m";
        let Some(share) = rate else {
            if !self.problems.touch(path) {
                self.add(path, None, format!("{expected}; it is required"));
            }
            return None;
        };
        if share.get().per_second() <= 0.0 {
            self.add(path, json!(share), expected);
        }
        Some(share.get())
    }

    fn url(&mut self, path: &str, url: Option<&str>, schemes: &[&str]) {
        let Some(url) = url else { return };
        let good = url.parse::<http::Uri>().is_ok_and(|uri| {
            uri.host().is_some_and(|host| !host.is_empty())
                && uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
        });
        if !good {
            self.add(path, json!(url), format!("a URL that begins with {}://", schemes.join(":// or ")));
        }
    }
}

/// Whether any call of the tenant's can go to the upstream.
fn may_use(tenant: &Tenant, upstream: &Upstream) -> bool {
    match (&tenant.instances, &upstream.instances) {
        (Instances::Only(theirs), Instances::Only(its)) => !theirs.is_disjoint(its),
        (Instances::Any, _) | (_, Instances::Any) => true,
    }
}
