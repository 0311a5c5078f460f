//! Faults on demand, seen from a plain socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use strongroom_dev::sandbox::{ConnectResult, Effect, Fault, Huge, Refuse, Status};

use crate::support::TestSandbox;

const EXCHANGE: &str = "auth/ExchangeToken";

/// What a socket received, and how the connection ended.
struct Raw {
    bytes: Vec<u8>,
    /// Whether the peer closed it cleanly, without a reset.
    closed: bool,
}

impl Raw {
    fn head_and_body(&self) -> (&str, &[u8]) {
        let end = self.bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        (std::str::from_utf8(&self.bytes[..end]).unwrap(), &self.bytes[end + 4..])
    }

    fn length_announced(&self) -> usize {
        let (head, _) = self.head_and_body();
        let line = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        line.unwrap().parse().unwrap()
    }
}

/// Sends an exchange over its own socket and reads until the peer closes it.
async fn exchange_raw(test: &TestSandbox, linked: &ConnectResult) -> Raw {
    let body = TestSandbox::exchange_body(linked).to_string();
    let address = test.address;
    let talk = move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let length = body.len();
        let request = format!(
            "POST /v2/auth/ExchangeToken HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut bytes = Vec::new();
        let closed = socket.read_to_end(&mut bytes).is_ok();
        Raw { bytes, closed }
    };
    tokio::task::spawn_blocking(talk).await.unwrap()
}

fn exchanged(test: &TestSandbox, linked: &ConnectResult) -> bool {
    test.sandbox.calls_of_code(linked.token_id).exchanged == 1
}

#[tokio::test]
async fn a_drop_before_the_work_sends_nothing_and_consumes_nothing() {
    let test = TestSandbox::start();
    let linked = test.connect();
    test.fault(Fault::new(Effect::Drop).on(EXCHANGE).before().times(1));
    let raw = exchange_raw(&test, &linked).await;
    assert!(raw.closed && raw.bytes.is_empty());
    assert!(!exchanged(&test, &linked));
    test.exchange(&linked).await.done();
}

#[tokio::test]
async fn a_drop_after_the_work_sends_nothing_and_consumes_the_code() {
    let test = TestSandbox::start();
    let linked = test.connect();
    test.fault(Fault::new(Effect::Drop).on(EXCHANGE).after().times(1));
    let raw = exchange_raw(&test, &linked).await;
    assert!(raw.closed && raw.bytes.is_empty());
    assert!(exchanged(&test, &linked));
    let again = test.exchange(&linked).await;
    assert_eq!(again.refusal(), (400, "ACCESS_CODE_USED"));
}

#[tokio::test]
async fn a_drop_on_a_connection_in_use_sends_nothing_either() {
    let test = TestSandbox::start();
    test.exchange(&test.connect()).await.done();
    test.fault(Fault::new(Effect::Drop).times(1));
    let request = test.http.post(test.url("/v2/auth/ExchangeToken"));
    let body = TestSandbox::exchange_body(&test.connect());
    assert!(request.json(&body).send().await.is_err());
    assert_eq!(test.sandbox.calls_to(EXCHANGE), 2);
}

#[tokio::test]
async fn half_an_answer_is_a_head_and_half_of_the_body_it_announces() {
    let test = TestSandbox::start();
    let linked = test.connect();
    test.fault(Fault::new(Effect::HalfAnswer).times(1));
    let raw = exchange_raw(&test, &linked).await;
    let (head, body) = raw.head_and_body();
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(body.len(), raw.length_announced() / 2);
    assert!(raw.closed && body.starts_with(b"{\"accessToken\":"));
    assert!(exchanged(&test, &linked));
}

#[tokio::test]
async fn garbage_is_200_and_not_json() {
    let test = TestSandbox::start();
    let linked = test.connect();
    test.fault(Fault::new(Effect::Garbage).times(1));
    let raw = exchange_raw(&test, &linked).await;
    let (head, body) = raw.head_and_body();
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    assert!(serde_json::from_slice::<Value>(body).is_err());
    assert!(exchanged(&test, &linked));
}

#[tokio::test]
async fn a_huge_body_is_as_huge_as_told_and_ends_in_the_answer() {
    let test = TestSandbox::start();
    for content_length in [true, false] {
        let linked = test.connect();
        let bytes = 3_000_000;
        test.fault(Fault::new(Effect::Huge(Huge { bytes, content_length })).times(1));
        let response = test.http.post(test.url("/v2/auth/ExchangeToken"));
        let response = response.json(&TestSandbox::exchange_body(&linked));
        let response = response.send().await.unwrap();
        assert_eq!(response.content_length().is_some(), content_length);
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["padding"].as_str().unwrap().len() as u64, bytes);
        assert_eq!(body["tokenID"], linked.token_id.to_string());
    }
}

#[tokio::test]
async fn a_caller_may_leave_a_huge_body_unread() {
    let test = TestSandbox::start();
    let linked = test.connect();
    let huge = Huge { bytes: u64::MAX / 2, content_length: false };
    test.fault(Fault::new(Effect::Huge(huge)).times(1));
    let request = test.http.post(test.url("/v2/auth/ExchangeToken"));
    let request = request.json(&TestSandbox::exchange_body(&linked));
    let mut response = request.send().await.unwrap();
    let mut read = 0;
    while read < 1_000_000 {
        read += response.chunk().await.unwrap().unwrap().len();
    }
    drop(response);
    test.exchange(&test.connect()).await.done();
}

