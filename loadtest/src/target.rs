//! Where a client sends to, and the bytes of its requests.

use std::io::{self, IoSlice, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use rustls::pki_types::ServerName;

/// Length of a nonce, in bytes: the hexadecimal digits of 64 bits.
pub const NONCE_BYTES: usize = 16;

/// A nonce as it is written into a request.
pub type Nonce = [u8; NONCE_BYTES];

/// An `http://` or `https://` URL, its host already resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is connected to.
    pub addr: SocketAddr,
    /// The value of the field `Host`.
    pub host: String,
    /// The request target.
    pub path: String,
    /// The server's name in TLS; none without TLS.
    pub server_name: Option<ServerName<'static>>,
}

/// Why text is not a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// Not of the form `http[s]://HOST[:PORT][/PATH]`.
    Form,
    /// The host has no address.
    Unresolved,
}

impl std::fmt::Display for BadTarget {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Form => "expected http[s]://HOST[:PORT][/PATH]",
            Self::Unresolved => "the host has no address",
        })
    }
}

impl std::error::Error for BadTarget {}

impl FromStr for Target {
    type Err = BadTarget;

    #[expect(clippy::disallowed_methods, reason = "before the load begins")]
    fn from_str(url: &str) -> Result<Self, BadTarget> {
        let plain = url.strip_prefix("http://").map(|rest| (rest, None));
        let secure = || url.strip_prefix("https://").map(|rest| (rest, Some(443)));
        let (rest, tls_port) = plain.or_else(secure).ok_or(BadTarget::Form)?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let printable = url.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !printable {
            return Err(BadTarget::Form);
        }
        let port_given = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        let address = if port_given {
            host.to_owned()
        } else {
            format!("{host}:{}", tls_port.unwrap_or(80))
        };
        let server_name = match tls_port {
            Some(_) => Some(server_name(&address).ok_or(BadTarget::Form)?),
            None => None,
        };
        let mut found = address
            .to_socket_addrs()
            .map_err(|_| BadTarget::Unresolved)?;
        Ok(Self {
            addr: found.next().ok_or(BadTarget::Unresolved)?,
            host: host.to_owned(),
            path: if path.is_empty() {
                "/".to_owned()
            } else {
                path.to_owned()
            },
            server_name,
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let secure = if self.server_name.is_some() { "s" } else { "" };
        write!(out, "http{secure}://{}{}", self.host, self.path)
    }
}

/// The name of a server in TLS, from its host and port.
fn server_name(address: &str) -> Option<ServerName<'static>> {
    let (host, _) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).ok()
}

/// What the requests of a run have in common.
#[derive(Clone, Debug, clap::Args)]
pub struct RequestOptions {
    /// Where to send, for example http://127.0.0.1:40114/olla/openai/v1/chat/completions
    #[arg(long, value_name = "URL")]
    pub url: Target,
    /// The model asked for
    #[arg(long, default_value = "stub-model", value_name = "NAME")]
    pub model: String,
    /// Length of the body; the prompt is padded with text, quotes and line breaks. Below the least
    /// possible length it is that
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub body_bytes: usize,
    /// A field to add to the head; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// The field `stub` of the body, for example '{"delay_ms":5}' (see `stub --help`)
    #[arg(long, value_name = "JSON")]
    pub stub: Option<String>,
}

impl RequestOptions {
    /// The same, asking the stub for a stream of this many events unless it asks for something else.
    pub fn streaming(&self, events: u32, gap_ms: u64) -> Self {
        let stub = || format!(r#"{{"events":{events},"gap_ms":{gap_ms}}}"#);
        Self {
            stub: Some(self.stub.clone().unwrap_or_else(stub)),
            ..self.clone()
        }
    }
}

/// A request rendered once; each sending puts its own nonce into the middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    before: Vec<u8>,
    after: Vec<u8>,
    has_nonce: bool,
}

