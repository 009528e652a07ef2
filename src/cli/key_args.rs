//! The grammar of `olla key`, `olla usage` and `olla state`, and of the options that several commands
//! share.
//!
//! Contract: docs/contract/access.md#14

use std::path::PathBuf;

use clap::Subcommand;

use super::{KeyCommand, NewKey, Remote, Trust, UsageCommand};

#[derive(Debug, Subcommand)]
pub(super) enum KeySub {
    /// Make a secret, and the entry of a key for a keys file
    New(Box<NewArgs>),
    /// Print the hash of a secret that is read from standard input
    Hash,
    /// List the keys of a running gateway
    List(GatewayArgs),
    /// Show a key of a running gateway
    Show(NamedKey),
    /// Refuse requests with a key
    Disable(NamedKey),
    /// Admit requests with a key again
    Enable(NamedKey),
    /// Give a key another secret
    Rotate {
        #[command(flatten)]
        named: NamedKey,

        /// Time for which the old secret stays valid, as in 24h [default: 0s]
        #[arg(long, value_name = "DURATION")]
        grace: Option<String>,
    },
    /// Delete a key
    Delete {
        #[command(flatten)]
        named: NamedKey,

        /// Cut its requests in progress
        #[arg(long)]
        cut: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// Name of the key
    name: String,

    /// Policy of the key [default: default]
    #[arg(long)]
    policy: Option<String>,

    /// Let the key administer the gateway; =read lets it read only
    #[arg(long, value_name = "RIGHT", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true", value_parser = ["true", "false", "read"])]
    admin: Option<String>,

    /// Instant at which the key expires, as in 2026-12-31T00:00:00Z
    #[arg(long, value_name = "INSTANT", conflicts_with = "ttl")]
    expires: Option<String>,

    /// Time after which the key expires, as in 720h
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,

    /// A remark
    #[arg(long)]
    note: Option<String>,

    /// Any other field of a key, as in tokens_per_day=100000; may be repeated
    #[arg(long, value_name = "FIELD=VALUE")]
    set: Vec<String>,

    /// Append the key to this keys file, and print the secret only
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with = "url")]
    file: Option<PathBuf>,

    #[command(flatten)]
    gateway: GatewayArgs,
}

/// The certificates that are accepted besides those that the system trusts.
#[derive(Debug, clap::Args)]
pub(super) struct Certificates {
    /// PEM file with additional trusted certificates
    #[arg(long, alias = "cacert", value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    ca_file: Option<PathBuf>,

    /// Accept any certificate
    #[arg(short = 'k', long)]
    insecure: bool,
}

impl From<Certificates> for Trust {
    fn from(given: Certificates) -> Self {
        Self {
            ca_file: given.ca_file,
            insecure: given.insecure,
            own: None,
        }
    }
}

/// A running gateway, and how it is asked.
#[derive(Debug, clap::Args)]
pub(super) struct GatewayArgs {
    /// Address of the gateway [default: the address in the configuration]
    #[arg(long)]
    url: Option<String>,

    /// File with the admin key [default: the variable OLLA_ADMIN_KEY]
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath)]
    key_file: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    trust: Certificates,
}

#[derive(Debug, clap::Args)]
pub(super) struct NamedKey {
    /// Name of the key
    name: String,

    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct UsageArgs {
    /// Only usage of this key
    #[arg(long)]
    key: Option<String>,

    /// Only usage of this model
    #[arg(long)]
    model: Option<String>,

    /// Only usage of this endpoint
    #[arg(long)]
    endpoint: Option<String>,

    /// First day, as in 2026-01-31, in UTC [default: today]
    #[arg(long, value_name = "DAY")]
    since: Option<String>,

    /// Last day [default: today]
    #[arg(long, value_name = "DAY")]
    until: Option<String>,

    /// Columns to group by: key, model, endpoint, day [default: all, as key,model,endpoint,day]
    #[arg(long, value_name = "LIST")]
    group: Option<String>,

    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    /// Read this state store in place of asking a gateway
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    #[arg(conflicts_with = "url")]
    store: Option<PathBuf>,

    #[command(flatten)]
    gateway: GatewayArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum StateSub {
    /// Check a state store: integrity, version and counts
    Check {
        /// File of the store
        #[arg(value_hint = clap::ValueHint::FilePath)]
        file: PathBuf,
    },
}

impl GatewayArgs {
    fn remote(self, config: Option<PathBuf>) -> Remote {
        Remote {
            url: self.url,
            key_file: self.key_file,
            json: self.json,
            config,
            trust: self.trust.into(),
        }
    }
}

/// The command of these arguments; `config` is the configuration that they name.
pub(super) fn key(given: KeySub, config: Option<PathBuf>) -> KeyCommand {
    match given {
        KeySub::New(new) => KeyCommand::New(Box::new(NewKey {
            name: new.name,
            policy: new.policy,
            admin: new.admin,
            expires: new.expires,
            ttl: new.ttl,
            note: new.note,
            set: new.set,
            file: new.file,
            remote: new.gateway.remote(config),
        })),
        KeySub::Hash => KeyCommand::Hash,
        KeySub::List(gateway) => KeyCommand::List(gateway.remote(config)),
        KeySub::Show(named) => KeyCommand::Show(named.name, named.gateway.remote(config)),
        KeySub::Disable(named) => {
            KeyCommand::Enable(named.name, false, named.gateway.remote(config))
        }
        KeySub::Enable(named) => KeyCommand::Enable(named.name, true, named.gateway.remote(config)),
        KeySub::Rotate { named, grace } => {
            KeyCommand::Rotate(named.name, grace, named.gateway.remote(config))
        }
        KeySub::Delete { named, cut } => {
            KeyCommand::Delete(named.name, cut, named.gateway.remote(config))
        }
    }
}

/// The command of these arguments.
pub(super) fn usage(given: UsageArgs, config: Option<PathBuf>) -> UsageCommand {
    let filters = [
        ("key", given.key),
        ("model", given.model),
        ("endpoint", given.endpoint),
        ("since", given.since),
        ("until", given.until),
        ("group", given.group),
    ];
    let given_only = filters.into_iter();
    UsageCommand {
        parameters: given_only
            .filter_map(|(name, value)| Some((name, value?)))
            .collect(),
        csv: given.csv,
        store: given.store,
        remote: given.gateway.remote(config),
    }
}
