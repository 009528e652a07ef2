//! Any form, in any pieces: no panic, the same findings however it is cut, and a rewritten form in
//! which the new name is found.

#![no_main]

use libfuzzer_sys::fuzz_target;
use olla::bench::inspect::{Form, model_name};

fuzz_target!(|input: (&[u8], Vec<u16>, &[u8])| {
    let (content_type, cuts, body) = input;
    let usual = b"multipart/form-data; boundary=X";
    let new = || Form::of(content_type).or_else(|| Form::of(usual)).expect("a form");
    let mut whole = new();
    let findings = whole.finish(body);

    let mut form = new();
    let mut end = 0;
    for cut in cuts {
        end = body.len().min(end + usize::from(cut));
        form.advance(&body[..end]);
    }
    assert_eq!(form.finish(body), findings);

    let Some(found) = findings.model else { return };
    assert!(!model_name(body, &found).is_empty());
    if let Some(splice) = whole.rewrite(body, "new") {
        let body = splice.parts(body).concat();
        let found = new().finish(&body).model.expect("the new name");
        assert_eq!(model_name(&body, &found), "new");
    }
});
