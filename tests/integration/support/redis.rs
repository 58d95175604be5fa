//! Real Redis servers as children: on ports the system picks, without persistence, gone when
//! dropped. `REDIS_SERVER` names another program than `redis-server`: an older Redis, or Valkey.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::Mutex;

use super::{PATIENCE, until};

/// A server of its own.
pub struct RedisServer {
    child: Child,
    port: u16,
    args: Vec<String>,
    secret: Option<String>,
    dir: TempDir,
}

impl RedisServer {
    /// A fresh, empty server that answers.
    pub async fn start() -> Self {
        Self::with_args(&[]).await
    }

    /// The same, with more arguments.
    pub async fn with_args(args: &[&str]) -> Self {
        for _ in 0..10 {
            let port = free_port();
            if let Some(server) = Self::try_start(port, args, None, None).await {
                return server;
            }
        }
        panic!("no redis-server comes up: is it installed?");
    }

    /// The same, for a server that asks for a password.
    pub async fn with_password(secret: &str) -> Self {
        let mut server = Self::with_args(&[]).await;
        server.command(&["config", "set", "requirepass", secret]).await;
        server.secret = Some(secret.into());
        server
    }

    /// One server for all who ask while anybody holds it: keep to a key prefix of your own.
    pub async fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<RedisServer>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&server);
        server
    }

    async fn try_start(
        port: u16,
        args: &[&str],
        dir: Option<TempDir>,
        secret: Option<&str>,
    ) -> Option<Self> {
        let dir = dir.unwrap_or_else(|| TempDir::new().unwrap());
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let child = spawn(port, &args, dir.path());
        let secret = secret.map(str::to_owned);
        let mut server = Self { child, port, args, secret, dir };
        server.wait_until_up().await.then_some(server)
    }

    async fn wait_until_up(&mut self) -> bool {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            // Another process on the same port would answer, too: only our own child counts.
            if let Ok(info) = self.try_command(&["info", "server"]).await {
                return text(&info).contains(&format!("process_id:{}\r", self.child.id()));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as SIGKILL does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Comes up again, empty, on the same port.
    pub async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.args, self.dir.path());
        assert!(self.wait_until_up().await, "the port was taken meanwhile");
    }

    /// Stops it in its tracks: its sockets stay open and say nothing.
    pub fn pause(&self) {
        signal(self.child.id(), "STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Whether it says so of its replication; a server that changes its role ends its connections,
    /// and says nothing.
    async fn replication_says(&self, what: &str) -> bool {
        self.try_command(&["info", "replication"])
            .await
            .is_ok_and(|info| text(&info).contains(what))
    }

    /// Runs a command on a connection of its own, and waits where the machine is busy.
    pub async fn command(&self, words: &[&str]) -> redis::Value {
        self.run(words, Duration::from_secs(10))
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// The same, where it may fail.
    pub async fn try_command(&self, words: &[&str]) -> redis::RedisResult<redis::Value> {
        self.run(words, Duration::from_millis(500)).await
    }

    async fn run(&self, words: &[&str], longest: Duration) -> redis::RedisResult<redis::Value> {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(longest));
        let url = match &self.secret {
            Some(secret) => format!("redis://:{secret}@127.0.0.1:{}", self.port),
            None => self.url(),
        };
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut connection).await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Three masters with all slots between them.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    /// Of each node, where there is TLS.
    tls_ports: Vec<u16>,
}

impl RedisCluster {
    /// A cluster that says it is whole.
    pub async fn start() -> Self {
        Self::with(None).await
    }

    /// The same, by TLS: the folder has `ca.pem`, `server.pem` and `server.key`.
    pub async fn over_tls(folder: &Path) -> Self {
        Self::with(Some(folder)).await
    }

    async fn with(tls: Option<&Path>) -> Self {
        const LAST_SLOT: u32 = 16_383;
        let (mut nodes, mut tls_ports) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (node, tls_port) = start_cluster_node(tls).await;
            nodes.push(node);
            tls_ports.extend(tls_port);
        }
        for (index, node) in (0..).zip(&nodes) {
            let first = (LAST_SLOT + 1) * index / 3;
            let last = (LAST_SLOT + 1) * (index + 1) / 3 - 1;
            node.command(&["cluster", "addslotsrange", &first.to_string(), &last.to_string()])
                .await;
            node.command(&["cluster", "set-config-epoch", &(index + 1).to_string()]).await;
        }
        let first = text(&nodes[0].command(&["cluster", "nodes"]).await);
        let bus = first
            .split_once('@')
            .and_then(|(_, rest)| rest.split_once([' ', ',']))
            .expect("its own line")
            .0;
        let met = tls_ports.first().copied().unwrap_or(nodes[0].port()).to_string();
        for node in &nodes[1..] {
            node.command(&["cluster", "meet", "127.0.0.1", &met, bus]).await;
        }
        for node in &nodes {
            until("the cluster is whole", async || {
                let info = text(&node.command(&["cluster", "info"]).await);
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
            .await;
        }
        Self { nodes, tls_ports }
    }

    /// The addresses of all nodes by TLS, under this name.
    pub fn tls_urls(&self, name: &str) -> Vec<String> {
        self.tls_ports.iter().map(|port| format!("rediss://{name}:{port}")).collect()
    }

    /// Runs a command on every node.
    pub async fn everywhere(&self, words: &[&str]) {
        for node in &self.nodes {
            node.command(words).await;
        }
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Its nodes, to be ended.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// The addresses of all nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> String {
        match self.nodes[0].command(&["cluster", "keyslot", key]).await {
            redis::Value::Int(slot) => slot.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// The index of the node that owns the slot.
    pub async fn owner(&self, slot: &str) -> usize {
        for (index, node) in self.nodes.iter().enumerate() {
            if let redis::Value::Int(_) = node.command(&["cluster", "countkeysinslot", slot]).await
                && self.owns(index, slot).await
            {
                return index;
            }
        }
        panic!("slot {slot} is nobody's");
    }

    async fn owns(&self, index: usize, slot: &str) -> bool {
        let slot: u32 = slot.parse().unwrap();
        let nodes = text(&self.nodes[index].command(&["cluster", "nodes"]).await);
        let mine = nodes.lines().find(|line| line.contains("myself")).unwrap();
        mine.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap()).contains(&slot)
        })
    }

    /// A node's own id.
    pub async fn id(&self, index: usize) -> String {
        text(&self.nodes[index].command(&["cluster", "myid"]).await)
    }

    /// Begins to move a slot: from now on its owner sends askers for absent keys to the other node.
    pub async fn begin_move(&self, slot: &str, from: usize, to: usize) {
        self.nodes[to]
            .command(&["cluster", "setslot", slot, "importing", &self.id(from).await])
            .await;
        self.nodes[from]
            .command(&["cluster", "setslot", slot, "migrating", &self.id(to).await])
            .await;
    }

    /// Moves the slot's keys, and then the slot.
    pub async fn end_move(&self, slot: &str, from: usize, to: usize) {
        let port = self.nodes[to].port().to_string();
        if let redis::Value::Array(keys) =
            self.nodes[from].command(&["cluster", "getkeysinslot", slot, "1000"]).await
        {
            for key in keys.iter().map(text) {
                let migrate = ["migrate", "127.0.0.1", &port, &key, "0", "5000"];
                // On a starved machine, the other node counts the cluster as down for a moment.
                until("the key has moved", async || {
                    self.nodes[from].try_command(&migrate).await.is_ok()
                })
                .await;
            }
        }
        for index in [to, from] {
            self.nodes[index]
                .command(&["cluster", "setslot", slot, "node", &self.id(to).await])
                .await;
        }
    }
}

/// A master, its replica, and a sentinel that watches both under the name `pg-master`.
pub struct RedisSentinel {
    /// The master at first.
    pub master: RedisServer,
    /// Its replica at first.
    pub replica: RedisServer,
    sentinel: RedisServer,
}

impl RedisSentinel {
    /// What the sentinel calls the master.
    pub const MASTER: &str = "pg-master";

    /// All three, once the sentinel knows the replica.
    pub async fn start() -> Self {
        Self::with_password(None).await
    }

    /// The same, with a sentinel that asks for this password; its servers do not, so far.
    pub async fn with_password(secret: Option<&str>) -> Self {
        let master = RedisServer::start().await;
        let replica =
            RedisServer::with_args(&["--replicaof", "127.0.0.1", &master.port().to_string()]).await;
        until("the replica is in step", async || {
            replica.replication_says("master_link_status:up").await
        })
        .await;
        let config = secret.map(|secret| format!("requirepass {secret}\n"));
        let sentinel = start_sentinel(&config.unwrap_or_default(), secret).await;
        let port = master.port().to_string();
        sentinel
            .command(&["sentinel", "monitor", Self::MASTER, "127.0.0.1", &port, "1"])
            .await;
        sentinel
            .command(&["sentinel", "set", Self::MASTER, "down-after-milliseconds", "500"])
            .await;
        sentinel
            .command(&["sentinel", "set", Self::MASTER, "failover-timeout", "2000"])
            .await;
        // Else it asks for news every ten seconds, makes an old master follow only after eight
        // seconds without trouble, and does nothing for half a minute where the machine is slow.
        let quick = ["info-period", "100", "ask-period", "100", "publish-period", "100"];
        let patient = ["tilt-trigger", "60000"];
        sentinel.command(&[&["sentinel", "debug"], &quick[..], &patient].concat()).await;
        until("the sentinel knows the replica", async || {
            text(&sentinel.command(&["info", "sentinel"]).await).contains("slaves=1")
        })
        .await;
        Self { master, replica, sentinel }
    }

    /// The sentinel's address.
    pub fn url(&self) -> String {
        self.sentinel.url()
    }

    /// The sentinel.
    pub fn sentinel(&self) -> &RedisServer {
        &self.sentinel
    }

    /// The port of the server that the sentinel calls the master.
    pub async fn master_port(&self) -> String {
        let ask = ["sentinel", "get-master-addr-by-name", Self::MASTER];
        match self.sentinel.command(&ask).await {
            redis::Value::Array(address) => address.last().map(text).unwrap_or_default(),
            other => panic!("{other:?}"),
        }
    }

    /// Makes the replica the master, and the master its replica.
    pub async fn fail_over(&self) {
        let was = self.master_port().await;
        let mut asked: Option<Instant> = None;
        until("the sentinel names another master", async || {
            // It gives a failover up where a server does not answer in time.
            if asked.is_none_or(|asked| asked.elapsed() > GIVEN_UP) {
                let ask = ["sentinel", "failover", Self::MASTER];
                let begun = self.sentinel.try_command(&ask).await.is_ok();
                asked = begun.then(Instant::now);
            }
            self.master_port().await != was
        })
        .await;
        self.is_in_step().await;
    }

    /// Waits until one server is the other's replica, so that either can be lost.
    pub async fn is_in_step(&self) {
        until("there is one master, and one replica in step with it", async || {
            let (mut masters, mut replicas) = (0, 0);
            for node in [&self.master, &self.replica] {
                masters += usize::from(node.replication_says("role:master").await);
                replicas += usize::from(node.replication_says("master_link_status:up").await);
            }
            (masters, replicas) == (1, 1)
        })
        .await;
    }
}

/// A reply as text.
pub fn text(value: &redis::Value) -> String {
    match value {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        redis::Value::SimpleString(text) | redis::Value::VerbatimString { text, .. } => {
            text.clone()
        }
        other => format!("{other:?}"),
    }
}

async fn start_cluster_node(tls: Option<&Path>) -> (RedisServer, Option<u16>) {
    for _ in 0..10 {
        let (port, bus) = (free_port(), free_port().to_string());
        let mut args: Vec<_> = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
            .into_iter()
            .chain(["--cluster-port", &bus])
            .map(str::to_owned)
            .collect();
        let tls_port = tls.map(|folder| (free_port(), folder));
        if let Some((tls_port, folder)) = tls_port {
            let file = |name: &str| folder.join(name).display().to_string();
            for (setting, value) in [
                ("--tls-port", tls_port.to_string()),
                ("--tls-cluster", "yes".into()),
                ("--tls-auth-clients", "no".into()),
                ("--tls-cert-file", file("server.pem")),
                ("--tls-key-file", file("server.key")),
                ("--tls-ca-cert-file", file("ca.pem")),
            ] {
                args.extend([setting.to_owned(), value]);
            }
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if let Some(server) = RedisServer::try_start(port, &args, None, None).await {
            return (server, tls_port.map(|(port, _)| port));
        }
    }
    panic!("no cluster node comes up");
}

/// With these lines of its config; `secret` is the password that they make it ask for.
async fn start_sentinel(config: &str, secret: Option<&str>) -> RedisServer {
    for _ in 0..10 {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("sentinel.conf"), config).unwrap();
        let args = ["--sentinel"];
        if let Some(server) = RedisServer::try_start(free_port(), &args, Some(dir), secret).await {
            return server;
        }
    }
    panic!("no sentinel comes up");
}

/// Free a moment ago: whoever is told of it must expect it to be taken.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(port: u16, args: &[String], dir: &Path) -> Child {
    let mut command =
        Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()));
    if args.iter().any(|arg| arg == "--sentinel") {
        command.arg("sentinel.conf").args(["--port", &port.to_string()]).args(args);
    } else {
        command
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no"])
            .args(args);
    }
    command.args(["--bind", "127.0.0.1", "--loglevel", "warning"]).current_dir(dir);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("no redis-server: {error}; `make tools` installs it"))
}

fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// By then a failover has ended, well or not: it has 2 s for each of its steps.
const GIVEN_UP: Duration = Duration::from_secs(5);
