//! System messages where templates take them: one at the beginning, and no other
//! (docs/contract/dialects.md#4).

use super::Message;
use super::content::{UserContent, UserPart};
use super::prose::Prose;

/// Joins the system messages in front, and makes text of the user of later ones.
pub(super) fn folded(messages: Vec<Message<'_>>) -> Vec<Message<'_>> {
    let mut folded: Vec<Message<'_>> = Vec::with_capacity(messages.len());
    let mut run = Prose::EMPTY;
    for message in messages {
        match message {
            Message::System(text) => run.join("\n\n", text),
            mut message => {
                if !run.is_empty() {
                    let text = std::mem::take(&mut run);
                    match &mut message {
                        _ if folded.is_empty() => folded.push(Message::System(text)),
                        Message::User(content) => content.put_in_front(text),
                        _ => append(text, &mut folded),
                    }
                }
                folded.push(message);
            }
        }
    }
    if !run.is_empty() {
        if folded.is_empty() {
            folded.push(Message::System(run));
        } else {
            append(run, &mut folded);
        }
    }
    folded
}

/// Appends text of the user: to the user message that is last, else as one of its own.
fn append<'a>(text: Prose<'a>, folded: &mut Vec<Message<'a>>) {
    if let Some(Message::User(content)) = folded.last_mut() {
        content.put_at_end(text);
        return;
    }
    let mut content = UserContent::default();
    content.push(UserPart::Text(text));
    folded.push(Message::User(content));
}
