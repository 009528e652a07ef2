//! Any body, in any pieces: no panic, the same findings however it is cut, and a rewritten body in
//! which the new name is found.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::inspect::{Inspector, Wanted, model_name, rewrite_model};
use olla::bench::schedule::{BLOCK_BYTES, Prompt, SHARED_SEED};

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let wanted = Wanted {
        name_key: flags & 1 != 0,
        vision: flags & 4 != 0,
        tally: flags & 8 != 0,
        prompt: flags & 16 != 0,
    };
    let findings = Inspector::new(wanted).finish(body);

    let mut inspector = Inspector::new(wanted);
    let mut end = 0;
    for cut in cuts {
        end = body.len().min(end + usize::from(cut));
        inspector.advance(&body[..end]);
    }
    assert_eq!(inspector.finish(body), findings);

    let mut hashes = Vec::new();
    let prompt = Prompt::read(body, &findings, SHARED_SEED, &mut hashes);
    assert!(hashes.len() * BLOCK_BYTES <= body.len());
    let (matched, rest) = prompt.tokens(hashes.len(), 4.0);
    assert_eq!(prompt.tokens(0, 4.0), (0, matched + rest));

    let Some(found) = findings.model else { return };
    let name = model_name(body, &found);
    assert!(!name.is_empty() && name.trim() == name);

    if let Some(splice) = rewrite_model(&found, "\"new\"\\") {
        let body = splice.parts(body).concat();
        let found = Inspector::new(wanted)
            .finish(&body)
            .model
            .expect("the new name");
        assert_eq!(model_name(&body, &found), "\"new\"\\");
    }
});
