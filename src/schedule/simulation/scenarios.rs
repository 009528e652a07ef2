//! The workloads that the scheduler is measured by, in virtual time.

use super::engine::EngineSpec;
use super::people::Crowd;
use super::stress::number;
use super::{Measured, Simulation, TABLE_BYTES};

/// Seeds of a workload; `OLLA_SEEDS` runs more, and prints what was measured.
const SEEDS: u64 = 6;

fn crowd(user: u64, output: u64, system: u64, groups: u64) -> Crowd {
    Crowd {
        models: vec![0],
        zipf: 0.0,
        user_tokens: user,
        output_tokens: output,
        system_tokens: system,
        groups,
        rounds: 1,
        think_ms: 500.0,
        arrivals: 1.0,
        users: 0,
        flow: 1,
        weight: 1,
        priority: 5,
    }
}

/// Runs a workload with some seeds; returns what was measured of each crowd.
fn run(
    engines: &[(usize, EngineSpec)],
    crowds: &[Crowd],
    seconds: u64,
    noise: f64,
) -> Vec<Measured> {
    let engines = engines.iter();
    let fleet = engines.flat_map(|(count, spec)| std::iter::repeat_n(spec.clone(), *count));
    let fleet: Vec<_> = fleet.collect();
    let more = number("OLLA_SEEDS");
    let mut all = vec![Measured::default(); crowds.len()];
    for seed in 1..=more.unwrap_or(SEEDS).clamp(SEEDS, 20) {
        let mut simulation =
            Simulation::new(fleet.clone(), crowds.to_vec(), seconds, seed, TABLE_BYTES);
        simulation.noise = noise;
        simulation.run();
        for (sum, one) in all.iter_mut().zip(simulation.measured) {
            sum.add(one);
        }
    }
    if more.is_some() {
        for one in &all {
            println!(
                "n {} p50 {:.0} p90 {:.0} p99 {:.0} mean {:.0} all p50 {:.0} hits {:.3} failed {}",
                one.done,
                one.quantile(0.5),
                one.quantile(0.9),
                one.quantile(0.99),
                one.mean(),
                one.whole_quantile(0.5),
                one.hits(),
                one.failed
            );
        }
    }
    all
}

#[test]
fn chat() {
    let engine = EngineSpec::vllm(16, 12_000.0, (4.0, 0.25), 120_000);
    let people = Crowd {
        arrivals: 6.0,
        rounds: 6,
        think_ms: 700.0,
        ..crowd(200, 60, 1500, 40)
    };
    let all = run(&[(8, engine)], &[people], 40, 0.0);
    assert!(all[0].quantile(0.5) <= 20.0 && all[0].quantile(0.99) <= 160.0);
    assert!(all[0].hits() >= 0.87);
}

#[test]
fn onesystem() {
    let engine = EngineSpec::vllm(16, 14_000.0, (4.0, 0.25), 120_000);
    let people = Crowd {
        arrivals: 30.0,
        rounds: 3,
        think_ms: 400.0,
        ..crowd(300, 40, 3000, 1)
    };
    let all = run(&[(8, engine)], &[people], 40, 0.0);
    assert!(all[0].quantile(0.5) <= 25.0 && all[0].quantile(0.99) <= 80.0);
}

#[test]
fn mixed() {
    let strong = EngineSpec::vllm(16, 16_000.0, (4.0, 0.25), 120_000);
    let weak = EngineSpec::vllm(4, 8_000.0, (16.0, 1.0), 60_000);
    let people = Crowd {
        arrivals: 5.0,
        rounds: 5,
        think_ms: 700.0,
        ..crowd(200, 60, 1200, 40)
    };
    let all = run(&[(2, strong), (6, weak)], &[people], 40, 0.0);
    assert!(all[0].quantile(0.5) <= 16.0 && all[0].quantile(0.99) <= 180.0);
    assert!(all[0].mean() <= 32.0 && all[0].hits() >= 0.82);
}

#[test]
fn loading() {
    let engine = EngineSpec {
        models: vec![0, 1, 2],
        loaded_max: 2,
        load_ms: 3000.0,
        refuses_while_loading: true,
        ..EngineSpec::vllm(4, 12_000.0, (8.0, 0.5), 60_000)
    };
    let people = Crowd {
        models: vec![0, 1, 2],
        zipf: 0.5,
        arrivals: 2.0,
        rounds: 3,
        ..crowd(100, 60, 400, 30)
    };
    let all = run(&[(2, engine)], &[people], 40, 0.0);
    assert_eq!(all[0].failed, 0);
    assert!(all[0].quantile(0.99) <= 6_500.0);
}

