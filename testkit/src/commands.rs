//! The commands of the binary.

use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};
use testkit::{Backend, Config, Gateway, Script};

/// A command on standard input.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Command {
    Seen {
        backend: Option<String>,
    },
    Count {
        backend: Option<String>,
    },
    Health {
        backend: Option<String>,
        status: u16,
    },
    Script {
        backend: Option<String>,
        script: Box<Script>,
    },
    Stop {
        backend: Option<String>,
    },
    Restart {
        backend: Option<String>,
    },
    Drop {
        backend: Option<String>,
    },
    Rewrite {
        toml: String,
    },
    Signal {
        name: String,
    },
    Log,
}

/// Reads a file.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Executes the commands on standard input until it ends.
fn execute(mut command: impl FnMut(Command) -> Result<Value, String>) -> Result<(), String> {
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let result = serde_json::from_str(&line)
            .map_err(|error| error.to_string())
            .and_then(&mut command);
        println!("{}", result.unwrap_or_else(|error| json!({"error": error})));
    }
    Ok(())
}

/// A backend as it is driven.
struct Driven {
    name: String,
    backend: Backend,
    is_stopped: bool,
}

pub(crate) fn backends(path: &Path) -> Result<(), String> {
    let file = path.display();
    let value: Value =
        serde_json::from_str(&read(path)?).map_err(|error| format!("{file}: {error}"))?;
    let scripts: Vec<Script> = if value.is_array() {
        serde_json::from_value(value)
    } else {
        serde_json::from_value(value).map(|script| vec![script])
    }
    .map_err(|error| format!("{file}: {error}"))?;
    if scripts.is_empty() {
        return Err(format!("{file}: expected at least one script, got none"));
    }
    let mut all: Vec<Driven> = scripts
        .into_iter()
        .map(|script| Driven {
            name: script.name.clone(),
            backend: Backend::scripted(script),
            is_stopped: false,
        })
        .collect();
    let describe = |one: &Driven| {
        let url = one.backend.url();
        let port: Option<u16> = url.rsplit(':').next().and_then(|port| port.parse().ok());
        json!({"name": one.name, "url": url, "port": port})
    };
    let described: Vec<Value> = all.iter().map(describe).collect();
    println!("{}", json!({"backends": described}));
    execute(|command| drive(&mut all, command))
}

fn drive(all: &mut [Driven], command: Command) -> Result<Value, String> {
    match command {
        Command::Seen { backend } => {
            let seen = find(all, backend)?.backend.seen();
            Ok(json!({"seen": seen}))
        }
        Command::Count { backend } => Ok(json!({"count": find(all, backend)?.backend.count()})),
        Command::Health { backend, status } => {
            find(all, backend)?.backend.set_health(status);
            done()
        }
        Command::Script { backend, script } => {
            find(all, backend)?.backend.set_script(*script);
            done()
        }
        Command::Stop { backend } => {
            let one = find(all, backend)?;
            one.backend.stop();
            one.is_stopped = true;
            done()
        }
        Command::Restart { backend } => {
            let one = find(all, backend)?;
            if std::mem::take(&mut one.is_stopped) {
                one.backend.restart();
            }
            done()
        }
        Command::Drop { backend } => {
            find(all, backend)?.backend.drop_connections();
            done()
        }
        other => Err(format!("not a command for backends: {other:?}")),
    }
}

fn done() -> Result<Value, String> {
    Ok(json!({"ok": true}))
}

/// The backend with this name; without a name, the only one.
fn find(all: &mut [Driven], name: Option<String>) -> Result<&mut Driven, String> {
    let Some(name) = name else {
        return match all {
            [one] => Ok(one),
            _ => Err("backend: expected the name of a backend, got none".to_owned()),
        };
    };
    let known: Vec<String> = all.iter().map(|one| one.name.clone()).collect();
    all.iter_mut()
        .find(|one| one.name == name)
        .ok_or_else(|| format!("backend: expected one of {known:?}, got {name:?}"))
}

pub(crate) fn gateway(config: &Config) -> Result<(), String> {
    let mut gateway = Gateway::try_start(config)?;
    println!(
        "{}",
        json!({
            "url": gateway.url(), "port": gateway.port, "pid": gateway.id(),
            "config": gateway.config_file(),
        })
    );
    execute(|command| match command {
        Command::Rewrite { toml } => {
            gateway.try_rewrite(&toml)?;
            done()
        }
        Command::Signal { name } => {
            let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !is_name || !gateway.is_running() {
                return Err(format!("signal {name:?} cannot be sent"));
            }
            gateway.signal(&name);
            done()
        }
        Command::Log => Ok(json!({"log": gateway.log()})),
        other => Err(format!("not a command for a gateway: {other:?}")),
    })
}

pub(crate) fn ports(count: usize) -> Result<(), String> {
    let ports: Vec<u16> = (0..count).map(|_| testkit::reserve().port()).collect();
    println!("{}", json!({"ports": ports}));
    execute(|command| Err(format!("not a command for ports: {command:?}")))
}
