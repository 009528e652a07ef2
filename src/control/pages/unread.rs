//! Bytes of renderings that clients have not read yet, bounded for each client and for all: slow
//! clients cannot collect renderings without end, and one of them cannot use up what is there for
//! all. What operators need to see has a reserve that listings cannot use.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::operations::Route;
use crate::shared::{Rendering, WantedPage};
use crate::state::AdminReply;

/// Bytes that all clients together have not read. Beyond that no listing is rendered until some are
/// read or their connections end.
const UNREAD_BYTES_MAX: usize = 256 << 20;

/// What figures may use beyond that.
const UNREAD_BYTES_RESERVED: usize = 32 << 20;

/// One client may use this part of either.
pub(super) const PART_OF_A_CLIENT: usize = 4;

/// Places in the table of clients. Two of them may share one.
const CLIENTS: usize = 1024;

/// What is rendered first, and even if clients hold many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::control) enum Class {
    /// So small that it costs less than the connection that reads it.
    Vital,
    /// What monitoring reads.
    Figures,
    /// All else.
    Listing,
}

impl Class {
    pub(super) const fn of(wanted: &WantedPage) -> Self {
        match wanted {
            WantedPage::Page { route, .. } => match route {
                Route::Health | Route::Ready | Route::Version => Self::Vital,
                Route::Status | Route::Metrics | Route::Process => Self::Figures,
                _ => Self::Listing,
            },
            _ => Self::Listing,
        }
    }

    const fn bytes_max(self) -> usize {
        match self {
            Self::Vital => usize::MAX,
            Self::Figures => UNREAD_BYTES_MAX + UNREAD_BYTES_RESERVED,
            Self::Listing => UNREAD_BYTES_MAX,
        }
    }
}

/// The counts; see the module.
#[derive(Debug, Clone, Default)]
pub(in crate::control) struct Unread(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    total: AtomicUsize,
    clients: Box<[AtomicUsize]>,
    keys: RandomState,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            total: AtomicUsize::new(0),
            clients: (0..CLIENTS).map(|_| AtomicUsize::new(0)).collect(),
            keys: RandomState::new(),
        }
    }
}

impl Counts {
    fn place(&self, client: IpAddr) -> usize {
        let places = self.clients.len() as u64;
        usize::try_from(self.keys.hash_one(client) % places).unwrap_or(0)
    }

    fn of_place(&self, place: usize) -> usize {
        let count = self.clients.get(place);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Unread {
    /// Whether a client may have another rendering of this class.
    pub(in crate::control) fn admits(&self, client: IpAddr, class: Class) -> bool {
        let (total, max) = (self.0.total.load(Ordering::Relaxed), class.bytes_max());
        total < max && self.0.of_place(self.0.place(client)) < max / PART_OF_A_CLIENT
    }

    /// Makes the bytes of a rendering count, until it is given up and the last response with them is
    /// sent.
    pub(in crate::control) fn count(&self, rendering: Rendering) -> Counted {
        let mut len = 0;
        let rendering = with_body(rendering, |bytes| {
            len = bytes.len();
            self.0.total.fetch_add(len, Ordering::Relaxed);
            let counts = Arc::clone(&self.0);
            Bytes::from_owner(InMemory { bytes, counts })
        });
        Counted {
            rendering,
            len,
            counts: Arc::clone(&self.0),
            readers: BTreeMap::new(),
        }
    }
}

/// A rendering whose bytes count, for all of its readers.
#[derive(Debug)]
pub(in crate::control) struct Counted {
    rendering: Rendering,
    len: usize,
    counts: Arc<Counts>,
    /// The clients that have not read it, by place.
    readers: BTreeMap<usize, Weak<Reader>>,
}

impl Counted {
    /// Bytes of its body.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The rendering for a client, which it counts for until the client has read it, however many of
    /// its connections read it.
    pub(in crate::control) fn for_client(&mut self, client: IpAddr) -> Rendering {
        let place = self.counts.place(client);
        let known = self.readers.get(&place).and_then(Weak::upgrade);
        let reader = known.unwrap_or_else(|| {
            let reader = Arc::new(Reader::new(Arc::clone(&self.counts), place, self.len));
            self.readers.insert(place, Arc::downgrade(&reader));
            reader
        });
        with_body(self.rendering.clone(), |bytes| {
            Bytes::from_owner(OfReader {
                bytes,
                _reader: reader,
            })
        })
    }
}

/// Replaces the body of a rendering that has one.
fn with_body(rendering: Rendering, replace: impl FnOnce(Bytes) -> Bytes) -> Rendering {
    match rendering {
        Rendering::Page(page) => {
            let body = replace(page.body().clone());
            Rendering::Page(Arc::new(page.with_body(body)))
        }
        Rendering::Listing(Ok(body)) => Rendering::Listing(Ok(replace(body))),
        Rendering::Own(Ok(body)) => Rendering::Own(Ok(replace(body))),
        Rendering::Admin(Ok(reply)) => Rendering::Admin(Ok(AdminReply {
            body: replace(reply.body),
            ..reply
        })),
        other => other,
    }
}

/// A body that counts in the total.
struct InMemory {
    bytes: Bytes,
    counts: Arc<Counts>,
}

impl AsRef<[u8]> for InMemory {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        let len = self.bytes.len();
        self.counts.total.fetch_sub(len, Ordering::Relaxed);
    }
}

/// A client that has not read a rendering.
#[derive(Debug)]
struct Reader {
    counts: Arc<Counts>,
    place: usize,
    len: usize,
}

impl Reader {
    fn new(counts: Arc<Counts>, place: usize, len: usize) -> Self {
        if let Some(count) = counts.clients.get(place) {
            count.fetch_add(len, Ordering::Relaxed);
        }
        Self { counts, place, len }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(count) = self.counts.clients.get(self.place) {
            count.fetch_sub(self.len, Ordering::Relaxed);
        }
    }
}

/// A body on its way to a client.
struct OfReader {
    bytes: Bytes,
    _reader: Arc<Reader>,
}

impl AsRef<[u8]> for OfReader {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ALL: [Class; 3] = [Class::Vital, Class::Figures, Class::Listing];

