//! The table of balancing 9, row by row, then the deadlines and the edges between the phases.

use std::time::{Duration, Instant};

use super::Action::{Abandon, Continue, Cut, Fail, Finish, NextEndpoint, Reset, RetryFresh};
use super::Event::{
    ClientBlocked, ClientLeft, ClientStalled, ClientTook, ConnectFailed, Connected, Delivered,
    EndpointDown, HeadTooLarge, Malformed, RequestProgress, RequestSent, ResponseBytes,
    ResponseEnd, ResponseHead, ResponsePiece, Revoked, SendFailed, Timer, TlsBegun, UpstreamClosed,
    UpstreamReset,
};
use super::lifecycle::Phase;
use super::{Action, ConnectFault, Ending, Event, Fault, Lifecycle, Timeouts, TlsFault};

const HEAD: Event = ResponseHead {
    reusable: true,
    has_body: true,
};
const BARE_HEAD: Event = ResponseHead {
    reusable: true,
    has_body: false,
};

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(60),
    tls: Duration::from_secs(10),
    response_header: Duration::from_secs(30),
    read: Duration::from_secs(600),
    response: Some(Duration::from_secs(900)),
    attempt: None,
    write: None,
};

/// One attempt on a connection: what happened up to the last event, and what that one leads to.
fn last_action(reused: bool, events: &[Event]) -> (Action, Lifecycle) {
    let now = Instant::now();
    let mut exchange = Lifecycle::new(TIMEOUTS, now);
    exchange.attempt(reused, now);
    let (last, before) = events.split_last().unwrap();
    for event in before {
        assert_eq!(
            exchange.on(*event, now),
            Continue,
            "{event:?} of {events:?}"
        );
    }
    // A timer is only ever the end of such a list: it fires at the deadline that the machine names.
    let at = if *last == Timer {
        exchange.deadline().unwrap()
    } else {
        now
    };
    (exchange.on(*last, at), exchange)
}

struct Row {
    what: &'static str,
    reused: bool,
    events: &'static [Event],
    action: Action,
}

