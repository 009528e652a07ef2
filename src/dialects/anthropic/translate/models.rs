//! The model list in Anthropic's shape (docs/contract/translation.md#12).

use crate::json::write_string;

/// The body of `GET …/models`: these names in this order. `created_at` is RFC 3339, the same for
/// all and for the life of the process.
pub(crate) fn models<'a>(names: impl IntoIterator<Item = &'a str>, created_at: &str) -> Vec<u8> {
    let mut out = br#"{"data":["#.to_vec();
    let mut first = None;
    let mut last = None;
    for name in names {
        if first.is_some() {
            out.push(b',');
        }
        write_model(name, created_at, &mut out);
        first = first.or(Some(name));
        last = Some(name);
    }
    out.extend_from_slice(br#"],"has_more":false"#);
    for (key, name) in [(&br#","first_id":"#[..], first), (br#","last_id":"#, last)] {
        out.extend_from_slice(key);
        match name {
            Some(name) => write_string(name, &mut out),
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    out
}

/// The body of `GET …/models/{id}`.
pub(crate) fn model(name: &str, created_at: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + 2 * name.len());
    write_model(name, created_at, &mut out);
    out
}

fn write_model(name: &str, created_at: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"type":"model","id":"#);
    write_string(name, out);
    out.extend_from_slice(br#","display_name":"#);
    write_string(name, out);
    out.extend_from_slice(br#","created_at":"#);
    write_string(created_at, out);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "2026-11-24T13:00:00Z";

    #[test]
    fn lists() {
        let list = |names: &[&str]| String::from_utf8(models(names.iter().copied(), AT)).unwrap();
        assert_eq!(
            list(&[]),
            r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#
        );
        assert_eq!(
            list(&["org/b:1", "a\"b"]),
            concat!(
                r#"{"data":[{"type":"model","id":"org/b:1","display_name":"org/b:1","#,
                r#""created_at":"2026-11-24T13:00:00Z"},{"type":"model","id":"a\"b","#,
                r#""display_name":"a\"b","created_at":"2026-11-24T13:00:00Z"}],"#,
                r#""has_more":false,"first_id":"org/b:1","last_id":"a\"b"}"#
            )
        );
    }

    #[test]
    fn one() {
        assert_eq!(
            String::from_utf8(model("m", AT)).unwrap(),
            r#"{"type":"model","id":"m","display_name":"m","created_at":"2026-11-24T13:00:00Z"}"#
        );
    }
}
