//! The certificates that this system trusts, with those that `SSL_CERT_FILE` and `SSL_CERT_DIR`
//! add.
//!
//! Contract: docs/contract/balancing.md#13

use olla_engine::tls::Roots;

/// The certificates that were found.
#[derive(Debug)]
pub(crate) struct SystemRoots {
    /// The trusted certificates.
    pub(crate) roots: Roots,
    /// Files and folders that could not be read, with the reasons.
    pub(crate) faults: Vec<String>,
}

/// Reads the system's store. The variables add to it; the library alone would read their files
/// instead. A certificate in these files may also be a server's own.
pub(crate) fn system() -> SystemRoots {
    let mut found = rustls_native_certs::load_native_certs();
    let mut own = Vec::new();
    let variables = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
    if variables
        .iter()
        .any(|name| std::env::var_os(name).is_some())
    {
        own.clone_from(&found.certs);
        for dir in openssl_probe::candidate_cert_dirs() {
            let more = rustls_native_certs::load_certs_from_paths(None, Some(dir));
            found.certs.extend(more.certs);
        }
        found.certs.sort_unstable_by(|a, b| a.as_ref().cmp(b));
        found.certs.dedup();
    }
    SystemRoots {
        roots: Roots::new(&found.certs).with_exact(&own),
        faults: found.errors.iter().map(ToString::to_string).collect(),
    }
}
