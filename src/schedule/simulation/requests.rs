//! A request between a client and an engine: what the gateway does with it.

use super::*;

impl Simulation {
    pub(super) fn arrive(&mut self, request: usize) {
        let now_ms = self.now_ms();
        if self.scheduler.waiting() == 0 {
            let random = self.random.u64(..);
            let chooser = self.scheduler.chooser(SETTINGS.weights, now_ms, random);
            let asking = &self.requests[request];
            let blocks = hashes(&asking.blocks);
            let prompt = prompt_of(asking);
            let asked = PromptDemand {
                prompt: &prompt,
                blocks: &blocks,
                output_max: asking.output_max,
            };
            let eligible = Eligible {
                endpoints: &self.endpoints,
                model: asking.model,
            };
            match chooser.admit(&eligible, &asked, None, |_| {}) {
                Some(Admission::Starts(chosen, slot)) => return self.send(request, chosen, slot),
                Some(Admission::Waits(_)) => {}
                None => return self.fail(request),
            }
        }
        self.wait(request);
    }

    /// The endpoints that may serve a request, for other cores to consider.
    fn places(&self, model: u32) -> Vec<WaitingPlace> {
        let eligible = Eligible {
            endpoints: &self.endpoints,
            model,
        };
        let place = |(index, endpoint): (usize, &Endpoint)| WaitingPlace {
            index,
            load: Arc::clone(&endpoint.load),
            model: key(model),
            rank: 0,
        };
        eligible.all().map(place).collect()
    }

    fn wait(&mut self, request: usize) {
        let asking = &self.requests[request];
        let places = self.places(asking.model);
        if places.is_empty() {
            return self.fail(request);
        }
        let prompt = prompt_of(asking);
        let choosing = ChoiceRule::LeastTime {
            prompt,
            blocks: hashes(&asking.blocks).into(),
            output_max: asking.output_max,
            pinned: None,
        };
        let standing = QueueStanding {
            flow: FlowKey(self.crowds[asking.crowd].flow),
            priority: self.crowds[asking.crowd].priority,
            weight: self.crowds[asking.crowd].weight,
            cost: self.cost_of(asking),
            since_ms: self.now_ms(),
        };
        let waiting = Waiting::new(places, choosing, (0, request as u64));
        let now_ms = self.now_ms();
        match self.scheduler.wait(standing, waiting, &SETTINGS, now_ms) {
            Ok((ticket, started)) => {
                self.requests[request].phase = Phase::Waiting;
                self.requests[request].ticket = Some(ticket);
                self.requests[request].stay += 1;
                let stay = self.requests[request].stay;
                self.at(1_000_000, Event::Retry { request, stay });
                self.tell(started);
            }
            Err(_) => self.fail(request),
        }
    }

    /// The service that a request is expected to take, as the gateway counts it.
    fn cost_of(&self, request: &Request) -> f64 {
        let now_ms = self.now_ms();
        let model = self.scheduler.models().known(key(request.model));
        let mean = f64::from(model.output(now_ms));
        let most = request.output_max.map_or(mean, |most| most as f64);
        service_of(request.blocks.len() as u64 * BLOCK_TOKENS, mean.min(most))
    }

    /// Cores are told after some time what may start.
    fn tell(&mut self, started: Vec<(Started, Charge)>) {
        for one in started {
            let request = one.0.number as usize;
            self.requests[request].phase = Phase::Told;
            self.messages.push(Some(one));
            let message = self.messages.len() - 1;
            let late = self.random.u64(self.late_us.clone());
            self.at(late, Event::Delivered { message });
        }
    }

    pub(super) fn reconsider(&mut self) {
        let started = self.scheduler.reconsider(&SETTINGS, self.now_ms());
        self.tell(started);
    }

