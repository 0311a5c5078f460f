//! A reader of the console, signed in by a one-time link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::product::Product;
use crate::{Measured, load};

/// A session, and where the pages of the only app are.
pub struct Console {
    address: SocketAddr,
    origin: String,
    cookie: String,
    app: String,
    /// What its forms carry.
    token: String,
}

impl Console {
    /// Adds an operator and signs them in.
    pub async fn sign_in(product: &Product<'_>) -> Self {
        let origin = product.console.clone().unwrap();
        let port = origin.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        drop(product.command(&["operators", "add", "bench", "--role", "admin"]).await);
        let link = product.command(&["operators", "link", "bench"]).await;
        let code = link.split("olink_").nth(1).unwrap().split_whitespace().next().unwrap();
        let form = format!("code=olink_{code}");
        let request = format!(
            "POST /sign-in/link HTTP/1.1\r\nhost: bench\r\norigin: {}\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{form}",
            origin.trim_end_matches('/'),
            form.len()
        );
        let answer = call(address, request.as_bytes(), 303).await;
        let cookie = header(&answer, "set-cookie").split(';').next().unwrap().to_owned();
        let origin = origin.trim_end_matches('/').to_owned();
        let mut console =
            Self { address, origin, cookie, app: String::new(), token: String::new() };
        let start = call(address, &console.request("/"), 303).await;
        header(&start, "location").trim_end_matches("now").clone_into(&mut console.app);
        let page = call(address, &console.request("/sign-in"), 200).await;
        let field = page.split("name=\"token\" value=\"").nth(1).unwrap();
        field.split('"').next().unwrap().clone_into(&mut console.token);
        console
    }

    fn request(&self, path: &str) -> Vec<u8> {
        format!("GET {path} HTTP/1.1\r\nhost: bench\r\ncookie: {}\r\n\r\n", self.cookie)
            .into_bytes()
    }

    /// Asks for one page of the deployment over and over.
    pub async fn ask_deployment(
        &self,
        product: &Product<'_>,
        path: &str,
        seconds: Duration,
    ) -> Measured {
        let request = self.request(path);
        let requests: load::Requests = Arc::new(move |_| request.clone());
        product.measure_at(self.address, 1, seconds, 200, requests).await
    }

    /// Sends one form of the app, which changes nothing, over and over.
    pub async fn send(
        &self,
        product: &Product<'_>,
        path: &str,
        fields: &str,
        seconds: Duration,
    ) -> Measured {
        let form = format!("token={}&{fields}", self.token);
        let request = format!(
            "POST {}{path} HTTP/1.1\r\nhost: bench\r\norigin: {}\r\ncookie: {}\r\ncontent-length: {}\r\n\
             content-type: application/x-www-form-urlencoded\r\n\r\n{form}",
            self.app,
            self.origin,
            self.cookie,
            form.len()
        );
        let request = request.into_bytes();
        let requests: load::Requests = Arc::new(move |_| request.clone());
        product.measure_at(self.address, 1, seconds, 200, requests).await
    }

    /// Asks for one page of the app over and over.
    pub async fn ask(&self, product: &Product<'_>, path: &str, seconds: Duration) -> Measured {
        let request = self.request(&format!("{}{path}", self.app));
        let requests: load::Requests = Arc::new(move |_| request.clone());
        product.measure_at(self.address, 1, seconds, 200, requests).await
    }
}

/// Sends one request; returns its answer, head and body.
async fn call(address: SocketAddr, request: &[u8], expected: u16) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut buffer = Vec::new();
    let status = load::answer(&mut stream, &mut buffer).await;
    let answer = String::from_utf8(buffer).unwrap();
    assert_eq!(status, expected, "{answer}");
    answer
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let lines = answer.lines().filter_map(|line| line.split_once(": "));
    let mut found = lines.filter(|(given, _)| given.eq_ignore_ascii_case(name));
    found.next().unwrap_or_else(|| panic!("no {name} in {answer}")).1
}
