//! The bound on the bytes of requests that the whole process holds at one time, and on the part of
//! them that one client address holds.
//!
//! Contract: docs/contract/README.md#14, docs/contract/surface.md#11

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{
    BODY_BYTES_AHEAD, BUDGET_CLIENTS, BUDGET_PART_OF_A_CLIENT, BUDGET_READS_OF_A_CLIENT,
};

/// Shared by all cores.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Inner>);

/// The bytes that the budget of an engine has given out.
#[derive(Debug, Clone, Default)]
pub struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    /// The present value. Of a request that is being refused it may count bytes that were not held.
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Inner {
    held: HeldBytes,
    max: usize,
    /// What clients hold, in a table of a fixed size instead of a map behind a lock. Two addresses
    /// may share a place; then they share a client's part, and which ones do cannot be foreseen.
    clients: Box<[AtomicUsize]>,
    keys: RandomState,
}

/// A part of the budget; released when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    client: Client,
    bytes: usize,
}

/// A client, as its place in the table: of one IPv4 address, or of one /64 of IPv6. It is what queues
/// are fair between, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client(usize);

#[cfg(test)]
impl Client {
    pub(crate) const fn of_place(place: usize) -> Self {
        Self(place)
    }
}

impl Budget {
    pub(crate) fn new(bytes_max: usize, held: HeldBytes) -> Self {
        Self(Arc::new(Inner {
            held,
            max: bytes_max,
            clients: (0..BUDGET_CLIENTS).map(|_| AtomicUsize::new(0)).collect(),
            keys: RandomState::new(),
        }))
    }

    /// An empty share of this client, to be enlarged.
    pub(crate) fn share(&self, client: IpAddr) -> Share {
        Share {
            budget: self.clone(),
            client: self.client(client),
            bytes: 0,
        }
    }

    /// The most that one client may hold.
    pub(crate) fn of_a_client(&self) -> usize {
        self.0.max / BUDGET_PART_OF_A_CLIENT
    }

    /// The most that one read of a body may bring before it is charged.
    pub(crate) fn of_a_read(&self) -> usize {
        (self.of_a_client() / BUDGET_READS_OF_A_CLIENT).max(BODY_BYTES_AHEAD)
    }

    /// The client with this address.
    pub(crate) fn client(&self, address: IpAddr) -> Client {
        let inner = &self.0;
        let hash = match address.to_canonical() {
            IpAddr::V4(address) => inner.keys.hash_one(address),
            // One customer has a /64 at least.
            IpAddr::V6(address) => inner.keys.hash_one(address.to_bits() >> 64),
        };
        let places = inner.clients.len() as u64;
        Client(usize::try_from(hash % places).unwrap_or(0))
    }
}

impl Inner {
    fn add(&self, client: Client, bytes: usize) -> (usize, usize) {
        let held = self.held.0.fetch_add(bytes, Ordering::Relaxed);
        let place = self.clients.get(client.0);
        let of_client = place.map_or(0, |place| place.fetch_add(bytes, Ordering::Relaxed));
        (held.saturating_add(bytes), of_client.saturating_add(bytes))
    }

    fn subtract(&self, client: Client, bytes: usize) {
        self.held.0.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(place) = self.clients.get(client.0) {
            place.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Share {
    /// Enlarges the share to `bytes`; false if that is more than is left, or more than one client
    /// may hold.
    pub(crate) fn enlarge(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let inner = &self.budget.0;
        let (held, of_client) = inner.add(self.client, more);
        if held > inner.max || of_client > self.budget.of_a_client() {
            inner.subtract(self.client, more);
            return false;
        }
        self.bytes = bytes;
        true
    }

    /// Counts exactly these bytes, which are held already, whatever is left.
    pub(crate) fn settle(&mut self, bytes: usize) {
        let inner = &self.budget.0;
        if bytes >= self.bytes {
            inner.add(self.client, bytes - self.bytes);
        } else {
            inner.subtract(self.client, self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.subtract(self.client, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn client(number: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, number).into()
    }

    /// Addresses whose places differ.
    fn others(budget: &Budget, count: usize) -> Vec<IpAddr> {
        let mut places = Vec::new();
        let mut found = Vec::new();
        for number in 0..=u8::MAX {
            let place = budget.client(client(number));
            if found.len() < count && !places.contains(&place) {
                places.push(place);
                found.push(client(number));
            }
        }
        found
    }

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let budget = Budget::new(100, HeldBytes::default());
        let clients = others(&budget, 5);
        let mut shares: Vec<_> = clients.iter().map(|each| budget.share(*each)).collect();
        for share in &mut shares[..3] {
            assert!(
                share.enlarge(25) && share.enlarge(9),
                "a smaller one is granted"
            );
        }
        assert!(shares[3].enlarge(20));
        assert!(!shares[4].enlarge(6), "more than is left");
        assert!(shares[4].enlarge(5));
        drop(shares.remove(0));
        assert!(shares[3].enlarge(25));
    }

    #[test]
    fn one_client_holds_at_most_a_quarter() {
        let budget = Budget::new(100, HeldBytes::default());
        let clients = others(&budget, 2);
        let (mut one, mut two) = (budget.share(clients[0]), budget.share(clients[0]));
        assert!(one.enlarge(20));
        assert!(!two.enlarge(6));
        assert!(
            budget.share(clients[1]).enlarge(25),
            "another is not affected"
        );
        drop(one);
        assert!(two.enlarge(25));
    }

    #[test]
    fn a_network_of_one_customer_is_one_client() {
        let budget = Budget::new(100, HeldBytes::default());
        let of = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        assert_eq!(budget.share(of(1)).client, budget.share(of(2)).client);
        let mapped = IpAddr::from(Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert_eq!(budget.share(mapped).client, budget.share(client(1)).client);
    }

    #[test]
    fn what_is_there_already_is_counted_whatever_is_left() {
        let budget = Budget::new(100, HeldBytes::default());
        let mut copy = budget.share(client(1));
        copy.settle(150);
        assert!(!budget.share(client(2)).enlarge(1));
        copy.settle(10);
        assert!(budget.share(client(1)).enlarge(15));
        drop(copy);
        assert_eq!(budget.0.held.get(), 0);
    }
}
