//! All simulated engines of a scenario in one process: one thread, one epoll, a listener for each
//! engine. What an engine does is decided in [`engine`]; here are its sockets and the clock.

pub mod cache;
mod chat;
pub mod engine;
pub mod memory;
mod pages;
pub mod scenario;
mod serve;
pub mod ticks;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

pub use chat::length_sentence;
use scenario::Scenario;
use serve::Fleet;

/// What `fleet` is started with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = FLEET_HELP)]
pub struct FleetOptions {
    /// The engines, in a file such as loadtest/scenarios/chat.json
    #[arg(long, value_name = "FILE")]
    pub scenario: PathBuf,
    /// Address of the first engine; the others have the ports after it, or free ones for port 0
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Write what the engines are and their addresses, as JSON
    #[arg(long, value_name = "FILE")]
    pub addresses: Option<PathBuf>,
    /// Seed of what is random in the engines
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Deviation of the logarithm of prefill speed, in place of the scenario's
    #[arg(long, value_name = "SIGMA")]
    pub noise: Option<f64>,
}

const FLEET_HELP: &str = "\
Each engine has the pages of its kind and POST /v1/chat/completions. The length of an output is in
the last message of the user, `Answer in N tokens. `, at most max_tokens.
GET /fleet/stats     what the engine did since the start of the load, and how late this process was
POST /fleet/begin    starts the load for all engines: counts and times begin here
The first line of output is the address of the first engine.";

/// Serves until the process ends.
///
/// # Errors
/// A file that cannot be read or written, a scenario that is none, and what the system says about
/// the addresses or about epoll.
pub fn run(options: &FleetOptions) -> io::Result<()> {
    let mut scenario = Scenario::read(&options.scenario).map_err(io::Error::other)?;
    scenario.noise = options.noise.unwrap_or(scenario.noise);
    let fleet = Fleet::bind(&scenario, options.listen, options.seed)?;
    let engines = describe(&fleet);
    if let Some(path) = &options.addresses {
        std::fs::write(path, format!("{engines:#}\n"))?;
    }
    writeln!(io::stdout(), "listening on {}", fleet.address(0))?;
    fleet.run()
}

fn describe(fleet: &Fleet) -> Value {
    let engines = fleet.specs().enumerate().map(|(place, spec)| {
        json!({
            "name": format!("e{place}"),
            "address": fleet.address(place).to_string(),
            "kind": spec.kind.name(),
            "models": spec.models,
            "slots": spec.slots,
        })
    });
    engines.collect()
}