const fn row(what: &'static str, reused: bool, events: &'static [Event], action: Action) -> Row {
    Row {
        what,
        reused,
        events,
        action,
    }
}

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Row 1: refused, unreachable, not resolved.
    row("refused", false, &[ConnectFailed(ConnectFault::Refused)],
        NextEndpoint(Fault::Refused)),
    row("unreachable", false, &[ConnectFailed(ConnectFault::Unreachable)],
        NextEndpoint(Fault::Unreachable)),
    row("unresolved", false, &[ConnectFailed(ConnectFault::Unresolved)],
        NextEndpoint(Fault::Unresolved)),
    // Row 2: reset before a byte of a response.
    row("reset, nothing sent", false, &[Connected, UpstreamReset],
        NextEndpoint(Fault::Reset)),
    // The same once a byte of the request was sent: the request may be the cause.
    row("reset, a part sent", false, &[Connected, RequestProgress, UpstreamReset],
        NextEndpoint(Fault::Dropped(Ending::Reset))),
    row("write failed, then reset", false, &[Connected, RequestProgress, SendFailed, UpstreamReset],
        NextEndpoint(Fault::Dropped(Ending::Reset))),
    row("write failed, then nothing", false, &[Connected, RequestProgress, SendFailed, Timer],
        NextEndpoint(Fault::Dropped(Ending::Reset))),
    row("write failed at once, then reset", false, &[Connected, SendFailed, UpstreamReset],
        NextEndpoint(Fault::Reset)),
    row("reset while connecting", false, &[UpstreamReset],
        NextEndpoint(Fault::Reset)),
    // Row 3: closed before a byte of a response.
    row("closed, nothing sent", false, &[Connected, UpstreamClosed],
        NextEndpoint(Fault::Closed)),
    row("closed, a part sent", false, &[Connected, RequestProgress, UpstreamClosed],
        NextEndpoint(Fault::Dropped(Ending::Closed))),
    row("closed, all sent", false, &[Connected, RequestSent, UpstreamClosed],
        NextEndpoint(Fault::Dropped(Ending::Closed))),
    row("reset, all sent", false, &[Connected, RequestSent, UpstreamReset],
        NextEndpoint(Fault::Dropped(Ending::Reset))),
    row("closed in the TLS handshake", false, &[TlsBegun, UpstreamClosed],
        NextEndpoint(Fault::Closed)),
    // Row 4: connect timeout, TLS failure, TLS timeout.
    row("connect timeout", false, &[Timer],
        NextEndpoint(Fault::ConnectTimeout)),
    row("connect timeout of the transport", false, &[ConnectFailed(ConnectFault::TimedOut)],
        NextEndpoint(Fault::ConnectTimeout)),
    row("TLS failure", false, &[TlsBegun, ConnectFailed(ConnectFault::Tls(TlsFault::Expired))],
        NextEndpoint(Fault::Tls(TlsFault::Expired))),
    row("TLS timeout", false, &[TlsBegun, Timer],
        NextEndpoint(Fault::TlsTimeout)),
    // A health check finds the endpoint dead.
    row("revoked while connecting", false, &[Revoked], Fail(Fault::Revoked)),
    row("revoked while waiting", true, &[RequestProgress, RequestSent, Revoked], Fail(Fault::Revoked)),
    row("revoked during the response", false, &[Connected, RequestSent, HEAD, Revoked],
        Cut(Fault::Revoked)),
    row("down while connecting", false, &[EndpointDown], NextEndpoint(Fault::Down)),
    row("down in the TLS handshake", false, &[TlsBegun, EndpointDown], NextEndpoint(Fault::Down)),
    row("down while sending", true, &[RequestProgress, EndpointDown], NextEndpoint(Fault::Down)),
    row("down while waiting", false, &[Connected, RequestSent, EndpointDown],
        NextEndpoint(Fault::Down)),
    row("down, but response bytes came", false,
        &[Connected, RequestSent, ResponseBytes, EndpointDown, Malformed], Fail(Fault::Malformed)),
    row("down while responding", false,
        &[Connected, RequestSent, HEAD, EndpointDown, UpstreamReset], Cut(Fault::Reset)),
    // Row 5: a dead connection of the pool.
    row("stale, closed at once", true, &[UpstreamClosed], RetryFresh),
    row("stale, reset at once", true, &[UpstreamReset], RetryFresh),
    row("stale, closed after the request", true, &[RequestSent, UpstreamClosed],
        RetryFresh),
    row("stale, reset within the request", true, &[RequestProgress, UpstreamReset], RetryFresh),
    row("stale, write failed, closed", true, &[SendFailed, UpstreamClosed],
        RetryFresh),
    row("stale, a response to no request", true, &[HEAD], RetryFresh),
    row("stale, bytes of no request", true, &[ResponseBytes], RetryFresh),
    row("stale, malformed bytes of no request", true, &[Malformed], RetryFresh),
    // Row 6: any status. The machine does not see it; the response goes on.
    row("response", false, &[Connected, RequestSent, HEAD], Continue),
    row("response without a body", false, &[Connected, RequestSent, BARE_HEAD],
        Finish { reuse_upstream: true }),
    // Row 7: no response header in time.
    row("header timeout", false, &[Connected, RequestSent, Timer],
        Fail(Fault::HeaderTimeout)),
    row("header timeout, reused", true, &[RequestSent, Timer],
        Fail(Fault::HeaderTimeout)),
    row("header timeout after an interim response", false,
        &[Connected, RequestSent, ResponseBytes, Timer], Fail(Fault::HeaderTimeout)),
    row("takes no more of the request", false, &[Connected, RequestProgress, Timer],
        Fail(Fault::SendTimeout)),
    // Row 8: malformed, or broken off inside the head.
    row("malformed", false, &[Connected, RequestSent, Malformed],
        Fail(Fault::Malformed)),
    row("head too large", false, &[Connected, RequestSent, ResponseBytes, HeadTooLarge],
        Fail(Fault::HeadTooLarge)),
    row("malformed, reused", true, &[RequestSent, Malformed],
        Fail(Fault::Malformed)),
    row("closed inside the head", false, &[Connected, RequestSent, ResponseBytes, UpstreamClosed],
        Fail(Fault::HeadCut(Ending::Closed))),
    row("reset inside the head, reused", true, &[RequestSent, ResponseBytes, UpstreamReset],
        Fail(Fault::HeadCut(Ending::Reset))),
    // Row 9: the response began.
    row("began, reset", false, &[Connected, RequestSent, HEAD, UpstreamReset],
        Cut(Fault::Reset)),
    row("began, cut", false, &[Connected, RequestSent, HEAD, ResponsePiece, UpstreamClosed],
        Cut(Fault::Closed)),
    row("began, cut, reused", true, &[RequestSent, HEAD, UpstreamClosed],
        Cut(Fault::Closed)),
    row("began, silent", false, &[Connected, RequestSent, HEAD, ResponsePiece, Timer],
        Cut(Fault::ReadTimeout)),
    row("began, broken chunks", false, &[Connected, RequestSent, HEAD, Malformed],
        Cut(Fault::Malformed)),
    // Row 10: the client goes away, in each of the four windows.
    row("client left while connecting", false, &[ClientLeft], Abandon),
    row("client left while sending", false, &[Connected, RequestProgress, ClientLeft],
        Abandon),
    row("client left while waiting", false, &[Connected, RequestSent, ClientLeft],
        Abandon),
    row("client left during the response", false, &[Connected, RequestSent, HEAD, ClientLeft],
        Abandon),
    row("client stalled during the response", false, &[Connected, RequestSent, HEAD, ClientStalled],
        Reset),
    // A lack of local resources is not a fault of the endpoint.
    row("out of descriptors", false, &[ConnectFailed(ConnectFault::Local)],
        Fail(Fault::Local)),
];

