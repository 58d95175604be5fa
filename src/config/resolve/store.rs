//! The rules of `store` and `idempotency`, key files included.

use std::path::Path;

use serde_json::json;

use super::{Check, Environment, Purpose};
use crate::admission::redis::RedisSettings;
use crate::admission::{KeyFile, Keys, MAX_LEASE, SETTLE_ALLOWANCE};
use crate::config::shape::{self, Config};

impl Check {
    pub(super) fn store(&mut self, config: &Config, environment: &Environment) {
        let store = &config.store;
        match store.kind {
            shape::StoreKind::Redis => {
                self.redis(&store.redis);
                self.iam(&store.redis, environment);
            }
            shape::StoreKind::Memory => {}
        }
        if store.kind == shape::StoreKind::Memory && store.replicas.get() > 1 {
            let expected = "1 with store.kind memory: replicas share nothing without Redis";
            self.add("store.replicas", json!(store.replicas), expected);
        }
        let attempt =
            config.upstreams.values().map(|upstream| upstream.attempt_timeout.get()).max();
        let lease =
            config.server.max_timeout.get() + attempt.unwrap_or_default() + SETTLE_ALLOWANCE;
        if lease > MAX_LEASE && config.server.max_timeout.get() > MAX_LEASE / 2 {
            let expected = "an hour at most, together with the longest attempt_timeout and 2s: leases end by then";
            self.add("server.max_timeout", json!(config.server.max_timeout), expected);
        }
        for (name, upstream) in &config.upstreams {
            if lease > MAX_LEASE
                && upstream.attempt_timeout.get() > MAX_LEASE / 2 - SETTLE_ALLOWANCE
            {
                let expected =
                    "an hour at most, together with server.max_timeout and 2s: leases end by then";
                self.add(
                    format!("upstreams.{name}.attempt_timeout"),
                    json!(upstream.attempt_timeout),
                    expected,
                );
            }
            if upstream.max_wait.get() > MAX_LEASE {
                self.add(
                    format!("upstreams.{name}.max_wait"),
                    json!(upstream.max_wait),
                    "at most an hour",
                );
            }
        }
        if config.idempotency.retention.get() <= lease {
            let lease = humantime::format_duration(lease);
            let expected = format!(
                "more than the longest lease (max_timeout + attempt_timeout + 2s): {lease}"
            );
            self.add("idempotency.retention", json!(config.idempotency.retention), expected);
        }
    }

    fn redis(&mut self, redis: &shape::Redis) {
        if redis.urls.is_empty() && !self.problems.touch("store.redis.urls") {
            self.add("store.redis.urls", json!([]), "at least one URL");
        }
        for (index, url) in redis.urls.iter().enumerate() {
            let path = format!("store.redis.urls[{index}]");
            self.url(&path, Some(url), &RedisSettings::SCHEMES);
            if !RedisSettings::is_url(url) && !self.problems.touch(&path) {
                let expected = "redis://host:port or rediss://host:port (or valkey, valkeys), perhaps with /database: a number, and no #";
                self.add(path, json!(url), expected);
            }
        }
        let with_tls = redis.urls.iter().filter(|url| RedisSettings::is_tls(url)).count();
        if with_tls != 0 && with_tls != redis.urls.len() {
            self.add(
                "store.redis.urls",
                json!(redis.urls),
                "all of them redis:// (valkey://), or all of them rediss:// (valkeys://)",
            );
        }
        if redis.topology == shape::Topology::Sentinel {
            let master = redis.sentinel_master.clone().filter(|master| !master.is_empty());
            self.required(
                &master,
                "store.redis.sentinel_master",
                "the name of the sentinels' master",
            );
        }
        if redis.topology == shape::Topology::Standalone && redis.urls.len() > 1 {
            self.add("store.redis.urls", json!(redis.urls), "one URL with topology standalone");
        }
        if redis.key_prefix.is_empty() || redis.key_prefix.contains(['{', '}']) {
            self.add(
                "store.redis.key_prefix",
                json!(redis.key_prefix),
                "a text without braces: they choose a slot",
            );
        }
        let file = |this: &mut Self, path: &str, file: &Option<String>| {
            if let Some(file) = file
                && let Err(error) = std::fs::File::open(file)
            {
                this.add(
                    format!("store.redis.{path}"),
                    json!(file),
                    format!("a readable file: {error}"),
                );
            }
        };
        file(self, "password_file", &redis.password_file);
        file(self, "sentinel_password_file", &redis.sentinel_password_file);
        if let Some(tls) = &redis.tls {
            file(self, "tls.ca_file", &tls.ca_file);
            file(self, "tls.cert_file", &tls.cert_file);
            file(self, "tls.key_file", &tls.key_file);
            if tls.cert_file.is_some() != tls.key_file.is_some() {
                self.add(
                    "store.redis.tls",
                    json!(tls),
                    "cert_file and key_file together, or neither",
                );
            }
        }
    }

