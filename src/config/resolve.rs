//! Turns the typed shape into settings: checks the required keys, the rules across keys, and the
//! likely mistakes.

mod store;
mod surroundings;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::problem::{Problem, Problems};
use super::shape::{self, Config};
use super::subjects::{self, Subjects};
use super::values::Share;
use super::{Environment, Routes, Settings, committed_bursts, digest, may_use};
use crate::domain::{
    Enforcement, InstanceId, Instances, Name, Rate, Role, Tenant, TenantLimits, Upstream,
};

/// The command that the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `serve` and `check`.
    Service,
    /// `dev`.
    Development,
}

/// The settings of the shape, or every problem: the ones of the typing, and the ones found here.
pub(crate) fn settings(
    mut shape: Config,
    version: String,
    problems: Problems,
    purpose: Purpose,
    environment: Arc<Environment>,
) -> Result<Settings, Problems> {
    shape.identity.header.fill();
    let mut check = Check { problems, warnings: Vec::new() };
    let identity = super::identity::resolve(&shape, &mut check.problems, &mut check.warnings);
    let tenants = check.tenants(&shape);
    let upstreams = check.upstreams(&shape.upstreams);
    check.server(&shape);
    check.store(&shape, &environment);
    let egress = check.egress(&environment);
    let otlp = super::otlp::resolve(&shape, &environment, &mut check.problems);
    check.endpoints(&shape, &environment);
    // The stamp is computed before the keys are read. If a file changes between the two, the stamp
    // is the older one, and the next look finds the change.
    let stamp = stamp(&shape, &version);
    let keys = check.keys(&shape, purpose);
    check.committed(&tenants, &upstreams);

    let (Some(identity), Some(keys), true) = (identity, keys, check.problems.is_empty()) else {
        return Err(check.problems);
    };
    let routes = Routes::new(upstreams.values());
    let committed_bursts = committed_bursts(&tenants, &upstreams);
    let subjects = Subjects::new(&shape, &tenants);
    let warnings = check.warnings;
    Ok(Settings {
        server: (&shape.server).into(),
        admin_listen: shape.admin.listen.get(),
        console: shape.admin.console,
        store: super::Store::new(&shape.store, &environment),
        retention: shape.idempotency.retention.get(),
        telemetry: shape.telemetry.clone(),
        shape,
        identity,
        tenants,
        upstreams,
        version,
        warnings,
        keys,
        egress,
        otlp,
        environment,
        stamp,
        subjects,
        routes,
        committed_bursts,
    })
}

/// The version, and the content of the files that the config names and the program keeps in memory.
fn stamp(shape: &Config, version: &str) -> String {
    let contents: Vec<_> = key_files(shape).filter_map(|file| std::fs::read(file).ok()).collect();
    digest(contents.iter().map(Vec::as_slice).chain([version.as_bytes()]))
}

/// The files whose content the program keeps in memory.
pub(crate) fn key_files(shape: &Config) -> impl Iterator<Item = &Path> {
    let files = [&shape.idempotency.root_key_file, &shape.idempotency.sealing_keys_file];
    files.into_iter().flatten().map(Path::new)
}

struct Check {
    problems: Problems,
    warnings: Vec<Problem>,
}

impl Check {
    fn add(
        &mut self,
        path: impl Into<String>,
        value: impl Into<Option<Value>>,
        expected: impl Into<String>,
    ) {
        self.problems.add(Problem::new(path, value.into().as_ref(), expected));
    }

