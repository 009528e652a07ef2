//! The list of loaded models, merged of what several endpoints say.
//!
//! Contract: docs/contract/dialects.md#11.3

use rustc_hash::FxHashMap;

use crate::json::{self, JsonKind, JsonText, JsonValue, write_string};

/// Models of one list that are shown.
const MODELS_MAX: usize = 1024;

/// Loaded models, one for each name, in the order in which they are added.
#[derive(Debug, Default)]
pub(crate) struct RunningModels {
    by_name: FxHashMap<Box<str>, usize>,
    models: Vec<RunningModel>,
}

#[derive(Debug)]
struct RunningModel {
    /// A JSON object without its closing bracket and without a list of endpoints.
    item: Vec<u8>,
    endpoints: Vec<Box<str>>,
}

impl RunningModels {
    /// Adds what an endpoint of Ollama's said, except for names that are not admitted. What is no
    /// list of models is left out.
    pub(crate) fn add_list(&mut self, endpoint: &str, list: &[u8], admits: &dyn Fn(&str) -> bool) {
        let Some(models) = json::parse(list).and_then(|list| list.field("models")) else {
            return;
        };
        for model in models.elements().take(MODELS_MAX) {
            let [name, other] = model.fields(["name", "model"]);
            let name = name.and_then(JsonValue::string);
            let Some(name) = name.or(other.and_then(JsonValue::string)) else {
                continue;
            };
            let name = JsonText::decode(name);
            if name.is_empty() || !admits(&name) {
                continue;
            }
            self.add(&name, &[endpoint], &without_endpoints(model));
        }
    }

    /// Adds a model, or endpoints of one that is known. `item` is a JSON object.
    pub(crate) fn add(&mut self, name: &str, endpoints: &[&str], item: &[u8]) {
        let at = match self.by_name.get(name) {
            Some(at) => *at,
            None => {
                self.by_name.insert(name.into(), self.models.len());
                self.models.push(RunningModel {
                    item: item.strip_suffix(b"}").unwrap_or(item).to_vec(),
                    endpoints: Vec::new(),
                });
                self.models.len() - 1
            }
        };
        let Some(model) = self.models.get_mut(at) else {
            return;
        };
        for endpoint in endpoints {
            if !model.endpoints.iter().any(|known| **known == **endpoint) {
                model.endpoints.push((*endpoint).into());
            }
        }
    }

    /// The response.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut out = br#"{"models":["#.to_vec();
        for (at, model) in self.models.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&model.item);
            if !model.item.ends_with(b"{") {
                out.push(b',');
            }
            out.extend_from_slice(br#""endpoints":["#);
            for (at, endpoint) in model.endpoints.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(endpoint, &mut out);
            }
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// An item as the endpoint wrote it, without a member of the name that the gateway adds.
fn without_endpoints(model: JsonValue<'_>) -> Vec<u8> {
    if model.field("endpoints").is_none() || !model.is(JsonKind::Object) {
        return model.raw().to_vec();
    }
    let mut out = vec![b'{'];
    for (key, value) in model.members() {
        if key.is("endpoints") {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        write_string(&key.decode(), &mut out);
        out.push(b':');
        out.extend_from_slice(value.raw());
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(lists: &[(&str, &str)]) -> String {
        let mut models = RunningModels::default();
        for (endpoint, list) in lists {
            models.add_list(endpoint, list.as_bytes(), &|name| name != "hidden");
        }
        models.add("v", &["w", "x"], br#"{"name":"v"}"#);
        models.add("a", &["w"], br#"{"name":"a","other":1}"#);
        let merged = models.finish();
        assert!(json::parse(&merged).is_some());
        String::from_utf8(merged).unwrap()
    }

    #[test]
    fn a_name_is_listed_once() {
        let own = r#"{"name":"v","endpoints":["w","x"]}"#;
        let rows = [
            ("not JSON", String::new()),
            (r#"{"models":7}"#, String::new()),
            (
                r#"{"models":[7,{},{"name":""},{"name":"hidden"}]}"#,
                String::new(),
            ),
            (
                r#"{"models":[{"name":"a" , "size":1.50}]}"#,
                r#"{"name":"a" , "size":1.50,"endpoints":["e","f","w"]}"#.to_owned(),
            ),
            (
                r#"{"models":[{"model":"\u0061","endpoints":[1],"n":{"endpoints":2}}]}"#,
                r#"{"model":"\u0061","n":{"endpoints":2},"endpoints":["e","f","w"]}"#.to_owned(),
            ),
        ];
        for (list, item) in rows {
            let expected = if item.is_empty() {
                format!(r#"{{"models":[{own},{{"name":"a","other":1,"endpoints":["w"]}}]}}"#)
            } else {
                format!(r#"{{"models":[{item},{own}]}}"#)
            };
            assert_eq!(merged(&[("e", list), ("f", list)]), expected, "{list}");
        }
    }
}