#[tokio::test]
async fn a_call_hangs_until_the_faults_are_cleared() {
    let test = TestSandbox::start();
    for (fault, done) in
        [(Fault::new(Effect::Hang).before(), false), (Fault::new(Effect::Hang).after(), true)]
    {
        let linked = test.connect();
        let before = test.sandbox.calls_to(EXCHANGE);
        test.fault(fault.times(1));
        let clear = async {
            test.sandbox.calls_reached(EXCHANGE, before + 1).await;
            // Long enough to see that nothing arrives unasked.
            tokio::time::sleep(Duration::from_millis(100)).await;
            test.sandbox.clear_faults();
        };
        let start = Instant::now();
        let (raw, ()) = tokio::join!(exchange_raw(&test, &linked), clear);
        assert!(start.elapsed() >= Duration::from_millis(100));
        assert!(raw.closed && raw.bytes.is_empty());
        assert_eq!(exchanged(&test, &linked), done);
    }
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_what_hangs() {
    let test = TestSandbox::start();
    let linked = test.connect();
    test.fault(Fault::new(Effect::Hang));
    let stop = async {
        test.sandbox.calls_reached(EXCHANGE, 1).await;
        let stopped = test.handle.stop(true);
        tokio::time::timeout(Duration::from_secs(10), stopped).await
    };
    let (raw, stopped) = tokio::join!(exchange_raw(&test, &linked), stop);
    assert!(stopped.is_ok() && raw.bytes.is_empty());
}

#[tokio::test]
async fn any_status_can_be_had_with_its_headers() {
    let test = TestSandbox::start();
    let linked = test.connect();
    for (code, name, value) in [
        (500, "x-any", "thing"),
        (408, "connection", "close"),
        (429, "retry-after", "7"),
        (503, "retry-after", "Fri, 31 Dec 2999 23:59:59 GMT"),
        (302, "location", "http://127.0.0.1:1/elsewhere"),
    ] {
        let status = Status {
            code,
            headers: [(name.to_owned(), value.to_owned())].into(),
            body: "from a gateway".to_owned(),
        };
        test.fault(Fault::new(Effect::Status(status)).times(1));
        let request = test.http.post(test.url("/v2/auth/ExchangeToken"));
        let request = request.json(&TestSandbox::exchange_body(&linked));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), code);
        assert_eq!(response.headers()[name], value);
        assert_eq!(response.text().await.unwrap(), "from a gateway");
    }
    assert!(!exchanged(&test, &linked));
    test.fault(Fault::status(502).after().times(1));
    assert_eq!(test.exchange(&linked).await.status, 502);
    assert!(exchanged(&test, &linked));
}

#[tokio::test]
async fn a_refusal_can_be_had_in_dapis_own_form() {
    let test = TestSandbox::start();
    let linked = test.connect();
    for status in [200, 400, 403] {
        let refuse = Refuse {
            kind: "SOMETHING_NEW".to_owned(),
            msg: "never seen before".to_owned(),
            status,
        };
        test.fault(Fault::new(Effect::Refuse(refuse)).times(1));
        let reply = test.exchange(&linked).await;
        assert_eq!(reply.refusal(), (status, "SOMETHING_NEW"));
    }
    assert!(!exchanged(&test, &linked));
}

#[tokio::test]
async fn a_delay_delays_on_either_side_of_the_work() {
    let test = TestSandbox::start();
    let delay = Duration::from_millis(150);
    for fault in [Fault::new(Effect::Answer).before(), Fault::new(Effect::Answer).after()] {
        test.fault(fault.delayed(delay).times(1));
        let start = Instant::now();
        test.exchange(&test.connect()).await.done();
        assert!(start.elapsed() >= delay);
    }
}

#[tokio::test]
async fn a_call_is_carried_out_though_its_caller_goes_away() {
    let test = TestSandbox::start();
    let linked = test.connect();
    let fault = Fault::new(Effect::Answer).delayed(Duration::from_mins(1));
    test.fault(fault.times(1));
    let request = test.http.post(test.url("/v2/auth/ExchangeToken"));
    let request = request.json(&TestSandbox::exchange_body(&linked));
    let caller = tokio::spawn(request.send());
    test.sandbox.calls_reached(EXCHANGE, 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert!(!exchanged(&test, &linked));
    test.sandbox.clear_faults();
    while !test.sandbox.calls(1).calls[0].ended {
        tokio::task::yield_now().await;
    }
    assert!(exchanged(&test, &linked));
}

#[tokio::test]
async fn a_fault_strikes_where_it_was_told_and_nowhere_else() {
    let test = TestSandbox::start();
    let (one, two) = (test.user().await, test.user().await);
    test.fault(Fault::status(503).on("data/accounts/get").of_connection(&one.linked.connection_id));
    let body = || serde_json::json!({});
    two.call("data/accounts/get", body()).await.done();
    one.call("data/identity/get", body()).await.done();
    let request = test.http.post(test.url("/v2/data/accounts/get")).bearer_auth(&one.token);
    assert_eq!(request.json(&body()).send().await.unwrap().status(), 503);
    assert_eq!(test.sandbox.faults()[0].struck, 1);
}

#[tokio::test]
async fn latency_is_added_to_every_call() {
    let test = TestSandbox::start();
    test.sandbox.change_rules(strongroom_dev::sandbox::RulesChange {
        latency_millis: Some(100),
        ..Default::default()
    });
    let start = Instant::now();
    test.exchange(&test.connect()).await.done();
    assert!(start.elapsed() >= Duration::from_millis(100));
}
