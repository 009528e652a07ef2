//! Distributions, ties, priorities, tokens, breakers and the counting of picks.

use super::*;
use crate::routing::testing::endpoints;

fn set(indices: &[usize]) -> EndpointSet {
    indices.iter().copied().collect()
}

fn picker<'a>(endpoints: &'a [Endpoint], balancer: Balancer, turns: &'a Turns) -> Picker<'a> {
    Picker {
        endpoints,
        balancer,
        turns,
        now_ms: 1000,
        random: 0,
    }
}

fn pick(picker: &Picker<'_>, candidates: &EndpointSet) -> Lease {
    picker
        .pick(candidates, &EndpointSet::EMPTY, None, |_| true)
        .unwrap()
}

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        spread(self.0)
    }
}

#[test]
fn round_robin_takes_turns_in_order() {
    let (endpoints, turns) = (endpoints(&[1, 9, 5]), Turns::default());
    let picker = picker(&endpoints, Balancer::RoundRobin, &turns);
    let all = EndpointSet::first(3);
    let picked: Vec<_> = (0..30).map(|_| pick(&picker, &all).endpoint()).collect();
    assert_eq!(picked, [0, 1, 2].repeat(10));
}

#[test]
fn interleaved_sets_have_turns_of_their_own() {
    let (endpoints, turns) = (endpoints(&[1; 4]), Turns::default());
    for balancer in [Balancer::RoundRobin, Balancer::LeastConnections] {
        let picker = picker(&endpoints, balancer, &turns);
        let (left, right) = (set(&[0, 1]), set(&[2, 3]));
        let mut counts = [0; 4];
        for _ in 0..10 {
            counts[pick(&picker, &left).endpoint()] += 1;
            counts[pick(&picker, &right).endpoint()] += 1;
        }
        assert_eq!(counts, [5; 4], "{balancer}");
    }
}

#[test]
fn turns_are_one_over_all_cores() {
    let (endpoints, turns) = (endpoints(&[1; 3]), Turns::default());
    let picker = picker(&endpoints, Balancer::RoundRobin, &turns);
    let all = EndpointSet::first(3);
    let counts = std::thread::scope(|scope| {
        let work = || (0..300).map(|_| pick(&picker, &all).endpoint()).collect();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        let mut counts = [0; 3];
        for thread in threads {
            let picked: Vec<usize> = thread.join().unwrap();
            picked.into_iter().for_each(|index| counts[index] += 1);
        }
        counts
    });
    assert_eq!(counts, [400; 3]);
    assert!(endpoints.iter().all(|e| e.live.in_flight() == 0));
}

#[test]
fn a_burst_spreads_evenly_over_all_cores() {
    for count in [2, 3, 5] {
        let (endpoints, turns) = (endpoints(&vec![1; count]), Turns::default());
        let picker = picker(&endpoints, Balancer::LeastConnections, &turns);
        let all = EndpointSet::first(count);
        let leases: Vec<Lease> = std::thread::scope(|scope| {
            let work = || (0..101).map(|_| pick(&picker, &all)).collect::<Vec<_>>();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().unwrap())
                .collect()
        });
        let even = u32::try_from(404 / count).unwrap();
        for endpoint in &endpoints {
            let in_flight = endpoint.live.in_flight();
            assert!(in_flight.abs_diff(even) <= 1, "{in_flight} of {even}");
        }
        drop(leases);
        assert!(endpoints.iter().all(|e| e.live.in_flight() == 0));
    }
}

#[test]
fn what_another_core_took_meanwhile_counts() {
    let (endpoints, turns) = (endpoints(&[1, 1]), Turns::default());
    let picker = picker(&endpoints, Balancer::LeastConnections, &turns);
    let all = EndpointSet::first(2);
    endpoints[1].live.begin();
    let (fewest, tied) = picker.fewest(&all).unwrap();
    assert_eq!((fewest, tied), (0, set(&[0])));
    let first = pick(&picker, &all);
    assert_eq!(first.endpoint(), 0);
    assert!(picker.begin_if(0, fewest).is_none(), "it must look again");
    let (fewest, tied) = picker.fewest(&all).unwrap();
    assert_eq!((fewest, tied), (1, all));
    assert!(picker.begin_if(1, fewest).is_some());
}

