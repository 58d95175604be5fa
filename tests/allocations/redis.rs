//! A Redis of the test's own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server on a port of its own; it ends with the test.
pub struct RedisServer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl RedisServer {
    /// A server that listens.
    pub fn start() -> Self {
        // Another process may take the port between the choice and the bind.
        (0..10).find_map(|_| Self::try_start()).expect("no redis-server comes up")
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn try_start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = TempDir::new().unwrap();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("no redis-server: {error}; `make tools` installs it"));
        let mut server = Self { child, port, _folder: folder };
        // It says that it is ready, or ends.
        let mut log = BufReader::new(server.child.stdout.take()?).lines().map_while(Result::ok);
        log.any(|line| line.contains("Ready to accept connections")).then_some(server)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
