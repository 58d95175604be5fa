//! The sockets that the gateway listens on.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;

/// Listens on the address. `[::]` means every address of both families, whatever the system's
/// default is. On a host without IPv6 it means every IPv4 address. Must be called inside a tokio
/// runtime.
///
/// # Errors
/// If the address cannot be bound.
pub(crate) fn on(address: SocketAddr) -> io::Result<TcpListener> {
    by(address, open)
}

fn by<T>(address: SocketAddr, open: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::info!(%address, %instead, "no IPv6 on this host");
            open(instead)
        }
        opened => opened,
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    // As in tokio: the port of a process that has just ended is free.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Every connection has its listener's settings. So the kernel finds peers that are gone. It does
    // not find a process that hangs: the connection's age ends that one. HTTP/2's PING would find
    // both, but takes a lock and looks at the clock for each frame.
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(PROBE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNANSWERED))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether the kernel lacks IPv6, or no interface has it.
fn lacks_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// The backlog of tokio and std; the system may reduce it.
const BACKLOG: i32 = 1024;

/// A connection that is silent for so long is probed.
const IDLE: Duration = Duration::from_secs(60);

/// It is probed again after this time.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// So long after the peer's last sign of life, its connection is closed. The same bound holds for
/// data that it does not acknowledge, or does not read.
const UNANSWERED: Duration = Duration::from_secs(80);

// Linux counts it from the last sign of life, and not from the first probe. If it were shorter, the
// first probe without an answer would end a connection.
const _: () = assert!(UNANSWERED.as_secs() > IDLE.as_secs() + 3 * PROBE_INTERVAL.as_secs());

/// "Address family not supported by protocol", of Linux.
const EAFNOSUPPORT: i32 = 97;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn without_ipv6_every_ipv4_address_serves() {
        for error in [EAFNOSUPPORT, 99 /* EADDRNOTAVAIL */] {
            let tried = RefCell::new(Vec::new());
            let opened = by("[::]:50051".parse().unwrap(), |address| {
                tried.borrow_mut().push(address.to_string());
                if address.is_ipv6() { Err(io::Error::from_raw_os_error(error)) } else { Ok(()) }
            });
            opened.unwrap();
            assert_eq!(tried.into_inner(), ["[::]:50051", "0.0.0.0:50051"]);
        }
    }

    #[tokio::test]
    async fn a_connection_has_the_keepalive_and_the_timeout_of_its_listener() {
        let listener = on("127.0.0.1:0".parse().unwrap()).unwrap();
        let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), IDLE);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), PROBE_INTERVAL);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(UNANSWERED));
    }

    #[test]
    fn another_address_and_another_fault_are_not_mended() {
        let fails = |address: &str, error| {
            let address = address.parse().unwrap();
            by(address, |_| Err::<(), _>(io::Error::from_raw_os_error(error))).unwrap_err()
        };
        assert_eq!(fails("[::1]:1", EAFNOSUPPORT).raw_os_error(), Some(EAFNOSUPPORT));
        assert_eq!(fails("[::]:1", 98).kind(), io::ErrorKind::AddrInUse);
    }
}