    pub(super) fn delivered(&mut self, message: usize) {
        let Some((started, charge)) = self.messages[message].take() else {
            return;
        };
        let request = started.number as usize;
        let is_there = self.requests[request].phase == Phase::Told;
        if !is_there {
            self.seen.insert("left when told");
            self.scheduler.settle(&charge, 0.0);
            drop((started, charge));
            return self.reconsider();
        }
        let endpoint = &self.endpoints[started.chosen.index];
        let is_same = Arc::ptr_eq(&endpoint.load, started.slot.load());
        if !endpoint.is_up || !endpoint.is_known || !is_same {
            self.seen.insert("endpoint gone when told");
            // It is scheduled again among the rest.
            self.scheduler.settle(&charge, 0.0);
            drop((started, charge));
            self.reconsider();
            return self.arrive(request);
        }
        self.requests[request].charge = Some(charge);
        self.send(request, started.chosen, started.slot);
    }

    pub(super) fn retry(&mut self, request: usize, stay: u32) {
        let waiting = &self.requests[request];
        if waiting.phase == Phase::Waiting && waiting.stay == stay {
            self.at(1_000_000, Event::Retry { request, stay });
            self.change(request);
        }
    }

    pub(super) fn look_again(&mut self) {
        for request in 0..self.requests.len() {
            if self.requests[request].phase == Phase::Waiting {
                self.change(request);
            }
        }
    }

    /// The candidates of a request that waits may have changed.
    fn change(&mut self, request: usize) {
        let places = self.places(self.requests[request].model);
        let Some(ticket) = self.requests[request].ticket else {
            return;
        };
        if places.is_empty() {
            self.seen.insert("no endpoint left");
            if self.scheduler.leave(ticket) == QueueExit::MadeRoom {
                self.reconsider();
            }
            return self.fail(request);
        }
        let now_ms = self.now_ms();
        let started = self.scheduler.change(
            ticket,
            |waiting| waiting.change_places(places, None),
            &SETTINGS,
            now_ms,
        );
        self.tell(started.unwrap_or_default());
    }

    fn send(&mut self, request: usize, chosen: Evaluated, slot: Slot) {
        let engine = chosen.index;
        let now_us = self.now_us;
        let load = Arc::clone(&self.endpoints[engine].load);
        let dispatch = Dispatch::new(&load, Some(slot), chosen, now_us);
        if let (Some(table), Some(pair)) = (self.scheduler.placements(), dispatch.pair()) {
            let blocks = hashes(&self.requests[request].blocks);
            let model = chosen.model.get();
            table.put(&blocks, model, (load.number(), pair), self.now_ms());
        }
        let sending = &mut self.requests[request];
        sending.phase = Phase::Sent;
        sending.sent_us = now_us;
        sending.attempt += 1;
        sending.engine = engine;
        sending.dispatch = Some(dispatch);
        self.sent[engine] += 1;
        let is_ready = sending.dispatch.as_ref().is_some_and(Dispatch::was_ready);
        if !is_ready {
            self.at(20_000, Event::Read);
        }
        let sending = &mut self.requests[request];
        let (model, spec) = (sending.model, &self.endpoints[engine].engine.spec);
        let is_loading = self.endpoints[engine]
            .engine
            .ready_at(model)
            .is_none_or(|at| at > now_us);
        if spec.refuses_while_loading && is_loading {
            self.seen.insert("refused");
            self.endpoints[engine].engine.load(model, now_us);
            load.refused_loading(chosen.model, self.now_ms());
            self.at(20_000, Event::Read);
            self.requests[request].attempt += 1;
            self.requests[request].dispatch = None;
            self.reconsider();
            return self.arrive(request);
        }
        self.endpoints[engine].engine.queue.push_back(request);
        self.pump(engine);
    }

    pub(super) fn ready(&mut self, request: usize) {
        let speed = self.noisy();
        let now_us = self.now_us;
        let reading = &mut self.requests[request];
        let engine = &mut self.endpoints[reading.engine].engine;
        let (first, hit) = engine.read(&reading.blocks, speed, now_us);
        reading.hit = hit;
        let attempt = reading.attempt;
        self.at(first - now_us, Event::First { request, attempt });
    }

