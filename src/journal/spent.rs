//! The refresh tokens that are known to be spent: the newest thousand.

use std::collections::{HashSet, VecDeque};

use crate::token::Fingerprint;

/// How many are remembered: with one refresh a day, almost three years of old backups.
pub const MAX: usize = 1000;

/// Fingerprints in the order in which they came, each once, and found at once: a journal is replayed at
/// every look, and a list would be searched a thousand times for each of a thousand.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Spent {
    order: VecDeque<Fingerprint>,
    known: HashSet<Fingerprint>,
}

impl Spent {
    /// Whether this one is known.
    #[must_use]
    pub fn contains(&self, token: Fingerprint) -> bool {
        self.known.contains(&token)
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Fingerprint> {
        self.order.iter().copied()
    }

    /// Takes one in, and forgets the oldest where there are too many.
    pub(super) fn insert(&mut self, token: Fingerprint) {
        if !self.known.insert(token) {
            return;
        }
        self.order.push_back(token);
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Forgets one.
    pub(super) fn remove(&mut self, token: Fingerprint) {
        // Almost never there: a provider would have to hand a token out again.
        if self.known.remove(&token) {
            self.order.retain(|known| *known != token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The newest thousand stay, in their order; one that comes again keeps its place.
    #[test]
    fn bounded_and_in_order() {
        let token = |n: usize| Fingerprint::of(&n.to_le_bytes());
        let mut spent = Spent::default();
        for n in 0..MAX + 5 {
            spent.insert(token(n));
            spent.insert(token(n / 2));
        }
        assert_eq!(spent.iter().count(), MAX);
        assert!(spent.contains(token(MAX + 4)));
        spent.remove(token(MAX + 4));
        assert!(!spent.contains(token(MAX + 4)));
        assert_eq!(spent.iter().count(), MAX - 1);
        spent.remove(token(MAX + 4));
        assert_eq!(spent.iter().count(), MAX - 1);
    }
}
