//! Finds what would keep labshd from listening on its addresses, without listening: labshd may
//! already run on them.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};
use socket2::{Domain, Protocol, Type};

use crate::config::Config;
use crate::listen_address::ListenAddress;
use crate::listener;

/// Returns the errors of all addresses, in their order. Resolves names, so it may block.
pub(crate) fn problems(config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut bound: Vec<(SocketAddr, &ListenAddress)> = Vec::new();
    for address in &config.listen {
        let checked = match address {
            ListenAddress::Unix { path } => check_unix(path).map(|()| Vec::new()),
            ListenAddress::Tcp { host, port, .. } => {
                (host.as_str(), *port).to_socket_addrs().map(Iterator::collect)
            }
        };
        let resolved: Vec<SocketAddr> = match checked {
            Ok(resolved) => resolved,
            Err(error) => {
                problems.push(listener::explain(address, error).to_string());
                continue;
            }
        };
        if let Err(error) = listener::check_exposure(address, &resolved, config) {
            problems.push(error.to_string());
        }
        for socket in resolved {
            if let Some((_, other)) = bound.iter().find(|(other, _)| overlap(*other, socket)) {
                problems.push(format!(
                    "cannot listen on {address}: {other} listens on the same port of {}; remove \
                     one of the two, or choose another port",
                    if socket.ip().is_unspecified() { "every address" } else { "that address" }
                ));
                break;
            }
            bound.push((socket, address));
            if let Err(error) = check_tcp(socket) {
                problems.push(listener::explain(address, error).to_string());
                break;
            }
        }
    }
    problems
}

/// Returns whether one of two sockets cannot be bound while the other listens. `[::]` includes
/// every IPv4 address.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let includes = |any: IpAddr, address: IpAddr| match any {
        IpAddr::V6(any) => any.is_unspecified(),
        IpAddr::V4(any) => any.is_unspecified() && address.is_ipv4(),
    };
    let (first, second) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && one.port() != 0
        && (first == second || includes(first, second) || includes(second, first))
}

/// Binds a socket without listening, to see whether this process may. That another one, perhaps
/// labshd, has bound it is no error here.
fn check_tcp(address: SocketAddr) -> io::Result<()> {
    let domain = Domain::for_address(address);
    let Ok(socket) = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP)) else {
        // Without IPv6 in the kernel, `[::]` means every IPv4 address.
        return Ok(());
    };
    socket.set_reuse_address(true)?;
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        bound => bound,
    }
}

/// Checks that a socket can be created at this path, where another labshd may have one already.
fn check_unix(path: &Path) -> io::Result<()> {
    if let Ok(metadata) = path.symlink_metadata()
        && !metadata.file_type().is_socket()
    {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::metadata(directory)?;
    Ok(access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(listen: &[&str]) -> Vec<String> {
        let listen = listen.iter().map(|text| text.parse().unwrap()).collect();
        problems(&Config { listen, ..Config::default() })
    }

    #[test]
    fn addresses_that_overlap_are_found() {
        for (one, other, expected) in [
            ("[::]:6274", "0.0.0.0:6274", true),
            ("[::]:6274", "127.0.0.1:6274", true),
            ("0.0.0.0:6274", "127.0.0.1:6274", true),
            ("[::]:6274", "[::1]:6274", true),
            ("[::1]:6274", "0.0.0.0:6274", false),
            ("127.0.0.1:6274", "127.0.0.2:6274", false),
            ("[::]:6274", "0.0.0.0:6275", false),
            ("0.0.0.0:0", "127.0.0.1:0", false),
        ] {
            let [first, second] = [one, other].map(|text| text.parse().unwrap());
            assert_eq!(overlap(first, second), expected, "{one} {other}");
            assert_eq!(overlap(second, first), expected, "{other} {one}");
        }
        let problems = found(&["127.0.0.1:6274", "0.0.0.0:6274"]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains("127.0.0.1:6274 listens on the same port"), "{problems:?}");
    }

    #[test]
    fn an_address_that_another_process_listens_on_is_no_error() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(found(&[&listener.local_addr().unwrap().to_string()]), [""; 0]);
    }

    #[test]
    fn what_cannot_be_listened_on_is_found() {
        // TMPDIR may be too long for the path of a socket.
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let [file, missing] = [file.display().to_string(), "/nowhere/labshd.sock".to_owned()];
        for (address, part) in [
            (format!("unix:{file}"), "not a socket"),
            (format!("unix:{missing}"), "create the directory"),
            ("192.0.2.1:6274".to_owned(), "does not have that address"),
            // A name that does not exist (RFC 6761).
            ("lab07.invalid:6274".to_owned(), "check the name"),
        ] {
            let problems = found(&[&address]);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains(part), "{problems:?}");
        }
        assert_eq!(found(&[&format!("unix:{file}.sock")]), [""; 0]);
    }
}
