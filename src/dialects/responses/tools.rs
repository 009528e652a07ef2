//! Tools and the choice among them (docs/contract/dialects.md#7).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::names::{ClientTool, NamePrefix, ToolKind, ToolNames, sent_name};
use crate::dialects::chat::error::{Refusal, invalid};
use crate::json::{self, JsonKind, JsonText, JsonValue};

/// The parameters of a tool that names none.
const NO_PARAMETERS: &[u8] = br#"{"type":"object","properties":{}}"#;

/// Those of a tool that takes text.
const TEXT_PARAMETERS: &[u8] = br#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#;

/// The name of the tool that runs commands.
pub(super) const LOCAL_SHELL: &str = "local_shell";

const SHELL_PARAMETERS: &[u8] = br#"{"type":"object","properties":{"command":{"type":"array","items":{"type":"string"}},"working_directory":{"type":"string"},"timeout_ms":{"type":"integer"},"env":{"type":"object","additionalProperties":{"type":"string"}}},"required":["command"]}"#;

/// The tools of a request, as an endpoint gets them.
#[derive(Debug, Default)]
pub(super) struct OfferedTools {
    /// What the calls in the response are read by.
    pub(super) names: ToolNames,
    /// The JSON text of each, in the order of the names.
    written: Vec<Vec<u8>>,
    /// The names of those that nobody can run.
    pub(super) dropped: Vec<String>,
}

impl OfferedTools {
    /// Reads `tools`, of which [`super::request`] has seen that it is an array of objects.
    pub(super) fn read(tools: Option<JsonValue<'_>>) -> Result<Self, Refusal> {
        let mut offered = Self::default();
        let plain = Namespace::of(None);
        for tool in tools.into_iter().flat_map(JsonValue::elements) {
            let kind = tool.string_field("type");
            if kind.is_some_and(|kind| kind.is("namespace")) {
                offered.namespace(tool)?;
            } else {
                offered.tool(tool, &plain)?;
            }
        }
        Ok(offered)
    }

    fn namespace(&mut self, tool: JsonValue<'_>) -> Result<(), Refusal> {
        let [name, members] = tool.given(["name", "tools"]);
        let namespace = Namespace::of(Some(&name_of(name)?.decode()));
        for member in members.into_iter().flat_map(JsonValue::elements) {
            self.tool(member, &namespace)?;
        }
        Ok(())
    }

    fn tool(&mut self, tool: JsonValue<'_>, namespace: &Namespace) -> Result<(), Refusal> {
        let kind = tool.string_field("type");
        let kind = kind.map_or("function".into(), JsonText::decode);
        let kind = match kind.as_ref() {
            "function" => ToolKind::Function,
            "custom" => ToolKind::Custom,
            LOCAL_SHELL if namespace.name.is_none() => ToolKind::LocalShell,
            other => {
                self.dropped.push(format!("tools.{other}"));
                return Ok(());
            }
        };
        // The form of chat completions has the members one level down.
        let inner = tool
            .field("function")
            .filter(|_| kind == ToolKind::Function);
        let inner = inner.filter(|inner| inner.is(JsonKind::Object));
        let definition = inner.unwrap_or(tool);
        let name = match kind {
            ToolKind::LocalShell => LOCAL_SHELL.to_owned(),
            _ => name_of(definition.field("name"))?.decode().into_owned(),
        };
        let tool = ClientTool {
            sent: namespace.prefix.sent(&name),
            kind,
            name,
            namespace: namespace.name.clone(),
        };
        let written = write_tool(&tool, definition);
        let dropped = format!("tools.{}", tool.sent);
        if self.names.add(tool) {
            self.written.push(written);
        } else {
            self.dropped.push(dropped);
        }
        Ok(())
    }

