//! A forward proxy on the loopback: CONNECT, and requests in the open.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Leads names to sockets, whatever DNS says, and keeps what it was asked.
#[derive(Clone)]
pub struct Proxy {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request's first line, as far as it names the target, and its `proxy-authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub target: String,
    pub authorization: Option<String>,
}

impl Proxy {
    pub async fn start(places: &[(&str, SocketAddr)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { addr: listener.local_addr().unwrap(), asked: Arc::default() };
        let places: BTreeMap<_, _> =
            places.iter().map(|(name, addr)| ((*name).to_owned(), *addr)).collect();
        let (asked, places) = (Arc::clone(&proxy.asked), Arc::new(places));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&places), Arc::clone(&asked)));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// With a user and a password before the host.
    pub fn url_with(&self, login: &str) -> String {
        format!("http://{login}@{}", self.addr)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Every target once, in order.
    pub fn targets(&self) -> Vec<String> {
        let mut targets: Vec<_> = self.asked().into_iter().map(|asked| asked.target).collect();
        targets.sort();
        targets.dedup();
        targets
    }
}

async fn serve(
    mut client: TcpStream,
    places: Arc<BTreeMap<String, SocketAddr>>,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(head).unwrap();
    let mut lines = text.split("\r\n");
    let first: Vec<_> = lines.next().unwrap().split(' ').collect();
    let (method, target) = (first[0], first[1].to_owned());
    let authorization = lines.clone().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization").then(|| value.to_owned())
    });
    asked.lock().unwrap().push(Asked { target: target.clone(), authorization });
    let authority = if method == "CONNECT" {
        target.clone()
    } else {
        target.split('/').nth(2).unwrap_or_default().to_owned()
    };
    let to = places.get(&authority).copied().or_else(|| authority.parse().ok());
    let Some(to) = to else {
        let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
        return;
    };
    let mut server = TcpStream::connect(to).await.unwrap();
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    } else {
        // The origin's own form, one request a connection.
        let path = target.splitn(4, '/').nth(3).unwrap_or_default();
        let rest: Vec<_> = lines.collect();
        let head = format!("{method} /{path} HTTP/1.1\r\n{}", rest.join("\r\n"));
        let head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
        server.write_all(head.as_bytes()).await.unwrap();
    }
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
