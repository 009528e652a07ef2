//! Which models an engine has in memory. Loads run one at a time; a load needs room, which the least
//! recently used model that no request uses makes.

use std::collections::VecDeque;

/// The models of one engine, by their place in its list.
#[derive(Debug)]
pub struct Memory {
    room: usize,
    resident: Vec<Resident>,
    loading: Option<usize>,
    /// Models to load next, each once.
    wanted: VecDeque<usize>,
    /// Grows with each use: the order of last uses.
    uses: u64,
    loads: u64,
}

#[derive(Clone, Copy, Debug)]
struct Resident {
    model: usize,
    users: usize,
    last_use: u64,
}

/// The state of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can serve requests.
    Loaded,
    /// It is being loaded.
    Loading,
    /// It is not in memory.
    Unloaded,
}

impl Memory {
    /// Memory for `room` of `models` models; all are in it when they fit, otherwise none.
    pub fn new(models: usize, room: usize) -> Self {
        let fit = if room >= models { models } else { 0 };
        let resident = |model| Resident {
            model,
            users: 0,
            last_use: 0,
        };
        Self {
            room,
            resident: (0..fit).map(resident).collect(),
            loading: None,
            wanted: VecDeque::new(),
            uses: 0,
            loads: 0,
        }
    }

    /// The state of a model.
    pub fn state(&self, model: usize) -> State {
        if self.resident.iter().any(|one| one.model == model) {
            State::Loaded
        } else if self.loading == Some(model) {
            State::Loading
        } else {
            State::Unloaded
        }
    }

    /// Counts a request that uses a model; false when the model is not in memory.
    pub fn acquire(&mut self, model: usize) -> bool {
        self.uses += 1;
        let uses = self.uses;
        let found = self.resident.iter_mut().find(|one| one.model == model);
        found.is_some_and(|one| {
            one.users += 1;
            one.last_use = uses;
            true
        })
    }

    /// Ends the use of a model by one request.
    pub fn release(&mut self, model: usize) {
        if let Some(one) = self.resident.iter_mut().find(|one| one.model == model) {
            debug_assert!(one.users > 0);
            one.users -= 1;
        }
    }

    /// Requests the load of a model that is not in memory.
    pub fn want(&mut self, model: usize) {
        if self.state(model) == State::Unloaded && !self.wanted.contains(&model) {
            self.wanted.push_back(model);
        }
    }

    /// Withdraws that, unless the load has begun.
    pub fn forget(&mut self, model: usize) {
        self.wanted.retain(|one| *one != model);
    }

    /// Begins the next load if there is one, nothing is being loaded and there is room; returns the
    /// model.
    pub fn begin_load(&mut self) -> Option<usize> {
        let model = *self.wanted.front().filter(|_| self.loading.is_none())?;
        if self.resident.len() >= self.room {
            let unused = self
                .resident
                .iter()
                .enumerate()
                .filter(|(_, one)| one.users == 0);
            let (place, _) = unused.min_by_key(|(_, one)| one.last_use)?;
            self.resident.swap_remove(place);
        }
        self.wanted.pop_front();
        self.loading = Some(model);
        self.loads += 1;
        Some(model)
    }

    /// Ends the load in progress.
    pub fn end_load(&mut self) {
        if let Some(model) = self.loading.take() {
            self.uses += 1;
            self.resident.push(Resident {
                model,
                users: 0,
                last_use: self.uses,
            });
        }
    }

    /// Number of loads begun.
    pub fn loads(&self) -> u64 {
        self.loads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(memory: &mut Memory, model: usize) {
        memory.want(model);
        assert_eq!(memory.begin_load(), Some(model));
        memory.end_load();
    }

    #[test]
    fn models_that_fit_are_loaded_from_the_start() {
        assert_eq!(Memory::new(3, 3).state(2), State::Loaded);
        assert_eq!(Memory::new(3, 2).state(0), State::Unloaded);
    }

    #[test]
    fn the_least_recently_used_of_the_unused_goes() {
        let mut memory = Memory::new(4, 2);
        load(&mut memory, 0);
        load(&mut memory, 1);
        assert!(memory.acquire(0));
        memory.want(2);
        // 1 was loaded later, but 0 is in use.
        assert_eq!(memory.begin_load(), Some(2));
        let states = [0, 1, 2].map(|model| memory.state(model));
        assert_eq!(states, [State::Loaded, State::Unloaded, State::Loading]);
        memory.end_load();
        memory.release(0);
        // 2 was loaded after the last use of 0.
        load(&mut memory, 3);
        assert_eq!(memory.state(0), State::Unloaded);
        assert_eq!(memory.loads(), 4);
    }

    #[test]
    fn a_load_waits_for_room_and_for_the_one_before() {
        let mut memory = Memory::new(3, 1);
        memory.want(0);
        memory.want(0);
        memory.want(1);
        assert_eq!(memory.begin_load(), Some(0));
        assert_eq!(memory.begin_load(), None);
        memory.end_load();
        assert!(memory.acquire(0));
        assert_eq!(memory.begin_load(), None);
        memory.release(0);
        assert_eq!(memory.begin_load(), Some(1));
        memory.want(1);
        memory.end_load();
        assert_eq!(memory.begin_load(), None);
    }

    #[test]
    fn a_load_can_be_withdrawn_before_it_begins() {
        let mut memory = Memory::new(2, 1);
        memory.want(0);
        memory.want(1);
        memory.forget(0);
        assert_eq!(memory.begin_load(), Some(1));
        memory.forget(1);
        assert_eq!(memory.state(1), State::Loading);
    }
}
