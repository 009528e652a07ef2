//! A count of the requests that wait: by model, and by the endpoint that they would go to.
//!
//! Contract: docs/contract/scheduling.md#8

use rustc_hash::FxHashMap;

use super::waiting::Waiting;

/// Models that are counted by name; the requests for further ones are counted together.
const MODELS_MAX: usize = 1000;

/// The longest name that is counted by itself, in bytes.
const NAME_BYTES_MAX: usize = 512;

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct QueueSurvey {
    /// By model, as clients name it; those without a model under the empty name.
    pub(crate) models: FxHashMap<Box<str>, u64>,
    /// Of models that are not counted by name.
    pub(crate) other_models: u64,
    /// By the number of the endpoint that each would go to, as of the last time it was considered.
    pub(crate) endpoints: FxHashMap<u16, u64>,
}

impl QueueSurvey {
    pub(super) fn add(&mut self, waiting: &Waiting) {
        if let Some(number) = waiting.preferred() {
            *self.endpoints.entry(number).or_default() += 1;
        }
        let has_room = self.models.len() < MODELS_MAX && waiting.model.len() <= NAME_BYTES_MAX;
        match self.models.get_mut(&waiting.model) {
            Some(count) => *count += 1,
            None if has_room => {
                self.models.insert(waiting.model.clone(), 1);
            }
            None => self.other_models += 1,
        }
    }

    /// All requests that wait.
    pub(crate) fn count(&self) -> u64 {
        self.models.values().sum::<u64>() + self.other_models
    }

    /// The requests that would go to an endpoint.
    pub(crate) fn of_endpoint(&self, number: u16) -> u64 {
        self.endpoints.get(&number).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::choose::SAMPLE_TOKENS_MIN;
    use super::super::load::EndpointLoad;
    use super::super::models::ModelKey;
    use super::super::predict::Weights;
    use super::super::prompt::Prompt;
    use super::super::queue::{FlowKey, QueueBounds, QueueStanding, TicketId};
    use super::super::scheduler::{Scheduler, Settings};
    use super::super::waiting::{ChoiceRule, WaitingPlace};
    use super::*;
    use crate::inspect::Findings;

    const SETTINGS: Settings = Settings {
        weights: Weights {
            decode: 0.1,
            running: 0.2,
        },
        bounds: QueueBounds {
            waiting: 5000,
            of_flow: 5000,
        },
        aging_ms: None,
    };

    /// A fleet of full endpoints.
    fn full(count: u16) -> Vec<Arc<EndpointLoad>> {
        let load = |number| {
            let load = EndpointLoad::new(number, 0);
            load.configure(1, 400_000);
            load.start();
            Arc::new(load)
        };
        (0..count).map(load).collect()
    }

    fn waiting(loads: &[Arc<EndpointLoad>], choosing: ChoiceRule, model: &str) -> Waiting {
        let places = loads.iter().enumerate();
        let places = places.map(|(index, load)| WaitingPlace {
            index: index + 10,
            load: Arc::clone(load),
            model: ModelKey::of(model),
            rank: 0,
        });
        let mut waiting = Waiting::new(places.collect(), choosing, (0, 0));
        waiting.model = model.into();
        waiting
    }

    fn put(scheduler: &Scheduler, waiting: Waiting) -> TicketId {
        let standing = QueueStanding {
            flow: FlowKey(1),
            priority: 5,
            weight: 1,
            cost: 1.0,
            since_ms: 1,
        };
        let (id, started) = scheduler.wait(standing, waiting, &SETTINGS, 1).unwrap();
        assert!(started.is_empty());
        id
    }

    #[test]
    fn requests_count_for_the_endpoint_that_they_would_go_to() {
        let scheduler = Scheduler::new(0, 1);
        let loads = full(2);
        // The first is busy reading.
        loads[0].add_pending(100 * SAMPLE_TOKENS_MIN);
        let prompt = Prompt::size(b"{}", &Findings::default());
        let least_time = ChoiceRule::LeastTime {
            prompt,
            blocks: Box::default(),
            output_max: None,
            pinned: None,
        };
        assert!(scheduler.survey().models.is_empty());
        let ids: Vec<_> = ["a", "b", "a"]
            .map(|model| put(&scheduler, waiting(&loads, least_time.clone(), model)))
            .into();
        let survey = scheduler.survey();
        assert_eq!((survey.models["a"], survey.models["b"]), (2, 1));
        assert_eq!((survey.of_endpoint(0), survey.of_endpoint(1)), (0, 3));
        // Of another fleet, the requests go to another endpoint.
        let others = waiting(&loads[..1], ChoiceRule::Free { pinned: None }, "b").places;
        let moved = scheduler.change(
            ids[1],
            |waiting| waiting.change_places(others, None),
            &SETTINGS,
            2,
        );
        assert!(moved.unwrap().is_empty());
        let survey = scheduler.survey();
        assert_eq!((survey.of_endpoint(0), survey.of_endpoint(1)), (1, 2));
        for id in ids {
            scheduler.leave(id);
        }
        assert!(scheduler.survey().models.is_empty());
    }

    #[test]
    fn under_other_balancers_it_is_the_one_with_the_fewest_requests() {
        let scheduler = Scheduler::new(0, 1);
        let loads = full(2);
        loads[0].start();
        put(
            &scheduler,
            waiting(&loads, ChoiceRule::Free { pinned: None }, "m"),
        );
        assert_eq!(scheduler.survey().of_endpoint(1), 1);
    }

    #[test]
    fn names_are_bounded() {
        let scheduler = Scheduler::new(0, 1);
        let loads = full(1);
        for at in 0..MODELS_MAX + 3 {
            put(
                &scheduler,
                waiting(&loads, ChoiceRule::Free { pinned: None }, &format!("m{at}")),
            );
        }
        put(
            &scheduler,
            waiting(
                &loads,
                ChoiceRule::Free { pinned: None },
                &"x".repeat(NAME_BYTES_MAX + 1),
            ),
        );
        let survey = scheduler.survey();
        assert_eq!((survey.models.len(), survey.other_models), (MODELS_MAX, 4));
        assert_eq!(survey.of_endpoint(0), MODELS_MAX as u64 + 4);
    }
}