#[test]
fn the_table() {
    for row in TABLE {
        let (action, exchange) = last_action(row.reused, row.events);
        assert_eq!(action, row.action, "{}", row.what);
        let phase = match row.action {
            Continue => Phase::Responding,
            RetryFresh | NextEndpoint(_) => Phase::Choosing,
            Fail(_) | Finish { .. } => Phase::Delivering,
            Cut(_) | Abandon | Reset => Phase::Over,
        };
        assert_eq!(exchange.phase(), phase, "{}: phase", row.what);
    }
}

#[test]
fn a_response_is_given_up_only_before_it_is_passed_on() {
    let table: [(&str, &[Event], bool); 5] = [
        ("connecting", &[], false),
        ("waiting", &[Connected, RequestSent], false),
        ("responding", &[Connected, RequestSent, HEAD], true),
        (
            "collected",
            &[Connected, RequestSent, HEAD, ResponsePiece, ResponseEnd],
            true,
        ),
        ("without a body", &[Connected, RequestSent, BARE_HEAD], true),
    ];
    for (what, events, is_response) in table {
        for is_passed_on in [false, true] {
            let now = Instant::now();
            let mut exchange = Lifecycle::new(TIMEOUTS, now);
            exchange.attempt(false, now);
            for event in events {
                exchange.on(*event, now);
            }
            if is_passed_on {
                exchange.pass_on();
            }
            let phase = exchange.phase();
            let gives_up = is_response && !is_passed_on;
            assert_eq!(exchange.give_up(), gives_up, "{what} {is_passed_on}");
            let expected = if gives_up { Phase::Choosing } else { phase };
            assert_eq!(exchange.phase(), expected, "{what} {is_passed_on}");
            assert!(!gives_up || exchange.deadline().is_none(), "{what}");
        }
    }
}

#[test]
fn a_client_that_leaves_before_an_endpoint_is_chosen() {
    let now = Instant::now();
    let mut exchange = Lifecycle::new(TIMEOUTS, now);
    assert_eq!(exchange.on(ClientLeft, now), Abandon);
    exchange.attempt(false, now);
    assert_eq!(exchange.phase(), Phase::Over);
    assert_eq!(exchange.on(Connected, now), Abandon);
}

