//! Tools and the choice among them (docs/contract/translation.md#7.3).

use crate::dialects::chat::error::Refusal;
use crate::dialects::chat::error::invalid;
use crate::dialects::chat::warning::{Warning, warn};
use crate::json::{JsonKind, JsonText, JsonValue};

/// What a tool gets that has no schema.
const NO_PARAMETERS: &[u8] = br#"{"type":"object","properties":{}}"#;

/// Appends `tools`, `tool_choice` and `parallel_tool_calls`, as far as there are tools.
pub(super) fn write(
    tools: JsonValue<'_>,
    choice: Option<JsonValue<'_>>,
    out: &mut Vec<u8>,
    warnings: &mut Vec<Warning>,
) -> Result<(), Refusal> {
    let start = out.len();
    out.extend_from_slice(br#","tools":["#);
    let first = out.len();
    for tool in tools.elements().filter(|tool| tool.is(JsonKind::Object)) {
        write_tool(tool, first, out, warnings);
    }
    if out.len() == first {
        out.truncate(start);
        return Ok(());
    }
    out.push(b']');
    choice.map_or(Ok(()), |choice| write_choice(choice, out))
}

/// The name of a tool that is sent; `None` if it is left out.
pub(super) fn kept_name(tool: JsonValue<'_>) -> Option<JsonText<'_>> {
    let [kind, name, schema] = tool.given(["type", "name", "input_schema"]);
    let is_custom = kind
        .and_then(JsonValue::string)
        .is_none_or(|kind| kind.is("custom"));
    name.and_then(JsonValue::string)
        .filter(|name| !name.is_empty() && (is_custom || schema.is_some()))
}

fn write_tool(tool: JsonValue<'_>, first: usize, out: &mut Vec<u8>, warnings: &mut Vec<Warning>) {
    let [kind, name, description, schema] =
        tool.given(["type", "name", "description", "input_schema"]);
    let Some(name) = kept_name(tool) else {
        let text = |value: Option<JsonValue<'_>>| {
            let text = value.and_then(JsonValue::string);
            text.map_or_else(String::new, |text| text.decode().into_owned())
        };
        warn(warnings, || Warning::ToolLeftOut {
            kind: text(kind),
            name: text(name),
        });
        return;
    };
    if out.len() > first {
        out.push(b',');
    }
    out.extend_from_slice(br#"{"type":"function","function":{"name":""#);
    name.write(out);
    out.push(b'"');
    if let Some(description) = description.and_then(JsonValue::string) {
        out.extend_from_slice(br#","description":""#);
        description.write(out);
        out.push(b'"');
    }
    out.extend_from_slice(br#","parameters":"#);
    match schema {
        Some(schema) => schema.write_compact(out),
        None => out.extend_from_slice(NO_PARAMETERS),
    }
    out.extend_from_slice(b"}}");
}

fn write_choice(choice: JsonValue<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let [kind, name, one_at_a_time] = choice.fields(["type", "name", "disable_parallel_tool_use"]);
    let kind = choice.string().or_else(|| kind.and_then(JsonValue::string));
    let is = |word| kind.is_some_and(|kind| kind.is(word));
    out.extend_from_slice(br#","tool_choice":"#);
    if is("any") {
        out.extend_from_slice(br#""required""#);
    } else if is("none") {
        out.extend_from_slice(br#""none""#);
    } else if is("tool") && choice.is(JsonKind::Object) {
        let name = name
            .and_then(JsonValue::string)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| invalid("tool_choice.name", "expected the name of a tool"))?;
        out.extend_from_slice(br#"{"type":"function","function":{"name":""#);
        name.write(out);
        out.extend_from_slice(br#""}}"#);
    } else {
        out.extend_from_slice(br#""auto""#);
    }
    if one_at_a_time.is_some_and(JsonValue::is_true) {
        out.extend_from_slice(br#","parallel_tool_calls":false"#);
    }
    Ok(())
}
