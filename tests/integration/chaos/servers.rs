//! Redis, in each of its topologies, and the faults of the servers themselves.

use std::time::Duration;

use serde_json::{Value, json};

use super::links::Link;
use super::plan::{Kind, Topology};
use crate::support::redis::{RedisCluster, RedisSentinel, RedisServer};

/// The servers that run.
pub enum Servers {
    Standalone(RedisServer),
    /// A master, its replica and a sentinel, which trade places.
    Sentinel(Box<RedisSentinel>),
    Cluster(RedisCluster),
}

impl Servers {
    pub async fn start(topology: Topology) -> Self {
        match topology {
            Topology::Standalone => Self::Standalone(RedisServer::start().await),
            Topology::Sentinel => Self::Sentinel(Box::new(RedisSentinel::start().await)),
            Topology::Cluster => {
                let cluster = RedisCluster::start().await;
                cluster
                    .everywhere(&["config", "set", "cluster-require-full-coverage", "no"])
                    .await;
                Self::Cluster(cluster)
            }
        }
    }

    /// A gateway's link: to the one server, or to the sentinel. The nodes of a cluster tell their
    /// own addresses.
    pub async fn link(&self) -> Option<Link> {
        let port = match self {
            Self::Standalone(server) => server.port(),
            Self::Sentinel(sentinel) => sentinel.sentinel().port(),
            Self::Cluster(_) => return None,
        };
        Some(Link::to(([127, 0, 0, 1], port).into()).await)
    }

    /// The config's `store.redis`.
    pub fn config(&self, link: Option<&Link>) -> Value {
        let url = link.map(|link| format!("redis://{}", link.addr));
        match self {
            Self::Standalone(_) => json!({ "urls": [url] }),
            Self::Sentinel(_) => json!({
                "topology": "sentinel", "urls": [url], "sentinel_master": RedisSentinel::MASTER,
            }),
            Self::Cluster(cluster) => json!({ "topology": "cluster", "urls": cluster.urls() }),
        }
    }

    /// The servers that hold data.
    fn nodes(&self) -> Vec<&RedisServer> {
        match self {
            Self::Standalone(server) => vec![server],
            Self::Sentinel(sentinel) => vec![&sentinel.master, &sentinel.replica],
            Self::Cluster(cluster) => cluster.nodes().iter().collect(),
        }
    }

    /// The server that holds the data, or one of those that do.
    async fn one(&self, which: usize) -> &RedisServer {
        let nodes = self.nodes();
        match self {
            Self::Sentinel(sentinel) => {
                let port = sentinel.master_port().await;
                let first = port == sentinel.master.port().to_string();
                if first { &sentinel.master } else { &sentinel.replica }
            }
            _ => nodes[which % nodes.len()],
        }
    }

    /// Whether data may be lost: a sentinel makes the replica of a frozen master the new one, without
    /// the last writes.
    pub fn loses_by(&self, kind: Kind) -> bool {
        match kind {
            Kind::RedisKilled | Kind::RedisFlushed => true,
            Kind::RedisFrozen | Kind::RedisGone | Kind::FailedOver => {
                matches!(self, Self::Sentinel(_))
            }
            _ => false,
        }
    }

    /// Stops one for a while; a sentinel may make another the master meanwhile.
    pub async fn freeze(&self, which: usize, span: Duration) {
        let server = self.one(which).await;
        server.pause();
        tokio::time::sleep(span).await;
        server.resume();
        self.are_in_step().await;
    }

    /// Stops all.
    pub fn pause(&self) {
        self.nodes().iter().for_each(|node| node.pause());
    }

    pub async fn resume(&self) {
        self.nodes().iter().for_each(|node| node.resume());
        self.are_in_step().await;
    }

    /// Kills one; it comes back empty.
    pub async fn kill(&mut self, which: usize, span: Duration) {
        let server = match self {
            Self::Standalone(server) => server,
            Self::Sentinel(_) => return,
            Self::Cluster(cluster) => &mut cluster.nodes_mut()[which % 3],
        };
        server.kill();
        tokio::time::sleep(span).await;
        server.restart().await;
    }

    pub async fn flush(&self) {
        for node in self.nodes() {
            // A replica refuses it, and follows its master.
            let _ = node.try_command(&["flushall"]).await;
        }
    }

    pub async fn flush_scripts(&self) {
        for node in self.nodes() {
            let _ = node.try_command(&["script", "flush"]).await;
        }
    }

    /// Makes the replica the master, and the master its replica.
    pub async fn fail_over(&self) {
        let Self::Sentinel(sentinel) = self else { return };
        sentinel.fail_over().await;
    }

    /// Moves the slot of an upstream to another node.
    pub async fn move_slot(&self, upstream: &str, which: usize, span: Duration) {
        let Self::Cluster(cluster) = self else { return };
        let slot = cluster.slot(&format!("pg:{{{upstream}}}:u")).await;
        let from = cluster.owner(&slot).await;
        let to = (from + 1 + which % 2) % 3;
        cluster.begin_move(&slot, from, to).await;
        tokio::time::sleep(span).await;
        cluster.end_move(&slot, from, to).await;
    }

    /// Of a master and a replica: one is the other's replica, so that either can be lost.
    async fn are_in_step(&self) {
        let Self::Sentinel(sentinel) = self else { return };
        sentinel.is_in_step().await;
    }
}