    /// Bytes of names, descriptions and schemas, for estimates.
    pub(super) fn bytes(&self) -> u64 {
        let of_tool = |written: &Vec<u8>| {
            let function = json::parse(written)?.field("function")?;
            let [name, description, parameters] =
                function.fields(["name", "description", "parameters"]);
            let text = |value: Option<JsonValue<'_>>| {
                value.and_then(JsonValue::string).map_or(0, JsonText::len)
            };
            let schema = parameters.map_or(0, |parameters| parameters.raw().len());
            Some(text(name) + text(description) + schema)
        };
        let bytes: usize = self.written.iter().filter_map(of_tool).sum();
        bytes as u64
    }

    /// Appends `tools`, `tool_choice` and `parallel_tool_calls`, as far as there are tools.
    pub(super) fn write(
        &self,
        choice: Option<JsonValue<'_>>,
        parallel: Option<JsonValue<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let choice = Choice::read(choice, &self.names)?;
        let is_sent = |at: &usize| match &choice {
            Choice::Allowed(_, allowed) => allowed.contains(at),
            _ => true,
        };
        let sent: Vec<_> = (0..self.written.len()).filter(is_sent).collect();
        if sent.is_empty() {
            return Ok(());
        }
        out.extend_from_slice(br#","tools":["#);
        for (nth, at) in sent.into_iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(self.written.get(at).map_or(&[][..], Vec::as_slice));
        }
        out.push(b']');
        match choice {
            Choice::Absent => {}
            Choice::Mode(mode) | Choice::Allowed(mode, _) => {
                out.extend_from_slice(br#","tool_choice":"#);
                json::write_string(mode, out);
            }
            Choice::Tool(at) => {
                let name = self.names.get(at).map_or("", |tool| tool.sent.as_str());
                out.extend_from_slice(br#","tool_choice":{"type":"function","function":{"name":"#);
                json::write_string(name, out);
                out.extend_from_slice(b"}}");
            }
        }
        if let Some(parallel) = parallel {
            out.extend_from_slice(br#","parallel_tool_calls":"#);
            parallel.write_compact(out);
        }
        Ok(())
    }
}

/// Where tools are listed.
struct Namespace {
    /// `None` = in no namespace.
    name: Option<Arc<str>>,
    prefix: NamePrefix,
}

impl Namespace {
    fn of(name: Option<&str>) -> Self {
        Self {
            name: name.map(Arc::from),
            prefix: NamePrefix::of(name),
        }
    }
}

fn name_of(name: Option<JsonValue<'_>>) -> Result<JsonText<'_>, Refusal> {
    let name = name.and_then(JsonValue::string);
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| invalid("tools", "expected a name for each tool"))
}

/// A tool in the form of chat completions.
fn write_tool(tool: &ClientTool, definition: JsonValue<'_>) -> Vec<u8> {
    let [description, parameters, strict, format] =
        definition.given(["description", "parameters", "strict", "format"]);
    let mut out = br#"{"type":"function","function":{"name":"#.to_vec();
    json::write_string(&tool.sent, &mut out);
    let description = description.and_then(JsonValue::string);
    let grammar = format.filter(|_| tool.kind == ToolKind::Custom);
    write_description(description, grammar.and_then(grammar_of), &mut out);
    out.extend_from_slice(br#","parameters":"#);
    match (tool.kind, parameters) {
        (ToolKind::Function, Some(parameters)) => parameters.write_compact(&mut out),
        (ToolKind::Function, None) => out.extend_from_slice(NO_PARAMETERS),
        (ToolKind::Custom, _) => out.extend_from_slice(TEXT_PARAMETERS),
        (ToolKind::LocalShell, _) => out.extend_from_slice(SHELL_PARAMETERS),
    }
    if let Some(strict) = strict.filter(|_| tool.kind == ToolKind::Function) {
        out.extend_from_slice(br#","strict":"#);
        strict.write_compact(&mut out);
    }
    out.extend_from_slice(b"}}");
    out
}

/// A grammar as a model can be told of it: its syntax and its definition.
type Grammar<'a> = (JsonText<'a>, JsonText<'a>);

fn grammar_of(format: JsonValue<'_>) -> Option<Grammar<'_>> {
    let is_grammar = format.string_field("type")?.is("grammar");
    let [syntax, definition] = format.given(["syntax", "definition"]);
    let grammar = (syntax?.string()?, definition?.string()?);
    is_grammar.then_some(grammar)
}

fn write_description(
    description: Option<JsonText<'_>>,
    grammar: Option<Grammar<'_>>,
    out: &mut Vec<u8>,
) {
    if description.is_none() && grammar.is_none() {
        return;
    }
    out.extend_from_slice(br#","description":""#);
    if let Some(description) = description {
        description.write(out);
    }
    if let Some((syntax, definition)) = grammar {
        if description.is_some_and(|description| !description.is_empty()) {
            out.extend_from_slice(br"\n\n");
        }
        out.extend_from_slice(b"The input must match this ");
        syntax.write(out);
        out.extend_from_slice(br" grammar:\n");
        definition.write(out);
    }
    out.push(b'"');
}

/// What `tool_choice` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Absent,
    Mode(&'static str),
    /// The tool at this place.
    Tool(usize),
    /// Those at these places, by this mode.
    Allowed(&'static str, BTreeSet<usize>),
}

impl Choice {
    fn read(choice: Option<JsonValue<'_>>, names: &ToolNames) -> Result<Self, Refusal> {
        let Some(choice) = choice else {
            return Ok(Self::Absent);
        };
        let invalid = |problem| invalid("tool_choice", problem);
        if let Some(mode) = choice.string() {
            return mode_of(mode, &["auto", "none", "required"])
                .map(Self::Mode)
                .ok_or_else(|| invalid("expected auto, none, required or an object"));
        }
        if !choice
            .string_field("type")
            .is_some_and(|kind| kind.is("allowed_tools"))
        {
            return chosen(choice, names)
                .map(Self::Tool)
                .ok_or_else(|| invalid("expected a tool that is sent to the model's endpoint"));
        }
        let [mode, tools] = choice.given(["mode", "tools"]);
        let mode = mode.and_then(JsonValue::string);
        let mode = mode
            .and_then(|mode| mode_of(mode, &["auto", "required"]))
            .ok_or_else(|| invalid("expected the mode auto or required"))?;
        let tools = tools.into_iter().flat_map(JsonValue::elements);
        let allowed: Option<BTreeSet<_>> = tools.map(|tool| chosen(tool, names)).collect();
        allowed
            .map(|allowed| Self::Allowed(mode, allowed))
            .ok_or_else(|| invalid("expected tools that are sent to the model's endpoint"))
    }
}

fn mode_of(mode: JsonText<'_>, modes: &[&'static str]) -> Option<&'static str> {
    modes.iter().copied().find(|known| mode.is(known))
}

/// The place of the tool that a choice names.
fn chosen(choice: JsonValue<'_>, names: &ToolNames) -> Option<usize> {
    let [kind, name, namespace] = choice
        .given(["type", "name", "namespace"])
        .map(|field| field.and_then(JsonValue::string));
    let sent = match kind?.decode().as_ref() {
        LOCAL_SHELL => LOCAL_SHELL.to_owned(),
        "function" | "custom" => {
            let namespace = namespace.map(JsonText::decode);
            sent_name(namespace.as_deref(), &name?.decode())
        }
        _ => return None,
    };
    names.position(&sent)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn offered(tools: &Value) -> Result<OfferedTools, Refusal> {
        let text = tools.to_string();
        OfferedTools::read(json::parse(text.as_bytes()))
    }

    /// What is sent of tools with a choice.
    fn sent(tools: &Value, choice: &Value) -> Result<Value, Refusal> {
        let choice = choice.to_string();
        let choice = json::parse(choice.as_bytes()).filter(|choice| !choice.is(JsonKind::Null));
        let mut out = b"{\"\":0".to_vec();
        offered(tools)?.write(choice, json::parse(b"false"), &mut out)?;
        out.push(b'}');
        let mut sent: Value = serde_json::from_slice(&out).unwrap();
        sent.as_object_mut().unwrap().remove("");
        Ok(sent)
    }

    #[test]
    fn a_long_namespace_is_there_once() {
        let name = "n".repeat(100_000);
        let members: Vec<Value> = (0..2_000)
            .map(|at| json!({"name": at.to_string()}))
            .collect();
        let tools = json!([{"type": "namespace", "name": name, "tools": members}]);
        let names = offered(&tools).unwrap().names;
        let member = |at| {
            names
                .get(at)
                .and_then(|tool| tool.namespace.clone())
                .unwrap()
        };
        let first = member(0);
        assert_eq!(&*first, name);
        assert!((1..2_000).all(|at| Arc::ptr_eq(&first, &member(at))));
        let sent = names.get(7).map(|tool| tool.sent.as_str());
        assert_eq!(sent, Some(&*sent_name(Some(&name), "7")));
    }

    #[test]
    fn each_kind_becomes_a_function() {
        let text = json!({"type": "object", "properties": {"input": {"type": "string"}},
                          "required": ["input"], "additionalProperties": false});
        let none = json!({"type": "object", "properties": {}});
        let shell: Value = serde_json::from_slice(SHELL_PARAMETERS).unwrap();
        let long = "n".repeat(70);
        for (tool, function) in [
            (
                json!({"type": "function", "name": "f", "description": "d", "strict": true,
                       "parameters": {"type": "object"}, "defer_loading": true}),
                json!({"name": "f", "description": "d", "parameters": {"type": "object"},
                       "strict": true}),
            ),
            (
                json!({"type": "function", "name": "f", "parameters": null, "strict": null}),
                json!({"name": "f", "parameters": none}),
            ),
            (
                json!({"type": "function", "function": {"name": "f", "description": ""}}),
                json!({"name": "f", "description": "", "parameters": none}),
            ),
            (
                json!({"type": "function", "name": long}),
                json!({"name": sent_name(None, &long), "parameters": none}),
            ),
            (
                json!({"type": "custom", "name": "p", "description": "d",
                       "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"x\""}}),
                json!({"name": "p", "parameters": text, "description":
                       "d\n\nThe input must match this lark grammar:\nstart: \"x\""}),
            ),
            (
                json!({"type": "custom", "name": "p", "strict": true, "format": {"type": "text"}}),
                json!({"name": "p", "parameters": text}),
            ),
            (
                json!({"type": "local_shell"}),
                json!({"name": "local_shell", "parameters": shell}),
            ),
        ] {
            let sent = sent(&json!([tool]), &Value::Null).unwrap();
            let tools = json!([{"type": "function", "function": function}]);
            assert_eq!(
                sent,
                json!({"tools": tools, "parallel_tool_calls": false}),
                "{tool}"
            );
        }
    }

    #[test]
    fn what_nobody_can_run_is_left_out() {
        let tools = json!([
            {"type": "web_search", "external_web_access": true},
            {"type": "function", "name": "f"},
            {"type": "custom", "name": "f"},
            {"type": "namespace", "name": "ns", "description": "x", "tools": [
                {"type": "function", "name": "g"},
                {"type": "custom", "name": "h"},
                {"type": "local_shell"},
                {"type": "mcp"},
            ]},
            {"type": "function", "name": "ns__g"},
        ]);
        let offered = offered(&tools).unwrap();
        assert_eq!(
            offered.dropped,
            [
                "tools.web_search",
                "tools.f",
                "tools.local_shell",
                "tools.mcp",
                "tools.ns__g"
            ]
        );
        let all = sent(&tools, &json!("auto")).unwrap();
        let names: Vec<_> = all["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["function"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["f", "ns__g", "ns__h"]);
        assert_eq!(all["tool_choice"], "auto");
        for tools in [json!([]), json!([{"type": "web_search"}])] {
            assert_eq!(sent(&tools, &json!("required")).unwrap(), json!({}));
        }
    }

    #[test]
    fn choices() {
        let tools = json!([
            {"type": "function", "name": "f"},
            {"type": "custom", "name": "p"},
            {"type": "local_shell"},
            {"type": "namespace", "name": "ns", "tools": [{"type": "function", "name": "g"}]},
            {"type": "web_search"},
        ]);
        let tool = |name| json!({"type": "function", "function": {"name": name}});
        for (choice, becomes) in [
            (json!("auto"), json!("auto")),
            (json!("none"), json!("none")),
            (json!("required"), json!("required")),
            (json!({"type": "function", "name": "f"}), tool("f")),
            (json!({"type": "custom", "name": "p"}), tool("p")),
            (json!({"type": "local_shell"}), tool("local_shell")),
            (
                json!({"type": "function", "namespace": "ns", "name": "g"}),
                tool("ns__g"),
            ),
        ] {
            let sent = sent(&tools, &choice).unwrap();
            assert_eq!(sent["tool_choice"], becomes, "{choice}");
            assert_eq!(sent["tools"].as_array().unwrap().len(), 4);
        }
        let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [
            {"type": "custom", "name": "p"}, {"type": "function", "name": "f"}]});
        let some = sent(&tools, &allowed).unwrap();
        assert_eq!(some["tool_choice"], "required");
        let names: Vec<_> = some["tools"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tool| tool["function"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["f", "p"]);
        for choice in [
            json!("any"),
            json!(7),
            json!({}),
            json!({"type": "function"}),
            json!({"type": "function", "name": "other"}),
            json!({"type": "web_search"}),
            json!({"type": "allowed_tools", "mode": "none", "tools": []}),
            json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}),
        ] {
            let objection = sent(&tools, &choice).unwrap_err();
            assert_eq!(objection.param(), Some("tool_choice"), "{choice}");
        }
        for tool in [
            json!({"type": "function"}),
            json!({"type": "custom", "name": ""}),
            json!({"type": "namespace", "tools": []}),
        ] {
            let objection = offered(&json!([tool])).unwrap_err();
            assert_eq!((objection.status, objection.param()), (400, Some("tools")));
        }
    }
}
