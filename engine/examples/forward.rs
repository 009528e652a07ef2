//! The smallest handler: everything goes to one address, nothing is looked at. The floor under
//! every figure of the gateway.
//!
//! `cargo run --release -p olla-engine --example forward -- 127.0.0.1:8080 127.0.0.1:9000 [epoll]`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use olla_engine::core::{Engine, Options};
use olla_engine::exchange::{Fault, Timeouts};
use olla_engine::h1::{FieldId, emit, field};
use olla_engine::handler::{
    Answer, AtHead, AttemptEnd, Cx, Done, End, Handler, Limits, Local, Made, Passing, Pick,
    Refusal, Request, Routed, Target,
};
use olla_engine::rt::Wanted;
use olla_engine::tls::{TlsClient, TlsListener};

struct Forward {
    to: Arc<[SocketAddr]>,
    host: String,
}

impl Handler for Forward {
    type Exchange = ();

    fn limits(&self) -> Limits {
        Limits {
            head_bytes_max: 1 << 20,
            head_timeout: Duration::from_secs(10),
            request_timeout: Some(Duration::from_secs(30)),
            idle_timeout: Some(Duration::from_secs(30)),
        }
    }

    fn head(&self, _: &Cx<'_>, (): &mut (), _: &Request<'_>, _: &mut Local) -> AtHead {
        AtHead::Body(None)
    }

    fn refuse(
        &self,
        _: &Cx<'_>,
        (): &mut (),
        _: Option<&Request<'_>>,
        refusal: Refusal,
        local: &mut Local,
    ) {
        emit::status_line(&mut local.head, 400, b"Bad Request");
        local.body = Bytes::from(format!("{refusal:?}\n"));
    }

    fn arrived(&self, (): &mut (), _: &[u8]) {}

    fn route(&self, _: &Cx<'_>, (): &mut (), _: &Request<'_>, _: &[u8], _: &mut Local) -> Routed {
        Routed::Upstream
    }

    fn pick(
        &self,
        _: &Cx<'_>,
        (): &mut (),
        _: &Request<'_>,
        _: &[u8],
        failed: Option<Fault>,
        local: &mut Local,
    ) -> Pick {
        if let Some(fault) = failed {
            self.failed_with(fault, local);
            return Pick::Answered;
        }
        let (idle_max, keep_alive) = (Duration::from_secs(4), Duration::from_secs(30));
        Pick::Upstream(Target {
            key: 0,
            idle_max,
            keep_alive,
        })
    }

    fn tls(&self, (): &()) -> Option<TlsClient> {
        None
    }

    fn addresses(&self, (): &()) -> Arc<[SocketAddr]> {
        Arc::clone(&self.to)
    }

    fn timeouts(&self, (): &()) -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(5),
            tls: Duration::from_secs(5),
            response_header: Duration::from_secs(30),
            read: Duration::from_secs(60),
            response: None,
            write: None,
        }
    }

    fn upstream_head(
        &self,
        _: &Cx<'_>,
        (): &mut (),
        request: &Request<'_>,
        _: &[u8],
        out: &mut Vec<u8>,
    ) {
        let Request { head, bytes, .. } = *request;
        out.extend_from_slice(head.method.of(bytes));
        out.push(b' ');
        out.extend_from_slice(head.target.of(bytes));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        emit::field(out, b"Host", self.host.as_bytes());
        for each in &head.fields {
            let own = matches!(
                each.id,
                FieldId::Host | FieldId::ContentLength | FieldId::Expect
            );
            if !own && !field::is_hop_by_hop(each.id) {
                emit::field(out, each.name.of(bytes), each.value.of(bytes));
            }
        }
    }

    fn payload<'b>(&'b self, (): &'b (), body: &'b [u8]) -> [&'b [u8]; 3] {
        [body, b"", b""]
    }

    fn answer(
        &self,
        _: &Cx<'_>,
        (): &mut (),
        _: &Request<'_>,
        answer: &Answer<'_>,
        out: &mut Vec<u8>,
    ) -> Passing {
        let Answer { head, bytes, .. } = *answer;
        emit::status_line(out, head.status, head.reason.of(bytes));
        for each in &head.fields {
            if each.id != FieldId::ContentLength && !field::is_hop_by_hop(each.id) {
                emit::field(out, each.name.of(bytes), each.value.of(bytes));
            }
        }
        Passing::Pass
    }

    fn tap(&self, (): &mut (), _: &[u8]) {}

    fn transform(&self, (): &mut (), _: &[u8], _: Option<End>, _: &mut Vec<u8>) -> Made {
        Made::Broken
    }

    fn idle(&self, (): &mut (), _: &mut Vec<u8>) -> Made {
        Made::More
    }

    fn collected(&self, _: &Cx<'_>, (): &mut (), _: &Request<'_>, _: &[u8], _: &mut Local) -> bool {
        true
    }

    fn failed(&self, _: &Cx<'_>, (): &mut (), _: &Request<'_>, fault: Fault, local: &mut Local) {
        self.failed_with(fault, local);
    }

    fn attempt_ended(&self, _: &Cx<'_>, (): &mut (), _: AttemptEnd, _: u64) {}

    fn done(&self, _: &Cx<'_>, (): &mut (), _: Option<&Request<'_>>, _: &Done) {}

    fn tick(&self, _: Instant) {}

    fn news(&self, _: Instant) {}
}

impl Forward {
    fn failed_with(&self, fault: Fault, local: &mut Local) {
        emit::status_line(&mut local.head, 502, b"Bad Gateway");
        local.body = Bytes::from(format!("{}: {}\n", self.host, fault.as_str()));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: forward LISTEN BACKEND [epoll]";
    let listen: SocketAddr = arguments.next().ok_or(usage)?.parse()?;
    let backend: SocketAddr = arguments.next().ok_or(usage)?.parse()?;
    let epoll = arguments.next().is_some_and(|driver| driver == "epoll");
    let options = Options {
        addresses: vec![listen],
        workers: 1,
        pin: false,
        driver: if epoll { Wanted::Epoll } else { Wanted::Auto },
        buffered_bytes_max: 1 << 30,
        tls: TlsListener::default(),
    };
    let engine = Engine::start(&options, move |_| Forward {
        to: Arc::from([backend]),
        host: backend.to_string(),
    })?;
    println!("listening on {listen}, driver: {}", engine.driver());
    loop {
        std::thread::park();
    }
}
