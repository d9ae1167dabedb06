//! Limits the connections that are not authenticated yet, and evicts one when there are too many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use labsh_transport::random;
use nix::sys::resource::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

/// The time after which a silent connection is evicted before others. A client sends its first
/// bytes as soon as it is connected, but a relay connects before it has them.
const MIN_LONG_SILENCE: Duration = Duration::from_millis(100);

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
    pending: HashMap<u64, Pending>,
}

/// One unauthenticated connection.
#[derive(Debug)]
struct Pending {
    source: Source,
    accepted: Instant,
    /// Whether it has sent nothing yet.
    silent: bool,
    evicted: CancellationToken,
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

    /// Adds a connection. At the limit, it evicts another ([`PendingConnections::victim`]).
    pub(crate) fn enter(&self, address: Option<IpAddr>) -> PendingSlot {
        let mut connections = self.lock();
        if connections.pending.len() >= connections.limit.max(1) {
            connections.evict();
        }
        let number = connections.next_number;
        connections.next_number += 1;
        let evicted = CancellationToken::new();
        let pending = Pending {
            source: source(address),
            accepted: Instant::now(),
            silent: true,
            evicted: evicted.clone(),
        };
        connections.pending.insert(number, pending);
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
        let victim = self.victim(Instant::now(), |count| {
            u64::from_ne_bytes(random::bytes()) as usize % count.max(1)
        });
        let victim = victim.and_then(|number| self.pending.remove(&number));
        victim.inspect(|pending| pending.evicted.cancel()).is_some()
    }

    /// Chooses the connection to evict. A source with a quarter of all connections loses one of
    /// its own. Of the others, a client on a long link must not lose to those that only connect:
    /// those that have been silent for long are chosen first, then silent ones, unless most have
    /// sent something: a real client that has just connected is silent as well. Among equals the
    /// choice is random, in the older half: a rule that the oldest must go, or the newest, would
    /// evict every client that takes longer to authenticate than a flood takes to fill the table.
    fn victim(&self, now: Instant, random: impl Fn(usize) -> usize) -> Option<u64> {
        let mut by_source: HashMap<Source, usize> = HashMap::new();
        for pending in self.pending.values() {
            *by_source.entry(pending.source).or_default() += 1;
        }
        let greediest = by_source.into_iter().max_by_key(|(_, count)| *count);
        let greediest = greediest.filter(|(_, count)| *count >= (self.pending.len() / 4).max(2));
        let mut all: Vec<(u64, &Pending)> =
            self.pending.iter().map(|(number, pending)| (*number, pending)).collect();
        if let Some((greediest, _)) = greediest {
            all.retain(|(_, pending)| pending.source == greediest);
        }
        let of = |fits: &dyn Fn(&Pending) -> bool| {
            let numbers = all.iter().filter(|(_, pending)| fits(pending));
            numbers.map(|(number, _)| *number).collect::<Vec<u64>>()
        };
        let long_silent =
            of(&|pending| pending.silent && now - pending.accepted >= MIN_LONG_SILENCE);
        let silent = of(&|pending| pending.silent);
        let mut candidates = match (long_silent, silent) {
            (long_silent, _) if !long_silent.is_empty() => long_silent,
            (_, silent) if silent.len() >= all.len().div_ceil(2) => silent,
            _ => of(&|_| true),
        };
        candidates.sort_unstable();
        candidates.get(random(candidates.len().div_ceil(2))).copied()
    }
}

impl PendingSlot {
    /// Waits until this connection is evicted.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Notes that the connection has sent something.
    pub(crate) fn note_data(&self) {
        if let Some(pending) = self.admission.lock().pending.get_mut(&self.number) {
            pending.silent = false;
        }
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
    fn the_source_with_most_connections_loses_one() {
        let admission = Admission::new(4);
        let other = admission.enter(from(1));
        let greedy: Vec<PendingSlot> = (0..3).map(|_| admission.enter(from(2))).collect();
        greedy.iter().for_each(PendingSlot::note_data);
        let newcomer = admission.enter(from(3));
        assert_eq!(greedy.iter().filter(|slot| slot.evicted.is_cancelled()).count(), 1);
        assert!(!other.evicted.is_cancelled() && !newcomer.evicted.is_cancelled());
    }

    /// Fills a table with one connection of each of eight sources, of which some have sent data,
    /// and returns the numbers that may be evicted after this time.
    fn victims(with_data: &[usize], after: Duration) -> Vec<u64> {
        let admission = Admission::new(8);
        let slots: Vec<PendingSlot> = (0..8).map(|last| admission.enter(from(last))).collect();
        with_data.iter().for_each(|index| slots[*index].note_data());
        let connections = admission.lock();
        let count = std::cell::Cell::new(0);
        let choose = |chosen: usize| {
            connections.victim(Instant::now() + after, |choices| {
                count.set(choices);
                chosen
            })
        };
        choose(0);
        (0..count.get()).filter_map(choose).collect()
    }

    #[test]
    fn silent_connections_are_evicted_first_at_random_in_their_older_half() {
        let now = Duration::ZERO;
        assert_eq!(victims(&[], now), [0, 1, 2, 3]);
        assert_eq!(victims(&[0, 2, 4, 7], now), [1, 3]);
        // Most have sent something: the silent ones may be those that have just connected.
        assert_eq!(victims(&[0, 1, 2, 3, 4], now), [0, 1, 2, 3]);
        // Except for those that have been silent for long.
        assert_eq!(victims(&[0, 1, 2, 3, 4], MIN_LONG_SILENCE), [5, 6]);
        assert_eq!(victims(&[0, 1, 2, 3, 4, 5, 6], MIN_LONG_SILENCE), [7]);
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
