//! Binding: one socket for each worker on the same address, without ever sharing a port with a stranger.
//!
//! `SO_REUSEPORT` lets any process of the same user bind the port too, and take half of the connections in
//! silence. So the first socket is bound without the option, which fails when anybody has the port; only then is
//! the option set, and the siblings are bound.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted on each socket.
const BACKLOG: i32 = 4096;

/// Binds `count` sockets to one address. Port 0 lets the kernel choose; all sockets get the same one.
///
/// # Errors
/// When the address cannot be bound; the message says why and what to do.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let explain = |error: io::Error| io::Error::new(error.kind(), explain(address, &error));
    let first = socket(address).map_err(explain)?;
    first.bind(&address.into()).map_err(explain)?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..count {
        let sibling = socket(address)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&bound.into()).map_err(explain)?;
        sockets.push(sibling);
    }
    for socket in &sockets {
        socket.listen(BACKLOG).map_err(explain)?;
    }
    Ok(sockets.into_iter().map(Into::into).collect())
}

/// Whether the address could be bound now.
///
/// # Errors
/// Why it could not.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    bind(address, 1).map(drop)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Without it a restart would have to wait for the connections of the last run to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the list of kinds is open")]
fn explain(address: SocketAddr, error: &io::Error) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is in use by another process; stop it (`ss -ltnp 'sport = :{port}'` names it), take over from it when it is Weir (`--takeover`), or choose another port"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "{address} needs a privilege: ports below 1024 need CAP_NET_BIND_SERVICE; grant it or choose another port"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{address} is not an address of this machine; use one that `ip address` lists")
        }
        _ => format!("{address} cannot be bound: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn siblings_share_a_port_that_nobody_else_can_bind() {
        let sockets = bind(any(), 3).expect("a free port");
        let address = sockets[0].local_addr().expect("an address");
        assert!(sockets.iter().all(|socket| socket.local_addr().is_ok_and(|other| other == address)));
        let error = bind(address, 2).expect_err("the port is taken, SO_REUSEPORT or not");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains("is in use by another process; stop it"), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 0)), 1).expect_err("a documentation address");
        assert!(error.to_string().contains("not an address of this machine"), "{error}");
    }
}
