//! The smallest program on the engine: every request goes to one address, unchanged. Its throughput
//! is the upper limit of what a gateway on this engine can reach.
//!
//! `cargo run --release -p olla-engine --example forward -- 127.0.0.1:8080 127.0.0.1:9000 [epoll]`

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use olla_engine::core::{Engine, Options};
use olla_engine::h1::{Field, FieldId, emit, field};
use olla_engine::handler::{Ask, Exchange, Handler, Local, Passing, Pick, Response, Target};
use olla_engine::{exchange::Fault, rt::Wanted};

/// Where every request goes, as addresses and as the value of `Host`.
#[derive(Clone)]
struct Forward(Arc<[SocketAddr]>, String);

impl Handler for Forward {
    type Exchange = Forwarded;
    fn begin(self: &Rc<Self>, (): ()) -> Forwarded {
        Forwarded(Rc::clone(self))
    }
}

struct Forwarded(Rc<Forward>);

impl Exchange for Forwarded {
    type Kept = ();
    fn pick(&mut self, ask: &Ask<'_>, failed: Option<Fault>, local: &mut Local) -> Pick {
        if let Some(fault) = failed {
            self.failed(ask, fault, local);
            return Pick::Respond;
        }
        Pick::Upstream(Target::default())
    }
    fn addresses(&self) -> Arc<[SocketAddr]> {
        Arc::clone(&self.0.0)
    }
    fn request_head(&mut self, ask: &Ask<'_>, out: &mut Vec<u8>) {
        let (head, bytes) = (ask.request.head, ask.request.bytes);
        for part in [head.method.of(bytes), b" ", head.target.of(bytes)] {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        emit::field(out, b"Host", self.0.1.as_bytes());
        pass(&head.fields, bytes, out);
    }
    fn response_head(&mut self, _: &Ask<'_>, from: &Response<'_>, out: &mut Vec<u8>) -> Passing {
        emit::status_line(out, from.head.status, from.head.reason.of(from.bytes));
        pass(&from.head.fields, from.bytes, out);
        Passing::Pass
    }
}

/// Passes the fields on that belong neither to one connection nor to the framing.
fn pass(fields: &[Field], bytes: &[u8], out: &mut Vec<u8>) {
    const OWN: [FieldId; 3] = [FieldId::Host, FieldId::ContentLength, FieldId::Expect];
    let passes = |each: &&Field| !OWN.contains(&each.id) && !field::is_hop_by_hop(each.id);
    for each in fields.iter().filter(passes) {
        emit::field(out, each.name.of(bytes), each.value.of(bytes));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut address = || arguments.next()?.parse::<SocketAddr>().ok();
    let [Some(listen), Some(to)] = [address(), address()] else {
        return Err("usage: forward LISTEN BACKEND [epoll]".into());
    };
    let options = Options {
        addresses: vec![listen],
        driver: arguments.next().map_or(Wanted::Auto, |_| Wanted::Epoll),
        ..Options::default()
    };
    let forward = Forward(Arc::from([to]), to.to_string());
    let engine = Engine::start(&options, move |_| forward.clone())?;
    println!("listening on {listen}, driver: {}", engine.driver());
    loop {
        std::thread::park();
    }
}
