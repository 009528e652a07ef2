//! A small HTTP client for the commands that read from a running gateway: blocking, one GET on a
//! connection of its own.
//!
//! It is not used on the path of requests, and not for endpoints: the engine has its own client.

use std::io;
use std::time::Duration;

use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};
use ureq::{Agent, Timeout};
use url::{Host, Url};

use super::Caller;
use super::tls::{HandshakeFault, TlsConnector, Trust};

/// Maximum size of a response body.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Time limit for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// The address of a gateway. Its scheme is `http` or `https`, and it has a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    url: Url,
    host: Host,
}

impl Base {
    /// Reads an address as a person types it: without a scheme it is `http`, and its path is a prefix.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let expected = "expected the URL of a gateway, as in https://gateway:40114";
        let url = Url::parse(&with_scheme)
            .map_err(|error| format!("{expected}, got {text:?} ({error})"))?;
        let host = url.host().map(|host| host.to_owned());
        match (url.scheme(), host) {
            ("http" | "https", Some(host)) => Ok(Self { url, host }),
            _ => Err(format!("{expected}, got {text:?}")),
        }
    }

    /// The host, an IPv6 address without brackets.
    pub(super) fn host(&self) -> String {
        match &self.host {
            Host::Domain(name) => name.clone(),
            Host::Ipv4(ip) => ip.to_string(),
            Host::Ipv6(ip) => ip.to_string(),
        }
    }

    fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// The address without user name, password and path.
    pub(super) fn origin(&self) -> String {
        let (scheme, host) = (self.url.scheme(), &self.host);
        match self.url.port() {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }
    }
}

/// What is sent to a gateway.
#[derive(Debug, Clone)]
pub(super) struct CliRequest<'a> {
    /// The method.
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) path: &'a str,
    /// The body, which is JSON.
    pub(super) body: Option<String>,
}

/// Sends a request below a base URL.
///
/// # Errors
/// A sentence: the trusted certificates cannot be read, there is no connection, or no response in
/// time, or what comes is not HTTP.
pub(super) fn send(
    base: &Base,
    request: &CliRequest<'_>,
    caller: &Caller,
) -> Result<Response, String> {
    send_within(TIMEOUT, base, request, caller)
}

/// Reads a path, with another time limit for the whole exchange.
///
/// # Errors
/// Those of [`send`].
pub(super) fn get_within(
    limit: Duration,
    base: &Base,
    path: &str,
    trust: &Trust,
) -> Result<Response, String> {
    let request = CliRequest {
        method: "GET",
        path,
        body: None,
    };
    let caller = Caller {
        trust: trust.clone(),
        credential: None,
    };
    send_within(limit, base, &request, &caller)
}

fn send_within(
    limit: Duration,
    base: &Base,
    request: &CliRequest<'_>,
    caller: &Caller,
) -> Result<Response, String> {
    let connect = CONNECT_TIMEOUT.min(limit);
    let origin = base.origin();
    let client = if base.is_https() {
        Some(caller.trust.client(&base.host())?)
    } else {
        None
    };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .max_idle_connections(0)
        .user_agent("olla-cli")
        .accept("application/json")
        .timeout_connect(Some(connect))
        .timeout_global(Some(limit))
        .build();
    let connector = TcpConnector::default().chain(TlsConnector::new(client));
    let agent = Agent::with_parts(config, connector, DefaultResolver::default());
    let prefix = base.url.path().trim_end_matches('/');
    let fault = |error| format!("{origin}: {}", sentence(&error, connect, limit));
    let mut head = ureq::http::Request::builder()
        .method(request.method)
        .uri(format!("{origin}{prefix}{}", request.path));
    if let Some(credential) = &caller.credential {
        head = head.header("Authorization", format!("Bearer {credential}"));
    }
    if request.body.is_some() {
        head = head.header("Content-Type", "application/json");
    }
    let unfit = |error| format!("{origin}: the request cannot be sent: {error}");
    let sent = match &request.body {
        Some(body) => agent.run(head.body(body.as_str()).map_err(unfit)?),
        None => agent.run(head.body(()).map_err(unfit)?),
    };
    let mut response = sent.map_err(fault)?;
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(BODY_BYTES_MAX);
    let body = body.read_to_vec().map_err(fault)?;
    Ok(Response { status, body })
}