#[test]
fn the_fewest_in_flight_is_taken() {
    let (endpoints, turns) = (endpoints(&[1, 1, 9]), Turns::default());
    let picker = picker(&endpoints, Balancer::LeastConnections, &turns);
    endpoints[0].live.begin();
    endpoints[2].live.begin();
    endpoints[2].live.begin();
    let all = EndpointSet::first(3);
    assert_eq!(pick(&picker, &all).endpoint(), 1);
    // Idle again: the others are taken only when this one is busier.
    let held = [pick(&picker, &all), pick(&picker, &all)];
    let mut picked: Vec<_> = held.iter().map(Lease::endpoint).collect();
    assert_eq!(picked.remove(0), 1);
    assert!(picked[0] < 2);
}

#[test]
fn idle_ties_rotate() {
    let (endpoints, turns) = (endpoints(&[1; 3]), Turns::default());
    let picker = picker(&endpoints, Balancer::LeastConnections, &turns);
    let all = EndpointSet::first(3);
    let picked: Vec<_> = (0..9).map(|_| pick(&picker, &all).endpoint()).collect();
    assert_eq!(picked, [0, 1, 2].repeat(3));
}

#[test]
fn only_the_top_tier_has_traffic() {
    let turns = Turns::default();
    let endpoints = endpoints(&[50, 90, 90, 0]);
    let mut numbers = Numbers(1);
    let mut share = |tried: &EndpointSet| {
        let mut counts = [0; 4];
        for _ in 0..1000 {
            let mut picker = picker(&endpoints, Balancer::Priority, &turns);
            picker.random = numbers.next();
            let all = EndpointSet::first(4);
            let lease = picker.pick(&all, tried, None, |_| true).unwrap();
            counts[lease.endpoint()] += 1;
        }
        counts
    };
    let [c, a, b, d] = share(&EndpointSet::EMPTY);
    assert_eq!((c, d), (0, 0));
    assert!((430..570).contains(&a), "{a} and {b}");
    assert_eq!(share(&set(&[1])), [0, 0, 1000, 0]);
    assert_eq!(share(&set(&[1, 2])), [1000, 0, 0, 0]);
    assert_eq!(share(&set(&[0, 1, 2])), [0, 0, 0, 1000]);
}

#[test]
fn status_weighs_within_a_tier() {
    let turns = Turns::default();
    let mut endpoints = endpoints(&[7, 7, 7]);
    endpoints[1].status = Status::Busy;
    endpoints[2].status = Status::Warming;
    let mut numbers = Numbers(2);
    let mut counts = [0; 3];
    for _ in 0..14_000 {
        let mut picker = picker(&endpoints, Balancer::Priority, &turns);
        picker.random = numbers.next();
        counts[pick(&picker, &EndpointSet::first(3)).endpoint()] += 1;
    }
    for (count, expected) in counts.into_iter().zip([10_769_i32, 3231, 0]) {
        assert!((count - expected).abs() < 300, "{counts:?}");
    }
    assert_eq!(counts[2], 0, "warming is passed over");
    let mut picker = picker(&endpoints, Balancer::Priority, &turns);
    picker.random = u64::MAX;
    assert_eq!(pick(&picker, &EndpointSet::first(3)).endpoint(), 1);
}

