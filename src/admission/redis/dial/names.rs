//! TLS by names, if nodes announce addresses.
//!
//! By default, a node of a cluster announces an IP address, and its certificate often has names
//! only. A node that the URLs name is dialled by that name. For any other node, the log says which
//! names its certificate has, and how to configure the server.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use redis::cluster::NodeAddress;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    TlsCertificates, Value,
};

use super::super::settings::Topology;
use super::tcp;
use crate::error::{Cause, chain};
use crate::sync::lock;

/// The names of nodes, by the address that each has.
#[derive(Default)]
pub(super) struct NodeNames(BTreeMap<(String, u16), String>);

impl NodeNames {
    /// Looks up the hosts of the URLs. A name with several addresses of one family belongs to
    /// several nodes, and is not used for any.
    pub(crate) async fn of(nodes: &[ConnectionInfo]) -> Self {
        let looked_up = nodes.iter().filter_map(|node| match node.addr() {
            ConnectionAddr::TcpTls { host, port, .. } => Some((host.as_str(), *port)),
            _ => None,
        });
        let looked_up = looked_up.map(async |(host, port)| {
            let found = tokio::net::lookup_host((host, port)).await;
            let addresses: Vec<_> = found.map(Iterator::collect).unwrap_or_default();
            let of_one = [true, false]
                .into_iter()
                .all(|v4| addresses.iter().filter(|address| address.is_ipv4() == v4).count() <= 1);
            let is_name = host.parse::<IpAddr>().is_err();
            let addresses = if of_one && is_name { addresses } else { Vec::new() };
            addresses
                .into_iter()
                .map(|address| ((address.ip().to_string(), port), host.to_owned()))
                .collect::<Vec<_>>()
        });
        Self(join_all(looked_up).await.into_iter().flatten().collect())
    }

    /// The map for the client: the name that is dialled for each address.
    pub(crate) fn map(&self) -> HashMap<NodeAddress, NodeAddress> {
        let node = |((ip, port), name): (&(String, u16), &String)| {
            (NodeAddress::new(ip.as_str(), *port), NodeAddress::new(name.as_str(), *port))
        };
        self.0.iter().map(node).collect()
    }

    /// The problems with the certificates of nodes that the cluster announces by other names, as
    /// TLS reports them. The client itself drops such nodes in silence.
    pub(crate) async fn lacking(
        &self,
        mut connection: ClusterConnection,
        certificates: &TlsCertificates,
        patience: Duration,
    ) -> Vec<String> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let Ok(slots) = command.query_async(&mut connection).await else { return Vec::new() };
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(patience));
        let strange = announced(slots).into_iter().filter(|node| !self.0.contains_key(node));
        let failed = strange.map(async |(host, port)| {
            let shown = if host.contains(':') { format!("[{host}]") } else { host };
            let node = format!("rediss://{shown}:{port}").into_connection_info().ok()?;
            let node = node.set_tcp_settings(tcp());
            let client = Client::build_with_tls(node, certificates.clone()).ok()?;
            // Without a login: the handshake precedes it, and only the handshake matters here.
            let error = client.get_multiplexed_async_connection_with_config(&config).await.err()?;
            let error = error.to_string();
            error.contains(NOT_ITS_NAME).then(|| format!("{shown}:{port}: {error}"))
        });
        join_all(failed).await.into_iter().flatten().collect()
    }
}

/// Logs the nodes once, and again only if they change.
pub(super) fn tell(told: &Mutex<String>, lacking: Vec<String>) {
    let lacking = lacking.join("; ");
    let mut told = lock(told);
    if *told != lacking {
        if !lacking.is_empty() {
            tracing::warn!(nodes = lacking, mend = MEND_CLUSTER, "redis nodes are left out");
        }
        *told = lacking;
    }
}

/// Adds the remedy to the error, if a certificate lacks the dialled name.
pub(super) fn explain(error: Cause, topology: &Topology) -> Cause {
    let text = chain(error.as_ref());
    if !text.contains(NOT_ITS_NAME) {
        return error;
    }
    let mend = match topology {
        Topology::Standalone => MEND_SERVER,
        Topology::Sentinel { .. } => MEND_SENTINEL,
        Topology::Cluster => MEND_CLUSTER,
    };
    format!("{text}; {mend}").into()
}

/// The masters of `CLUSTER SLOTS`. A row has the first slot, the last slot, and nodes of host and
/// port.
fn announced(slots: Value) -> Vec<(String, u16)> {
    let Value::Array(rows) = slots else { return Vec::new() };
    let mut nodes: Vec<_> = rows
        .into_iter()
        .filter_map(|row| {
            let Value::Array(row) = row else { return None };
            let Value::Array(master) = row.into_iter().nth(2)? else { return None };
            match master.as_slice() {
                [Value::BulkString(host), Value::Int(port), ..] if !host.is_empty() => {
                    Some((String::from_utf8_lossy(host).into_owned(), u16::try_from(*port).ok()?))
                }
                _ => None,
            }
        })
        .collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// rustls's message for a certificate of another name; a test fixes it.
const NOT_ITS_NAME: &str = "certificate not valid for name";

const MEND_SERVER: &str = "name the server in store.redis.urls as its certificate does";

const MEND_CLUSTER: &str = "let the nodes announce names that their certificates have \
    (cluster-announce-hostname, and cluster-preferred-endpoint-type hostname), or list every node \
    under its name in store.redis.urls";

const MEND_SENTINEL: &str = "name the sentinels in store.redis.urls as their certificates do, and \
    let the servers announce such names (replica-announce-ip, and sentinel resolve-hostnames and \
    announce-hostnames)";
