//! The configuration: one YAML file, overridden key by key from the environment.
//!
//! A file is read in three steps, and each step reports every problem that it finds. [`read`] makes
//! a tree of the file and the environment. [`shape`] gives the tree its types. [`resolve`] checks
//! the rules across keys and makes [`Settings`]. Only a config without a problem becomes settings.

mod environment;
mod identity;
mod otlp;
mod problem;
mod read;
mod reload;
mod resolve;
mod resolved;
pub mod shape;
mod subjects;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use serde_json::Value;

use crate::admission::Keys;
use crate::domain::{InstanceId, Instances, Name, Tenant, Upstream};
use crate::egress::Egress;
use subjects::Subjects;

pub(crate) use environment::Environment;
pub use identity::{Access, Discovery, Jwt, KeySource};
pub(crate) use identity::{Identity, is_fetchable};
pub(crate) use otlp::{
    Exporter as OtlpExporter, Otlp, Propagator, Protocol as OtlpProtocol, Sampling,
};
pub use problem::{Problem, Problems};
pub(crate) use reload::{Reload, Reloaded};
pub use resolved::{OnLoss, RedisIam, Store};
pub(crate) use resolved::{Server, ServerTls};
pub use values::{Level, Share, Span};

/// Checks the files that the config names and that only their own modules can judge.
pub(crate) type Examine = fn(&shape::Config) -> Vec<Problem>;

/// A config without a problem, ready for use.
#[derive(Debug)]
pub struct Settings {
    /// The file, with every default filled in: for printing, and for the next reload.
    shape: shape::Config,
    /// The port that callers use.
    pub(crate) server: Server,
    /// The address of the port that operators use.
    pub admin_listen: SocketAddr,
    /// Whether the admin port serves the console and `/status`.
    pub console: bool,
    /// The place of claims and levels.
    pub store: Store,
    /// How long a `client_token` is remembered.
    pub retention: Duration,
    /// The log, the traces and the metrics.
    pub telemetry: shape::Telemetry,
    /// How the gateway identifies callers.
    pub(crate) identity: Identity,
    /// The tenants, by name.
    pub tenants: BTreeMap<Name, Arc<Tenant>>,
    /// The upstreams, by name.
    pub upstreams: BTreeMap<Name, Arc<Upstream>>,
    /// Identifies the content of the file and the environment: equal configs have equal versions.
    pub version: String,
    /// Settings that are valid but probably a mistake.
    pub warnings: Vec<Problem>,
    /// The keys for record names, fingerprints, upstream tokens and stored results.
    pub keys: Keys,
    /// The proxies, and the certificates that are trusted besides the system's.
    pub egress: Arc<Egress>,
    /// The signals that the gateway exports by OTLP.
    pub otlp: Otlp,
    environment: Arc<Environment>,
    /// Changes with every input, the key files included.
    stamp: String,
    subjects: Subjects,
    routes: Routes,
    committed_bursts: BTreeMap<Name, u32>,
}

#[derive(Debug, Default)]
struct Routes {
    by_instance: HashMap<InstanceId, Arc<Upstream>>,
    of_any: Option<Arc<Upstream>>,
}

