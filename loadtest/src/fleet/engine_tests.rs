use super::*;
use crate::fleet::scenario::Kind;

/// 1000 prompt tokens a second and 10 ms for an output token, so that times are easy to add up.
fn spec() -> EngineSpec {
    EngineSpec {
        count: 1,
        kind: Kind::Vllm,
        models: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
        slots: 2,
        prefill_tps: 1000.0,
        decode_ms: 10.0,
        decode_ms_each: 0.0,
        cache_tokens: 32 * 100,
        loaded_max: None,
        load_ms: 500.0,
        refuse_while_loading: false,
        context_length: 1000,
        early_head: false,
        slow_from_s: 0.0,
        slow_until_s: 0.0,
        slow_factor: 1.0,
        lies: Vec::new(),
        noise: None,
    }
}

/// A request for `blocks` blocks that share the first `shared` ones with each other request.
fn job(model: usize, id: u64, shared: usize, blocks: usize, output_tokens: u64) -> Job {
    let mut prompt = Chain::new(model);
    for block in 0..blocks {
        let owner = if block < shared { 0 } else { id };
        prompt.push(format!("{owner:064}{block:064}").as_bytes());
    }
    Job {
        model,
        prompt,
        output_tokens,
    }
}

/// What comes in: (milliseconds, request), and the time of leaving.
enum In {
    Job(u64, Job),
    Leave(u64),
}

/// The engine over time; lines like `102 1 first`, with times in milliseconds.
fn history(engine: &mut Engine, mut inputs: Vec<(u64, In)>) -> Vec<String> {
    inputs.reverse();
    let mut lines = Vec::new();
    let mut begun = Vec::new();
    loop {
        let next_in = inputs.last().map(|(ms, _)| ms * NS_PER_MS);
        let now = match (next_in, engine.next_due()) {
            (Some(at), Some(due)) if due <= at => due,
            (Some(at), _) => at,
            (None, Some(due)) => due,
            (None, None) => return lines,
        };
        if engine.next_due() == Some(now) {
            engine.step();
        } else {
            match inputs.pop() {
                Some((_, In::Job(id, job))) => engine.arrive(now, id, job),
                Some((_, In::Leave(id))) => engine.leave(now, id),
                None => return lines,
            }
        }
        for Output { id, what } in engine.take_outputs() {
            let what = match what {
                What::Piece(_) if begun.contains(&id) => continue,
                What::Piece(_) => {
                    begun.push(id);
                    "first".to_owned()
                }
                What::Refused => "refused".to_owned(),
                What::Done(usage) => format!("done {}", usage.cached_tokens),
            };
            lines.push(format!("{} {id} {what}", now / NS_PER_MS));
        }
    }
}

fn engine(change: impl FnOnce(&mut EngineSpec)) -> Engine {
    let mut spec = spec();
    change(&mut spec);
    Engine::new(&spec, 0.0, 1, 0)
}

#[test]
fn prefill_is_serial_and_slots_go_in_order_of_arrival() {
    // 10 blocks are 320 tokens: 320 ms and 2 ms more.
    let inputs = (1..=3)
        .map(|id| (0, In::Job(id, job(0, id, 0, 10, 11))))
        .collect();
    let lines = history(&mut engine(|_| {}), inputs);
    let want = [
        "322 1 first",
        "422 1 done 0",
        "644 2 first",
        "744 2 done 0",
        // It got the slot at 422 and the prefill at 644.
        "966 3 first",
        "1066 3 done 0",
    ];
    assert_eq!(lines, want);
}

#[test]
fn what_the_cache_has_is_not_computed_again() {
    let inputs = vec![
        (0, In::Job(1, job(0, 1, 8, 10, 1))),
        (400, In::Job(2, job(0, 2, 8, 10, 1))),
        // Another model has nothing of it.
        (500, In::Job(3, job(1, 3, 8, 10, 1))),
    ];
    let lines = history(&mut engine(|_| {}), inputs);
    let want = [
        "322 1 first",
        "322 1 done 0",
        "466 2 first",
        "466 2 done 256",
        "822 3 first",
        "822 3 done 0",
    ];
    assert_eq!(lines, want);
}

