//! Brings results behind the messages with their calls, and what belongs to one assistant message
//! together (docs/contract/dialects.md#4, docs/contract/dialects.md#6).

use std::collections::HashMap;

use super::content::{UserContent, UserPart};
use super::prose::Prose;
use super::{AssistantMessage, Item, Message, Said, ToolResult};

/// Messages in the order that servers take. Results without a call become text of the user, unless
/// `keeps_orphans` is set.
pub(super) fn ordered(items: Vec<Item<'_>>, keeps_orphans: bool) -> Vec<Message<'_>> {
    let places = Places::of(&items);
    let last_user = items.iter().rposition(|item| matches!(item, Item::User(_)));
    let mut turns: HashMap<usize, Turn<'_>> = HashMap::new();
    let mut order = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        match (item, places.owner.get(at).copied().flatten()) {
            (Item::Assistant(message), Some(head)) => {
                if head == at {
                    order.push(Slot::Turn(head));
                }
                turns.entry(head).or_default().join(message);
            }
            (Item::Result(result), Some(head)) => {
                turns.entry(head).or_default().results.push(result)
            }
            (Item::Result(result), None) if keeps_orphans => {
                order.push(Slot::Message(Message::Tool(result)));
            }
            (Item::Result(result), None) => {
                order.push(Slot::Message(Message::User(orphan(result))));
            }
            (Item::System(text), _) => order.push(Slot::Message(Message::System(text))),
            (Item::User(content), _) => order.push(Slot::Message(Message::User(content))),
            // Every assistant message has an owner.
            (Item::Assistant(_), None) => {}
        }
    }
    let mut messages = Vec::with_capacity(order.len());
    for slot in order {
        match slot {
            Slot::Message(message) => messages.push(message),
            Slot::Turn(head) => {
                let is_current = last_user.is_none_or(|user| head > user);
                if let Some(turn) = turns.remove(&head) {
                    turn.write(is_current, &mut messages);
                }
            }
        }
    }
    messages
}

enum Slot<'a> {
    Message(Message<'a>),
    /// The turn of the assistant that begins at this place.
    Turn(usize),
}

/// An assistant message with the results of its calls.
#[derive(Default)]
struct Turn<'a> {
    message: AssistantMessage<'a>,
    results: Vec<ToolResult<'a>>,
}

impl<'a> Turn<'a> {
    fn join(&mut self, other: AssistantMessage<'a>) {
        self.message.text.join("\n\n", other.text);
        self.message.reasoning.join("\n\n", other.reasoning);
        self.message.calls.extend(other.calls);
    }

    fn write(mut self, is_current: bool, messages: &mut Vec<Message<'a>>) {
        if self.message.text.is_empty() && self.message.calls.is_empty() {
            return;
        }
        if !is_current {
            self.message.reasoning = Prose::EMPTY;
        }
        messages.push(Message::Assistant(self.message));
        let mut images = UserContent::default();
        for mut result in self.results {
            let own = std::mem::take(&mut result.images);
            if !own.is_empty() {
                let mut heading = Prose::from("Image of tool result ");
                heading.join("", result.call_id.clone());
                heading.plain(":");
                images.push(UserPart::Text(heading));
                own.into_iter().for_each(|part| images.push(part));
            }
            messages.push(Message::Tool(result));
        }
        if !images.is_empty() {
            messages.push(Message::User(images));
        }
    }
}

/// A result whose call is nowhere.
fn orphan(result: ToolResult<'_>) -> UserContent<'_> {
    let mut text = Prose::from("Tool result: ");
    text.join("", result.text);
    let mut content = UserContent::default();
    content.push(UserPart::Text(text));
    result
        .images
        .into_iter()
        .for_each(|part| content.push(part));
    content
}

/// Which message each item belongs to.
struct Places {
    /// For an assistant message, itself or the one that it is a part of; for a result, the one with
    /// its call.
    owner: Vec<Option<usize>>,
}

/// The calls with one id.
#[derive(Default)]
struct SameId {
    first: Option<usize>,
    last: Option<usize>,
    unanswered: Vec<usize>,
}

impl Places {
    fn of(items: &[Item<'_>]) -> Self {
        let mut owner = vec![None; items.len()];
        // The position of the last result of each message's calls.
        let mut answered_at = vec![0; items.len()];
        let mut calls: HashMap<Vec<u8>, SameId> = HashMap::new();
        let key = |id: &Prose<'_>| {
            let mut key = Vec::new();
            id.write_inside(&mut key);
            key
        };
        let mut early = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match item {
                Item::Assistant(message) => {
                    for call in &message.calls {
                        let same = calls.entry(key(&call.id)).or_default();
                        same.first = same.first.or(Some(at));
                        same.last = Some(at);
                        same.unanswered.push(at);
                    }
                }
                Item::Result(result) => {
                    let id = key(&result.call_id);
                    let same = calls.get_mut(&id);
                    let found = same.and_then(|same| same.unanswered.pop().or(same.last));
                    match found {
                        Some(found) => {
                            owner[at] = Some(found);
                            answered_at[found] = at;
                        }
                        None => early.push((at, id)),
                    }
                }
                Item::System(_) | Item::User(_) => {}
            }
        }
        for (at, id) in early {
            owner[at] = calls.get(&id).and_then(|same| same.first);
        }
        heads(items, &mut answered_at, &mut owner);
        Self { owner }
    }
}

/// Sets the owners of assistant messages, and corrects those of results.
fn heads(items: &[Item<'_>], answered_at: &mut [usize], owner: &mut [Option<usize>]) {
    let mut head = None;
    for (at, item) in items.iter().enumerate() {
        let Item::Assistant(message) = item else {
            continue;
        };
        let is_item = message.said == Said::AsItem;
        let joined = head.filter(|head: &usize| is_item && answered_at[*head] > at);
        let own = joined.unwrap_or(at);
        answered_at[own] = answered_at[own].max(answered_at[at]);
        owner[at] = Some(own);
        head = Some(own);
    }
    for (at, item) in items.iter().enumerate() {
        if let (Item::Result(_), Some(of)) = (item, owner[at]) {
            owner[at] = owner[of];
        }
    }
}
