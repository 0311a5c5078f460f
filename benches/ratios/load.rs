//! A closed loop over plain sockets: each connection sends its next request when it has read the
//! answer to the last. Nothing but HTTP/1.1 with Content-Length, so that the load costs little.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Measured;

/// Makes the requests of one connection, by number.
pub type Requests = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// Sends requests over so many connections for so long; an answer of another status than `expected`
/// stops everything.
pub async fn run(
    address: SocketAddr,
    connections: usize,
    seconds: Duration,
    expected: u16,
    requests: Requests,
) -> Measured {
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let mut loops = tokio::task::JoinSet::new();
    for connection in 0..connections as u64 {
        let (requests, stop) = (Arc::clone(&requests), Arc::clone(&stop));
        loops.spawn(one(address, connection, expected, requests, stop));
    }
    tokio::time::sleep(seconds).await;
    stop.store(true, Ordering::Relaxed);
    let mut times: Vec<Duration> = loops.join_all().await.into_iter().flatten().collect();
    let took = started.elapsed();
    times.sort_unstable();
    let at = |percent: usize| {
        let index = times.len() * percent / 100;
        times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    Measured {
        per_second: times.len() as f64 / took.as_secs_f64(),
        p50: at(50),
        p99: at(99),
        ..Measured::default()
    }
}

async fn one(
    address: SocketAddr,
    connection: u64,
    expected: u16,
    requests: Requests,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times = Vec::new();
    let mut number = 0;
    let mut buffer = Vec::with_capacity(8192);
    while !stop.load(Ordering::Relaxed) {
        let request = requests(connection << 32 | number);
        number += 1;
        let sent = Instant::now();
        stream.write_all(&request).await.unwrap();
        let status = answer(&mut stream, &mut buffer).await;
        times.push(sent.elapsed());
        assert_eq!(status, expected, "{}", String::from_utf8_lossy(&buffer));
    }
    times
}

/// Reads one answer; returns its status.
pub async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> u16 {
    buffer.clear();
    loop {
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the connection was closed");
        let Some(head) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&buffer[..head]).unwrap();
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        let whole = head + 4 + length.unwrap_or("0").trim().parse::<usize>().unwrap();
        let status = text[9..12].parse().unwrap();
        while buffer.len() < whole {
            assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the connection was closed");
        }
        return status;
    }
}

/// A request as bytes; an empty `bearer` sends none.
pub fn request(method: &str, path: &str, bearer: &str, body: &str) -> Vec<u8> {
    let content = if body.is_empty() {
        String::new()
    } else {
        format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len())
    };
    let credentials = match bearer {
        "" => String::new(),
        bearer => format!("authorization: Bearer {bearer}\r\n"),
    };
    format!("{method} {path} HTTP/1.1\r\nhost: bench\r\n{credentials}{content}\r\n{body}")
        .into_bytes()
}
