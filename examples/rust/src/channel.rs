//! Channels to the gateway, with the caller's identity.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::lookup_host;
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

/// Any failure before a call.
pub type Failure = Box<dyn Error + Send + Sync>;

/// How often the name is resolved again, so that new replicas are found.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// Who calls, and whom the caller trusts. Paths are of PEM files.
#[derive(Debug, Clone, clap::Args)]
pub struct Caller {
    /// Sent as the header x-tenant-id; only where something in front checks it
    #[arg(long)]
    tenant: Option<AsciiMetadataValue>,
    /// Holds a bearer token; read anew for each call, since it is rotated
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// The CAs of the gateway's certificate; they switch TLS on
    #[arg(long)]
    ca: Option<PathBuf>,
    /// A client certificate
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's key
    #[arg(long)]
    key: Option<PathBuf>,
}

/// A channel for each address of a name: tonic's own balancer prefers an address that refuses
/// connections, since it looks idle. One serves a whole process: clone it.
#[derive(Debug, Clone)]
pub struct Channels {
    by_address: Arc<RwLock<BTreeMap<SocketAddr, Channel>>>,
    turns: Arc<AtomicUsize>,
}

impl Channels {
    /// Opens channels to a name, such as `dns:///gateway-headless.chat:50051`, and follows it.
    pub async fn open(target: &str, caller: &Caller) -> Result<Self, Failure> {
        let host = target.trim_start_matches("dns:///").to_owned();
        let tls = caller.tls(host.rsplit_once(':').map_or(&*host, |(name, _)| name))?;
        let channels = Self { by_address: Arc::default(), turns: Arc::default() };
        channels.resolve(&host, tls.as_ref()).await?;
        let following = channels.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RESOLVE_EVERY).await;
                if let Err(error) = following.resolve(&host, tls.as_ref()).await {
                    eprintln!("{host} cannot be resolved, the old addresses stay: {error}");
                }
            }
        });
        Ok(channels)
    }

    /// A call's turn: its attempts go to the addresses from there on.
    pub fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// The channel of an attempt, round robin: a repeat goes to the next address.
    pub fn of(&self, turn: usize, attempt: usize) -> Channel {
        let by_address = self.by_address.read().unwrap_or_else(PoisonError::into_inner);
        let at = turn.wrapping_add(attempt) % by_address.len();
        let channel = by_address.values().nth(at).or_else(|| by_address.values().next());
        channel.expect("a name that was resolved has an address").clone()
    }

    async fn resolve(&self, host: &str, tls: Option<&ClientTlsConfig>) -> Result<(), Failure> {
        let found: Vec<SocketAddr> = lookup_host(host).await?.collect();
        if found.is_empty() {
            return Err(format!("{host} has no address").into());
        }
        let mut by_address = self.by_address.write().unwrap_or_else(PoisonError::into_inner);
        by_address.retain(|address, _| found.contains(address));
        for address in found {
            if let Entry::Vacant(entry) = by_address.entry(address) {
                entry.insert(connect(host, address, tls)?);
            }
        }
        Ok(())
    }
}

/// A channel to one address, which connects when it is used. `:authority` stays the name.
fn connect(
    host: &str,
    address: SocketAddr,
    tls: Option<&ClientTlsConfig>,
) -> Result<Channel, Failure> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .origin(format!("{scheme}://{host}").parse()?)
        .connect_timeout(Duration::from_secs(1));
    Ok(match tls {
        Some(tls) => endpoint.tls_config(tls.clone())?,
        None => endpoint,
    }
    .connect_lazy())
}

impl Caller {
    fn tls(&self, host: &str) -> Result<Option<ClientTlsConfig>, Failure> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(ca)?))
            .domain_name(host);
        Ok(Some(match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                tls.identity(Identity::from_pem(fs::read(cert)?, fs::read(key)?))
            }
            _ => tls,
        }))
    }
}

/// Puts the identity on each call. A bearer token goes over TLS, or in a mesh over plaintext.
impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(file) = &self.token_file {
            let token = fs::read_to_string(file)
                .map_err(|error| Status::unauthenticated(format!("{}: {error}", file.display())))?;
            let value = MetadataValue::try_from(format!("Bearer {}", token.trim()));
            let value = value.map_err(|_| Status::unauthenticated("the token is not ASCII"))?;
            request.metadata_mut().insert("authorization", value);
        } else if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert("x-tenant-id", tenant.clone());
        }
        Ok(request)
    }
}
