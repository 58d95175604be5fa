//! The way to Redis when it is bad: every call ends in time, and a bad connection is not kept.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use participant_gateway::admission::redis::{
    RedisSettings, RedisStore, SettingsError, TlsFiles, Topology,
};
use participant_gateway::admission::{Decision, Store, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::world::*;
use crate::support::redis::RedisServer;
use crate::support::{ClosedPort, until, until_within};

const TIMEOUT: Duration = Duration::from_millis(250);

fn settings(url: String) -> RedisSettings {
    RedisSettings { timeout: TIMEOUT, ..RedisSettings::standalone(url) }
}

fn store(url: String) -> RedisStore {
    RedisStore::new(settings(url)).unwrap()
}

async fn world() -> World {
    World::memory().await
}

/// The error, which must come within the timeout, or a little later on a loaded machine.
async fn fails_in_time(store: &RedisStore) -> StoreError {
    let started = Instant::now();
    let error = store.quota(&scope()).await.unwrap_err();
    assert!(started.elapsed() < TIMEOUT + Duration::from_millis(750), "{:?}", started.elapsed());
    error
}

#[tokio::test]
async fn a_refused_connection_is_an_error_in_time_and_no_secret_is_in_it() {
    let closed = ClosedPort::new();
    let store = store(format!("redis://:canary-secret@{}", closed.addr()));
    let error = fails_in_time(&store).await;
    assert!(matches!(error, StoreError::NotConnected(_)), "{error:?}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn a_stopped_server_costs_each_call_one_timeout_and_is_back_when_it_goes_on() {
    let server = RedisServer::start().await;
    let store = store(server.url());
    store.probe().await.unwrap();
    server.pause();
    for _ in 0..4 {
        assert!(matches!(fails_in_time(&store).await, StoreError::TimedOut));
    }
    server.resume();
    let two_seconds = Duration::from_secs(2);
    until_within(two_seconds, "it answers again", async || store.probe().await.is_ok()).await;
}

#[tokio::test]
async fn a_claim_that_ran_late_is_mended_by_the_same_nonce() {
    let server = RedisServer::start().await;
    let (store, world) = (store(server.url()), world().await);
    store.probe().await.unwrap();
    server.pause();
    let call = world.keyed("a", "x");
    store.admit(&call).await.unwrap_err();
    server.resume();
    until("it answers again", async || store.probe().await.is_ok()).await;
    assert!(matches!(
        store.admit(&call).await.unwrap().decision,
        Decision::Granted { takeover: false, .. }
    ));
    let quota = store.quota(&call.scope).await.unwrap();
    assert_eq!(quota.in_flight, 1);
}

#[tokio::test]
async fn a_restarted_server_is_used_at_once() {
    let mut server = RedisServer::start().await;
    let store = store(server.url());
    store.probe().await.unwrap();
    server.restart().await;
    store.quota(&scope()).await.unwrap();
    server.kill();
    fails_in_time(&store).await;
    server.restart().await;
    store.quota(&scope()).await.unwrap();
}

#[tokio::test]
async fn a_half_open_connection_is_replaced_after_two_late_answers() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let store = store(proxy.url());
    store.probe().await.unwrap();
    proxy.swallow_open_connections();
    for _ in 0..2 {
        assert!(matches!(fails_in_time(&store).await, StoreError::TimedOut));
    }
    store.quota(&scope()).await.unwrap();
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn one_late_answer_is_no_reason_for_a_new_connection() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let store = store(proxy.url());
    store.probe().await.unwrap();
    for _ in 0..3 {
        server.pause();
        fails_in_time(&store).await;
        server.resume();
        until("it answers again", async || store.probe().await.is_ok()).await;
        store.quota(&scope()).await.unwrap();
    }
    assert!(proxy.connections() <= 2, "{} connections", proxy.connections());
}

#[tokio::test]
async fn a_connection_reset_in_the_middle_of_a_reply_is_mended_without_a_second_charge() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let (store, world) = (store(proxy.url()), world().await);
    store.probe().await.unwrap();
    let call = world.keyed("a", "x");
    proxy.cut_next_reply();
    assert!(matches!(
        store.admit(&call).await.unwrap().decision,
        Decision::Granted { takeover: false, .. }
    ));
    assert_eq!(proxy.connections(), 2);
    let mut scope = call.scope.clone();
    scope.limits.rate = rate(0.0);
    let quota = store.quota(&scope).await.unwrap();
    assert_eq!((quota.in_flight, quota.remaining), (1, 99));
}