#[test]
fn a_dead_connection_is_retried_once_for_each_endpoint() {
    let now = Instant::now();
    let mut exchange = Lifecycle::new(TIMEOUTS, now);
    for _ in 0..3 {
        exchange.attempt(true, now);
        assert_eq!(exchange.on(UpstreamReset, now), RetryFresh);
        exchange.attempt(false, now);
        assert_eq!(exchange.on(Connected, now), Continue);
        assert_eq!(exchange.on(UpstreamReset, now), NextEndpoint(Fault::Reset));
    }
    // Even if the retry should be made on an old connection.
    exchange.attempt(true, now);
    assert_eq!(exchange.on(UpstreamClosed, now), RetryFresh);
    exchange.attempt(true, now);
    assert_eq!(
        exchange.on(UpstreamClosed, now),
        NextEndpoint(Fault::Closed)
    );
    exchange.attempt(true, now);
    assert_eq!(exchange.on(HEAD, now), RetryFresh);
    exchange.attempt(true, now);
    assert_eq!(exchange.on(HEAD, now), NextEndpoint(Fault::Malformed));
    assert_eq!(exchange.phase(), Phase::Choosing);
}

/// What decides whether a connection may be used again.
#[test]
fn reuse() {
    const END: Event = ResponseEnd;
    const CLOSING: Event = ResponseHead {
        reusable: false,
        has_body: true,
    };
    let cases: &[(&str, &[Event], bool)] = &[
        ("sent, kept open", &[RequestSent, HEAD, END], true),
        (
            "sent, kept open, pieces",
            &[RequestSent, HEAD, ResponsePiece, ResponsePiece, END],
            true,
        ),
        (
            "after an interim response",
            &[RequestSent, ResponseBytes, HEAD, END],
            true,
        ),
        ("without a body", &[RequestSent, BARE_HEAD], true),
        ("endpoint closes", &[RequestSent, CLOSING, END], false),
        ("early response", &[RequestProgress, HEAD, END], false),
        (
            "early response without a body",
            &[RequestProgress, BARE_HEAD],
            false,
        ),
        (
            "early response, request completed later",
            &[RequestProgress, HEAD, RequestSent, END],
            false,
        ),
        (
            "write failed",
            &[RequestProgress, SendFailed, HEAD, END],
            false,
        ),
        (
            "write failed, sent all the same",
            &[SendFailed, RequestSent, HEAD, END],
            false,
        ),
    ];
    for (what, events, reuse_upstream) in cases {
        let events: Vec<_> = [Connected]
            .into_iter()
            .chain(events.iter().copied())
            .collect();
        let (action, exchange) = last_action(false, &events);
        assert_eq!(
            action,
            Finish {
                reuse_upstream: *reuse_upstream
            },
            "{what}"
        );
        assert_eq!(exchange.phase(), Phase::Delivering, "{what}");
    }
}

