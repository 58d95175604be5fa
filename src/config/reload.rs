//! Applies a changed file without a restart, as far as that is possible.
//!
//! The file is read again every two seconds, and its content is compared. That notices an edit, a
//! rename and the swap of a ConfigMap's `..data` link on every file system. It needs no inotify
//! watch, of which a host has only a limited number.
//!
//! A key that needs a restart keeps its old value. The old and the new values are checked together
//! as one config before anything changes. New tenants may be valid beside the new identity or
//! upstreams, and invalid beside the old ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{Examine, Problem, Problems, Settings, digest, resolve, shape};
use crate::domain::Instances;

/// Keeps the current settings up to date.
pub(crate) struct Reload {
    file: PathBuf,
    examine: Examine,
    current: Arc<ArcSwap<Settings>>,
    /// The last result of the file, good or bad: the same result is not reported twice.
    seen: Result<String, String>,
    /// The bytes of the last good file: the same bytes are not checked twice.
    bytes: Option<String>,
}

/// The result of a changed file.
#[derive(Debug)]
pub(crate) enum Reloaded {
    /// The file is in use.
    Applied {
        /// The settings in use.
        settings: Arc<Settings>,
        /// The paths whose change needs a restart; their old values stay in use.
        needs_restart: Vec<String>,
    },
    /// The file has problems, by itself or together with the old values that need a restart. The
    /// old settings stay in use.
    Refused {
        /// All problems of the file.
        problems: Problems,
        /// The paths whose old values were checked with the file.
        needs_restart: Vec<String>,
    },
}

impl Reload {
    /// Watches the file that `current` was read from.
    #[must_use]
    pub(crate) fn new(file: PathBuf, examine: Examine, current: Arc<ArcSwap<Settings>>) -> Self {
        let stamp = current.load().stamp.clone();
        Self { file, examine, current, seen: Ok(stamp), bytes: None }
    }

