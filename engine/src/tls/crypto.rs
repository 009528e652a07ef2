//! The cryptography below TLS: ring. The one place that chooses it, so that no other that comes
//! into the build by chance takes part.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{WebPkiSupportedAlgorithms, ring};
use rustls::server::ProducesTickets;
use rustls::{ClientConfig, ConfigBuilder, Error, ServerConfig, WantsVerifier};

/// The signature algorithms that can be verified.
pub(super) fn algorithms() -> WebPkiSupportedAlgorithms {
    ring::default_provider().signature_verification_algorithms
}

/// The configuration of a TLS client, for TLS 1.2 and 1.3.
pub(super) fn client(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

/// A server's configuration, TLS 1.2 and 1.3.
pub(super) fn server() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, Error> {
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
}

/// What makes tickets, by which clients resume their sessions.
pub(super) fn ticketer() -> Option<Arc<dyn ProducesTickets>> {
    ring::Ticketer::new().ok()
}