impl Settings {
    /// Reads the file and the process's environment.
    ///
    /// # Errors
    /// Every problem of the config, the unreadable file among them.
    pub fn load(file: &Path, examine: Examine) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Problem::new("", None, format!("a readable file at {}: {error}", file.display()))
        })?;
        // A value that is not UTF-8 gets a replacement character, by which `read` reports it.
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        Self::read(&text, environment, resolve::Purpose::Service, examine)
    }

    /// Reads a text and an environment.
    ///
    /// # Errors
    /// Every problem of the config.
    pub fn parse(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Problems> {
        Self::read(text, environment, resolve::Purpose::Service, |_| Vec::new())
    }

    /// Reads a text for the command `dev`. Redis then needs no root key from the user, and no proxy
    /// is used for the simulator. Of the environment, only OpenTelemetry's variables count.
    ///
    /// # Errors
    /// Every problem of the config.
    pub fn for_development(text: &str) -> Result<Self, Problems> {
        let environment = std::env::vars().filter(|(name, _)| name.starts_with("OTEL_"));
        Self::read(text, environment, resolve::Purpose::Development, |_| Vec::new())
    }

    fn read(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        purpose: resolve::Purpose,
        examine: Examine,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let (overrides, rest): (Vec<_>, Vec<_>) = environment
            .into_iter()
            .partition(|(name, _)| name.starts_with(read::ENV_PREFIX));
        let tree = read::tree(text, overrides, &mut problems)?;
        let version = digest([tree.value.to_string().as_bytes()]);
        let shape = read::shape(tree, &mut problems)?;
        examine(&shape).into_iter().for_each(|problem| problems.add(problem));
        let environment = Arc::new(rest.into_iter().collect());
        resolve::settings(shape, version, problems, purpose, environment)
    }

    /// The upstream that owns the instance: the one that lists it, or else the one that takes any.
    #[must_use]
    pub fn upstream_of(&self, instance: &InstanceId) -> Option<&Arc<Upstream>> {
        self.routes.by_instance.get(instance).or(self.routes.of_any.as_ref())
    }

    /// The tenant that has this subject: exactly, or else by its longest pattern. In header mode a
    /// tenant's name is also one of its subjects.
    #[must_use]
    pub(crate) fn tenant_of(&self, subject: &str) -> Option<Arc<Tenant>> {
        self.subjects.find(subject).cloned()
    }

    /// The calls that the committed shares on the upstream can save up together: Σbᵢ over the
    /// tenants that may use it (docs/design/admission.md, "The budget").
    #[must_use]
    pub fn committed_burst(&self, upstream: &Name) -> u32 {
        self.committed_bursts.get(upstream).copied().unwrap_or_default()
    }

    /// Every tenant with every upstream that its calls can reach.
    pub fn routes(&self) -> impl Iterator<Item = (&Tenant, &Name)> {
        self.tenants.values().flat_map(|tenant| {
            let used = self
                .upstreams
                .values()
                .filter(|upstream| may_use(tenant, upstream, &self.upstreams));
            used.map(|upstream| (&**tenant, &upstream.name))
        })
    }

    /// The effective config without its secrets, for printing: every default is filled in.
    #[must_use]
    pub fn redacted(&self) -> Value {
        let mut value = serde_json::to_value(&self.shape).unwrap_or(Value::Null);
        problem::redact(&mut value);
        if let Value::Object(map) = &mut value {
            map.insert("version".to_owned(), Value::String(self.version.clone()));
        }
        value
    }
}

/// Σbᵢ of each upstream.
fn committed_bursts(
    tenants: &BTreeMap<Name, Arc<Tenant>>,
    upstreams: &BTreeMap<Name, Arc<Upstream>>,
) -> BTreeMap<Name, u32> {
    let sum = |upstream: &Upstream| {
        let users = tenants.values().filter(|tenant| may_use(tenant, upstream, upstreams));
        users.fold(0_u32, |sum, tenant| sum.saturating_add(tenant.limits.committed_burst()))
    };
    upstreams.iter().map(|(name, upstream)| (name.clone(), sum(upstream))).collect()
}

/// Whether any call of the tenant can reach the upstream, which is one of these.
fn may_use(
    tenant: &Tenant,
    upstream: &Upstream,
    upstreams: &BTreeMap<Name, Arc<Upstream>>,
) -> bool {
    let is_listed = |id: &InstanceId| {
        upstreams
            .values()
            .any(|other| matches!(&other.instances, Instances::Only(listed) if listed.contains(id)))
    };
    match (&tenant.instances, &upstream.instances) {
        (Instances::Any, _) => true,
        (Instances::Only(theirs), Instances::Only(its)) => !theirs.is_disjoint(its),
        (Instances::Only(theirs), Instances::Any) => !theirs.iter().all(is_listed),
    }
}

impl Routes {
    fn new<'a>(upstreams: impl IntoIterator<Item = &'a Arc<Upstream>>) -> Self {
        let mut routes = Self::default();
        for upstream in upstreams {
            match &upstream.instances {
                Instances::Any => routes.of_any = Some(Arc::clone(upstream)),
                Instances::Only(instances) => {
                    routes
                        .by_instance
                        .extend(instances.iter().map(|id| (id.clone(), Arc::clone(upstream))));
                }
            }
        }
        routes
    }
}

/// The JSON Schema of the file. It is made from the types that read the file.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(shape::Config).to_value();
    if let Value::Object(map) = &mut schema {
        map.insert(
            "title".to_owned(),
            Value::String("Participant Gateway configuration".to_owned()),
        );
    }
    schema
}

/// Twelve hexadecimal digits that identify the content of the parts.
fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    parts.into_iter().for_each(|part| context.update(part));
    context
        .finish()
        .as_ref()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