#[test]
fn the_warming_are_passed_over_while_another_is_left() {
    let (mut endpoints, turns) = (endpoints(&[3, 2, 1]), Turns::default());
    endpoints[0].status = Status::Warming;
    endpoints[1].status = Status::Warming;
    for balancer in Balancer::ALL {
        let picker = picker(&endpoints, *balancer, &turns);
        let all = EndpointSet::first(3);
        let picked = picker.pick(&all, &EndpointSet::EMPTY, Some(0), |_| true);
        assert_eq!(picked.unwrap().endpoint(), 2, "{balancer:?}: pinned");
        assert_eq!(pick(&picker, &all).endpoint(), 2, "{balancer:?}");
        let picked = picker.pick(&all, &EndpointSet::EMPTY, None, |index| index != 2);
        assert!(
            picked.unwrap().endpoint() < 2,
            "{balancer:?}: no token left"
        );
        let pair = EndpointSet::first(2);
        let picked = picker.pick(&pair, &EndpointSet::EMPTY, Some(1), |_| true);
        assert_eq!(picked.unwrap().endpoint(), 1, "{balancer:?}: pinned");
    }
}

#[test]
fn the_tried_are_not_tried_again() {
    let (endpoints, turns) = (endpoints(&[3, 2, 1]), Turns::default());
    for balancer in Balancer::ALL {
        let picker = picker(&endpoints, *balancer, &turns);
        let all = EndpointSet::first(3);
        let mut tried = EndpointSet::EMPTY;
        for _ in 0..3 {
            let lease = picker.pick(&all, &tried, None, |_| true).unwrap();
            assert!(!tried.contains(lease.endpoint()));
            tried.insert(lease.endpoint());
        }
        let none = picker.pick(&all, &tried, None, |_| true);
        assert_eq!(none.unwrap_err(), NoPick::NoneLeft);
        assert_eq!(
            picker
                .pick(&EndpointSet::EMPTY, &tried, None, |_| true)
                .unwrap_err(),
            NoPick::NoneLeft
        );
    }
}

#[test]
fn a_pin_beats_the_balancer_while_it_can() {
    let (endpoints, turns) = (endpoints(&[9, 1, 1]), Turns::default());
    let picker = picker(&endpoints, Balancer::Priority, &turns);
    let all = EndpointSet::first(3);
    let pinned = |tried: &[usize], token: bool| {
        let token = |index| token || index != 2;
        let lease = picker.pick(&all, &set(tried), Some(2), token).unwrap();
        lease.endpoint()
    };
    assert_eq!(pinned(&[], true), 2);
    assert_eq!(pinned(&[2], true), 0, "it has just failed");
    assert_eq!(pinned(&[], false), 0, "it is out of tokens");
    let lease = picker.pick(&set(&[0, 1]), &EndpointSet::EMPTY, Some(2), |_| true);
    assert_eq!(lease.unwrap().endpoint(), 0, "it is no candidate");
}

/// docs/contract/scheduling.md#7
#[test]
fn a_pin_is_left_when_its_endpoint_is_crowded() {
    let (endpoints, turns) = (endpoints(&[1, 1, 1]), Turns::default());
    let picker = picker(&endpoints, Balancer::RoundRobin, &turns);
    let all = EndpointSet::first(3);
    let pinned = |all: &EndpointSet| {
        let lease = picker.pick(all, &EndpointSet::EMPTY, Some(2), |_| true);
        lease.unwrap().endpoint()
    };
    let begin =
        |count: usize| -> Vec<Lease> { (0..count).map(|_| pick(&picker, &set(&[2]))).collect() };
    // Of three, at most 2 / (1 - 1.25 / 3) = 3.4.
    let held = begin(3);
    assert_eq!(pinned(&all), 2);
    let more = begin(1);
    assert_eq!(pinned(&all), 0);
    assert_eq!(pinned(&set(&[2])), 2, "there is no other");
    let others: Vec<Lease> = (0..2).map(|_| pick(&picker, &set(&[0]))).collect();
    assert_eq!(pinned(&all), 2, "the others are busy, too");
    drop((held, more, others));
    assert_eq!(pinned(&all), 2);
}

