use proptest::prelude::*;

use super::*;

const BOUNDS: QueueBounds = QueueBounds {
    waiting: 1000,
    of_flow: 200,
};

fn standing(flow: u64, cost: f64) -> QueueStanding {
    QueueStanding {
        flow: FlowKey(flow),
        priority: 5,
        weight: 1,
        cost,
        since_ms: 0,
    }
}

/// Starts as many requests as there are slots; returns them.
fn start<W: Clone>(queue: &mut Queue<W>, slots: usize, now_ms: u64, aging: Option<u64>) -> Vec<W> {
    let mut left = slots;
    let mut started = Vec::new();
    queue.drain(
        now_ms,
        aging,
        |_| {
            if left == 0 {
                return Verdict::Waits;
            }
            left -= 1;
            Verdict::Starts
        },
        |what, _| started.push(what),
    );
    started
}

#[test]
fn flows_take_turns_by_their_service() {
    let mut queue = Queue::default();
    for name in ["a1", "a2", "a3"] {
        queue.push(standing(1, 10.0), BOUNDS, name).unwrap();
    }
    for name in ["b1", "b2"] {
        queue.push(standing(2, 20.0), BOUNDS, name).unwrap();
    }
    assert_eq!(start(&mut queue, 1, 0, None), ["a1"]);
    assert_eq!(start(&mut queue, 4, 0, None), ["b1", "a2", "a3", "b2"]);
    assert!(queue.is_empty());
}

#[test]
fn weight_divides_service_and_priority_goes_before_it() {
    let mut queue = Queue::default();
    let heavy = QueueStanding {
        weight: 3,
        ..standing(1, 10.0)
    };
    for at in 0..6 {
        queue.push(heavy, BOUNDS, format!("heavy{at}")).unwrap();
        queue
            .push(standing(2, 10.0), BOUNDS, format!("light{at}"))
            .unwrap();
    }
    let first = start(&mut queue, 8, 0, None);
    let of_heavy = first.iter().filter(|name| name.starts_with("heavy"));
    assert_eq!(of_heavy.count(), 6);
    let urgent = QueueStanding {
        priority: 9,
        ..standing(3, 1e9)
    };
    queue.push(urgent, BOUNDS, "urgent".to_owned()).unwrap();
    assert_eq!(start(&mut queue, 1, 0, None), ["urgent"]);
}

#[test]
fn who_has_waited_long_gains_priority() {
    let mut queue = Queue::default();
    let low = QueueStanding {
        priority: 4,
        ..standing(1, 1.0)
    };
    queue.push(low, BOUNDS, "low").unwrap();
    let at = |since_ms| QueueStanding {
        since_ms,
        priority: 5,
        ..standing(2, 1.0)
    };
    queue.push(at(19_999), BOUNDS, "usual").unwrap();
    assert_eq!(queue.len(), 2);
    let mut copy = Queue::default();
    copy.push(low, BOUNDS, "low").unwrap();
    copy.push(at(19_999), BOUNDS, "usual").unwrap();
    assert_eq!(start(&mut copy, 2, 20_000, None), ["usual", "low"]);
    assert_eq!(start(&mut queue, 2, 20_000, Some(10_000)), ["low", "usual"]);
}

#[test]
fn an_idle_flow_saves_nothing_up() {
    let mut queue = Queue::default();
    for at in 0..20 {
        queue
            .push(standing(1, 10.0), BOUNDS, ("batch", at))
            .unwrap();
    }
    assert_eq!(start(&mut queue, 10, 0, None).len(), 10);
    for at in 0..3 {
        queue
            .push(standing(2, 10.0), BOUNDS, ("person", at))
            .unwrap();
    }
    let order: Vec<_> = start(&mut queue, 6, 0, None)
        .into_iter()
        .map(|(who, _)| who)
        .collect();
    assert_eq!(
        order,
        ["person", "batch", "person", "batch", "person", "batch"]
    );
}

#[test]
fn credits_of_flows_that_begin_one_after_another_do_not_add_up() {
    let mut queue = Queue::default();
    let mut charges = Vec::new();
    let people = 2..=6;
    let push = |queue: &mut Queue<u64>, flow, count| {
        for _ in 0..count {
            queue.push(standing(flow, 10.0), BOUNDS, flow).unwrap();
        }
    };
    let mut start = |queue: &mut Queue<u64>| {
        let mut left = 1;
        let mut flow = None;
        let verdict = |_: &mut u64| {
            left -= 1;
            if left == 0 {
                Verdict::Starts
            } else {
                Verdict::Waits
            }
        };
        queue.drain(0, None, verdict, |what, charge| {
            flow = Some(what);
            charges.push(charge);
        });
        flow
    };
    for flow in people.clone() {
        push(&mut queue, flow, 1);
        assert_eq!(start(&mut queue), Some(flow), "it stays in progress");
    }
    push(&mut queue, 1, 200);
    (0..150).for_each(|_| assert_eq!(start(&mut queue), Some(1)));
    for flow in people.clone() {
        push(&mut queue, flow, 60);
    }
    let first = std::iter::repeat_with(|| start(&mut queue));
    let before = first.take_while(|flow| *flow != Some(1)).count();
    let most = people.count() * (KEPT_TURNS as usize + 1);
    assert!(before <= most, "{before} go before the batch job");
}