    pub(super) fn first(&mut self, request: usize) {
        let now_us = self.now_us;
        let reading = &mut self.requests[request];
        let endpoint = &mut self.endpoints[reading.engine];
        reading.step_us = endpoint.engine.first(&reading.blocks);
        reading.first_us = Some(now_us);
        let figures = self
            .scheduler
            .figures(key(reading.model), now_us / 1000 + 1);
        let mut is_news = false;
        if let Some(dispatch) = &mut reading.dispatch {
            let first = dispatch.first_byte(figures, (true, reading.attempt == 1), now_us);
            is_news = first.is_some_and(|first| first.was_not_ready);
        }
        let took = reading.step_us * reading.output as f64;
        let attempt = reading.attempt;
        if is_news {
            self.at(2_000, Event::Read);
        }
        self.at(took as u64, Event::End { request, attempt });
        // Its prompt is not pending any more: one that waits may be served sooner here.
        self.reconsider();
    }

    pub(super) fn end(&mut self, request: usize) {
        let now_us = self.now_us;
        let ending = &mut self.requests[request];
        let said = people::said(ending.conversation, ending.began_us, ending.output);
        let mut whole = std::mem::take(&mut ending.blocks);
        let tokens = whole.len() as u64 * BLOCK_TOKENS;
        whole.extend(said);
        let endpoint = &mut self.endpoints[ending.engine];
        endpoint.engine.keep(&whole);
        endpoint.engine.end(ending.model);
        let measured = &mut self.measured[ending.crowd];
        let first_us = ending.first_us.unwrap_or(now_us);
        measured
            .first_ms
            .push((first_us - ending.began_us) as f64 / 1000.0);
        measured
            .whole_ms
            .push((now_us - ending.began_us) as f64 / 1000.0);
        measured.prompt += tokens;
        measured.cached += ending.hit;
        measured.done += 1;
        let figures = self.scheduler.figures(key(ending.model), now_us / 1000 + 1);
        let events = if endpoint.has_small_events {
            ending.output
        } else {
            7
        };
        let said = |tokens: u64| Some((tokens as f64 * endpoint.lie) as u64);
        let completed = Completed {
            is_stream: true,
            is_only_attempt: ending.attempt == 1,
            prompt: said(tokens),
            cached: said(ending.hit),
            completion: said(ending.output),
            events,
            bytes: 600 + 200 * events + 4 * ending.output,
            text_bytes: 4 * tokens,
            files: 0,
        };
        ending.phase = Phase::Over;
        let (engine, conversation) = (ending.engine, ending.conversation);
        if let Some(dispatch) = ending.dispatch.take() {
            let learned = dispatch.completed(figures, &completed, now_us);
            if let Some(charge) = ending.charge.take() {
                self.scheduler.settle(&charge, learned.service);
            }
        }
        self.pump(engine);
        self.reconsider();
        self.went_on(conversation, whole);
    }

    pub(super) fn leave(&mut self, request: usize) {
        let leaving = &mut self.requests[request];
        let phase = std::mem::replace(&mut leaving.phase, Phase::Over);
        let engine = leaving.engine;
        leaving.charge = None;
        match phase {
            Phase::Over => return,
            Phase::Told => {}
            Phase::Waiting => {
                self.seen.insert("left when waiting");
                let left = leaving.ticket.take().map(|id| self.scheduler.leave(id));
                if left == Some(QueueExit::MadeRoom) {
                    self.seen.insert("made room");
                    self.reconsider();
                }
            }
            Phase::Sent => {
                let is_streaming = leaving.first_us.is_some();
                self.seen.insert(if is_streaming {
                    "left when streaming"
                } else {
                    "left when sent"
                });
                leaving.dispatch = None;
                let model = leaving.model;
                let at = &mut self.endpoints[engine].engine;
                let before = at.queue.len();
                at.queue.retain(|other| *other != request);
                if at.queue.len() == before {
                    at.end(model);
                }
                self.pump(engine);
                self.reconsider();
            }
        }
        self.measured[self.requests[request].crowd].failed += 1;
    }

    fn fail(&mut self, request: usize) {
        self.requests[request].phase = Phase::Over;
        self.requests[request].charge = None;
        self.measured[self.requests[request].crowd].failed += 1;
    }
}

fn prompt_of(request: &Request) -> Prompt {
    let bytes = request.blocks.len() as u64 * ENGINE_BLOCK_BYTES;
    Prompt::of_text(bytes, request.blocks.len() / 4)
}