#[test]
fn who_is_out_of_tokens_is_left_out() {
    let (endpoints, turns) = (endpoints(&[9, 1, 1]), Turns::default());
    for balancer in Balancer::ALL {
        let picker = picker(&endpoints, *balancer, &turns);
        let all = EndpointSet::first(3);
        let mut asked = Vec::new();
        let lease = picker.pick(&all, &EndpointSet::EMPTY, None, |index| {
            asked.push(index);
            index == 1
        });
        assert_eq!(lease.unwrap().endpoint(), 1);
        let once: std::collections::BTreeSet<_> = asked.iter().collect();
        assert_eq!(once.len(), asked.len(), "{asked:?}");
        let none = picker.pick(&all, &EndpointSet::EMPTY, None, |_| false);
        assert_eq!(none.unwrap_err(), NoPick::Throttled);
        assert!(endpoints.iter().all(|e| e.live.in_flight() == 0));
    }
    assert_eq!(NoPick::Throttled.fault(true), Fault::Throttled);
    assert_eq!(NoPick::NoneLeft.fault(true), Fault::BackendError);
    assert_eq!(NoPick::NoneLeft.fault(false), Fault::NoHealthy);
}

#[test]
fn open_breakers_are_skipped_and_probed() {
    let (endpoints, turns) = (endpoints(&[9, 1]), Turns::default());
    let mut picker = picker(&endpoints, Balancer::Priority, &turns);
    let all = EndpointSet::first(2);
    for _ in 0..breaker::FAILURES_MAX {
        let mut lease = pick(&picker, &all);
        assert_eq!(lease.endpoint(), 0);
        lease.failed(picker.now_ms);
    }
    assert_eq!(
        pick(&picker, &all).endpoint(),
        1,
        "the sixth is served elsewhere"
    );
    let only = set(&[0]);
    let none = picker.pick(&only, &EndpointSet::EMPTY, None, |_| true);
    assert_eq!(none.unwrap_err(), NoPick::NoneLeft);
    picker.now_ms += breaker::OPEN_MS;
    // The client of a probe leaves: the next request is the probe.
    drop(pick(&picker, &all));
    let mut probe = pick(&picker, &all);
    assert_eq!(probe.endpoint(), 0);
    assert_eq!(pick(&picker, &all).endpoint(), 1, "one probe at a time");
    probe.succeeded();
    assert_eq!(pick(&picker, &all).endpoint(), 0);
    drop(probe);
    assert_eq!(endpoints[0].live.in_flight(), 0);
}

#[test]
fn a_probe_without_a_token_gives_its_slot_back() {
    let (endpoints, turns) = (endpoints(&[9]), Turns::default());
    let mut picker = picker(&endpoints, Balancer::LeastConnections, &turns);
    let all = EndpointSet::first(1);
    for _ in 0..breaker::FAILURES_MAX {
        pick(&picker, &all).failed(picker.now_ms);
    }
    picker.now_ms += breaker::OPEN_MS;
    let none = picker.pick(&all, &EndpointSet::EMPTY, None, |_| false);
    assert_eq!(none.unwrap_err(), NoPick::Throttled);
    assert_eq!(pick(&picker, &all).endpoint(), 0);
}

#[test]
fn turns_are_bounded_and_go_on() {
    let turns = Turns::default();
    let mut numbers = Numbers(3);
    for _ in 0..20_000 {
        let number = numbers.next();
        let some: EndpointSet = (0..64).filter(|bit| number >> bit & 1 == 1).collect();
        assert_eq!(turns.next(&some), 0);
        assert_eq!(turns.next(&some), 1);
    }
    assert_eq!(turns.slots.len(), TURNS_MAX);
}

#[test]
fn indices_of_another_snapshot_are_nobody() {
    let (endpoints, turns) = (endpoints(&[1]), Turns::default());
    for balancer in Balancer::ALL {
        let picker = picker(&endpoints, *balancer, &turns);
        let none = picker.pick(&set(&[5, 500]), &EndpointSet::EMPTY, Some(7), |_| true);
        assert_eq!(none.unwrap_err(), NoPick::NoneLeft);
    }
}
