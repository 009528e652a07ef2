//! The command line of the load tools; everything else is in the library.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use olla_loadtest::{chat, fleet, hostile, idle, mixed, people, relay, report, sse, stub};
use serde_json::Value;

/// Stub server, load clients and byte relay for measuring HTTP gateways in front of LLM servers.
///
/// A first try: run `olla-loadtest stub --listen 127.0.0.1:9000` in one terminal and `olla-loadtest
/// sse --url http://127.0.0.1:9000/v1/chat/completions` in another; then put a gateway between the
/// two and compare.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Serve as an LLM server that costs nearly nothing and fails on request
    Stub(stub::StubOptions),
    /// Send JSON requests over keep-alive connections and check the responses
    Chat(chat::ChatOptions),
    /// Open event streams and measure the delay of every event
    Sse(sse::SseOptions),
    /// Open connections, send a request on each, and hold them until the standard input ends
    Idle(idle::IdleOptions),
    /// Misbehave towards a gateway: one attack, bounded
    Hostile(hostile::HostileOptions),
    /// Send JSON requests and event streams at a steady rate and report the outcome of each
    Mixed(mixed::MixedOptions),
    /// Serve as the engines of a scenario, with slots, prefix caches and models to load
    Fleet(fleet::FleetOptions),
    /// Hold the conversations of a scenario through a gateway
    People(people::PeopleOptions),
    /// Copy bytes between a listener and a server: the floor below every gateway
    Relay(relay::RelayOptions),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().tool {
        Tool::Stub(options) => run_stub(&options),
        Tool::Chat(options) => chat::run(&options).and_then(|report| {
            print_report(&report, options.json.as_deref(), chat::is_success(&report))
        }),
        Tool::Sse(options) => sse::run(&options).and_then(|report| {
            print_report(&report, options.json.as_deref(), sse::is_success(&report))
        }),
        Tool::Idle(options) => idle::run(&options).and_then(|report| {
            print_report(&report, options.json.as_deref(), idle::is_success(&report))
        }),
        Tool::Hostile(options) => hostile::run(&options)
            .and_then(|report| print_report(&report, options.json.as_deref(), true)),
        Tool::Mixed(options) => mixed::run(&options)
            .and_then(|report| print_report(&report, options.json.as_deref(), true)),
        Tool::Fleet(options) => fleet::run(&options).map(|()| ExitCode::SUCCESS),
        Tool::People(options) => people::run(&options).and_then(|report| {
            people::publish(&report, options.json.as_deref()).map(|()| ExitCode::SUCCESS)
        }),
        Tool::Relay(options) => run_relay(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("olla-loadtest: {error}");
        ExitCode::FAILURE
    })
}

fn print_report(report: &Value, json: Option<&Path>, success: bool) -> io::Result<ExitCode> {
    report::publish(report, json)?;
    Ok(if success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_stub(options: &stub::StubOptions) -> io::Result<ExitCode> {
    let stub = stub::Stub::bind(options)?;
    writeln!(io::stdout(), "listening on {}", stub.local_addr()?)?;
    stub.run()?;
    Ok(ExitCode::SUCCESS)
}

fn run_relay(options: &relay::RelayOptions) -> io::Result<ExitCode> {
    relay::run(options, |addr, is_epoll| {
        println!("listening on {addr}");
        eprintln!("driver: {}", if is_epoll { "epoll" } else { "io_uring" });
    })?;
    Ok(ExitCode::SUCCESS)
}