#[test]
fn early_answer_on_a_new_connection_is_taken_even_before_a_byte_was_sent() {
    let (action, exchange) = last_action(false, &[Connected, HEAD]);
    assert_eq!(action, Continue);
    assert_eq!(exchange.phase(), Phase::Responding);
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn deadlines() {
    let start = Instant::now();
    let mut exchange = Lifecycle::new(
        Timeouts {
            write: Some(secs(3000)),
            ..TIMEOUTS
        },
        start,
    );
    let mut expect = |event: Option<Event>, at: u64, deadline: u64| {
        match event {
            Some(event) => {
                assert_eq!(exchange.on(event, start + secs(at)), Continue, "{event:?}");
            }
            None => exchange.attempt(false, start + secs(at)),
        }
        assert_eq!(
            exchange.deadline(),
            Some(start + secs(deadline)),
            "{event:?} at {at}"
        );
    };
    expect(Some(Timer), 1, 3000);
    expect(None, 1, 61);
    expect(Some(TlsBegun), 2, 12);
    expect(Some(Connected), 3, 603);
    expect(Some(RequestProgress), 4, 604);
    expect(Some(RequestProgress), 400, 904); // `response` since the first byte.
    expect(Some(RequestSent), 401, 431);
    expect(Some(ResponseBytes), 420, 431); // Interim responses do not extend it.
    expect(Some(Timer), 425, 431); // Too early.
    expect(Some(HEAD), 430, 904);
    expect(Some(ClientBlocked), 431, 904);
    expect(Some(ClientTook), 500, 904);
    expect(Some(ResponsePiece), 501, 904);
    assert_eq!(
        exchange.on(Timer, start + secs(904)),
        Cut(Fault::ResponseTimeout)
    );
    assert_eq!(exchange.deadline(), None);
}

/// A response in progress without a time limit as a whole.
fn responding(start: Instant) -> Lifecycle {
    let timeouts = Timeouts {
        response: None,
        ..TIMEOUTS
    };
    let mut exchange = Lifecycle::new(timeouts, start);
    exchange.attempt(true, start);
    for event in [RequestSent, HEAD, ResponsePiece] {
        assert_eq!(exchange.on(event, start), Continue);
    }
    exchange
}

#[test]
fn a_slow_client_is_not_the_endpoints_silence() {
    let start = Instant::now();
    let mut exchange = responding(start);
    assert_eq!(exchange.on(ClientBlocked, start), Continue);
    assert_eq!(exchange.deadline(), None);
    assert_eq!(exchange.on(Timer, start + secs(10_000)), Continue);
    assert_eq!(exchange.on(ClientTook, start + secs(10_000)), Continue);
    assert_eq!(exchange.deadline(), Some(start + secs(10_600)));
    assert_eq!(
        exchange.on(Timer, start + secs(10_600)),
        Cut(Fault::ReadTimeout)
    );
}

#[test]
fn what_is_written_without_the_endpoint_does_not_renew_its_time() {
    let start = Instant::now();
    let mut exchange = responding(start);
    // A ping every ten seconds, each blocked for one, one of them reported twice.
    for (ping, blocked) in [(10, 1), (20, 2), (30, 3)] {
        let at = |seconds| start + secs(seconds);
        assert_eq!(exchange.on(ClientBlocked, at(ping)), Continue);
        assert_eq!(exchange.deadline(), None);
        assert_eq!(exchange.on(ClientBlocked, at(ping)), Continue);
        assert_eq!(exchange.on(ClientTook, at(ping + 1)), Continue);
        assert_eq!(exchange.deadline(), Some(at(600 + blocked)));
        assert_eq!(exchange.on(ClientTook, at(ping + 2)), Continue);
        assert_eq!(exchange.deadline(), Some(at(600 + blocked)));
    }
}

#[test]
fn the_write_timeout_spans_attempts_and_delivery() {
    let start = Instant::now();
    let by = start + secs(20);
    let fresh = || {
        Lifecycle::new(
            Timeouts {
                write: Some(secs(20)),
                ..TIMEOUTS
            },
            start,
        )
    };
    let timeout = Cut(Fault::WriteTimeout);

    let mut choosing = fresh();
    assert_eq!(choosing.on(Timer, by), timeout);

    let mut second = fresh();
    second.attempt(false, start);
    second.on(ConnectFailed(ConnectFault::Refused), start + secs(15));
    second.attempt(false, start + secs(15));
    assert_eq!(second.deadline(), Some(by));
    assert_eq!(second.on(Timer, by), timeout);

    let mut failed = fresh();
    failed.attempt(true, start);
    assert_eq!(failed.on(RequestSent, start), Continue);
    assert_eq!(failed.on(Malformed, start), Fail(Fault::Malformed));
    assert_eq!(failed.on(Timer, by), timeout);

    let mut delivering = fresh();
    delivering.attempt(true, start);
    assert_eq!(delivering.on(RequestSent, start), Continue);
    assert_eq!(
        delivering.on(BARE_HEAD, start),
        Finish {
            reuse_upstream: true
        }
    );
    assert_eq!(delivering.deadline(), Some(by));
    assert_eq!(delivering.on(UpstreamReset, start), Continue); // No longer ours.
    assert_eq!(delivering.on(Delivered, start), Continue);
    assert_eq!(delivering.phase(), Phase::Over);
    assert_eq!(delivering.deadline(), None);

    let mut local = fresh();
    local.respond_locally();
    assert_eq!(local.phase(), Phase::Delivering);
    local.attempt(false, start);
    assert_eq!(local.phase(), Phase::Delivering);
    assert_eq!(local.on(ClientLeft, start), Abandon);
}

#[test]
fn response_timeout_before_the_answer_is_an_error() {
    let start = Instant::now();
    let timeouts = Timeouts {
        response: Some(secs(5)),
        ..TIMEOUTS
    };
    let mut exchange = Lifecycle::new(timeouts, start);
    exchange.attempt(true, start);
    assert_eq!(exchange.on(RequestSent, start + secs(1)), Continue);
    assert_eq!(exchange.deadline(), Some(start + secs(6)));
    let action = exchange.on(Timer, start + secs(6));
    assert_eq!(action, Fail(Fault::ResponseTimeout));
}

#[test]
fn the_time_of_an_attempt_begins_with_it_and_outlasts_a_retry() {
    let start = Instant::now();
    let timeouts = Timeouts {
        attempt: Some(secs(2)),
        ..TIMEOUTS
    };
    let mut exchange = Lifecycle::new(timeouts, start);
    exchange.attempt(true, start + secs(5));
    assert_eq!(exchange.deadline(), Some(start + secs(7)));
    assert_eq!(exchange.on(UpstreamReset, start + secs(6)), RetryFresh);
    assert_eq!(exchange.deadline(), None);
    exchange.attempt(false, start + secs(6));
    for event in [Connected, RequestSent, HEAD, ResponsePiece] {
        assert_eq!(exchange.on(event, start + secs(6)), Continue);
        assert_eq!(exchange.deadline(), Some(start + secs(7)), "{event:?}");
    }
    let cut = exchange.on(Timer, start + secs(7));
    assert_eq!(cut, Cut(Fault::ResponseTimeout));
    let mut exchange = Lifecycle::new(timeouts, start);
    exchange.attempt(false, start);
    let failed = exchange.on(Timer, start + secs(2));
    assert_eq!(failed, Fail(Fault::ResponseTimeout));
}

#[test]
fn an_endless_timeout_is_no_deadline() {
    let now = Instant::now();
    let all = Duration::MAX;
    let timeouts = Timeouts {
        connect: all,
        tls: all,
        response_header: all,
        read: all,
        response: Some(all),
        attempt: Some(all),
        write: Some(all),
    };
    let mut exchange = Lifecycle::new(timeouts, now);
    exchange.attempt(false, now);
    for event in [
        TlsBegun,
        Connected,
        RequestProgress,
        RequestSent,
        HEAD,
        ResponsePiece,
    ] {
        assert_eq!(exchange.on(event, now), Continue);
        assert_eq!(exchange.deadline(), None);
    }
}

#[test]
fn whatever_comes_after_the_end_is_abandoned() {
    let now = Instant::now();
    let (_, mut exchange) = last_action(false, &[Connected, RequestSent, HEAD, UpstreamReset]);
    for event in [
        Connected,
        RequestSent,
        HEAD,
        ResponseEnd,
        Timer,
        ClientLeft,
        Delivered,
    ] {
        assert_eq!(exchange.on(event, now), Abandon, "{event:?}");
        exchange.attempt(false, now);
        exchange.respond_locally();
        assert_eq!(exchange.phase(), Phase::Over);
    }
}

#[test]
fn every_fault_has_a_word_of_its_own() {
    let mut words: Vec<_> = Fault::ALL.iter().map(|fault| fault.as_str()).collect();
    let letters = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    assert!(words.iter().all(letters), "{words:?}");
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count);
}
