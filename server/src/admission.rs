//! Limits the connections that are not authenticated yet, and evicts one when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

/// The origin that a connection is counted for: an IPv4 address, an IPv6 /64 network (usually one
/// site), or `None` for all unix sockets.
type Source = Option<IpAddr>;

fn source(address: Source) -> Source {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    })
}

/// The unauthenticated connections and their limit.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Mutex<PendingConnections>>);

#[derive(Debug)]
struct PendingConnections {
    limit: usize,
    next_number: u64,
    pending: HashMap<u64, (Source, CancellationToken)>,
}

/// An unauthenticated connection's share of the limit, until it is dropped.
#[derive(Debug)]
pub(crate) struct PendingSlot {
    admission: Admission,
    number: u64,
    evicted: CancellationToken,
}

impl Admission {
    /// Allows `limit` connections, but at most half of this process's descriptors: sessions and
    /// commands need the others.
    pub(crate) fn new(limit: u32) -> Self {
        let limit = within_descriptors(limit);
        let connections = PendingConnections { limit, next_number: 0, pending: HashMap::new() };
        Self(Arc::new(Mutex::new(connections)))
    }

    fn lock(&self) -> MutexGuard<'_, PendingConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.lock().limit = within_descriptors(limit);
    }

    /// Adds a connection. At the limit, it evicts the oldest connection of the source with the most
    /// connections.
    pub(crate) fn enter(&self, address: Option<IpAddr>) -> PendingSlot {
        let mut connections = self.lock();
        if connections.pending.len() >= connections.limit.max(1) {
            connections.evict();
        }
        let number = connections.next_number;
        connections.next_number += 1;
        let evicted = CancellationToken::new();
        connections.pending.insert(number, (source(address), evicted.clone()));
        PendingSlot { admission: self.clone(), number, evicted }
    }

    /// Evicts one connection to free its descriptor; false if there is none.
    pub(crate) fn evict_one(&self) -> bool {
        self.lock().evict()
    }
}

/// Returns the limit, or half of this process's descriptors if that is less.
fn within_descriptors(limit: u32) -> usize {
    let half = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft / 2);
    if half < limit.into() {
        tracing::warn!(
            max_unauthenticated = limit,
            allowed = half,
            "max_unauthenticated exceeds half of RLIMIT_NOFILE, which applies instead"
        );
    }
    usize::try_from(half.min(limit.into())).unwrap_or(usize::MAX)
}

impl PendingConnections {
    fn evict(&mut self) -> bool {
        let mut by_source: HashMap<Source, (usize, u64)> = HashMap::new();
        for (&number, (source, _)) in &self.pending {
            let (count, oldest) = by_source.entry(*source).or_insert((0, number));
            *count += 1;
            *oldest = number.min(*oldest);
        }
        let victim = by_source
            .into_values()
            .max_by_key(|&(count, oldest)| (count, std::cmp::Reverse(oldest)));
        let victim = victim.and_then(|(_, oldest)| self.pending.remove(&oldest));
        victim.inspect(|(_, token)| token.cancel()).is_some()
    }
}

impl PendingSlot {
    /// Waits until this connection is evicted.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.admission.lock().pending.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn the_source_with_most_connections_is_evicted_oldest_first() {
        let admission = Admission::new(4);
        let other = admission.enter(from(1));
        let greedy: Vec<PendingSlot> = (0..3).map(|_| admission.enter(from(2))).collect();
        let newcomer = admission.enter(from(3));
        assert!(greedy[0].evicted.is_cancelled());
        for slot in [&other, &greedy[1], &greedy[2], &newcomer] {
            assert!(!slot.evicted.is_cancelled());
        }
    }

    #[test]
    fn a_dropped_slot_is_free_again() {
        let admission = Admission::new(1);
        drop(admission.enter(from(1)));
        let slot = admission.enter(from(1));
        assert!(!slot.evicted.is_cancelled());
        assert_eq!(admission.lock().pending.len(), 1);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_source() {
        let address = |text: &str| source(Some(text.parse().unwrap()));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:127.0.0.1"), address("127.0.0.1"));
    }
}
