//! A set of endpoints of one snapshot.

use std::fmt;

use crate::config::MAX_ENDPOINTS;

const WORDS: usize = MAX_ENDPOINTS / 64;

/// A set of endpoints of one snapshot, by index.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EndpointSet([u64; WORDS]);

impl EndpointSet {
    /// The empty set.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// The first `count` endpoints.
    pub fn first(count: usize) -> Self {
        (0..count).collect()
    }

    /// Adds an endpoint.
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Removes an endpoint.
    pub fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    /// Whether the set contains an endpoint.
    pub fn contains(&self, index: usize) -> bool {
        self.0
            .get(index / 64)
            .is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The number of endpoints in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The intersection of both sets.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= b);
        self
    }

    /// The union of both sets.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
        self
    }

    /// What is in the first and not in the second.
    #[must_use]
    pub fn minus(mut self, other: &Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a &= !b);
        self
    }

    /// The indices, ascending: the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut word = *word;
            std::iter::from_fn(move || {
                (word != 0).then(|| {
                    let bit = word.trailing_zeros() as usize;
                    word &= word - 1;
                    at * 64 + bit
                })
            })
        })
    }
}

impl FromIterator<usize> for EndpointSet {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        let mut set = Self::EMPTY;
        indices.into_iter().for_each(|index| set.insert(index));
        set
    }
}

impl fmt::Debug for EndpointSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave_like_sets() {
        let a: EndpointSet = [0, 3, 63, 64, 200, 511].into_iter().collect();
        let b: EndpointSet = [3, 64, 65].into_iter().collect();
        assert_eq!(a.iter().collect::<Vec<_>>(), [0, 3, 63, 64, 200, 511]);
        assert_eq!(a.and(&b).iter().collect::<Vec<_>>(), [3, 64]);
        assert_eq!(a.or(&b).len(), 7);
        assert_eq!(a.minus(&b).iter().collect::<Vec<_>>(), [0, 63, 200, 511]);
        assert!(a.contains(511) && !a.contains(512) && !a.contains(1));
        assert!(EndpointSet::EMPTY.is_empty() && !b.is_empty());
        assert_eq!(EndpointSet::first(70).len(), 70);
        let mut c = b;
        c.remove(64);
        assert_eq!(c.iter().collect::<Vec<_>>(), [3, 65]);
    }
}