#[test]
fn a_cache_of_ten_blocks_forgets() {
    let inputs = vec![
        (0, In::Job(1, job(0, 1, 0, 8, 1))),
        (400, In::Job(2, job(0, 2, 0, 8, 1))),
        (800, In::Job(1001, job(0, 1, 0, 8, 1))),
    ];
    let lines = history(&mut engine(|spec| spec.cache_tokens = 320), inputs);
    assert_eq!(lines[5], "1058 1001 done 0");
}

#[test]
fn the_output_is_cached_for_the_next_turn() {
    let mut engine = engine(|_| {});
    engine.arrive(0, 1, job(0, 1, 0, 4, 62));
    let mut next = job(0, 1, 0, 4, 1);
    let mut reply = String::new();
    while engine.next_due().is_some() {
        engine.step();
        for output in engine.take_outputs() {
            if let What::Piece(text) = output.what {
                reply.push_str(&text);
            }
        }
    }
    assert_eq!(reply.len(), 62 * TOKEN_BYTES);
    next.prompt.push_message("assistant", &reply);
    next.prompt.push_message("user", "and then?");
    engine.arrive(NS_PER_S * 2, 2, next);
    engine.step();
    let usage = engine.counts(NS_PER_S * 3).usage;
    // 128 tokens of prompt, then 11 bytes and 248 of output fill two more blocks.
    assert_eq!(usage.cached_tokens, 128 + 64);
}

#[test]
fn decoding_slows_down_with_the_slots_in_use() {
    let inputs = vec![
        (0, In::Job(1, job(0, 1, 0, 1, 41))),
        // It holds its slot from 100 on.
        (100, In::Job(2, job(0, 2, 0, 1, 1))),
    ];
    let lines = history(&mut engine(|spec| spec.decode_ms_each = 10.0), inputs);
    // 1: 34 ms of prefill, then four pieces of 10 tokens. 2 is there from 100 until 134, when the
    // second piece is planned: it takes 200 ms instead of 100.
    let want = ["34 1 first", "134 2 first", "134 2 done 0", "534 1 done 0"];
    assert_eq!(lines, want);
}

#[test]
fn an_output_leaves_in_five_pieces() {
    for (total, want) in [
        (1, &[1][..]),
        (2, &[1, 2]),
        (5, &[1, 2, 3, 4, 5]),
        (60, &[1, 15, 30, 45, 60]),
        (61, &[1, 16, 31, 46, 61]),
    ] {
        let mut ends = vec![1];
        while ends[ends.len() - 1] < total {
            ends.push(next_piece(ends[ends.len() - 1], total));
        }
        assert_eq!(ends, want, "{total}");
    }
}

#[test]
fn models_are_loaded_one_at_a_time_and_waited_for() {
    let inputs = vec![
        (0, In::Job(1, job(0, 1, 0, 1, 1))),
        (0, In::Job(2, job(1, 2, 0, 1, 1))),
        // A slot is free at 534; a is in memory until b needs the room.
        (600, In::Job(3, job(0, 3, 0, 1, 1))),
        (1200, In::Job(4, job(0, 4, 0, 1, 1))),
    ];
    let mut one = engine(|spec| spec.loaded_max = Some(2));
    let lines = history(&mut one, inputs);
    let want = [
        "534 1 first",
        "534 1 done 0",
        "634 3 first",
        "634 3 done 0",
        "1034 2 first",
        "1034 2 done 0",
        "1234 4 first",
        "1234 4 done 0",
    ];
    assert_eq!(lines, want);
    assert_eq!(one.loads(), 2);
    let inputs = vec![
        (0, In::Job(1, job(0, 1, 0, 1, 101))),
        // It takes the room of a, which is in use until 1534.
        (600, In::Job(2, job(1, 2, 0, 1, 1))),
    ];
    let lines = history(&mut engine(|spec| spec.loaded_max = Some(1)), inputs);
    assert_eq!(
        lines[1..],
        ["1534 1 done 0", "2068 2 first", "2068 2 done 0"]
    );
}

