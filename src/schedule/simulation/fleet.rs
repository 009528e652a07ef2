//! What happens to endpoints, and what the control thread does about it.

use super::*;

impl Simulation {
    /// The control thread takes medians and reads states.
    pub(super) fn second(&mut self) {
        let loads: Vec<_> = self.endpoints.iter().map(|each| &*each.load).collect();
        let now_ms = self.now_ms();
        self.scheduler
            .refresh_medians(loads.iter().copied(), now_ms);
        self.reconsider();
        if (self.now_us / 1_000_000).is_multiple_of(5) {
            self.hear_warmth();
        }
        self.at(0, Event::Metrics);
        let is_over = |request: &Request| request.phase == Phase::Over;
        if self.now_us < self.end_us || !self.requests.iter().all(is_over) {
            self.at(1_000_000, Event::Second);
        }
    }

    pub(super) fn read_metrics(&mut self) {
        let now_ms = self.now_ms();
        for endpoint in &self.endpoints {
            if endpoint.has_metrics && endpoint.is_up && endpoint.is_known {
                let (running, waiting) = (endpoint.engine.running, endpoint.engine.queue.len());
                let counts = (running, waiting as u32, endpoint.load.running());
                endpoint.load.read(counts, now_ms, 1000);
            }
        }
        self.reconsider();
    }

    /// What `/api/ps` and its like say.
    pub(super) fn hear_warmth(&mut self) {
        let now_ms = self.now_ms();
        let mut is_news = false;
        for endpoint in &self.endpoints {
            let engine = &endpoint.engine;
            let tells = !engine.spec.refuses_while_loading;
            let has_all = engine.spec.loaded_max >= engine.spec.models.len();
            if has_all || !endpoint.is_up || !tells {
                continue;
            }
            for model in &engine.spec.models {
                let state = match engine.ready_at(*model) {
                    Some(at) if at <= self.now_us => Warmth::Warm,
                    Some(_) => Warmth::Loading,
                    None => Warmth::Cold,
                };
                is_news |= endpoint.load.hear_warmth(key(*model), state, now_ms);
            }
        }
        if is_news {
            self.reconsider();
        }
    }

    /// An engine begins what it has slots for.
    pub(super) fn pump(&mut self, engine: usize) {
        loop {
            let at = &mut self.endpoints[engine].engine;
            if at.running >= at.spec.slots {
                return;
            }
            let Some(request) = at.queue.pop_front() else {
                return;
            };
            let model = self.requests[request].model;
            let ready = at.begin(model, self.now_us);
            let attempt = self.requests[request].attempt;
            self.at(ready - self.now_us, Event::Ready { request, attempt });
        }
    }

    /// Another snapshot is on its way to the cores.
    fn publish(&mut self) {
        let late = self.random.u64(0..5_000);
        self.at(late, Event::LookAgain);
    }

    pub(super) fn crash(&mut self, engine: usize) {
        if !self.endpoints[engine].is_up {
            return;
        }
        self.seen.insert("crash");
        self.endpoints[engine].is_up = false;
        self.endpoints[engine].load.restarted();
        self.endpoints[engine].engine.restart();
        let here: Vec<_> = (0..self.requests.len())
            .filter(|at| {
                self.requests[*at].phase == Phase::Sent && self.requests[*at].engine == engine
            })
            .collect();
        for request in here {
            self.requests[request].dispatch = None;
            self.requests[request].attempt += 1;
            if self.requests[request].first_us.is_some() {
                self.seen.insert("crash while streaming");
                self.requests[request].phase = Phase::Over;
                self.requests[request].charge = None;
                self.measured[self.requests[request].crowd].failed += 1;
            } else {
                self.seen.insert("crash before first byte");
                self.arrive(request);
            }
        }
        self.reconsider();
        self.publish();
        let pause = self.random.u64(100_000..3_000_000);
        self.at(pause, Event::Recover { engine });
    }

    pub(super) fn recover(&mut self, engine: usize) {
        self.endpoints[engine].is_up = true;
        self.hear_warmth();
        self.reconsider();
        self.publish();
    }

    pub(super) fn reload(&mut self, engine: usize) {
        let endpoint = &mut self.endpoints[engine];
        endpoint.is_known = !endpoint.is_known;
        if endpoint.is_known {
            self.seen.insert("added");
            if self.random.bool() {
                // It has another name: nothing of before is known of it.
                let generation = endpoint.past.len() as u32 + 1;
                let load = EndpointLoad::new(endpoint.load.number(), generation);
                let slots = if endpoint.has_metrics {
                    0
                } else {
                    endpoint.engine.spec.slots
                };
                load.configure(slots, CACHE_TOKENS);
                let old = std::mem::replace(&mut endpoint.load, Arc::new(load));
                endpoint.past.push(old);
                endpoint.ran = 0;
            }
        } else {
            self.seen.insert("removed");
            let pause = self.random.u64(50_000..2_000_000);
            self.at(pause, Event::Reload { engine });
        }
        self.reconsider();
        self.publish();
    }

    pub(super) fn set_slots(&mut self, engine: usize, slots: u32) {
        let endpoint = &mut self.endpoints[engine];
        if endpoint.has_metrics {
            return;
        }
        self.seen.insert(if slots < endpoint.load.running() {
            "fewer slots than running"
        } else {
            "other slots"
        });
        endpoint.engine.spec.slots = slots;
        endpoint.load.configure(slots, CACHE_TOKENS);
        self.pump(engine);
        self.reconsider();
    }
}
