//! What the kernel knows of a socket and tells whoever asks: its TCP state, its queues, what it had
//! to throw away.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// States of a TCP connection, as `TCP_INFO` and `/proc/net/tcp` number them
/// (include/net/tcp_states.h).
pub(crate) mod state {
    pub(crate) const ESTABLISHED: u8 = 1;
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const TIME_WAIT: u8 = 6;
}

/// All that `TCP_INFO` tells (tcp(7)). Of a listening socket `tcpi_unacked` is the number of
/// connections that wait to be accepted, and `tcpi_sacked` the backlog that was asked for.
pub(crate) fn tcp_info(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    #[allow(unsafe_code)]
    // SAFETY: tcp_info is a C struct of integers, for which zeros are a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(info)
}

/// Segments with data that this end has sent on a connection (Linux 4.6).
pub(crate) fn segments_sent(socket: &impl AsFd) -> io::Result<u32> {
    Ok(tcp_info(socket)?.tcpi_data_segs_out)
}

/// How many packets for this socket the kernel threw away: datagrams that found the receive buffer
/// full, requests for a connection that found the backlog full (`SO_MEMINFO`, the ninth number;
/// linux/sock_diag.h).
pub(crate) fn dropped(socket: &impl AsFd) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut numbers = [0_u32; SK_MEMINFO_DROPS + 1];
    option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut numbers)?;
    Ok(numbers[SK_MEMINFO_DROPS])
}

/// getsockopt(2) into a plain C value, of which an older kernel fills only the beginning.
fn option<T: Copy>(socket: &impl AsFd, level: i32, name: i32, value: &mut T) -> io::Result<()> {
    let mut size = mem::size_of::<T>() as libc::socklen_t;
    let to: *mut T = value;
    #[allow(unsafe_code)]
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most
    // `size` bytes to `to`, and both types used here consist of integers, for which any bytes are a
    // value.
    let result =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, to.cast(), &mut size) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::sockets::{datagrams, pair};

    #[test]
    fn the_kernel_tells_a_connection_from_a_listener() {
        let (client, server) = pair().unwrap();
        assert_eq!(tcp_info(&client).unwrap().tcpi_state, state::ESTABLISHED);
        assert_eq!(tcp_info(&server).unwrap().tcpi_total_retrans, 0);
        (&client).write_all(b"abc").unwrap();
        assert_eq!((segments_sent(&client).unwrap(), segments_sent(&server).unwrap()), (1, 0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let info = tcp_info(&listener).unwrap();
        assert_eq!((info.tcpi_unacked, info.tcpi_state), (0, 10)); // 10 is LISTEN.
        assert_eq!(dropped(&listener).unwrap(), 0);
    }

    #[test]
    fn what_a_full_buffer_drops_is_counted() {
        let (sender, receiver) = (datagrams().unwrap(), datagrams().unwrap());
        assert_eq!(dropped(&receiver).unwrap(), 0);
        socket2::SockRef::from(&receiver).set_recv_buffer_size(2048).unwrap();
        for _ in 0..20 {
            sender.send_to(&[0; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        crate::sockets::wait_until(("one is dropped", "有一个被丢弃"), || {
            Ok(dropped(&receiver)? > 0)
        })
        .unwrap();
    }

    #[test]
    fn what_is_no_tcp_socket_is_an_error() {
        assert!(tcp_info(&datagrams().unwrap()).is_err());
    }
}
