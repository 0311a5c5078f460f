//! A line between the service and a key engine, which can be cut, and which keeps what was sent.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the line does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Up,
    /// Connections are closed, and new ones at once.
    Down,
    /// Connections are taken and never answered.
    Silent,
    /// What the engine answers comes this late.
    Slow(Duration),
}

/// The line to one engine.
pub struct Wire {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
    sent: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    pub async fn to(backend: SocketAddr) -> Self {
        let (line, watching) = watch::channel(Line::Up);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::default();
        let seen = Arc::clone(&sent);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, backend, watching.clone(), Arc::clone(&seen)));
            }
        });
        Self { address, line, sent }
    }

    pub fn cut(&self, line: Line) {
        self.line.send(line).unwrap();
    }

    /// All that was sent to the engine, and after it every part that is base64, decoded.
    pub fn sent(&self) -> Vec<u8> {
        let sent = self.sent.lock().unwrap().clone();
        let of_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
        let runs = sent.split(|byte| !of_base64(byte)).filter(|run| run.len() >= 16);
        let decoded: Vec<_> = runs.filter_map(|run| STANDARD.decode(run).ok()).collect();
        [vec![sent.clone()], decoded].concat().join(&b'\n')
    }
}

/// Passes bytes on for as long as the line is up.
async fn pass_on(
    mut client: TcpStream,
    backend: SocketAddr,
    mut line: watch::Receiver<Line>,
    sent: Arc<Mutex<Vec<u8>>>,
) {
    loop {
        let now = *line.borrow_and_update();
        match now {
            Line::Up | Line::Slow(_) => break,
            Line::Down => return,
            Line::Silent => {
                if line.changed().await.is_err() {
                    return;
                }
            }
        }
    }
    let Ok(mut engine) = TcpStream::connect(backend).await else { return };
    loop {
        let (mut from_client, mut from_engine) = (vec![0; 65_536], vec![0; 65_536]);
        tokio::select! {
            changed = line.changed() => {
                let now = *line.borrow_and_update();
                match now {
                    _ if changed.is_err() => return,
                    Line::Down => return,
                    Line::Silent => {
                        let _ = line.changed().await;
                        return;
                    }
                    Line::Up | Line::Slow(_) => {}
                }
            }
            read = client.read(&mut from_client) => {
                let Ok(count @ 1..) = read else { return };
                sent.lock().unwrap().extend_from_slice(&from_client[..count]);
                if engine.write_all(&from_client[..count]).await.is_err() {
                    return;
                }
            }
            read = engine.read(&mut from_engine) => {
                let Ok(count @ 1..) = read else { return };
                let now = *line.borrow();
                if let Line::Slow(by) = now {
                    tokio::time::sleep(by).await;
                }
                if client.write_all(&from_engine[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
