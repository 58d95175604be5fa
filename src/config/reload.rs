//! A changed file is applied without a restart, as far as it can be.
//!
//! The file is read again every two seconds and compared by content: that sees an edit, a rename and the swap of a
//! ConfigMap's `..data` link alike, on every file system, and needs no inotify watch that could run out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use serde_json::Value;

use super::{Examine, Problems, Routes, Settings, committed_bursts, shape};
use crate::domain::Upstream;

/// How often the file is looked at. The contract promises that changes are in use within 10 s.
const INTERVAL: Duration = Duration::from_secs(2);

/// Keeps the current settings current.
pub struct Reload {
    file: PathBuf,
    examine: Examine,
    current: Arc<ArcSwap<Settings>>,
    /// What the file last said, good or bad: the same text is not judged twice.
    seen: Result<String, String>,
}

/// What came of a changed file.
#[derive(Debug)]
pub enum Reloaded {
    /// It is in use.
    Applied {
        /// The settings in use.
        settings: Arc<Settings>,
        /// The paths whose change needs a restart; their old values stay in use.
        needs_restart: Vec<String>,
    },
    /// It has problems: the old settings stay.
    Refused(Problems),
}

impl Reload {
    /// Watches the file that `current` was read from.
    #[must_use]
    pub fn new(file: PathBuf, examine: Examine, current: Arc<ArcSwap<Settings>>) -> Self {
        let stamp = current.load().stamp.clone();
        Self { file, examine, current, seen: Ok(stamp) }
    }

    /// Looks at the file every two seconds, and at once whenever `asked` yields; tells `observe` of every change, and
    /// of every time that somebody asked.
    pub async fn run(mut self, mut asked: impl AsyncFnMut(), mut observe: impl FnMut(Reloaded)) {
        loop {
            let asked = tokio::select! {
                () = asked() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            if let Some(reloaded) = self.look(asked) {
                observe(reloaded);
            }
        }
    }

    fn look(&mut self, asked: bool) -> Option<Reloaded> {
        let loaded = Settings::load(&self.file, self.examine);
        let seen = match &loaded {
            Ok(settings) => Ok(settings.stamp.clone()),
            Err(problems) => Err(problems.to_string()),
        };
        if seen == self.seen && !asked {
            return None;
        }
        self.seen = seen;
        Some(match loaded {
            Ok(settings) => {
                let (settings, needs_restart) = over(settings, &self.current.load());
                let settings = Arc::new(settings);
                self.current.store(Arc::clone(&settings));
                Reloaded::Applied { settings, needs_restart }
            }
            Err(problems) => Reloaded::Refused(problems),
        })
    }
}

/// The new settings where they can be applied now, the old ones where they cannot; and the paths of the latter.
fn over(mut new: Settings, old: &Settings) -> (Settings, Vec<String>) {
    let mut needs_restart = Vec::new();
    keep("server", &mut new.shape.server, &old.shape.server, &mut needs_restart);
    keep("admin", &mut new.shape.admin, &old.shape.admin, &mut needs_restart);
    keep("identity", &mut new.shape.identity, &old.shape.identity, &mut needs_restart);
    keep("store", &mut new.shape.store, &old.shape.store, &mut needs_restart);
    keep("idempotency", &mut new.shape.idempotency, &old.shape.idempotency, &mut needs_restart);
    keep("telemetry.otlp", &mut new.shape.telemetry.otlp, &old.shape.telemetry.otlp, &mut needs_restart);
    let format = &mut new.shape.telemetry.log.format;
    keep("telemetry.log.format", format, &old.shape.telemetry.log.format, &mut needs_restart);
    new.identity = old.identity.clone();
    if !new.keys.same_root(&old.keys) {
        needs_restart.push("idempotency.root_key_file".to_owned());
        new.keys = old.keys.clone();
    }

    new.shape.upstreams = upstream_shapes(&new.shape.upstreams, &old.shape.upstreams, &mut needs_restart);
    new.upstreams.retain(|name, _| old.upstreams.contains_key(name));
    for (name, old) in &old.upstreams {
        let merged = match new.upstreams.get(name) {
            Some(new) => Upstream {
                region: old.region.clone(),
                endpoint_url: old.endpoint_url.clone(),
                role_arn: old.role_arn.clone(),
                external_id: old.external_id.clone(),
                connect_timeout: old.connect_timeout,
                instances: old.instances.clone(),
                ..Upstream::clone(new)
            },
            None => Upstream::clone(old),
        };
        new.upstreams.insert(name.clone(), Arc::new(merged));
    }
    new.routes = Routes::new(new.upstreams.values());
    new.committed_bursts = committed_bursts(&new.tenants, &new.upstreams);
    (new, needs_restart)
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
        keep(&path("connect_timeout"), &mut merged.connect_timeout, &old.connect_timeout, needs_restart);
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
