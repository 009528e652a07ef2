//! How soon the scheduler learns that an endpoint has become slower, or faster, and how little a
//! lying endpoint changes.

use super::stress::number;
use super::*;

const ENGINES: u64 = 5;
const SECOND_US: u64 = 1_000_000;

/// The share of each endpoint if all get the same.
const EQUAL: f64 = 1.0 / ENGINES as f64;

/// The load of the fleet.
#[derive(Debug, Clone, Copy)]
enum Load {
    Light,
    Heavy,
}

/// Short conversations with prompts that are mostly new.
fn people(load: Load) -> Crowd {
    Crowd {
        models: vec![0],
        zipf: 0.0,
        user_tokens: 1_000,
        output_tokens: 60,
        system_tokens: 300,
        groups: 20,
        rounds: 2,
        think_ms: 500.0,
        arrivals: match load {
            Load::Light => 0.7,
            Load::Heavy => 4.0,
        },
        users: 0,
        flow: 1,
        weight: 1,
        priority: 5,
    }
}

fn simulation(load: Load, seconds: u64, seed: u64) -> Simulation {
    let engine = EngineSpec::vllm(2, 3_000.0, (12.0, 1.0), 60_000);
    let engines = vec![engine; ENGINES as usize];
    let mut simulation = Simulation::new(engines, vec![people(load)], seconds, seed, 1 << 20);
    // At light load chance has idle equals measured apart, and the fastest of them gets most.
    simulation.noise = match load {
        Load::Light => 0.1,
        Load::Heavy => 0.3,
    };
    for endpoint in &mut simulation.endpoints {
        endpoint.has_small_events = seed.is_multiple_of(2);
    }
    simulation
}

impl Simulation {
    /// Runs for some seconds; returns the share of the first endpoint, and the requests that it got.
    fn share_within(&mut self, seconds: u64) -> (f64, u64) {
        let before = (self.sent[0], self.sent.iter().sum::<u64>());
        self.run_until(self.now_us + seconds * SECOND_US);
        let sent = self.sent[0] - before.0;
        let all = self.sent.iter().sum::<u64>() - before.1;
        (sent as f64 / all.max(1) as f64, sent)
    }
}

/// The seeds of a test.
fn seeds() -> Range<u64> {
    0..number("OLLA_SEEDS").map_or(2, |seeds| seeds.clamp(2, 100))
}

/// The share of an endpoint that reads prompts four times slower than the others, once it has got 20
/// requests or a minute has passed; and its share from a minute after its recovery on.
fn slow_and_recovered(load: Load, seed: u64) -> (f64, f64) {
    let mut simulation = simulation(load, 300, seed);
    simulation.share_within(40);
    simulation.endpoints[0].engine.slowness = 4.0;
    let mut sent = 0;
    for _ in 0..60 {
        sent += simulation.share_within(1).1;
        if sent >= 20 {
            break;
        }
    }
    let (slow, _) = simulation.share_within(40);
    simulation.endpoints[0].engine.slowness = 1.0;
    simulation.share_within(60);
    let (recovered, _) = simulation.share_within(60);
    (slow, recovered)
}

#[test]
fn a_slow_endpoint_loses_its_share_and_regains_it_when_it_has_recovered() {
    for load in [Load::Light, Load::Heavy] {
        let mut sum = 0.0;
        for seed in seeds() {
            let (slow, recovered) = slow_and_recovered(load, seed);
            assert!(
                slow <= 0.6 * EQUAL,
                "{load:?} {seed}: {slow} of all while slow"
            );
            assert!(
                recovered >= 0.25 * EQUAL,
                "{load:?} {seed}: {recovered} later"
            );
            sum += recovered;
        }
        let mean = sum / seeds().count() as f64;
        assert!(
            mean >= 0.7 * EQUAL,
            "{load:?}: {mean} of all after recovery"
        );
    }
}

/// What an endpoint may lie about.
#[derive(Debug, Clone, Copy)]
enum Lie {
    /// Usage figures are so many times too high.
    Usage(f64),
    Slots(u64),
}

/// The share of a lying endpoint, from a minute after it has begun to lie on.
fn share_of_liar(load: Load, lie: Lie, seed: u64) -> f64 {
    let mut simulation = simulation(load, 200, seed);
    if seed % 4 == 1 {
        let crowd = &mut simulation.crowds[0];
        crowd.output_tokens *= 5;
        crowd.arrivals /= 2.5;
    }
    simulation.share_within(20);
    let liar = &mut simulation.endpoints[0];
    match lie {
        Lie::Usage(factor) => liar.lie = factor,
        Lie::Slots(slots) => {
            liar.load.configure(0, CACHE_TOKENS);
            liar.load.report_slots(Some(slots));
        }
    }
    simulation.share_within(60);
    simulation.share_within(90).0
}

#[test]
fn a_lying_endpoint_attracts_and_repels_little() {
    for load in [Load::Light, Load::Heavy] {
        for lie in [
            Lie::Usage(100.0),
            Lie::Usage(0.01),
            Lie::Slots(1_000_000_000),
        ] {
            let shares: Vec<f64> = seeds().map(|seed| share_of_liar(load, lie, seed)).collect();
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            assert!((mean - EQUAL).abs() <= 0.1, "{load:?} {lie:?}: {shares:?}");
        }
    }
}