    /// The value. Adds a problem where it is missing, unless it was left out for a problem of its
    /// own.
    fn required<'a, T>(
        &mut self,
        value: &'a Option<T>,
        path: &str,
        expected: &str,
    ) -> Option<&'a T> {
        if value.is_none() && !self.problems.touch(path) {
            self.add(path, None, format!("{expected}; it is required"));
        }
        value.as_ref()
    }

    fn tenants(&mut self, config: &Config) -> BTreeMap<Name, Arc<Tenant>> {
        if config.tenants.is_empty() && !self.problems.touch("tenants") {
            self.add("tenants", None, "at least one tenant");
        }
        subjects::check(config, &mut self.problems);
        let mut tenants = BTreeMap::new();
        for (key, tenant) in &config.tenants {
            if let Some(tenant) = self.tenant(key, tenant) {
                tenants.insert(tenant.name.clone(), Arc::new(tenant));
            }
        }
        tenants
    }

    fn tenant(&mut self, key: &str, tenant: &shape::Tenant) -> Option<Tenant> {
        let path = format!("tenants.{key}");
        let name = self.name(&path, key);
        let instances = self.instances(&format!("{path}.instances"), tenant.instances.as_ref());
        let rate = self.positive(&format!("{path}.rate"), tenant.rate.as_ref());
        let burst =
            self.required(&tenant.burst, &format!("{path}.burst"), "a whole number of at least 1");
        if tenant.roles.is_empty() && !self.problems.touch(&format!("{path}.roles")) {
            self.add(format!("{path}.roles"), json!([]), "at least one of CUSTOM_BOT, CUSTOMER");
        }
        let enforcement = match tenant.enforcement {
            shape::Enforcement::Enforce => Enforcement::Enforce,
            shape::Enforcement::Shadow => Enforcement::Shadow,
        };
        let roles = tenant.roles.iter().map(|role| match role {
            shape::Role::CustomBot => Role::CustomBot,
            shape::Role::Customer => Role::Customer,
        });
        let (rate, burst) = (rate?, burst?.get());
        let (committed, max_in_flight) = (tenant.committed.get(), tenant.max_in_flight.get());
        if committed > rate {
            let expected = format!(
                "at most the tenant's own rate, {rate}: more of the budget is kept than it can use"
            );
            self.warn(&format!("{path}.committed"), expected);
        }
        let limits = TenantLimits { rate, burst, committed, max_in_flight, enforcement };
        Some(Tenant {
            name: name?,
            instances: instances?,
            roles: roles.collect(),
            requires_client_token: tenant.require_client_token,
            limits,
        })
    }

    fn upstreams(
        &mut self,
        shapes: &BTreeMap<String, shape::Upstream>,
    ) -> BTreeMap<Name, Arc<Upstream>> {
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
                        self.add(
                            path,
                            json!(["*"]),
                            format!("[\"*\"] on one upstream only: upstreams.{other} has it"),
                        );
                    }
                }
                Instances::Only(instances) => {
                    for instance in instances {
                        if let Some(other) = owners.insert(instance.clone(), key) {
                            let expected = format!(
                                "an instance of one upstream only: upstreams.{other} has it, too"
                            );
                            self.add(&path, json!(instance.as_str()), expected);
                        }
                    }
                }
            }
            upstreams.insert(upstream.name.clone(), Arc::new(upstream));
        }
        self.accounts(&upstreams);
        upstreams
    }

    /// Two upstreams with the same region and role are one account.
    fn accounts(&mut self, upstreams: &BTreeMap<Name, Arc<Upstream>>) {
        let mut seen = HashMap::new();
        for (name, upstream) in upstreams {
            // The endpoint does not matter: a VPC endpoint leads to the same account.
            let account = (&upstream.region, &upstream.role_arn);
            if let Some(first) = seen.insert(account, name) {
                let expected = format!(
                    "another region or role than upstreams.{first} has: both are one account, and \
                     its budget is doubled"
                );
                self.warn(&format!("upstreams.{name}.region"), expected);
            }
        }
    }

    fn upstream(&mut self, key: &str, shape: &shape::Upstream) -> Option<Upstream> {
        let path = format!("upstreams.{key}");
        let name = self.name(&path, key);
        let instances = self.instances(&format!("{path}.instances"), shape.instances.as_ref());
        let region_path = format!("{path}.region");
        let region = self
            .required(&shape.region, &region_path, "an AWS region such as us-east-1")
            .cloned();
        let is_part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let is_region = |region: &String| region.contains('-') && region.split('-').all(is_part);
        if let Some(region) = region.as_ref().filter(|region| !is_region(region)) {
            self.add(&region_path, json!(region), "an AWS region such as us-east-1");
        }
        let rate = self.positive(&format!("{path}.rate"), Some(&shape.rate));
        self.url(
            &format!("{path}.endpoint_url"),
            shape.endpoint_url.as_deref(),
            &["http", "https"],
        );
        if let Some(arn) = shape.role_arn.as_ref().filter(|arn| !is_role(arn)) {
            self.add(
                format!("{path}.role_arn"),
                json!(arn),
                "an ARN such as arn:aws:iam::123456789012:role/name",
            );
        }
        if shape.external_id.is_some()
            && shape.role_arn.is_none()
            && !self.problems.touch(&format!("{path}.role_arn"))
        {
            self.add(
                format!("{path}.external_id"),
                None,
                "role_arn beside it: an external id is for assuming a role",
            );
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
        let header_bytes = server.max_header_bytes.get();
        if !(shape::MIN_HEADER_BYTES..=shape::MAX_HEADER_BYTES).contains(&header_bytes) {
            let expected = format!(
                "a whole number from {} to {}",
                shape::MIN_HEADER_BYTES,
                shape::MAX_HEADER_BYTES
            );
            self.add("server.max_header_bytes", json!(header_bytes), expected);
        }
        if server.listen.takes(config.admin.listen) || config.admin.listen.takes(server.listen) {
            self.add(
                "admin.listen",
                json!(config.admin.listen),
                "another address than server.listen",
            );
        }
        if let Some(tls) = &server.tls {
            self.required(
                &tls.cert_file,
                "server.tls.cert_file",
                "the certificate chain's file, PEM",
            );
            self.required(&tls.key_file, "server.tls.key_file", "the certificate's key file, PEM");
        }
        if let Some(otlp) = &config.telemetry.otlp {
            self.otlp(otlp);
        }
    }

    fn otlp(&mut self, otlp: &shape::Otlp) {
        let is_place = |uri: http::Uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.port_u16().is_some()
                && uri.path_and_query().is_none_or(|path| path == "/")
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        };
        if let Some(endpoint) = &otlp.endpoint
            && !endpoint.parse().is_ok_and(is_place)
        {
            self.add(
                "telemetry.otlp.endpoint",
                json!(endpoint),
                "http://host:port or https://host:port",
            );
        }
        if !(0.0..=1.0).contains(&otlp.sample_ratio) {
            self.add(
                "telemetry.otlp.sample_ratio",
                json!(otlp.sample_ratio),
                "a share from 0 to 1",
            );
        }
    }

    /// ΣCᵢ ≤ R on every upstream, over the tenants that may use it (docs/design/admission.md,
    /// "Checks of the config").
    fn committed(
        &mut self,
        tenants: &BTreeMap<Name, Arc<Tenant>>,
        upstreams: &BTreeMap<Name, Arc<Upstream>>,
    ) {
        let bursts = committed_bursts(tenants, upstreams);
        for (name, upstream) in upstreams {
            self.committed_bursts(name, upstream, bursts.get(name).copied().unwrap_or_default());
            let users = tenants.values().filter(|tenant| may_use(tenant, upstream, upstreams));
            let shares = users.filter(|tenant| tenant.limits.committed.per_second() > 0.0);
            let shares: Vec<_> = shares
                .map(|tenant| (&tenant.name, tenant.limits.committed.per_second()))
                .collect();
            let sum: f64 = shares.iter().map(|(_, share)| share).sum();
            let budget = upstream.rate.per_second();
            if sum > budget * (1.0 + 1e-9) {
                let path = format!("upstreams.{name}.rate");
                let shares: Vec<_> =
                    shares.iter().map(|(name, _)| format!("tenants.{name}.committed")).collect();
                let shares = shares.join(" + ");
                let expected =
                    format!("at least the sum of its tenants' committed rates, {sum}/s ({shares})");
                self.add(path, json!(upstream.rate.to_string()), expected);
            }
        }
    }

    /// Warns where the burst of the budget is too small for the bursts of the shares.
    fn committed_bursts(&mut self, name: &Name, upstream: &Upstream, shares: u32) {
        let (rate, burst) = (upstream.rate.per_second(), f64::from(upstream.burst));
        let (shares, reserve) = (f64::from(shares), f64::from(shares.min(upstream.burst - 1)));
        if rate <= 0.0 || shares == 0.0 {
            return;
        }
        let path = format!("upstreams.{name}.burst");
        if (shares - reserve) / rate > upstream.max_wait.as_secs_f64() {
            let expected =
                format!("at least {}: committed calls may be refused below it", shares + 1.0);
            self.warn(&path, expected);
        } else if burst - 1.0 - shares < (rate * 0.05).max(1.0) {
            let enough = shares + 1.0 + (rate * 0.05).max(1.0).ceil();
            self.warn(
                &path,
                format!("at least {enough}: calls that queue lose throughput below it"),
            );
        }
    }

    fn warn(&mut self, path: &str, expected: impl Into<String>) {
        self.warnings.push(Problem::new(path, None, expected));
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
            let path = format!("{path}[{index}]");
            match InstanceId::new(id.as_str()) {
                Ok(id) if id.is_arn() => {
                    let expected = "an instance's id: the part of its ARN after `instance/`";
                    self.add(path, json!(id.as_str()), expected);
                }
                Ok(id) => {
                    instances.insert(id);
                }
                Err(_) => self.add(path, json!(id), "an instance id of 1 to 100 characters"),
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
            let place = uri.authority().and_then(|authority| authority.as_str().rsplit('@').next());
            let port = place.and_then(|place| place.rsplit_once(':'));
            uri.host().is_some_and(|host| !host.is_empty())
                && uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme))
                && (uri.port_u16().is_some() || port.is_none_or(|(_, port)| port.ends_with(']')))
        });
        if !good {
            self.add(
                path,
                json!(url),
                format!("a URL that begins with {}://", schemes.join(":// or ")),
            );
        } else if schemes.contains(&"http") && url.contains(['@', '?', '#']) {
            self.add(path, json!(url), "a URL without user, password or query");
        }
    }
}

/// `arn:partition:iam::account:role/name` (IAM User Guide, "IAM identifiers").
fn is_role(arn: &str) -> bool {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    let [arn, partition, service, region, account, resource] = parts[..] else { return false };
    let is_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let is_named = resource.strip_prefix("role/").is_some_and(|name| !name.is_empty());
    arn == "arn"
        && partition.starts_with("aws")
        && service == "iam"
        && region.is_empty()
        && is_account
        && is_named
}