/// Who had the fleet alone owes nothing to those that come when nobody waits any more.
#[test]
fn a_newcomer_to_an_empty_queue_has_no_credit() {
    let mut queue = Queue::default();
    for _ in 0..100 {
        queue.push(standing(1, 10.0), BOUNDS, "a").unwrap();
        assert_eq!(start(&mut queue, 1, 0, None), ["a"]);
    }
    for _ in 0..10 {
        queue.push(standing(2, 10.0), BOUNDS, "b").unwrap();
    }
    for _ in 0..10 {
        queue.push(standing(1, 10.0), BOUNDS, "a").unwrap();
    }
    let order = start(&mut queue, 8, 0, None);
    let of_old = order.iter().filter(|flow| **flow == "a").count();
    assert!((3..=5).contains(&of_old), "{order:?}");
}

#[test]
fn one_that_cannot_start_holds_up_no_other() {
    let mut queue = Queue::default();
    for at in 0..20 {
        queue.push(standing(1, 1.0), BOUNDS, at).unwrap();
    }
    let (mut seen, mut started) = (Vec::new(), Vec::new());
    queue.drain(
        0,
        None,
        |at| {
            seen.push(*at);
            if *at == 7 {
                Verdict::Starts
            } else {
                Verdict::Waits
            }
        },
        |at, _| started.push(at),
    );
    assert_eq!(started, [7]);
    assert_eq!(
        seen,
        (0..=16).collect::<Vec<_>>(),
        "sixteen are considered, and one started"
    );
}

#[test]
fn bounds() {
    let mut queue = Queue::default();
    let bounds = QueueBounds {
        waiting: 3,
        of_flow: 2,
    };
    queue.push(standing(1, 1.0), bounds, ()).unwrap();
    let second = queue.push(standing(1, 1.0), bounds, ()).unwrap();
    assert_eq!(queue.push(standing(1, 1.0), bounds, ()), Err(Full::Flow));
    queue.push(standing(2, 1.0), bounds, ()).unwrap();
    assert_eq!(queue.push(standing(3, 1.0), bounds, ()), Err(Full::All));
    assert_eq!(queue.remove(second), Some(((), false)));
    assert_eq!(queue.remove(second), None);
    queue.push(standing(3, 1.0), bounds, ()).unwrap();
    let none = QueueBounds {
        waiting: 0,
        of_flow: 2,
    };
    assert_eq!(
        Queue::default().push(standing(1, 1.0), none, ()),
        Err(Full::All)
    );
}

#[test]
fn a_correction_never_lets_a_flow_pass_all_others() {
    let mut queue = Queue::default();
    let mut charges = Vec::new();
    for at in 0..4 {
        queue.push(standing(1, 100.0), BOUNDS, at).unwrap();
        queue.push(standing(2, 100.0), BOUNDS, at).unwrap();
    }
    let mut left = 2;
    queue.drain(
        0,
        None,
        |_| match left {
            0 => Verdict::Waits,
            _ => {
                left -= 1;
                Verdict::Starts
            }
        },
        |_, charge| charges.push(charge),
    );
    let served = |queue: &Queue<i32>, flow| queue.flows[&FlowKey(flow)].served;
    assert_eq!((served(&queue, 1), served(&queue, 2)), (100.0, 100.0));
    // It took less: down to the least of the others at most, and it had as much already.
    queue.settle(&charges[0], 1.0);
    assert_eq!(served(&queue, 1), 100.0);
    queue.settle(&charges[1], 150.0);
    assert_eq!(served(&queue, 2), 150.0);
    queue.settle(&charges[1], 40.0);
    assert_eq!(served(&queue, 2), 100.0, "not below the other");
}

#[test]
fn positions_are_those_of_the_order() {
    let mut queue = Queue::default();
    let mut ids = Vec::new();
    for flow in [1, 1, 1, 2, 3] {
        ids.push(queue.push(standing(flow, 10.0), BOUNDS, flow).unwrap());
    }
    let positions: Vec<_> = ids.iter().map(|id| queue.position(*id, 0, None)).collect();
    assert_eq!(positions, [1, 4, 5, 2, 3]);
}

