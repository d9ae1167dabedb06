//! What the kernel reports about a socket: its TCP state, its counters, the packets that it
//! dropped.

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

/// Returns what `TCP_INFO` reports (tcp(7)). For a listening socket `tcpi_unacked` is the number of
/// connections that wait to be accepted, and `tcpi_sacked` the backlog that listen(2) requested.
pub(crate) fn tcp_info(socket: &impl AsFd) -> io::Result<libc::tcp_info> {
    #[allow(unsafe_code)]
    // SAFETY: tcp_info is a C struct of integers, for which zeros are valid.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    get_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    Ok(info)
}

/// Returns how many segments with data this end of a connection has sent (Linux 4.6).
pub(crate) fn segments_sent(socket: &impl AsFd) -> io::Result<u32> {
    Ok(tcp_info(socket)?.tcpi_data_segs_out)
}

/// Returns how many packets for this socket the kernel dropped: datagrams because the receive
/// buffer was full, SYNs because the backlog was full (`SO_MEMINFO`, the ninth number;
/// linux/sock_diag.h).
pub(crate) fn dropped(socket: &impl AsFd) -> io::Result<u32> {
    const SK_MEMINFO_DROPS: usize = 8;
    let mut numbers = [0_u32; SK_MEMINFO_DROPS + 1];
    get_option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut numbers)?;
    Ok(numbers[SK_MEMINFO_DROPS])
}

/// Calls getsockopt(2) into a plain C value; an older kernel fills only its beginning.
fn get_option<T: Copy>(socket: &impl AsFd, level: i32, name: i32, value: &mut T) -> io::Result<()> {
    let mut size = mem::size_of::<T>() as libc::socklen_t;
    let to: *mut T = value;
    #[allow(unsafe_code)]
    // SAFETY: the descriptor is open for as long as it is borrowed; the kernel writes at most
    // `size` bytes to `to`, and both types used here consist of integers, for which any bytes are
    // valid.
    let result =
        unsafe { libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, to.cast(), &mut size) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::sockets::{pair, udp_socket, wait_until};

    #[test]
    fn tcp_info_tells_a_connection_from_a_listener() {
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
    fn datagrams_dropped_by_a_full_buffer_are_counted() {
        let (sender, receiver) = (udp_socket().unwrap(), udp_socket().unwrap());
        assert_eq!(dropped(&receiver).unwrap(), 0);
        socket2::SockRef::from(&receiver).set_recv_buffer_size(2048).unwrap();
        for _ in 0..20 {
            sender.send_to(&[0; 1000], receiver.local_addr().unwrap()).unwrap();
        }
        wait_until(("one is dropped", "有一个被丢弃"), || Ok(dropped(&receiver)? > 0)).unwrap();
    }

    #[test]
    fn tcp_info_of_a_udp_socket_is_an_error() {
        assert!(tcp_info(&udp_socket().unwrap()).is_err());
    }
}