#[test]
fn a_refusal_starts_the_load() {
    let inputs = [0, 100, 500, 600].map(|ms| (ms, In::Job(ms + 1, job(0, 1, 0, 1, 1))));
    let mut one = engine(|spec| {
        spec.loaded_max = Some(1);
        spec.refuse_while_loading = true;
    });
    let lines = history(&mut one, Vec::from(inputs));
    let want = [
        "0 1 refused",
        "100 101 refused",
        "534 501 first",
        "534 501 done 0",
        "602 601 first",
        "602 601 done 32",
    ];
    assert_eq!(lines, want);
    assert_eq!((one.loads(), one.counts(0).refused), (1, 2));
}

#[test]
fn a_client_that_leaves_frees_everything() {
    let long = |id| In::Job(id, job(0, id, 0, 10, 101));
    let table = [
        // In prefill: the next prefill begins at once, and the third request gets the slot.
        (
            1,
            100,
            [
                "422 2 first",
                "744 3 first",
                "1422 2 done 0",
                "1744 3 done 0",
            ],
        ),
        // Before its prefill.
        (
            2,
            100,
            [
                "322 1 first",
                "644 3 first",
                "1322 1 done 0",
                "1644 3 done 0",
            ],
        ),
        // Without a slot.
        (
            3,
            100,
            [
                "322 1 first",
                "644 2 first",
                "1322 1 done 0",
                "1644 2 done 0",
            ],
        ),
    ];
    for (leaver, at, want) in table {
        let inputs = vec![
            (0, long(1)),
            (0, long(2)),
            (0, long(3)),
            (at, In::Leave(leaver)),
        ];
        let mut one = engine(|_| {});
        assert_eq!(history(&mut one, inputs), want, "{leaver}");
        assert_eq!((one.running(), one.waiting(), one.works.len()), (0, 0, 0));
        assert_eq!(one.counts(0).left, 1);
    }
    // While it decodes.
    let inputs = vec![
        (0, long(1)),
        (0, long(2)),
        (0, long(3)),
        (700, In::Leave(1)),
    ];
    let lines = history(&mut engine(|_| {}), inputs);
    assert_eq!(lines[2], "1022 3 first");
}

#[test]
fn the_last_to_leave_withdraws_a_load_that_has_not_begun() {
    let inputs = vec![
        (0, In::Job(1, job(0, 1, 0, 1, 1))),
        (0, In::Job(2, job(1, 2, 0, 1, 1))),
        (100, In::Leave(2)),
    ];
    let mut one = engine(|spec| spec.loaded_max = Some(1));
    history(&mut one, inputs);
    assert_eq!(one.loads(), 1);
}

#[test]
fn prefill_is_slower_within_its_window() {
    let inputs = [0, 2000, 5000].map(|ms| (ms, In::Job(ms + 1, job(0, ms, 0, 10, 1))));
    let mut one = engine(|spec| {
        (spec.slow_from_s, spec.slow_until_s, spec.slow_factor) = (1.0, 3.0, 4.0);
    });
    let lines = history(&mut one, Vec::from(inputs));
    let firsts: Vec<_> = lines.iter().step_by(2).collect();
    assert_eq!(
        firsts,
        ["322 1 first", "3282 2001 first", "5322 5001 first"]
    );
}

#[test]
fn noise_varies_prefill_alike_for_the_same_seed() {
    let firsts = |seed| {
        let mut one = Engine::new(&spec(), 0.7, seed, 0);
        let inputs = (0..20)
            .map(|id| (id * 10_000, In::Job(id, job(0, id, 0, 10, 1))))
            .collect();
        history(&mut one, inputs)
    };
    assert_eq!(firsts(1), firsts(1));
    assert_ne!(firsts(1), firsts(2));
}

#[test]
fn counts_begin_with_the_load() {
    let mut one = engine(|_| {});
    one.arrive(0, 1, job(0, 1, 0, 1, 1));
    one.begin(NS_PER_MS);
    one.step();
    one.arrive(1200 * NS_PER_MS, 2, job(0, 2, 0, 1, 1));
    one.step();
    let counts = one.counts(1300 * NS_PER_MS);
    assert_eq!((counts.requests, counts.completed), (1, 2));
    assert_eq!(counts.by_second, [0, 1]);
    assert_eq!(counts.running.at(2), Some(1));
    assert_eq!(counts.running.at(4), Some(0));
}
