//! A record of what reached the stub, one line for each thing seen, written at once so that it
//! outlives a kill.
//!
//! | line | what happened |
//! |---|---|
//! | `A ns nonce method target bytes hash` | a request is whole; the hash is that of its body |
//! | `B ns nonce` | the first byte of its response goes out |
//! | `L ns nonce` | the other end left before the response was whole |
//! | `M ns` | bytes that are no request |
//! | `P ns` | the other end left inside a request |
//!
//! `ns` is the time of CLOCK_MONOTONIC; `-` stands for a nonce that was not sent.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::clock::now_ns;
use crate::scan::string_of;
use crate::wire::{Request, body_hash};

/// Where the lines go, if anywhere.
#[derive(Debug, Default)]
pub(super) struct Record(Option<File>);

impl Record {
    /// Opens the file to append to.
    ///
    /// # Errors
    /// What the system says about the file.
    pub(super) fn open(path: Option<&Path>) -> io::Result<Self> {
        let open = |path| OpenOptions::new().append(true).create(true).open(path);
        path.map(open).transpose().map(Self)
    }

    pub(super) fn arrived(&mut self, request: &Request<'_>) {
        if self.0.is_some() {
            let nonce = nonce_of(request);
            let (bytes, hash) = (request.body.len(), body_hash(request.body));
            let (method, path) = (request.method, request.path);
            self.line(
                'A',
                &format!(" {nonce} {method} {path} {bytes} {hash:016x}"),
            );
        }
    }

    pub(super) fn begun(&mut self, nonce: Option<&str>) {
        self.of_request('B', nonce);
    }

    pub(super) fn left(&mut self, nonce: Option<&str>) {
        self.of_request('L', nonce);
    }

    pub(super) fn malformed(&mut self) {
        self.line('M', "");
    }

    pub(super) fn partial(&mut self) {
        self.line('P', "");
    }

    fn of_request(&mut self, kind: char, nonce: Option<&str>) {
        if self.0.is_some() {
            self.line(kind, &format!(" {}", nonce.unwrap_or("-")));
        }
    }

    fn line(&mut self, kind: char, rest: &str) {
        if let Some(file) = &mut self.0 {
            // A full disk shows as requests that are missing from the record.
            let _ = file.write_all(format!("{kind} {}{rest}\n", now_ns()).as_bytes());
        }
    }
}

/// The nonce as it stands in the body, or else in the target's query.
fn nonce_of<'a>(request: &Request<'a>) -> &'a str {
    let in_body = string_of(request.body, "\"nonce\"");
    let plain = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let in_body = in_body
        .and_then(|nonce| std::str::from_utf8(nonce).ok())
        .filter(plain);
    let in_query = || Some(request.path.split_once("nonce=")?.1).filter(plain);
    in_body.or_else(in_query).unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_stands_in_the_body_or_in_the_query() {
        let table: [(&str, &str, &str); 5] = [
            ("/x", r#"{"nonce":"n-1"}"#, "n-1"),
            ("/x?nonce=n-2", "", "n-2"),
            ("/x?nonce=n-2", r#"{"nonce":"n-1"}"#, "n-1"),
            ("/x", r#"{"nonce":"two words"}"#, "-"),
            ("/x", "", "-"),
        ];
        for (path, body, want) in table {
            let request = Request {
                method: "POST",
                path,
                close: false,
                body: body.as_bytes(),
            };
            assert_eq!(nonce_of(&request), want, "{path} {body}");
        }
    }
}