#[test]
fn models() {
    let engine = EngineSpec {
        models: (0..12).collect(),
        loaded_max: 3,
        load_ms: 4000.0,
        ..EngineSpec::vllm(4, 12_000.0, (8.0, 0.5), 60_000)
    };
    let people = Crowd {
        models: (0..12).collect(),
        zipf: 0.9,
        arrivals: 3.0,
        rounds: 3,
        ..crowd(100, 60, 400, 30)
    };
    let all = run(&[(4, engine)], &[people], 40, 0.0);
    assert_eq!(all[0].failed, 0);
    assert!(all[0].quantile(0.5) <= 80.0 && all[0].quantile(0.99) <= 9_000.0);
}

/// The prompts of the first seconds are read by all engines, though only one was measured yet.
#[test]
fn agents_who_talk_on() {
    let engine = EngineSpec::vllm(16, 16_000.0, (4.0, 0.25), 120_000);
    let people = Crowd {
        arrivals: 20.0,
        rounds: 2,
        think_ms: 400.0,
        ..crowd(60, 40, 4000, 120)
    };
    let all = run(&[(8, engine)], &[people], 40, 0.0);
    assert!(all[0].quantile(0.5) <= 8.0 && all[0].quantile(0.99) <= 330.0);
}

#[test]
fn agents() {
    let engine = EngineSpec::vllm(16, 12_000.0, (4.0, 0.25), 120_000);
    let people = Crowd {
        arrivals: 12.0,
        rounds: 1,
        ..crowd(60, 40, 6000, 120)
    };
    let all = run(&[(8, engine)], &[people], 40, 0.0);
    assert!(all[0].quantile(0.5) <= 8.0 && all[0].quantile(0.99) <= 1_000.0);
}

/// In some seeds the people ask for more than half of the fleet, which is their share beside the batch
/// job; then they wait for it, a second or so. The bound is on all seeds together.
#[test]
fn flood() {
    let engine = EngineSpec::vllm(8, 20_000.0, (6.0, 0.5), 120_000);
    let people = Crowd {
        arrivals: 3.0,
        rounds: 4,
        flow: 1,
        ..crowd(100, 60, 800, 10)
    };
    let batch = Crowd {
        users: 120,
        rounds: 1,
        flow: 2,
        ..crowd(100, 150, 3000, 1_000_000)
    };
    let all = run(&[(2, engine)], &[people, batch], 40, 0.0);
    assert!(all[0].quantile(0.5) <= 350.0 && all[0].quantile(0.99) <= 1_400.0);
}

/// Nothing can be reused, and short prompts come beside very long ones.
#[test]
fn cold() {
    let engine = EngineSpec::vllm(16, 12_000.0, (4.0, 0.25), 120_000);
    let short = Crowd {
        arrivals: 10.0,
        ..crowd(300, 60, 0, 1_000_000)
    };
    let long = Crowd {
        arrivals: 1.8,
        flow: 2,
        ..crowd(20_000, 60, 0, 1_000_000)
    };
    let all = run(&[(8, engine)], &[short, long], 40, 0.0);
    assert!(all[0].quantile(0.5) <= 30.0 && all[0].quantile(0.99) <= 1_500.0);
}

/// Outputs are long: an endpoint whose first bytes are out is busy nevertheless.
#[test]
fn long() {
    let engine = EngineSpec::vllm(16, 12_000.0, (8.0, 1.0), 120_000);
    let people = Crowd {
        arrivals: 4.0,
        ..crowd(300, 600, 1_000, 20)
    };
    let all = run(&[(6, engine)], &[people], 60, 0.0);
    assert!(all[0].whole_quantile(0.5) <= 7_900.0 && all[0].quantile(0.99) <= 150.0);
}

/// Outputs and speeds vary.
#[test]
fn noise() {
    let engine = EngineSpec::vllm(16, 12_000.0, (4.0, 0.25), 120_000);
    let people = Crowd {
        arrivals: 6.0,
        rounds: 6,
        think_ms: 700.0,
        ..crowd(200, 60, 1500, 40)
    };
    let all = run(&[(8, engine)], &[people], 40, 0.7);
    assert!(all[0].quantile(0.5) <= 35.0 && all[0].quantile(0.99) <= 600.0);
    assert!(all[0].hits() >= 0.85);
}