impl Payload {
    /// Renders the request: `stream` and `with_nonce` say whether those fields are set.
    pub fn render(options: &RequestOptions, stream: bool, with_nonce: bool) -> Self {
        let model = serde_json::Value::from(options.model.as_str());
        let mut start = format!(r#"{{"model":{model},"stream":{stream}"#);
        let mut rest = String::new();
        if with_nonce {
            start.push_str(r#","nonce":""#);
            rest.push('"');
        }
        if let Some(stub) = &options.stub {
            rest.push_str(&format!(r#","stub":{stub}"#));
        }
        rest.push_str(r#","max_tokens":64,"messages":[{"role":"user","content":""#);
        let end = r#""}]}"#;
        let nonce_length = if with_nonce { NONCE_BYTES } else { 0 };
        let used = start.len() + nonce_length + rest.len() + end.len();
        push_prompt(&mut rest, options.body_bytes.saturating_sub(used));
        rest.push_str(end);

        let length = start.len() + nonce_length + rest.len();
        let Target { host, path, .. } = &options.url;
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n"
        );
        for field in &options.headers {
            head.push_str(field);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.push_str(&start);
        Self {
            before: head.into_bytes(),
            after: rest.into_bytes(),
            has_nonce: with_nonce,
        }
    }

    /// A request that was rendered elsewhere, head and body; no nonce is put into it.
    pub fn whole(request: Vec<u8>) -> Self {
        Self {
            before: request,
            after: Vec::new(),
            has_nonce: false,
        }
    }

    /// Writes what follows the first `sent` bytes, in one system call, and returns how much went.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, sent: usize, nonce: &Nonce, out: &mut impl Write) -> io::Result<usize> {
        let nonce = if self.has_nonce { &nonce[..] } else { &[] };
        let mut skip = sent;
        let pieces = [&self.before[..], nonce, &self.after].map(|piece| {
            let from = skip.min(piece.len());
            skip -= from;
            IoSlice::new(&piece[from..])
        });
        out.write_vectored(&pieces)
    }

    /// Length of head and body, in bytes.
    pub fn length(&self) -> usize {
        let nonce = if self.has_nonce { NONCE_BYTES } else { 0 };
        self.before.len() + nonce + self.after.len()
    }
}

/// The nonces of one run: different from each other, and from those of another run as far as the
/// process number and the clock allow.
#[derive(Debug)]
pub struct Nonces {
    run: u64,
    count: u64,
}

impl Nonces {
    /// Begins a run.
    pub fn new(now_ns: u64) -> Self {
        let run = (now_ns >> 20) ^ (u64::from(std::process::id()) << 12);
        Self {
            run: run & 0xffff_ffff,
            count: 0,
        }
    }

    /// The next one.
    pub fn next_nonce(&mut self) -> Nonce {
        self.count += 1;
        let number = (self.run << 32) | (self.count & 0xffff_ffff);
        std::array::from_fn(|digit| {
            b"0123456789abcdef"[(number >> (4 * (NONCE_BYTES - 1 - digit))) as usize & 15]
        })
    }
}

/// What a prompt is made of, as it stands inside a JSON string.
const PROMPT: [&str; 4] = [
    r#"Summarise the following log and answer with \"yes\" or \"no\" for each line.\n"#,
    r#"\n\tlet path = \"C:\\\\models\\\\llama\"; // {\"model\": \"not this one\"}\n"#,
    r#"Überprüfe bitte, ob die Antwort «vollständig» ist: 日本語も少し。"#,
    r#"The quick brown fox jumps over the lazy dog, and no one has asked it why. "#,
];

fn push_prompt(out: &mut String, length: usize) {
    let end = out.len() + length;
    for piece in PROMPT.iter().cycle() {
        if out.len() + piece.len() > end {
            break;
        }
        out.push_str(piece);
    }
    out.extend(std::iter::repeat_n('.', end - out.len()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RequestReader;
    use serde_json::Value;

    fn options(body_bytes: usize) -> RequestOptions {
        RequestOptions {
            url: "http://127.0.0.1:9/v1/chat/completions".parse().unwrap(),
            model: "a \"model\"".to_owned(),
            body_bytes,
            headers: vec!["Authorization: Bearer x".to_owned()],
            stub: Some(r#"{"events":2}"#.to_owned()),
        }
    }

    #[test]
    fn reads_urls() {
        let table = [
            (
                "http://127.0.0.1:8080",
                Ok(("127.0.0.1:8080", "127.0.0.1:8080", "/")),
            ),
            (
                "http://127.0.0.1/a?b=c",
                Ok(("127.0.0.1:80", "127.0.0.1", "/a?b=c")),
            ),
            ("http://[::1]:81/", Ok(("[::1]:81", "[::1]:81", "/"))),
            ("http://[::1]/", Ok(("[::1]:80", "[::1]", "/"))),
            (
                "https://127.0.0.1/",
                Ok(("127.0.0.1:443", "127.0.0.1", "/")),
            ),
            (
                "https://[::1]:8443/x",
                Ok(("[::1]:8443", "[::1]:8443", "/x")),
            ),
            ("ftp://127.0.0.1/", Err(BadTarget::Form)),
            ("127.0.0.1:80", Err(BadTarget::Form)),
            ("http:///x", Err(BadTarget::Form)),
            ("http://127.0.0.1/a b", Err(BadTarget::Form)),
            ("http://127.0.0.1:nope/", Err(BadTarget::Unresolved)),
        ];
        for (url, want) in table {
            let want = want.map(|(addr, host, path)| Target {
                addr: addr.parse().unwrap(),
                host: host.to_owned(),
                path: path.to_owned(),
                server_name: url.starts_with("https").then(|| {
                    let addr: SocketAddr = addr.parse().unwrap();
                    ServerName::IpAddress(addr.ip().into())
                }),
            });
            assert_eq!(url.parse::<Target>(), want, "{url}");
            let text = want.map(|target| target.to_string()).unwrap_or_default();
            assert!(text.is_empty() || text.starts_with(url), "{text}");
        }
    }

    #[test]
    fn a_payload_is_a_request_of_the_length_asked_for_wherever_the_writes_end() {
        for (body_bytes, with_nonce) in [(0, true), (300, true), (300, false), (5000, true)] {
            let payload = Payload::render(&options(body_bytes), true, with_nonce);
            for step in [1, 7, usize::MAX] {
                let mut sent = Vec::new();
                while sent.len() < payload.length() {
                    let mut piece = Vec::new();
                    payload
                        .write(sent.len(), b"0123456789abcdef", &mut piece)
                        .unwrap();
                    sent.extend_from_slice(&piece[..piece.len().min(step)]);
                }
                let mut reader = RequestReader::default();
                for chunk in sent.chunks(100) {
                    let space = reader.space();
                    let (now, later) = chunk.split_at(chunk.len().min(space.len()));
                    space[..now.len()].copy_from_slice(now);
                    reader.advance(now.len());
                    reader.space()[..later.len()].copy_from_slice(later);
                    reader.advance(later.len());
                }
                let request = reader.poll().unwrap().unwrap();
                let body: Value = serde_json::from_slice(request.body).unwrap();
                assert_eq!(
                    body["nonce"].as_str(),
                    with_nonce.then_some("0123456789abcdef")
                );
                assert_eq!(body["stub"]["events"], 2);
                assert_eq!(body["stream"], true);
                if body_bytes > 0 {
                    assert_eq!(request.body.len(), body_bytes);
                }
            }
        }
    }

    #[test]
    fn nonces_differ() {
        let mut nonces = Nonces::new(123 << 20);
        let (first, second) = (nonces.next_nonce(), nonces.next_nonce());
        assert_ne!(first, second);
        assert!(first.iter().all(u8::is_ascii_hexdigit));
    }
}
