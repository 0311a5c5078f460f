//! A proxy between the service and PostgreSQL that can be cut in the middle of a conversation, go silent
//! without a word, or answer late.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use super::TestDatabase;

/// When and how a conversation is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Not at all.
    Never,
    /// Every connection, now, and every new one.
    Now,
    /// The connection that prepares a statement with this text: the statement is carried out, and its
    /// answer never arrives.
    AnswerTo(&'static str),
    /// Every connection that is open now goes silent for ever: nothing is passed on and nothing is reset.
    /// New ones work.
    Silence,
    /// The same, and new connections are taken and never answered.
    HalfOpen,
    /// What the server answers is passed on after this long.
    Delay(Duration),
}

/// The proxy.
pub struct Proxy {
    url: String,
    cut: watch::Sender<Cut>,
    struck: Arc<Mutex<u32>>,
}

impl Proxy {
    /// Stands before this database.
    pub async fn before(database: &TestDatabase) -> Self {
        Self::forgetting(database, Duration::from_secs(60)).await
    }

    /// The same; the server's side of a connection that went silent is closed after so long. It takes one of
    /// the places that all tests share.
    pub async fn forgetting(database: &TestDatabase, after: Duration) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = database.url().split(['/', '?']).nth(3).unwrap().to_owned();
        let url = format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
        let socket = database.socket();
        let (cut, watching) = watch::channel(Cut::Never);
        let struck = Arc::new(Mutex::new(0));
        let strikes = Arc::clone(&struck);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let relay =
                    Relay { cut: watching.clone(), struck: Arc::clone(&strikes), forgotten: after };
                tokio::spawn(relay.run(client, socket.clone()));
            }
        });
        Self { url, cut, struck }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn cut(&self, cut: Cut) {
        self.cut.send(cut).unwrap();
    }

    /// How often an answer was swallowed.
    pub fn struck(&self) -> u32 {
        *self.struck.lock().unwrap()
    }
}

struct Relay {
    cut: watch::Receiver<Cut>,
    struck: Arc<Mutex<u32>>,
    forgotten: Duration,
}

impl Relay {
    async fn run(mut self, mut client: TcpStream, socket: PathBuf) {
        let cut = *self.cut.borrow_and_update();
        match cut {
            Cut::Now => return,
            Cut::HalfOpen => return silent(client).await,
            _ => {}
        }
        let Ok(mut server) = UnixStream::connect(socket).await else { return };
        let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
        let mut prepared = false;
        loop {
            tokio::select! {
                changed = self.cut.changed() => {
                    let cut = *self.cut.borrow_and_update();
                    match cut {
                        _ if changed.is_err() => return,
                        Cut::Now => return,
                        // The server's side stays open, with whatever locks it holds.
                        Cut::Silence | Cut::HalfOpen => {
                            let forgotten = async {
                                tokio::time::sleep(self.forgotten).await;
                                drop(server);
                            };
                            futures_util::join!(silent(client), forgotten);
                            return;
                        }
                        _ => {}
                    }
                }
                read = client.read(&mut from_client) => {
                    let Ok(count @ 1..) = read else { return };
                    let bytes = &from_client[..count];
                    if server.write_all(bytes).await.is_err() {
                        return;
                    }
                    if prepared {
                        // This was the statement itself; whatever comes back is not passed on.
                        *self.struck.lock().unwrap() += 1;
                        let _ = server.read(&mut from_server).await;
                        return;
                    }
                    prepared = self.prepares(bytes);
                }
                read = server.read(&mut from_server) => {
                    let Ok(count @ 1..) = read else { return };
                    let cut = *self.cut.borrow();
                    if let Cut::Delay(by) = cut {
                        tokio::time::sleep(by).await;
                    }
                    if client.write_all(&from_server[..count]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn prepares(&self, bytes: &[u8]) -> bool {
        let Cut::AnswerTo(text) = *self.cut.borrow() else { return false };
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}

/// Takes whatever comes and says nothing, until the client closes.
async fn silent(mut client: TcpStream) {
    let mut nothing = [0; 4096];
    while let Ok(1..) = client.read(&mut nothing).await {}
}