    fn listing(len: usize) -> Rendering {
        Rendering::Listing(Ok(Bytes::from(vec![b'x'; len])))
    }

    /// Clients that share no place.
    fn clients<const N: usize>(unread: &Unread) -> [IpAddr; N] {
        let mut places = Vec::new();
        let all = (0..=u8::MAX).map(|last| IpAddr::from(Ipv4Addr::new(10, 0, 0, last)));
        let mut apart = all.filter(|client| {
            let place = unread.0.place(*client);
            let is_new = !places.contains(&place);
            places.push(place);
            is_new
        });
        std::array::from_fn(|_| apart.next().unwrap())
    }

    #[test]
    fn one_client_uses_a_quarter_and_no_more() {
        let unread = Unread::default();
        let [greedy, other] = clients(&unread);
        let part = UNREAD_BYTES_MAX / PART_OF_A_CLIENT;
        let mut sent = Vec::new();
        for _ in 0..4 {
            assert_eq!(ALL.map(|class| unread.admits(greedy, class)), [true; 3]);
            sent.push(unread.count(listing(part / 4)).for_client(greedy));
        }
        let admitted = ALL.map(|class| unread.admits(greedy, class));
        assert_eq!(admitted, [true, true, false]);
        assert_eq!(ALL.map(|class| unread.admits(other, class)), [true; 3]);
        sent.pop();
        assert!(unread.admits(greedy, Class::Listing), "one was read");
    }

    #[test]
    fn a_client_is_charged_once_for_what_all_its_connections_read() {
        let unread = Unread::default();
        let [one, two] = clients(&unread);
        let mut counted = unread.count(listing(1000));
        let sent: Vec<_> = (0..100).map(|_| counted.for_client(one)).collect();
        let other = counted.for_client(two);
        let held = |client| unread.0.of_place(unread.0.place(client));
        let total = || unread.0.total.load(Ordering::Relaxed);
        assert_eq!((held(one), held(two), total()), (1000, 1000, 1000));
        drop(sent);
        assert_eq!((held(one), held(two), total()), (0, 1000, 1000));
        drop(counted.for_client(one));
        drop((counted, other));
        assert_eq!((held(one), held(two), total()), (0, 0, 0));
    }

    #[test]
    fn figures_have_a_reserve_that_listings_cannot_use() {
        let unread = Unread::default();
        let [reader, a, b, c, d] = clients(&unread);
        let part = UNREAD_BYTES_MAX / PART_OF_A_CLIENT;
        let sent = [a, b, c, d].map(|each| unread.count(listing(part)).for_client(each));
        let admitted = ALL.map(|class| unread.admits(reader, class));
        assert_eq!(admitted, [true, true, false]);
        let figures = unread.count(listing(UNREAD_BYTES_RESERVED));
        let admitted = ALL.map(|class| unread.admits(reader, class));
        assert_eq!(admitted, [true, false, false], "readiness is always shown");
        drop((figures, sent));
        assert!(unread.admits(reader, Class::Listing));
    }
}
