//! What a peer sends on a fresh connection, over a real socket to the server's own accept loop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use participant_gateway::net::{self, Handler, Limits, Peer, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// The first byte is the length of the pieces in which the others come. The server ends the
/// connection soon after its peer has, says little, and hands on no request before the preface.
pub fn preface(data: &[u8]) {
    static WORLD: LazyLock<World> = LazyLock::new(World::new);
    let Some((piece, bytes)) = data.split_first() else { return };
    let world = &*WORLD;
    world.counting.0.store(0, Ordering::Relaxed);
    let said = world.runtime.block_on(async {
        let exchange = exchange(world.addr, bytes, usize::from(*piece).max(1));
        tokio::time::timeout(SOON, exchange).await.expect("the server does not end")
    });
    let requests = world.counting.0.load(Ordering::Relaxed);
    assert!(requests == 0 || bytes.starts_with(PREFACE), "{requests} requests before the preface");
    let most = 64 * 1024 + 16 * bytes.len();
    assert!(said <= most, "{said} bytes for {}", bytes.len());
}

/// How many bytes the server says.
async fn exchange(addr: SocketAddr, bytes: &[u8], piece: usize) -> usize {
    let (mut from, mut to) = connect(addr).await.into_split();
    let writing = async {
        for piece in bytes.chunks(piece) {
            if to.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = to.shutdown().await;
    };
    let reading = async {
        let (mut said, mut bytes) = (0, vec![0; 16 * 1024]);
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            said += read;
        }
        said
    };
    tokio::join!(writing, reading).1
}

/// From a loopback address of its own: a closed connection holds its port for a minute.
async fn connect(addr: SocketAddr) -> TcpStream {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let [_, a, b, c] = LAST.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 1 + a % 200, b, c.max(1)], 0).into()).unwrap();
    let stream = socket.connect(addr).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

struct World {
    /// One thread: the same bytes take the same way.
    runtime: Runtime,
    addr: SocketAddr,
    counting: Counting,
}

/// Counts the requests, and answers each.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicU32>);

impl Handler for Counting {
    type Body = Empty<Bytes>;

    fn refused(&self, _: &'static str) {}

    fn answer(
        &self,
        _: Request<Incoming>,
        _: Arc<Peer>,
    ) -> impl Future<Output = Response<Self::Body>> + Send + use<> {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Response::new(Empty::new()))
    }
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let counting = Counting::default();
        let service = Service {
            handler: counting.clone(),
            limits: Limits {
                max_concurrent_streams: 100,
                max_header_list_bytes: 16 * 1024,
                max_age: Duration::from_secs(3600),
                grace: Duration::from_secs(1),
            },
            tls: None,
            client: |_, _| {},
        };
        let never = CancellationToken::new;
        runtime.spawn(net::serve(listener, service, never(), never()));
        Self { runtime, addr, counting }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SOON: Duration = Duration::from_secs(20);