/// What went wrong, for a person.
fn sentence(error: &ureq::Error, connect: Duration, limit: Duration) -> String {
    match error {
        ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            "connection refused; start the gateway, or give the address of another with --url"
                .to_owned()
        }
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "the host name cannot be resolved".to_owned(),
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
            format!("no connection within {} seconds", connect.as_secs())
        }
        ureq::Error::Timeout(_) => {
            format!("no complete response within {} seconds", limit.as_secs())
        }
        ureq::Error::Protocol(error) => format!("expected an HTTP response ({error})"),
        ureq::Error::BodyExceedsLimit(bytes) => {
            format!("the response is larger than {bytes} bytes")
        }
        ureq::Error::Other(error) => match error.downcast_ref::<HandshakeFault>() {
            Some(fault) => fault.to_string(),
            None => error.to_string(),
        },
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_as_people_type_them() {
        let table = [
            ("http://gw:40114", Some("http://gw:40114")),
            ("gw:40114", Some("http://gw:40114")),
            (" localhost ", Some("http://localhost")),
            ("http://[::1]:9/x/", Some("http://[::1]:9")),
            ("http://u:p@h", Some("http://h")),
            ("https://gw", Some("https://gw")),
            ("https://gw:8443/x", Some("https://gw:8443")),
            ("ftp://gw", None),
            ("", None),
            ("http://", None),
        ];
        for (text, want) in table {
            let got = Base::parse(text).ok().map(|base| base.origin());
            assert_eq!(got.as_deref(), want, "{text}");
        }
    }

    fn get(base: &Base, path: &str) -> Result<Response, String> {
        get_within(TIMEOUT, base, path, &Trust::default())
    }

    /// A server that sends these bytes once and returns the request.
    fn server(response: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(response.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (url, server)
    }

    #[test]
    fn responses_in_every_framing() {
        let table: [(&str, Option<(u16, &str)>); 6] = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                Some((200, "ok")),
            ),
            (
                "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nuntil the end",
                Some((404, "until the end")),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
                Some((200, "ok!")),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
                None,
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None),
            ("SSH-2.0-x\r\n", None),
        ];
        for (bytes, want) in table {
            let (url, server) = server(bytes);
            let got = get(&Base::parse(&url).unwrap(), "/");
            server.join().unwrap();
            let want = want.map(|(status, body)| Response {
                status,
                body: body.as_bytes().to_vec(),
            });
            assert_eq!(got.clone().ok(), want, "{bytes:?}: {got:?}");
            if let Err(fault) = got {
                assert!(fault.starts_with(&url), "{fault}");
            }
        }
    }

    #[test]
    fn the_path_of_the_base_is_a_prefix() {
        let (url, server) = server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        let base = Base::parse(&format!("{url}/gw/")).unwrap();
        let response = get(&base, "/internal/status").unwrap();
        assert_eq!(
            (response.status, response.body.as_slice()),
            (200, &b"{}"[..])
        );
        let request = server.join().unwrap().to_ascii_lowercase();
        assert!(
            request.starts_with("get /gw/internal/status http/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("\r\nhost: 127.0.0.1:"), "{request}");
    }

    #[test]
    fn a_credential_and_a_body_are_sent() {
        let (url, server) = server("HTTP/1.1 204 No Content\r\n\r\n");
        let request = CliRequest {
            method: "PATCH",
            path: "/internal/keys/a",
            body: Some("{}".to_owned()),
        };
        let caller = Caller {
            trust: Trust::default(),
            credential: Some("secret".to_owned()),
        };
        let response = send(&Base::parse(&url).unwrap(), &request, &caller).unwrap();
        assert_eq!((response.status, response.body.len()), (204, 0));
        let head = server.join().unwrap();
        assert!(
            head.starts_with("PATCH /internal/keys/a HTTP/1.1\r\n"),
            "{head}"
        );
        let head = head.to_ascii_lowercase();
        for line in [
            "authorization: bearer secret\r\n",
            "content-type: application/json\r\n",
            "content-length: 2\r\n",
        ] {
            assert!(head.contains(line), "{head}");
        }
    }

    #[test]
    fn a_gateway_that_does_not_run_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let fault = get(&Base::parse(&url).unwrap(), "/").unwrap_err();
        assert!(
            fault.starts_with(&url) && fault.contains("refused"),
            "{fault}"
        );
    }
}
