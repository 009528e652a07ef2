//! The certificate of the listener: `[server.tls]`.
//!
//! Contract: docs/contract/operations.md#11

use std::path::{Path, PathBuf};

use olla_engine::tls::TlsIdentity;

use super::inputs::ConfigInputs;
use super::section::Section;
use super::values::quoted;

/// `[server.tls]`, if the listener uses TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTlsPlan {
    /// PEM file with the certificate chain.
    pub cert_file: PathBuf,
    /// PEM file with the private key.
    pub key_file: PathBuf,
}

/// Why the files of `[server.tls]` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFault {
    /// The key of the file, without its section.
    pub key: &'static str,
    /// Why it cannot be used.
    pub reason: String,
}

impl ServerTlsPlan {
    /// Reads the certificate and its key. Relative paths begin at `cwd`.
    ///
    /// # Errors
    /// The first file that cannot be read or used.
    pub fn identity(&self, cwd: &Path) -> Result<TlsIdentity, IdentityFault> {
        let read = |key, path: &Path| {
            let shown = quoted(&path.to_string_lossy());
            std::fs::read(cwd.join(path)).map_err(|error| IdentityFault {
                key,
                reason: format!("cannot read {shown}: {error}"),
            })
        };
        let certificate = read(CERT_FILE, &self.cert_file)?;
        let key = read(KEY_FILE, &self.key_file)?;
        TlsIdentity::from_pem(&certificate, &key).map_err(|fault| {
            let (key, path, what) = if fault.is_about_key() {
                (KEY_FILE, &self.key_file, "the private key")
            } else {
                (CERT_FILE, &self.cert_file, "the certificate chain")
            };
            let shown = quoted(&path.to_string_lossy());
            let reason = format!("expected a PEM file with {what}, got {shown} ({fault})");
            IdentityFault { key, reason }
        })
    }
}

const CERT_FILE: &str = "cert_file";
const KEY_FILE: &str = "key_file";

/// Declares and checks `[server.tls]`. Both files are read, as at start.
pub(super) fn server_tls(
    s: &mut Section<'_, '_>,
    inputs: &ConfigInputs<'_>,
) -> Option<ServerTlsPlan> {
    let cert_file = s
        .key(
            CERT_FILE,
            "PEM file with the listener's certificate chain; read again on SIGHUP.",
        )
        .path();
    let key_file = s
        .key(
            KEY_FILE,
            "PEM file with the listener's private key; read again on SIGHUP.",
        )
        .path();
    let tls = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => ServerTlsPlan {
            cert_file,
            key_file,
        },
        (Some(_), None) => {
            if !s.is_faulty(KEY_FILE) {
                s.expected(KEY_FILE, "a file, since server.tls.cert_file is set");
            }
            return None;
        }
        (None, Some(_)) => {
            if !s.is_faulty(CERT_FILE) {
                s.expected(CERT_FILE, "a file, since server.tls.key_file is set");
            }
            return None;
        }
        (None, None) => return None,
    };
    if let Err(fault) = tls.identity(inputs.cwd) {
        s.refuse(fault.key, fault.reason);
    }
    Some(tls)
}
