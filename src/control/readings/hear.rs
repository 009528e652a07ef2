//! Takes what an endpoint tells, and what its health tells, over into its load. Pure.
//!
//! An endpoint's load has room for the models in use only, so a model gets a place there when it is
//! in memory or on its way; of the others those are noted that have one, and the rest is known to be
//! out of memory.

use crate::fleet::Status;
use crate::providers::ListedModel;
use crate::providers::readings::{MemoryReading, Residence};
use crate::schedule::{EndpointLoad, ModelKey, Warmth};

/// Most models that get a place because of one reading.
const PLACED_MAX: usize = 16;

/// Takes a reading of the models in memory over that was asked for at a time. `told_context`: the
/// contexts that it tells count, because the configuration has none. Returns whether requests may
/// wait for the news.
pub(super) fn hear_memory(
    load: &EndpointLoad,
    models: &[ListedModel],
    reading: &MemoryReading,
    (at_ms, told_context): (u64, bool),
) -> bool {
    let (mut is_news, mut placed) = (false, 0);
    for model in models {
        let told = reading.model(&model.name);
        let state = match told.residence {
            Residence::Untold => continue,
            Residence::Absent => Warmth::Cold,
            Residence::Loading => Warmth::Loading,
            Residence::Present => Warmth::Warm,
        };
        if state == Warmth::Cold {
            load.note_on_demand();
        }
        let key = ModelKey::of(&model.name);
        if load.pair(key).is_none() {
            if state == Warmth::Cold {
                continue;
            }
            if placed == PLACED_MAX {
                continue;
            }
            placed += 1;
        }
        is_news |= load.hear_warmth(key, state, at_ms);
        if state == Warmth::Warm
            && told_context
            && told.context.is_some()
            && let Some(pair) = load.pair(key)
        {
            pair.set_context(told.context);
        }
    }
    is_news
}

/// The models of an endpoint load, as its check at a time said
/// (docs/contract/balancing.md#11).
pub(super) fn hear_warming(load: &EndpointLoad, models: &[ListedModel], at_ms: u64) {
    for model in models {
        let key = ModelKey::of(&model.name);
        if models.len() == 1 || load.pair(key).is_some() {
            load.hear_warmth(key, Warmth::Loading, at_ms);
        }
    }
}

/// A check at a time found an endpoint healthy: what it was loading is in memory, as far as is
/// known. Returns whether requests may wait for the news.
pub(super) fn hear_healthy(load: &EndpointLoad, models: &[ListedModel], at_ms: u64) -> bool {
    let mut is_news = false;
    for model in models {
        let key = ModelKey::of(&model.name);
        if load
            .pair(key)
            .is_some_and(|pair| pair.warmth() == Warmth::Loading)
        {
            is_news |= load.hear_warmth(key, Warmth::Warm, at_ms);
        }
    }
    is_news
}

/// What follows from a change of an endpoint's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct HealthNews {
    /// Its caches are empty.
    pub(super) loses_caches: bool,
    /// Its models are being loaded.
    pub(super) loads: bool,
    /// It responds as it should.
    pub(super) is_ready: bool,
    /// It was down, and may be another server now.
    pub(super) came_back: bool,
}