#[test]
fn the_service_of_idle_flows_is_remembered_within_a_bound() {
    let mut queue = Queue::default();
    for flow in 0..10_000 {
        let standing = QueueStanding {
            since_ms: flow,
            ..standing(flow, 1.0)
        };
        queue.push(standing, BOUNDS, ()).unwrap();
        let mut charges = Vec::new();
        let end = |(), charge| charges.push(charge);
        queue.drain(flow, None, |()| Verdict::Starts, end);
        charges.iter().for_each(|charge| queue.settle(charge, 1.0));
        assert!(queue.flows.len() <= IDLE_FLOWS_MAX);
    }
    assert!(queue.flows.contains_key(&FlowKey(9_999)));
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(300)
    })]

    /// While all flows always have requests waiting, none gets more than another by more than one
    /// request of each.
    #[test]
    fn service_is_fair_to_one_request(
        weights in prop::collection::vec(1_u32..5, 2..6),
        costs in prop::collection::vec(1_u32..100, 100..300),
    ) {
        let mut queue = Queue::default();
        let most = f64::from(*costs.iter().max().unwrap_or(&1));
        let mut served = vec![0.0_f64; weights.len()];
        let mut costs = costs.into_iter().cycle();
        for (flow, weight) in weights.iter().enumerate() {
            for _ in 0..50 {
                let cost = f64::from(costs.next().unwrap_or(1));
                let standing = QueueStanding { weight: *weight, ..standing(flow as u64, cost) };
                queue.push(standing, BOUNDS, (flow, cost)).unwrap();
            }
        }
        for _ in 0..40 {
            for (flow, cost) in start(&mut queue, 1, 0, None) {
                served[flow] += cost / f64::from(weights[flow]);
            }
            for (one, of_one) in served.iter().zip(&weights) {
                for (other, of_other) in served.iter().zip(&weights) {
                    let slack = most / f64::from(*of_one.min(of_other));
                    prop_assert!(one - other <= slack + 1e-6);
                }
            }
        }
    }

    /// A flow that begins to wait beside others gets at most its credit more than any of them, and one
    /// request of each. The credit is one request, or [`KEPT_TURNS`] if it has requests in progress,
    /// and never less than that of a flow that waits already.
    #[test]
    fn a_flow_that_begins_to_wait_passes_the_others_by_its_credit_at_most(
        weights in prop::collection::vec(1_u32..4, 2..7),
        steps in prop::collection::vec((0_usize..7, 1_u32..100, 0_u8..10), 100..600),
    ) {
        let mut model = Backlogs::new(weights);
        for (flow, cost, what) in steps {
            let flow = flow % model.weights.len();
            match what {
                0..5 => model.push(flow, f64::from(cost)),
                5..9 => model.start(),
                _ => model.charges[flow].clear(),
            }
            model.check()?;
        }
    }
}

/// Flows that come and go: what each got since each began to wait.
struct Backlogs {
    weights: Vec<u32>,
    queue: Queue<(usize, f64)>,
    waiting: Vec<usize>,
    /// Service relative to weight.
    served: Vec<f64>,
    /// For each flow that waits, the service of all when it began, and its credit in requests.
    begun: Vec<Option<(Vec<f64>, f64)>>,
    /// Whether a flow has waited since another began.
    has_waited: Vec<Vec<bool>>,
    charges: Vec<Vec<Charge>>,
    most: f64,
}

impl Backlogs {
    fn new(weights: Vec<u32>) -> Self {
        let count = weights.len();
        Self {
            queue: Queue::default(),
            waiting: vec![0; count],
            served: vec![0.0; count],
            begun: vec![None; count],
            has_waited: vec![vec![false; count]; count],
            charges: std::iter::repeat_with(Vec::new).take(count).collect(),
            most: 0.0,
            weights,
        }
    }

    fn push(&mut self, flow: usize, cost: f64) {
        if self.waiting[flow] == 0 {
            let is_active = !self.charges[flow].is_empty();
            let own = if is_active { KEPT_TURNS } else { 1.0 };
            // It is counted from the least of those that wait, with what credit that has.
            let begun = self.begun.iter().flatten();
            let credit = begun.fold(own, |most, (_, credit)| most.max(*credit));
            self.begun[flow] = Some((self.served.clone(), credit));
            self.has_waited[flow] = self.waiting.iter().map(|count| *count > 0).collect();
        }
        self.waiting[flow] += 1;
        self.most = self.most.max(cost / f64::from(self.weights[flow]));
        let standing = QueueStanding {
            weight: self.weights[flow],
            ..standing(flow as u64, cost)
        };
        self.queue.push(standing, BOUNDS, (flow, cost)).unwrap();
    }

    fn start(&mut self) {
        let mut left = 1;
        let mut started = None;
        self.queue.drain(
            0,
            None,
            |_| match left {
                0 => Verdict::Waits,
                _ => {
                    left -= 1;
                    Verdict::Starts
                }
            },
            |what, charge| started = Some((what, charge)),
        );
        let Some(((flow, cost), charge)) = started else {
            return;
        };
        self.charges[flow].push(charge);
        self.served[flow] += cost / f64::from(self.weights[flow]);
        self.waiting[flow] -= 1;
        if self.waiting[flow] == 0 {
            self.begun[flow] = None;
            self.has_waited.iter_mut().for_each(|of| of[flow] = false);
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (flow, begun) in self.begun.iter().enumerate() {
            let Some((before, credit)) = begun else {
                continue;
            };
            let got = |flow: usize| self.served[flow] - before[flow];
            for other in 0..self.weights.len() {
                let more = got(flow) - got(other);
                let most = (credit + 2.0) * self.most;
                let counts = self.has_waited[flow][other];
                prop_assert!(!counts || more <= most + 1e-6, "{more} of {most}");
            }
        }
        Ok(())
    }
}
