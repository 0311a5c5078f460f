//! Calls over TLS: a handshake costs more than all the rest of an exchange, so connections and sessions are used again.

use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{HandshakeKind, ServerConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Bank, Process, Stage};

/// Dapi behind TLS, which gives a token for every code.
struct TlsDapi {
    base: String,
    /// The file of its certificate.
    roots: tempfile::NamedTempFile,
    handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
}

impl TlsDapi {
    async fn new(keeps_connections: bool) -> Self {
        let names = ["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let roots = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(roots.path(), cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("https://localhost:{}/v2", listener.local_addr().unwrap().port());
        let handshakes: Arc<Mutex<Vec<HandshakeKind>>> = Arc::default();
        let seen = Arc::clone(&handshakes);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    seen.lock().unwrap().push(stream.get_ref().1.handshake_kind().unwrap());
                    answer_all(stream, keeps_connections).await;
                });
            }
        });
        Self { base, roots, handshakes }
    }

    async fn service(&self, stage: &Stage) -> Process {
        let roots = self.roots.path().to_str().unwrap();
        Process::serve(stage, &[("DAPI_BASE_URL", self.base.as_str()), ("SSL_CERT_FILE", roots)])
            .await
    }

    fn handshakes(&self) -> (usize, usize) {
        let seen = self.handshakes.lock().unwrap();
        let resumed = seen.iter().filter(|kind| **kind == HandshakeKind::Resumed).count();
        (seen.len() - resumed, resumed)
    }
}

async fn answer_all(mut stream: impl AsyncRead + AsyncWrite + Unpin, keeps_connections: bool) {
    const TOKEN: &str = r#"{"success":true,"status":"done","accessToken":"token"}"#;
    let connection = if keeps_connections { "keep-alive" } else { "close" };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: {connection}\r\n\r\n{TOKEN}",
        TOKEN.len()
    );
    while request(&mut stream).await.is_some() {
        if stream.write_all(answer.as_bytes()).await.is_err() || !keeps_connections {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// Reads a request whole.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        stream.read_buf(&mut bytes).await.ok().filter(|read| *read > 0)?;
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if bytes.len() >= end + 4 + length {
            return Some(());
        }
    }
}

fn result(number: usize) -> Value {
    json!({
        "success": true, "accessCode": format!("code-{number}"), "userSecret": "secret",
        "connectionID": format!("login-{number}"), "userID": "u", "tokenID": "t",
    })
}

async fn exchange_twenty(process: &Process) {
    let token = process.token().await;
    for number in 0..20 {
        let answer = process.api.hand_in(&token, "ada", &result(number)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
}

#[tokio::test]
async fn exchanges_that_follow_each_other_use_one_connection_over_tls() {
    let stage = Bank::Dapi.builder().stage().await;
    let dapi = TlsDapi::new(true).await;
    let process = dapi.service(&stage).await;
    exchange_twenty(&process).await;
    let (full, resumed) = dapi.handshakes();
    // Each of the threads that serve requests has its own, and a slow machine may take more than a second between two.
    assert!(
        full + resumed < 10,
        "{full} handshakes and {resumed} resumptions for twenty exchanges"
    );
}

#[tokio::test]
async fn a_new_connection_resumes_a_session_of_any_thread_over_tls() {
    let stage = Bank::Dapi.builder().stage().await;
    let dapi = TlsDapi::new(false).await;
    let process = dapi.service(&stage).await;
    exchange_twenty(&process).await;
    assert_eq!(dapi.handshakes(), (1, 19));
}
