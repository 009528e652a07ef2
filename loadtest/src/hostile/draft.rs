//! A request in pieces, each of which can be spoilt before it is put together.

/// A request that is not yet bytes.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Method, target and version.
    pub(super) line: Vec<u8>,
    /// Whole field lines, without their ends.
    pub(super) fields: Vec<Vec<u8>>,
    /// What stands at the end of each line of the head.
    pub(super) line_end: &'static [u8],
    /// Everything after the head, as it is sent.
    pub(super) body: Vec<u8>,
}

impl Draft {
    pub(super) fn new(line: &str, fields: &[&str]) -> Self {
        Self {
            line: line.as_bytes().to_vec(),
            fields: fields
                .iter()
                .map(|field| field.as_bytes().to_vec())
                .collect(),
            line_end: b"\r\n",
            body: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, field: impl Into<Vec<u8>>) {
        self.fields.push(field.into());
    }

    /// Drops the fields with lines that begin so.
    pub(super) fn drop_field(&mut self, start: &str) {
        self.fields
            .retain(|field| !field.starts_with(start.as_bytes()));
    }

    /// The head's length in the bytes of [`render`](Self::render).
    pub(super) fn head_bytes(&self) -> usize {
        let end = self.line_end.len();
        let fields: usize = self.fields.iter().map(|field| field.len() + end).sum();
        self.line.len() + end + fields + end
    }

    pub(super) fn render(&self) -> Vec<u8> {
        let mut out = self.line.clone();
        out.extend_from_slice(self.line_end);
        for field in &self.fields {
            out.extend_from_slice(field);
            out.extend_from_slice(self.line_end);
        }
        out.extend_from_slice(self.line_end);
        out.extend_from_slice(&self.body);
        out
    }
}

/// `body` in chunks of at most `piece` bytes.
pub(super) fn chunked(body: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(piece.max(1)) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_becomes_a_request() {
        let mut draft = Draft::new("POST / HTTP/1.1", &["Host: a", "X: b"]);
        draft.drop_field("X:");
        draft.add(*b"Transfer-Encoding: chunked");
        draft.body = chunked(b"abc", 2);
        let want = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(draft.render(), want.as_bytes());
        assert_eq!(&draft.render()[draft.head_bytes()..], draft.body);
    }
}