#[tokio::test]
async fn a_dropped_future_neither_takes_its_command_back_nor_ends_the_connection() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let (store, world) = (store(proxy.url()), world().await);
    store.probe().await.unwrap();
    for _ in 0..20 {
        let call = world.call();
        let ask = store.admit(&call);
        tokio::select! { biased; _ = ask => {}, () = tokio::task::yield_now() => {} }
    }
    let quota = store.quota(&world.scope).await.unwrap();
    assert_eq!(quota.in_flight, 20, "a command was taken back");
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn whatever_a_server_says_is_an_error_in_time_and_names_itself() {
    let replies = [
        ("-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        ("-BUSY Redis is busy running a script\r\n", "BUSY"),
        ("-OOM command not allowed when used memory > 'maxmemory'\r\n", "OOM"),
        ("-NOPERM this user has no permissions\r\n", "NOPERM"),
        ("-NOAUTH Authentication required.\r\n", "NOAUTH"),
        ("-CLUSTERDOWN The cluster is down\r\n", "CLUSTERDOWN"),
        ("-MASTERDOWN Link with MASTER is down\r\n", "MASTERDOWN"),
        ("-MISCONF Redis is configured to save\r\n", "MISCONF"),
        ("-READONLY You can't write against a read only replica.\r\n", "READONLY"),
        ("-NOSCRIPT No matching script.\r\n", "_OTHER"),
        ("-ERR user_script:1: boom\r\n", "ERR"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", ""),
        ("\u{0}\u{1}\u{2}\r\n", ""),
        ("*100000000000\r\n", ""),
        ("*3\r\n$1\r\ng\r\n", "timeout"),
        ("", "timeout"),
        (":1\r\n", "_OTHER"),
        ("$-1\r\n", "_OTHER"),
        ("*0\r\n", "_OTHER"),
        ("$6\r\nlevels\r\n", "_OTHER"),
        ("$16\r\nlevels\0none\0none\r\n", "_OTHER"),
        ("*-1\r\n", "_OTHER"),
    ];
    for (reply, what) in replies {
        let server = Fake::start(vec![reply], Some(reply)).await;
        let error = fails_in_time(&store(server.url())).await;
        if !what.is_empty() {
            assert_eq!(error.as_str(), what, "{reply:?}: {error:?}");
        }
    }
}

#[tokio::test]
async fn what_a_new_connection_may_mend_is_tried_on_one() {
    // Level 5 (0x4014…), factor 3 and two in flight, as doubles that a text can hold; nothing let
    // through. Then the four figures that a quota leaves out.
    let zero = "\0".repeat(8);
    let levels = ["\0\0\0\0\0\0\u{14}@", "\0\0\0\0\0\0\u{8}@", "\0\0\0\0\0\0\0@", &zero].concat();
    let reply = ["levels\0", &levels, "none\0", &zero.repeat(4)].concat();
    let good: &'static str = format!("${}\r\n{reply}\r\n", reply.len()).leak();
    for bad in
        ["-READONLY You can't write against a read only replica.\r\n", "garbage\r\n", "CLOSE"]
    {
        let server = Fake::start(vec![bad], Some(good)).await;
        let store = store(server.url());
        let quota = store.quota(&scope()).await.unwrap();
        assert_eq!((quota.remaining, quota.in_flight), (5, 2), "{bad:?}");
        assert_eq!(server.connections(), 2, "{bad:?}");
    }
    for bad in ["-LOADING Redis is loading the dataset in memory\r\n", "-BUSY busy\r\n"] {
        let server = Fake::start(vec![bad], Some(good)).await;
        let store = store(server.url());
        fails_in_time(&store).await;
        store.quota(&scope()).await.unwrap();
        assert_eq!(server.connections(), 1, "{bad:?}: the connection is as good as another");
    }
}

#[tokio::test]
async fn a_replica_fails_the_probe_until_it_is_promoted() {
    let server = RedisServer::start().await;
    let store = store(server.url());
    store.probe().await.unwrap();
    server.command(&["replicaof", "127.0.0.1", "1"]).await;
    assert_eq!(store.probe().await.unwrap_err().as_str(), "READONLY");
    assert_eq!(fails_in_time(&store).await.as_str(), "READONLY");
    server.command(&["replicaof", "no", "one"]).await;
    store.probe().await.unwrap();
    store.quota(&scope()).await.unwrap();
}

#[tokio::test]
async fn a_user_that_may_run_no_scripts_is_told_so() {
    let server = RedisServer::start().await;
    server.command(&["acl", "setuser", "weak", "on", "nopass", "+ping", "~*"]).await;
    let store =
        RedisStore::new(RedisSettings { username: Some("weak".into()), ..settings(server.url()) })
            .unwrap();
    assert!(store.probe().await.is_err());
    let minimal = "+evalsha +eval +time +mget +set +hmget +hset +hget +hdel +exists +del +pexpire +hgetall +zcard +zcount +zscore +zadd +zrem +zrange \
        +zrangebyscore +zremrangebyscore";
    let mut words = vec!["acl", "setuser", "weak", "resetkeys", "~pg:*", ">secret", "-@all"];
    words.extend(minimal.split_whitespace());
    server.command(&words).await;
    let world = world().await;
    let call = world.keyed("a", "x");
    assert!(matches!(store.admit(&call).await.unwrap().decision, Decision::Granted { .. }));
    store.settle(&settlement(&call, done("sealed"))).await.unwrap();
    assert_eq!(store.admit(&call).await.unwrap().decision, replay("sealed"));
}

#[tokio::test]
async fn a_password_is_read_from_its_file_again_when_it_was_changed() {
    let server = RedisServer::with_password("first").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "wrong\n").unwrap();
    let settings =
        RedisSettings { password_file: Some(file.path().to_owned()), ..settings(server.url()) };
    let store = RedisStore::new(settings).unwrap();
    fails_in_time(&store).await;
    std::fs::write(file.path(), "first\n").unwrap();
    store.probe().await.unwrap();
    std::fs::remove_file(file.path()).unwrap();
    store.probe().await.unwrap();
}

#[test]
fn settings_that_can_never_work_are_named_without_their_secrets() {
    let refuse = |settings: RedisSettings| RedisStore::new(settings).err().unwrap();
    let urls = |urls: &[&str]| {
        RedisSettings::new(Topology::Standalone, urls.iter().map(|url| (*url).into()).collect())
    };
    assert_eq!(refuse(urls(&[])), SettingsError::NoUrl);
    assert_eq!(
        refuse(urls(&["redis://ok", "http://:canary@host"])),
        SettingsError::Url { number: 2 }
    );
    let printed = format!("{:?}", urls(&["redis://:canary@host"]));
    assert!(!printed.contains("canary"), "{printed}");
    assert_eq!(refuse(urls(&["unix:///tmp/redis"])), SettingsError::Url { number: 1 });
    assert_eq!(refuse(urls(&["redis://a", "rediss://b"])), SettingsError::MixedTls);
    let braces = RedisSettings { key_prefix: "a{b".into(), ..urls(&["redis://a"]) };
    assert_eq!(refuse(braces), SettingsError::KeyPrefix);
    let tls = TlsFiles { cert_file: Some("cert.pem".into()), ..TlsFiles::default() };
    assert_eq!(refuse(RedisSettings { tls, ..urls(&["rediss://a"]) }), SettingsError::HalfIdentity);
}

/// Forwards to a server, until it is told to be a bad network.
struct Proxy {
    port: u16,
    connections: Arc<AtomicUsize>,
    /// Connections up to this one get no byte through any more.
    swallowed: Arc<AtomicUsize>,
    cut: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self {
            port,
            connections: Arc::default(),
            swallowed: Arc::default(),
            cut: Arc::default(),
        };
        let (connections, swallowed, cut) =
            (Arc::clone(&proxy.connections), Arc::clone(&proxy.swallowed), Arc::clone(&proxy.cut));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::SeqCst) + 1;
                let (swallowed, cut) = (Arc::clone(&swallowed), Arc::clone(&cut));
                tokio::spawn(
                    async move { forward(client, server, number, &swallowed, &cut).await },
                );
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn swallow_open_connections(&self) {
        self.swallowed.store(self.connections(), Ordering::SeqCst);
    }

    fn cut_next_reply(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
}

async fn forward(
    mut client: TcpStream,
    server: u16,
    number: usize,
    swallowed: &AtomicUsize,
    cut: &AtomicBool,
) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let (mut up, mut down) = ([0; 65_536], [0; 65_536]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read? {
                0 => return Ok(()),
                _ if number <= swallowed.load(Ordering::SeqCst) => {}
                read => server.write_all(&up[..read]).await?,
            },
            read = server.read(&mut down) => match read? {
                0 => return Ok(()),
                _ if number <= swallowed.load(Ordering::SeqCst) => {}
                read if cut.swap(false, Ordering::SeqCst) => {
                    client.write_all(&down[..read / 2]).await?;
                    return Ok(());
                }
                read => client.write_all(&down[..read]).await?,
            },
        }
    }
}

/// Says what it was told to, one text a command; then the same for good.
struct Fake {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    async fn start(replies: Vec<&'static str>, then: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, asked) = (Arc::clone(&connections), Arc::new(AtomicUsize::new(0)));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (replies, asked) = (replies.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    let mut command = [0; 65_536];
                    while client.read(&mut command).await.is_ok_and(|read| read > 0) {
                        let reply =
                            replies.get(asked.fetch_add(1, Ordering::SeqCst)).copied().or(then);
                        match reply {
                            Some("CLOSE") | None => return,
                            Some(reply) => client.write_all(reply.as_bytes()).await.unwrap_or(()),
                        }
                    }
                });
            }
        });
        Self { port, connections }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
