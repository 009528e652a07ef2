//! A queue that is fair between clients: the clients that have entries take turns, and the entries
//! of one client leave in the order in which they arrived. A client with a thousand entries delays
//! the only entry of another client by one of its own.
//!
//! The queue holds no more than was put in. Every operation takes logarithmic time;
//! [`FairQueue::pop_of`] takes a step more for each client that it passes over.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::budget::Client;

/// The queue; see the module.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// The clients that wait, each with at least one entry.
    lines: BTreeMap<Client, Line<T>>,
    /// The same clients by their turns.
    turns: BTreeMap<u64, Client>,
    /// The number of the next turn or entry.
    next: u64,
}

/// What waits of one client.
#[derive(Debug)]
struct Line<T> {
    turn: u64,
    /// In order of arrival.
    entries: BTreeMap<u64, T>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self {
            lines: BTreeMap::new(),
            turns: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> FairQueue<T> {
    /// Adds an entry behind the others of its client; returns its number.
    pub(crate) fn push(&mut self, client: Client, what: T) -> u64 {
        let number = self.number();
        let line = match self.lines.entry(client) {
            Entry::Occupied(line) => line.into_mut(),
            Entry::Vacant(free) => {
                self.turns.insert(number, client);
                free.insert(Line {
                    turn: number,
                    entries: BTreeMap::new(),
                })
            }
        };
        line.entries.insert(number, what);
        number
    }

    /// Takes the oldest entry of the client that is next.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.pop_of(|_| true).map(|(_, what)| what)
    }

    /// Takes the oldest entry of the next client for which `may` is true. Clients that are passed over
    /// keep their turns.
    pub(crate) fn pop_of(&mut self, may: impl Fn(Client) -> bool) -> Option<(Client, T)> {
        let mut turns = self.turns.iter();
        let (turn, client) = turns.find(|(_, client)| may(**client))?;
        let (turn, client) = (*turn, *client);
        self.turns.remove(&turn);
        let again = self.number();
        let Entry::Occupied(mut line) = self.lines.entry(client) else {
            return None;
        };
        let first = line.get_mut().entries.pop_first();
        if line.get().entries.is_empty() {
            line.remove();
        } else {
            line.get_mut().turn = again;
            self.turns.insert(again, client);
        }
        first.map(|(_, what)| (client, what))
    }

    /// The entry of this number, unless it has left.
    pub(crate) fn get_mut(&mut self, client: Client, number: u64) -> Option<&mut T> {
        self.lines.get_mut(&client)?.entries.get_mut(&number)
    }

    /// Removes an entry; `None` = it has left the queue.
    pub(crate) fn remove(&mut self, client: Client, number: u64) -> Option<T> {
        let Entry::Occupied(mut line) = self.lines.entry(client) else {
            return None;
        };
        let removed = line.get_mut().entries.remove(&number);
        if line.get().entries.is_empty() {
            self.turns.remove(&line.get().turn);
            line.remove();
        }
        removed
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drained(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn clients_take_turns() {
        let [one, two, three] = [1, 2, 3].map(Client::of_place);
        let mut queue = FairQueue::default();
        for what in ["1a", "1b", "1c"] {
            queue.push(one, what);
        }
        let gone = queue.push(two, "2a");
        queue.push(two, "2b");
        assert_eq!(queue.pop(), Some("1a"));
        queue.push(three, "3a");
        assert_eq!(queue.remove(two, gone), Some("2a"));
        assert_eq!(queue.remove(two, gone), None);
        assert_eq!(drained(&mut queue), ["2b", "1b", "3a", "1c"]);
    }

    #[test]
    fn a_client_that_may_not_keeps_its_turn() {
        let [one, two] = [1, 2].map(Client::of_place);
        let mut queue = FairQueue::default();
        for (client, what) in [(one, "1a"), (one, "1b"), (two, "2a"), (two, "2b")] {
            queue.push(client, what);
        }
        assert_eq!(queue.pop_of(|client| client != one), Some((two, "2a")));
        assert_eq!(queue.pop_of(|_| false), None);
        assert_eq!(drained(&mut queue), ["1a", "2b", "1b"]);
    }

    #[derive(Debug, Clone)]
    enum Act {
        Push(usize),
        Pop,
        Remove(usize),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => (0..5_usize).prop_map(Act::Push),
            3 => Just(Act::Pop),
            1 => any::<usize>().prop_map(Act::Remove),
        ];
        prop::collection::vec(act, 0..300)
    }

    proptest! {
        /// Nothing is lost or doubled, the order within a client is that of arrival, and between
        /// two entries of one client each other client that waits all the while has exactly one.
        #[test]
        fn no_client_starves(acts in acts()) {
            let mut queue = FairQueue::default();
            // What waits, in order of arrival: client, number of the entry.
            let mut waiting: Vec<(usize, u64)> = Vec::new();
            // Of each waiting client: how often others had their turn since it last had its own.
            let mut passed = [[0_u32; 5]; 5];
            for act in acts {
                match act {
                    Act::Push(client) => {
                        if waiting.iter().all(|(of, _)| *of != client) {
                            passed[client] = [0; 5];
                        }
                        let number = queue.push(Client::of_place(client), client);
                        waiting.push((client, number));
                    }
                    Act::Pop => {
                        let popped = queue.pop();
                        prop_assert_eq!(popped.is_none(), waiting.is_empty());
                        let Some(client) = popped else { continue };
                        let at = waiting.iter().position(|(of, _)| *of == client).unwrap();
                        let (_, number) = waiting.remove(at);
                        let place = Client::of_place(client);
                        prop_assert!(queue.get_mut(place, number).is_none());
                        passed[client] = [0; 5];
                        for (of, seen) in passed.iter_mut().enumerate() {
                            if of != client && waiting.iter().any(|(waits, _)| *waits == of) {
                                seen[client] += 1;
                                prop_assert!(seen[client] <= 1, "{} waits for {}", of, client);
                            }
                        }
                    }
                    Act::Remove(any) if !waiting.is_empty() => {
                        let (client, number) = waiting.remove(any % waiting.len());
                        let removed = queue.remove(Client::of_place(client), number);
                        prop_assert_eq!(removed, Some(client));
                    }
                    Act::Remove(_) => {}
                }
                prop_assert_eq!(queue.lines.len(), queue.turns.len());
                let held: usize = queue.lines.values().map(|line| line.entries.len()).sum();
                prop_assert_eq!(held, waiting.len());
            }
        }
    }
}
