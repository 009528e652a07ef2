//! The environment as a value, so that tests need not change that of the process.

use std::collections::BTreeMap;

/// Environment variables by name. Values may be secrets, so it has no `Debug`.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The variables of this process. Bytes that are not UTF-8 are replaced.
    pub fn process() -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        Self(
            std::env::vars_os()
                .map(|(name, value)| (lossy(name), lossy(value)))
                .collect(),
        )
    }

    /// An environment of these variables only.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The value of a setting; an empty variable counts as unset (docs/contract/operations.md#10),
    /// and so does one that Kubernetes sets for a Service.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.verbatim(name)?;
        (!value.is_empty() && !is_service_link(name, value)).then_some(value)
    }

    /// The value for `${NAME}`, which may be empty.
    pub fn verbatim(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names of the variables that [`Self::get`] has a value for.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.0.keys().map(String::as_str);
        names.filter(|name| self.get(name).is_some())
    }

    /// Names beginning with `OLLA_` that Kubernetes sets in every pod for a Service called `olla`,
    /// `olla-server` and so on.
    pub fn service_links(&self) -> impl Iterator<Item = &str> {
        let links = self
            .0
            .iter()
            .filter(|(name, value)| name.starts_with("OLLA_") && is_service_link(name, value));
        links.map(|(name, _)| name.as_str())
    }
}

/// Whether a variable has the form of those that Kubernetes sets for a Service: for one called
/// `olla` they are `OLLA_SERVICE_HOST`, `OLLA_SERVICE_PORT`, `OLLA_SERVICE_PORT_<NAME>`,
/// `OLLA_PORT=tcp://10.0.0.1:80`, `OLLA_PORT_80_TCP=tcp://10.0.0.1:80` and `OLLA_PORT_80_TCP_ADDR`,
/// `_PORT`, `_PROTO`.
fn is_service_link(name: &str, value: &str) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_url = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let fields = ["_ADDR", "_PORT", "_PROTO"];
    let plain = fields.iter().find_map(|field| name.strip_suffix(field));
    let of_port = [Some(name), plain].into_iter().flatten().any(|name| {
        let port = name.rsplit_once("_PORT_").map(|(_, port)| port);
        port.and_then(|port| port.split_once('_'))
            .is_some_and(|(number, protocol)| {
                number.parse::<u16>().is_ok() && PROTOCOLS.contains(&protocol)
            })
    });
    let of_service = name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_");
    (is_url && name.ends_with("_PORT")) || of_port || of_service
}

/// The variable that `${NAME}` needs and that is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unset(pub(super) String);

/// Replaces `${NAME}` and `${NAME:-default}`; `$NAME` and anything malformed stay as they are. An
/// empty variable takes the default where there is one (docs/contract/operations.md#10).
///
/// # Errors
/// The name of the first variable that is unset and has no default.
pub(super) fn expand(text: &str, env: &Env) -> Result<String, Unset> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let Some((inside, tail)) = after.split_once('}') else {
            rest = &rest[start..];
            break;
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if is_name(name) {
            match (env.verbatim(name), default) {
                (None | Some(""), Some(default)) => out.push_str(default),
                (Some(value), _) => out.push_str(value),
                (None, None) => return Err(Unset(name.to_owned())),
            }
            rest = tail;
        } else {
            out.push_str("${");
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let env = Env::of([("A", "x"), ("EMPTY", ""), ("B_2", "y$z")]);
        let table = [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("${A}", Ok("x")),
            ("a${A}b${B_2}c", Ok("axby$zc")),
            ("$A", Ok("$A")),
            ("${EMPTY}", Ok("")),
            ("${EMPTY:-d}", Ok("d")),
            ("${NONE:-d e}", Ok("d e")),
            ("${NONE:-}", Ok("")),
            ("${A:-d}", Ok("x")),
            ("${NONE}", Err("NONE")),
            ("${A}${NONE}", Err("NONE")),
            ("${A", Ok("${A")),
            ("${}", Ok("${}")),
            ("${a b}${A}", Ok("${a b}x")),
            ("${1}", Ok("${1}")),
        ];
        for (text, want) in table {
            let got = expand(text, &env);
            assert_eq!(
                got.as_deref().map_err(|unset| unset.0.as_str()),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn what_kubernetes_sets_for_a_service_sets_nothing() {
        let links = [
            ("OLLA_PORT", "tcp://10.0.0.1:40114"),
            ("OLLA_PORT_40114_TCP", "tcp://10.0.0.1:40114"),
            ("OLLA_PORT_40114_TCP_ADDR", "10.0.0.1"),
            ("OLLA_PORT_40114_TCP_PORT", "40114"),
            ("OLLA_PORT_40114_TCP_PROTO", "tcp"),
            ("OLLA_SERVER_PORT", "tcp://10.0.0.1:40114"),
            ("OLLA_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("OLLA_SERVER_SERVICE_PORT", "40114"),
            ("OLLA_SERVER_SERVICE_PORT_HTTP", "40114"),
            ("OLLA_SERVER_PORT_53_UDP", "udp://10.0.0.1:53"),
        ];
        let env = Env::of(links);
        assert_eq!(env.names().count(), 0);
        let names: Vec<_> = links.iter().map(|(name, _)| *name).collect();
        let mut found: Vec<_> = env.service_links().collect();
        found.sort_by_key(|name| names.iter().position(|other| other == name));
        assert_eq!(found, names);
        assert_eq!(env.get("OLLA_SERVER_PORT"), None);
        assert_eq!(env.verbatim("OLLA_SERVER_PORT"), Some(links[5].1));
        let settings = [
            ("OLLA_SERVER_PORT", "8080"),
            ("OLLA_SERVER_PORT", "http"),
            ("OLLA_SERVER_HOST", "tcp://x"),
            ("OLLA_CONFIG_FILE", "x"),
        ];
        for setting in settings {
            assert_eq!(Env::of([setting]).names().count(), 1, "{setting:?}");
        }
    }

    #[test]
    fn an_empty_variable_sets_nothing() {
        let env = Env::of([("A", ""), ("B", "1")]);
        assert_eq!((env.get("A"), env.get("B")), (None, Some("1")));
        assert_eq!(env.verbatim("A"), Some(""));
        assert_eq!(env.names().collect::<Vec<_>>(), ["B"]);
    }
}
