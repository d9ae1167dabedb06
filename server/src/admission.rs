//! How many connections may be unauthenticated at once, and who must make room when there are too
//! many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};
use tokio_util::sync::CancellationToken;

/// Whom a connection is counted for: an IPv4 address, an IPv6 network of 64 bits (one holder has
/// them all), or any unix socket.
type Source = Option<IpAddr>;

fn source(address: Source) -> Source {
    address.map(|address| match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    })
}

/// The connections that are not authenticated yet.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<Mutex<HalfOpen>>);

#[derive(Debug)]
struct HalfOpen {
    limit: usize,
    next: u64,
    waiting: HashMap<u64, (Source, CancellationToken)>,
}

/// One unauthenticated connection's place; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Admission,
    number: u64,
    evicted: CancellationToken,
}

impl Admission {
    /// With so many places, but no more than half of this process's descriptors: sessions and
    /// commands need the others.
    pub(crate) fn new(limit: u32) -> Self {
        let limit = affordable(limit);
        Self(Arc::new(Mutex::new(HalfOpen { limit, next: 0, waiting: HashMap::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, HalfOpen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_limit(&self, limit: u32) {
        self.lock().limit = affordable(limit);
    }

    /// A place for one more. Where all are taken, the oldest of the source that holds most is put
    /// out.
    pub(crate) fn enter(&self, address: Option<IpAddr>) -> Place {
        let mut half_open = self.lock();
        if half_open.waiting.len() >= half_open.limit.max(1) {
            half_open.evict();
        }
        let number = half_open.next;
        half_open.next += 1;
        let evicted = CancellationToken::new();
        half_open.waiting.insert(number, (source(address), evicted.clone()));
        Place { admission: self.clone(), number, evicted }
    }

    /// Puts one out to free its descriptor; false where there is none.
    pub(crate) fn make_room(&self) -> bool {
        self.lock().evict()
    }
}

fn affordable(limit: u32) -> usize {
    let half = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft / 2);
    if half < limit.into() {
        tracing::warn!(
            max_unauthenticated = limit,
            allowed = half,
            "too few descriptors: see RLIMIT_NOFILE"
        );
    }
    usize::try_from(half.min(limit.into())).unwrap_or(usize::MAX)
}

impl HalfOpen {
    fn evict(&mut self) -> bool {
        let mut held: HashMap<Source, (usize, u64)> = HashMap::new();
        for (&number, (source, _)) in &self.waiting {
            let (count, oldest) = held.entry(*source).or_insert((0, number));
            *count += 1;
            *oldest = number.min(*oldest);
        }
        let victim =
            held.into_values().max_by_key(|&(count, oldest)| (count, std::cmp::Reverse(oldest)));
        let victim = victim.and_then(|(_, oldest)| self.waiting.remove(&oldest));
        victim.inspect(|(_, token)| token.cancel()).is_some()
    }
}

impl Place {
    /// Resolves when this connection must make room.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn the_greediest_source_makes_room_oldest_first() {
        let admission = Admission::new(4);
        let other = admission.enter(from(1));
        let greedy: Vec<Place> = (0..3).map(|_| admission.enter(from(2))).collect();
        let newcomer = admission.enter(from(3));
        assert!(greedy[0].evicted.is_cancelled());
        for place in [&other, &greedy[1], &greedy[2], &newcomer] {
            assert!(!place.evicted.is_cancelled());
        }
    }

    #[test]
    fn places_are_given_back() {
        let admission = Admission::new(1);
        drop(admission.enter(from(1)));
        let place = admission.enter(from(1));
        assert!(!place.evicted.is_cancelled());
        assert_eq!(admission.lock().waiting.len(), 1);
    }

    #[test]
    fn one_ipv6_network_is_one_source() {
        let address = |text: &str| source(Some(text.parse().unwrap()));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:2"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:127.0.0.1"), address("127.0.0.1"));
    }
}
