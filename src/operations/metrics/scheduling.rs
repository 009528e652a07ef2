//! The families of scheduling: predictions, cached prefixes, the queue, slots and models in memory.
//!
//! Contract: docs/contract/scheduling.md#8

use std::collections::BTreeMap;

use super::super::Inputs;
use super::super::stats::{FirstTokens, ModelTotals, QueueRefusal, SchedulingCounts};
use super::super::system::Seen;
use super::exposition::{Exposition, MetricFamily, counter};

/// The label of models that are counted together.
const OTHER: &str = "other";

pub(super) fn families(
    text: &mut Exposition,
    inputs: &Inputs<'_>,
    endpoints: &[Seen<'_>],
    models: &[(&str, &ModelTotals)],
) {
    let counts = &inputs.totals.system().scheduling;
    predictions(text, counts, models);
    text.families(&COUNTERS, std::slice::from_ref(counts), |_| []);
    let name = "olla_endpoint_metrics_given_up_total";
    let help = "Times that the metrics of an endpoint could not be read and were left alone.";
    text.family(name, "counter", help);
    text.sample(name, &[], inputs.scheduling.pages_given_up);
    queue(text, inputs, models);
    slots(text, endpoints);
    memory(text, inputs, endpoints);
}

fn predictions(text: &mut Exposition, counts: &SchedulingCounts, models: &[(&str, &ModelTotals)]) {
    // A model may be called like the label of those that are counted together.
    let mut rows: BTreeMap<&str, FirstTokens> = BTreeMap::new();
    let named = models
        .iter()
        .map(|(name, totals)| (*name, &totals.predictions));
    for (name, times) in named.chain([(OTHER, &counts.other_models)]) {
        if times.predicted.count > 0 {
            rows.entry(name).or_default().add(times);
        }
    }
    let name = "olla_scheduler_predicted_ttft_seconds";
    let help = "Time to the first token of a stream as it was predicted when the request was sent.";
    text.family(name, "histogram", help);
    for (model, times) in &rows {
        text.times(name, &[("model", model)], &times.predicted);
    }
    let name = "olla_scheduler_ttft_error_ratio";
    let help = "Predicted time to the first token of a stream, divided by the measured one.";
    text.family(name, "histogram", help);
    for (model, times) in &rows {
        text.ratios(name, &[("model", model)], &times.ratio);
    }
}

const COUNTERS: [MetricFamily<SchedulingCounts>; 5] = [
    counter(
        "olla_prefix_prompt_tokens_total",
        "Estimated tokens of prompts that were sent to an endpoint.",
        |counts| counts.prompt_tokens.into(),
    ),
    counter(
        "olla_prefix_hit_tokens_total",
        "Estimated tokens of these prompts that the endpoint was believed to have in its cache.",
        |counts| counts.hit_tokens.into(),
    ),
    counter(
        "olla_prefix_believed_tokens_total",
        "Tokens believed to be cached, of responses that report cached tokens.",
        |counts| counts.believed_tokens.into(),
    ),
    counter(
        "olla_prefix_reported_tokens_total",
        "Cached tokens as these responses report them.",
        |counts| counts.reported_tokens.into(),
    ),
    counter(
        "olla_scheduler_samples_rejected_total",
        "Reported token counts that cannot be true, from which nothing was learned.",
        |counts| counts.samples_rejected.into(),
    ),
];

fn queue(text: &mut Exposition, inputs: &Inputs<'_>, models: &[(&str, &ModelTotals)]) {
    let waiting = &inputs.scheduling.queue;
    // Models that were requested have a row when nothing waits, too.
    let mut rows: BTreeMap<&str, u64> = models.iter().map(|(name, _)| (*name, 0)).collect();
    for (name, count) in &waiting.models {
        *rows.entry(name).or_default() += count;
    }
    if waiting.other_models > 0 {
        *rows.entry(OTHER).or_default() += waiting.other_models;
    }
    let name = "olla_queue_waiting";
    text.gauge(
        name,
        "Requests that wait for a slot, by the model asked for.",
    );
    for (model, count) in rows {
        text.sample(name, &[("model", model)], count);
    }
    let counts = &inputs.totals.system().scheduling;
    let name = "olla_queue_wait_seconds";
    let help = "Time that requests waited in the queue before they were sent.";
    text.family(name, "histogram", help);
    text.times(name, &[], &counts.waits);
    let name = "olla_queue_rejected_total";
    let help = "Requests refused because they had to wait, by the reason.";
    text.family(name, "counter", help);
    for (reason, count) in QueueRefusal::ALL.iter().zip(counts.refusals) {
        text.sample(name, &[("reason", reason.as_str())], count);
    }
}

fn slots(text: &mut Exposition, endpoints: &[Seen<'_>]) {
    let name = "olla_endpoint_slots";
    let help = "Requests that the endpoint can work on at a time; no sample without a limit.";
    text.gauge(name, help);
    for seen in endpoints {
        if let Some(slots) = seen.endpoint.load.slots() {
            let labels = [("endpoint", seen.endpoint.name())];
            text.sample(name, &labels, u64::from(slots));
        }
    }
    let name = "olla_endpoint_running";
    text.gauge(name, "Requests that hold a slot of the endpoint.");
    for seen in endpoints {
        let labels = [("endpoint", seen.endpoint.name())];
        let running = seen.endpoint.load.running();
        text.sample(name, &labels, u64::from(running));
    }
}

fn memory(text: &mut Exposition, inputs: &Inputs<'_>, endpoints: &[Seen<'_>]) {
    let facts = inputs.scheduling;
    let name = "olla_model_loads_total";
    let help = "Times that the endpoint was seen to begin loading the model.";
    text.family(name, "counter", help);
    for seen in endpoints {
        for (model, pair) in facts.pairs(seen.endpoint) {
            let labels = [("endpoint", seen.endpoint.name()), ("model", model)];
            text.sample(name, &labels, u64::from(pair.loads()));
        }
    }
    let name = "olla_model_state";
    let help = "1 for where the model is on the endpoint: warm, loading, cold or unknown.";
    text.gauge(name, help);
    for seen in endpoints {
        for (model, pair) in facts.pairs(seen.endpoint) {
            let labels = [
                ("endpoint", seen.endpoint.name()),
                ("model", model),
                ("state", pair.warmth().as_str()),
            ];
            text.sample(name, &labels, 1_u64);
        }
    }
}