    /// The rules of IAM authentication (ElastiCache User Guide, "Authenticating with IAM").
    fn iam(&mut self, redis: &shape::Redis, environment: &Environment) {
        let Some(iam) = &redis.iam else { return };
        let cache = iam.cache.clone().filter(|cache| !cache.is_empty());
        self.required(&cache, "store.redis.iam.cache", "the cache's name");
        let is_name =
            |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if let Some(cache) = cache.filter(|cache| !is_name(cache)) {
            let expected = "the cache's name: letters, digits and hyphens, no address";
            self.add("store.redis.iam.cache", json!(cache), expected);
        }
        let username = redis.username.clone().filter(|username| !username.is_empty());
        self.required(&username, "store.redis.username", "the user that IAM authenticates");
        if iam.region.is_none() && environment.get("AWS_REGION").is_none() {
            let expected = "the cache's AWS region, here or in AWS_REGION";
            self.add("store.redis.iam.region", None, expected);
        }
        if iam.serverless && iam.service == shape::IamService::MemoryDb {
            let expected = "false with service memorydb: only ElastiCache has serverless caches";
            self.add("store.redis.iam.serverless", json!(true), expected);
        }
        if redis.password_file.is_some() {
            let expected = "no password_file beside it: a token is the password";
            self.add("store.redis.iam", None, expected);
        }
        if redis.topology == shape::Topology::Sentinel {
            let expected = "standalone or cluster with iam: AWS's caches have no sentinels";
            self.add("store.redis.topology", json!("sentinel"), expected);
        }
        let is_open = |url: &&String| !RedisSettings::is_tls(url) && !is_loopback(url);
        if let Some(index) = redis.urls.iter().position(|url| is_open(&url)) {
            let path = format!("store.redis.urls[{index}]");
            if !self.problems.touch(&path) {
                let expected = "rediss:// with iam: a token is a password, and must not be seen";
                self.add(path, json!(redis.urls[index]), expected);
            }
        }
    }

    pub(super) fn keys(&mut self, config: &Config, purpose: Purpose) -> Option<Keys> {
        let idempotency = &config.idempotency;
        let root = idempotency.root_key_file.as_deref().map(Path::new);
        if root.is_none() {
            let path = "idempotency.root_key_file";
            if config.store.kind == shape::StoreKind::Redis && purpose == Purpose::Service {
                self.add(
                    path,
                    None,
                    "a file with one base64 32-byte key; it is required with store.kind redis",
                );
            } else if purpose == Purpose::Service {
                self.warn(path, "a file with one base64 32-byte key: upstream tokens are predictable without one");
            }
        }
        let sealing = idempotency.sealing_keys_file.as_deref().map(Path::new);
        match Keys::load(root, sealing) {
            Ok(keys) => Some(keys),
            Err(problems) => {
                for (kind, path, file) in [
                    (KeyFile::Root, "idempotency.root_key_file", root),
                    (KeyFile::Sealing, "idempotency.sealing_keys_file", sealing),
                ] {
                    let faults = problems.iter().filter(|problem| problem.file == kind);
                    let faults: Vec<_> = faults.map(|problem| problem.fault.to_string()).collect();
                    if !faults.is_empty() {
                        let expected = format!(
                            "a file of base64 32-byte keys, but it {}",
                            faults.join("; it ")
                        );
                        self.add(path, file.map(|file| json!(file)), expected);
                    }
                }
                None
            }
        }
    }
}

fn is_loopback(url: &str) -> bool {
    let uri: Option<http::Uri> = url.parse().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