/// What follows from a change from one status to another.
pub(super) fn health_news(before: Status, now: Status) -> HealthNews {
    let is_down = |status| matches!(status, Status::Offline | Status::Unhealthy);
    let is_ready = |status| matches!(status, Status::Healthy | Status::Busy);
    if before == now {
        return HealthNews::default();
    }
    HealthNews {
        // A server that says that it loads its model was started again.
        loses_caches: before.is_routable() && is_down(now)
            || is_ready(before) && now == Status::Warming,
        loads: now == Status::Warming,
        is_ready: is_ready(now) && !is_ready(before),
        came_back: is_down(before) && now.is_routable(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::Profiles;
    use crate::providers::readings::parse_memory;

    fn models(names: &[&str]) -> Vec<ListedModel> {
        names.iter().map(|name| ListedModel::named(name)).collect()
    }

    fn reading(profile: &str, body: &str) -> MemoryReading {
        let profiles = Profiles::builtin();
        let source = &profiles.get(profile).unwrap().scheduling.memory;
        parse_memory(source.as_ref().unwrap(), body.as_bytes(), 0).unwrap()
    }

    fn warmth(load: &EndpointLoad, name: &str) -> Option<Warmth> {
        load.pair(ModelKey::of(name)).map(|pair| pair.warmth())
    }

    #[test]
    fn models_in_memory_get_a_place_and_the_others_keep_theirs() {
        let load = EndpointLoad::new(0, 0);
        let models = models(&["a", "b", "c"]);
        load.hear_warmth(ModelKey::of("b"), Warmth::Warm, 1);
        let list = reading(
            "ollama",
            r#"{"models":[{"name":"a","context_length":4096},{"name":"hidden"}]}"#,
        );
        assert!(hear_memory(&load, &models, &list, (10, true)), "b has left");
        assert_eq!(warmth(&load, "a"), Some(Warmth::Warm));
        assert_eq!(warmth(&load, "b"), Some(Warmth::Cold));
        assert_eq!(warmth(&load, "c"), None, "nobody uses it");
        assert_eq!(load.warmth(ModelKey::of("c")), Warmth::Cold);
        assert_eq!(warmth(&load, "hidden"), None, "it is not listed");
        let context = |name| load.pair(ModelKey::of(name)).unwrap().context();
        assert_eq!(context("a"), Some(4096));
        assert!(!hear_memory(&load, &models, &list, (20, true)));
        // A first byte that came after the question.
        load.hear_warmth(ModelKey::of("b"), Warmth::Warm, 31);
        hear_memory(&load, &models, &list, (30, true));
        assert_eq!(warmth(&load, "b"), Some(Warmth::Warm));
    }

    #[test]
    fn the_context_of_the_configuration_stays() {
        let load = EndpointLoad::new(0, 0);
        let list = reading(
            "ollama",
            r#"{"models":[{"name":"a","context_length":4096}]}"#,
        );
        hear_memory(&load, &models(&["a"]), &list, (10, false));
        assert_eq!(load.pair(ModelKey::of("a")).unwrap().context(), None);
    }

    #[test]
    fn states_are_taken_over_and_silence_is_none() {
        let load = EndpointLoad::new(0, 0);
        let models = models(&["a", "b"]);
        let loading = r#"{"data":[{"id":"a","status":{"value":"loading"}}]}"#;
        hear_memory(&load, &models, &reading("llamacpp", loading), (10, true));
        assert_eq!(warmth(&load, "a"), Some(Warmth::Loading));
        let silent = r#"{"data":[{"id":"a"},{"id":"b"}]}"#;
        assert!(!hear_memory(
            &load,
            &models,
            &reading("llamacpp", silent),
            (20, true)
        ));
        assert_eq!(warmth(&load, "a"), Some(Warmth::Loading));
        let loaded = r#"{"data":[{"id":"a","status":{"value":"loaded"}}]}"#;
        assert!(hear_memory(
            &load,
            &models,
            &reading("llamacpp", loaded),
            (30, true)
        ));
        assert_eq!(warmth(&load, "a"), Some(Warmth::Warm));
    }

    #[test]
    fn one_reading_does_not_displace_all_models() {
        let load = EndpointLoad::new(0, 0);
        let names: Vec<_> = (0..200).map(|nth| format!("m{nth}")).collect();
        let items: Vec<_> = names
            .iter()
            .map(|name| format!(r#"{{"name":"{name}"}}"#))
            .collect();
        let list = reading("ollama", &format!(r#"{{"models":[{}]}}"#, items.join(",")));
        let listed: Vec<_> = names.iter().map(|name| ListedModel::named(name)).collect();
        hear_memory(&load, &listed, &list, (10, true));
        assert!(load.pairs().all().count() <= PLACED_MAX);
    }

    #[test]
    fn a_server_that_loads_has_its_model_in_memory_once_it_is_healthy() {
        let load = EndpointLoad::new(0, 0);
        let models = models(&["a"]);
        hear_warming(&load, &models, 10);
        assert_eq!(warmth(&load, "a"), Some(Warmth::Loading));
        assert!(hear_healthy(&load, &models, 20));
        // Nothing else is heard of it: it must not count as cold, as one that is loaded when requested.
        assert_eq!(load.warmth(ModelKey::of("a")), Warmth::Warm);
        assert!(!hear_healthy(&load, &models, 30));
    }

    #[test]
    fn what_follows_from_health() {
        use Status::{
            Busy, ConfigError, Healthy, Offline, RateLimited, Unhealthy, Unknown, Warming,
        };
        let none = HealthNews::default();
        let down = HealthNews {
            loses_caches: true,
            ..none
        };
        let ready = HealthNews {
            is_ready: true,
            ..none
        };
        let back = HealthNews {
            came_back: true,
            ..ready
        };
        let loads = HealthNews {
            loads: true,
            ..none
        };
        let table = [
            (Healthy, Healthy, none),
            (Healthy, Busy, none),
            (Healthy, Offline, down),
            (Warming, Unhealthy, down),
            (Offline, Unhealthy, none),
            (Healthy, RateLimited, none),
            (Healthy, ConfigError, none),
            (RateLimited, Healthy, ready),
            (Unknown, Healthy, ready),
            (Unknown, Offline, none),
            (Offline, Healthy, back),
            (Unhealthy, Busy, back),
            (Warming, Healthy, ready),
            (Unknown, Warming, loads),
            (
                Healthy,
                Warming,
                HealthNews {
                    loses_caches: true,
                    ..loads
                },
            ),
            (
                Offline,
                Warming,
                HealthNews {
                    came_back: true,
                    ..loads
                },
            ),
        ];
        for (before, now, expected) in table {
            assert_eq!(health_news(before, now), expected, "{before:?} {now:?}");
        }
    }
}
