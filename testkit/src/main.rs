//! Scriptable backends, a launcher for the gateway and ports, for programs in any language.
//!
//! Results are lines of JSON on standard output; commands are lines of JSON on standard input, whose
//! end stops everything.

mod commands;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use testkit::{Config, Driver};

const USAGE: &str = "\
usage: testkit backend --script FILE
       testkit gateway [--bin FILE] [--config FILE] [--driver auto|io_uring|epoll]
       testkit port [COUNT]

backend  Starts the backends of a script: an object, or an array of objects, as described in
         testkit/src/backend/script.rs. Prints {\"backends\": [{\"name\", \"url\", \"port\"}, ...]}.
         Commands, each with the name of a backend in \"backend\":
           {\"do\": \"seen\"}      prints the recorded requests
           {\"do\": \"count\"}     prints their number
           {\"do\": \"health\", \"status\": 503}
           {\"do\": \"script\", \"script\": {...}}   follows another script from now on
           {\"do\": \"stop\"}      stops listening and ends the connections
           {\"do\": \"restart\"}   listens on the same port again
           {\"do\": \"drop\"}      ends the connections
gateway  Starts a gateway with a configuration that is merged over the one of the tests, and waits
         until it has checked its endpoints. Prints {\"url\", \"port\", \"pid\", \"config\"}.
         Commands:
           {\"do\": \"rewrite\", \"toml\": \"...\"}    merges TOML into the configuration file
           {\"do\": \"signal\", \"name\": \"HUP\"}
           {\"do\": \"log\"}       prints the log
port     Prints {\"ports\": [...]}: ports of 127.0.0.1, held for listeners that set SO_REUSEADDR until
         standard input ends.

Every command prints one line: its result, or {\"error\": \"...\"}.

exit status: 0 = standard input has ended, 1 = could not start, 2 = invalid command line";

/// A parsed command line.
enum Arguments {
    Backend(PathBuf),
    Gateway(Box<Config>),
    Port(usize),
    Help,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let arguments = match parse(&words) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("testkit: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = match arguments {
        Arguments::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Arguments::Backend(script) => commands::backends(&script),
        Arguments::Gateway(config) => commands::gateway(&config),
        Arguments::Port(count) => commands::ports(count),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testkit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[String]) -> Result<Arguments, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["backend", "--script", script] => Ok(Arguments::Backend(script.into())),
        ["gateway", options @ ..] => Ok(Arguments::Gateway(Box::new(gateway_config(options)?))),
        ["port"] => Ok(Arguments::Port(1)),
        ["port", count] => {
            let parsed = count
                .parse()
                .ok()
                .filter(|count| (1..=1000).contains(count));
            let wrong = || format!("COUNT: expected an integer from 1 to 1000, got {count:?}");
            parsed.map(Arguments::Port).ok_or_else(wrong)
        }
        ["help" | "--help" | "-h"] => Ok(Arguments::Help),
        [] => Err("expected a command".to_owned()),
        [command, ..] => Err(format!("invalid arguments of the command {command:?}")),
    }
}

fn gateway_config(options: &[&str]) -> Result<Config, String> {
    let mut bin = None;
    let mut file = None;
    let mut driver = Driver::Auto;
    for pair in options.chunks(2) {
        match pair {
            ["--bin", path] => bin = Some(PathBuf::from(path)),
            ["--config", path] => file = Some(*path),
            ["--driver", "auto"] => driver = Driver::Auto,
            ["--driver", "io_uring"] => driver = Driver::IoUring,
            ["--driver", "epoll"] => driver = Driver::Epoll,
            ["--driver", other] => {
                return Err(format!(
                    "--driver: expected auto, io_uring or epoll, got {other:?}"
                ));
            }
            _ => return Err(format!("invalid option {:?}", pair[0])),
        }
    }
    let bin = bin.unwrap_or_else(|| testkit::program("olla"));
    // The gateway runs in a folder of its own.
    let bin = std::path::absolute(&bin).map_err(|error| format!("{}: {error}", bin.display()))?;
    let config = Config::of(bin, driver);
    match file {
        None => Ok(config),
        Some(path) => {
            let text = commands::read(Path::new(path))?;
            config
                .try_more(&text)
                .map_err(|error| format!("{path}: {error}"))
        }
    }
}
