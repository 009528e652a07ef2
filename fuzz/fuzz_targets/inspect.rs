//! Any body, in any pieces: no panic, the same findings however it is cut, and a rewritten body in
//! which the new name is found.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::inspect::{Inspector, Wanted, model_name, rewrite_model};

fuzz_target!(|input: (u8, Vec<u16>, &[u8])| {
    let (flags, cuts, body) = input;
    let wanted = Wanted {
        name_key: flags & 1 != 0,
        prefix_bytes: (flags & 2 != 0).then_some(usize::from(flags >> 4)),
        vision: flags & 4 != 0,
        tally: flags & 8 != 0,
    };
    let findings = Inspector::new(wanted).finish(body);

    let mut inspector = Inspector::new(wanted);
    let mut end = 0;
    for cut in cuts {
        end = body.len().min(end + usize::from(cut));
        inspector.advance(&body[..end]);
    }
    assert_eq!(inspector.finish(body), findings);

    if let Some(prefix) = findings.prefix {
        assert!(prefix.end <= body.len() && !prefix.is_empty());
    }
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
