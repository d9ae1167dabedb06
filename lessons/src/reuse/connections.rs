//! The kernel's list of TCP connections: /proc/net/tcp (proc_net_tcp, in the kernel's
//! documentation).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::text;
use crate::kernel::state;
use crate::stage::{LessonResult, Stage};

/// The remote address of a listening socket.
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// One end of a connection.
pub(super) struct Entry {
    /// The kernel's line, under the names of its columns.
    line: String,
    state: u8,
    /// Seconds until its timer expires.
    seconds: f64,
}

/// Shows the server's end of a closed connection, which must be in TIME_WAIT.
pub(super) fn show(stage: &mut Stage, server: SocketAddr, client: SocketAddr) -> LessonResult {
    let entry = find(server, client)?;
    if let Some(entry) = &entry {
        stage.list(text::KERNEL_LISTS, entry.line.as_str())?;
    }
    stage.notice(text::time_wait(entry.as_ref().map_or(0.0, |entry| entry.seconds)))?;
    let waits = entry.is_some_and(|entry| entry.state == state::TIME_WAIT);
    stage.fact(waits && find(client, server)?.is_none(), text::ONE_END_WAITS)
}

pub(super) fn is_in_time_wait(local: SocketAddr, remote: SocketAddr) -> io::Result<bool> {
    Ok(find(local, remote)?.is_some_and(|entry| entry.state == state::TIME_WAIT))
}

pub(super) fn is_listening(address: SocketAddr) -> io::Result<bool> {
    Ok(find(address, ANY)?.is_some())
}

/// Returns the end of a connection that has these addresses.
pub(super) fn find(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<Entry>> {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ: the same on every Linux.
    let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or_default();
    for line in fs::read_to_string("/proc/net/tcp")?.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, from, to, state, _, timer, ..] = fields[..] else { continue };
        if parse(from) == Some(local) && parse(to) == Some(remote) {
            let ticks = timer.split_once(':').map_or(0, |(_, ticks)| number(ticks));
            return Ok(Some(Entry {
                line: format!(
                    "local_address rem_address   st tr:tm->when\n{from} {to} {state} {timer}"
                ),
                state: number(state) as u8,
                seconds: ticks as f64 / TICKS_PER_SECOND,
            }));
        }
    }
    Ok(None)
}

/// Parses an address: both parts are hexadecimal, and the first is the number that the processor
/// reads from the four bytes of the address.
fn parse(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some(SocketAddr::from((address, u16::from_str_radix(port, 16).ok()?)))
}