    /// Looks at the file every two seconds, and at once whenever `asked` yields. Tells `observe` of
    /// every change, and of every time that `asked` yielded.
    pub(crate) async fn run(
        mut self,
        mut asked: impl AsyncFnMut(),
        mut observe: impl FnMut(Reloaded),
    ) {
        loop {
            let asked = tokio::select! {
                () = asked() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            // A large config takes long to read, and calls need this worker thread meanwhile.
            let looked = spawn_blocking(move || {
                let reloaded = self.look(asked);
                (self, reloaded)
            });
            let reloaded;
            (self, reloaded) = match looked.await {
                Ok(looked) => looked,
                Err(error) => {
                    tracing::error!(%error, "the config is not watched any more");
                    return;
                }
            };
            if let Some(reloaded) = reloaded {
                observe(reloaded);
            }
        }
    }

    fn look(&mut self, asked: bool) -> Option<Reloaded> {
        let old = self.current.load_full();
        // The bytes are read before the config: a change between the two reads is then seen at the
        // next look.
        let bytes = bytes(&self.file, &old.shape);
        // A refused config may name a file that the current one does not. A change of that file may
        // make it valid.
        if !asked && self.seen.is_ok() && self.bytes.as_ref() == Some(&bytes) {
            return None;
        }
        self.bytes = Some(bytes);
        let loaded = Settings::load(&self.file, self.examine);
        let seen = match &loaded {
            Ok(settings) => Ok(settings.stamp.clone()),
            Err(problems) => Err(problems.to_string()),
        };
        if seen == self.seen && !asked {
            return None;
        }
        self.seen = seen;
        Some(
            match loaded
                .map_err(|problems| (problems, Vec::new()))
                .and_then(|new| over(new, &old))
            {
                Ok((settings, needs_restart)) => {
                    let settings = Arc::new(settings);
                    self.current.store(Arc::clone(&settings));
                    Reloaded::Applied { settings, needs_restart }
                }
                Err((problems, needs_restart)) => Reloaded::Refused { problems, needs_restart },
            },
        )
    }
}

/// Identifies the content of the file, and of the key files that the config in use names.
fn bytes(file: &Path, shape: &shape::Config) -> String {
    let contents: Vec<_> = resolve::key_files(shape)
        .chain([file])
        .map(|file| std::fs::read(file).ok())
        .collect();
    digest(contents.iter().map(|content| content.as_deref().unwrap_or_default()))
}

/// The new settings, with the old values of the keys that need a restart; and the paths of those
/// keys.
fn over(new: Settings, old: &Settings) -> Result<(Settings, Vec<String>), (Problems, Vec<String>)> {
    let mut needs_restart = Vec::new();
    let merged = merged(&new.shape, &old.shape, &mut needs_restart);
    let mut settings = if needs_restart.is_empty() {
        new
    } else {
        let version = new.version.clone();
        let judged = resolve::settings(
            merged,
            version,
            Problems::default(),
            resolve::Purpose::Service,
            Arc::clone(&old.environment),
        );
        let judged = judged.and_then(|settings| leads_nowhere_else(settings, &new, old));
        match judged {
            Ok(settings) => settings,
            Err(problems) => return Err((problems, needs_restart)),
        }
    };
    if !settings.keys.same_root(&old.keys) {
        needs_restart.push("idempotency.root_key_file".to_owned());
        settings.keys = old.keys.clone();
    }
    Ok((settings, needs_restart))
}

/// Refuses a new instance of a tenant if its calls would go to another upstream than the file says.
/// That upstream would be another account. The tenant's earlier instances keep their upstream.
fn leads_nowhere_else(
    settings: Settings,
    new: &Settings,
    old: &Settings,
) -> Result<Settings, Problems> {
    let mut problems = Problems::default();
    for tenant in settings.tenants.values() {
        let Instances::Only(instances) = &tenant.instances else { continue };
        let had = old.tenants.get(&tenant.name).map(|tenant| &tenant.instances);
        for instance in instances
            .iter()
            .filter(|instance| !had.is_some_and(|had| had.contains(instance)))
        {
            let (Some(now), Some(meant)) =
                (settings.upstream_of(instance), new.upstream_of(instance))
            else {
                continue;
            };
            if now.name != meant.name {
                let path = format!("tenants.{}.instances", tenant.name);
                let expected = format!(
                    "a restart first: its upstream is {} in the file, and still {}",
                    meant.name, now.name
                );
                problems.add(Problem::new(path, Some(&json!(instance.as_str())), expected));
            }
        }
    }
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

fn merged(
    new: &shape::Config,
    old: &shape::Config,
    needs_restart: &mut Vec<String>,
) -> shape::Config {
    let mut merged = new.clone();
    keep("server", &mut merged.server, &old.server, needs_restart);
    keep("admin", &mut merged.admin, &old.admin, needs_restart);
    keep("identity", &mut merged.identity, &old.identity, needs_restart);
    keep("store", &mut merged.store, &old.store, needs_restart);
    let (idempotency, in_use) = (&mut merged.idempotency, &old.idempotency);
    keep("idempotency.retention", &mut idempotency.retention, &in_use.retention, needs_restart);
    keep(
        "idempotency.root_key_file",
        &mut idempotency.root_key_file,
        &in_use.root_key_file,
        needs_restart,
    );
    keep("telemetry.otlp", &mut merged.telemetry.otlp, &old.telemetry.otlp, needs_restart);
    keep(
        "telemetry.log.format",
        &mut merged.telemetry.log.format,
        &old.telemetry.log.format,
        needs_restart,
    );
    merged.upstreams = upstream_shapes(&new.upstreams, &old.upstreams, needs_restart);
    merged
}

fn upstream_shapes(
    new: &BTreeMap<String, shape::Upstream>,
    old: &BTreeMap<String, shape::Upstream>,
    needs_restart: &mut Vec<String>,
) -> BTreeMap<String, shape::Upstream> {
    let added = new.keys().filter(|name| !old.contains_key(*name));
    needs_restart.extend(added.map(|name| format!("upstreams.{name}")));
    let merge = |(name, old): (&String, &shape::Upstream)| {
        let Some(new) = new.get(name) else {
            needs_restart.push(format!("upstreams.{name}"));
            return (name.clone(), old.clone());
        };
        let mut merged = new.clone();
        let path = |key: &str| format!("upstreams.{name}.{key}");
        keep(&path("region"), &mut merged.region, &old.region, needs_restart);
        keep(&path("instances"), &mut merged.instances, &old.instances, needs_restart);
        keep(&path("endpoint_url"), &mut merged.endpoint_url, &old.endpoint_url, needs_restart);
        keep(&path("role_arn"), &mut merged.role_arn, &old.role_arn, needs_restart);
        keep(&path("external_id"), &mut merged.external_id, &old.external_id, needs_restart);
        keep(
            &path("connect_timeout"),
            &mut merged.connect_timeout,
            &old.connect_timeout,
            needs_restart,
        );
        (name.clone(), merged)
    };
    old.iter().map(merge).collect()
}

fn keep<T: Clone + Serialize>(path: &str, new: &mut T, old: &T, needs_restart: &mut Vec<String>) {
    let as_value = |section: &T| serde_json::to_value(section).unwrap_or(Value::Null);
    if as_value(new) != as_value(old) {
        needs_restart.push(path.to_owned());
        *new = old.clone();
    }
}

/// How often the file is read. Changes are in use within 10 s: docs/design/contract.md, "Reload".
const INTERVAL: Duration = Duration::from_secs(2);
