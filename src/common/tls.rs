//! One TLS configuration for all HTTP clients of the process.

use std::sync::{Arc, LazyLock};

use reqwest::ClientBuilder;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_platform_verifier::BuilderVerifierExt as _;

/// The system's root certificates, read once: there are 150 files of them on a common system, and each thread has
/// several clients. Sessions are shared too, so that a client resumes what another began (RFC 8446 §2.2).
static CONFIG: LazyLock<Option<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().ok()?;
    let mut config = config.with_platform_verifier().ok()?.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(config)
});

/// Begins to read the root certificates, on a thread of its own: a start has other things to wait for meanwhile.
pub fn read_ahead() {
    tokio::task::spawn_blocking(|| {
        LazyLock::force(&CONFIG);
    });
}

/// Returns `builder` with the shared configuration: the system's root certificates, TLS 1.2 and 1.3, HTTP/1.1. If it
/// cannot be made, building the client reports why.
pub fn shared(builder: ClientBuilder) -> ClientBuilder {
    match &*CONFIG {
        Some(config) => builder.tls_backend_preconfigured(config.clone()),
        None => builder,
    }
}
