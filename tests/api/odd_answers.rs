//! Answers that nobody would write and that come all the same: encoded, marked, damaged, cut off. What
//! exists once is read as generously as is safe.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::for_each_bank;
use crate::support::{Answer, BOOTSTRAP_ID, BOOTSTRAP_SECRET, Bank, Builder, TestApp, id, with};

for_each_bank! {
    a_token_survives_whatever_its_answer_is_wrapped_in,
    what_cannot_be_read_for_sure_settles_nothing,
    a_delinking_is_confirmed_by_an_answer_that_is_encoded_or_marked,
    an_exchange_that_may_be_tried_once_never_meets_a_connection_that_was_kept,
}

const ACCOUNTS: &str = "data/accounts/get";
const TOKEN: &str = r#"{"success":true,"status":"done","accessToken":"CANARY/token=="}"#;

/// What a server does with a request, by its path and its number on its connection; `None` resets the
/// connection without a byte.
type Script = dyn Fn(&str, usize) -> Option<Vec<u8>> + Send + Sync;

/// A server that answers by a script.
struct Odd {
    base: String,
    /// The heads of the requests.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Odd {
    async fn new(script: impl Fn(&str, usize) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (script, heads): (Arc<Script>, Arc<Mutex<Vec<String>>>) =
            (Arc::new(script), Arc::default());
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { base, heads }
    }

    /// Answers the same, whatever is asked.
    async fn answering(bytes: Vec<u8>) -> Self {
        Self::new(move |_, _| Some(bytes.clone())).await
    }

    /// A service with this in Dapi's place.
    async fn service(&self) -> TestApp {
        self.builder(Bank::Dapi).by_hand().spawn().await
    }

    /// The same, in this bank link's place.
    fn builder(&self, bank: Bank) -> Builder {
        bank.builder().set(&bank.variable("BASE_URL"), self.base.clone())
    }

    /// How many exchanges were asked for, and their heads.
    fn exchanges(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads.iter().filter(|head| is_exchange(head)).cloned().collect()
    }
}

async fn serve(mut stream: TcpStream, script: Arc<Script>, heads: Arc<Mutex<Vec<String>>>) {
    for number in 1.. {
        let Some(head) = request(&mut stream).await else { return };
        let path = head.split(' ').nth(1).unwrap().to_owned();
        heads.lock().unwrap().push(head);
        let Some(answer) = script(&path, number) else {
            stream.set_zero_linger().unwrap();
            return;
        };
        let _ = stream.write_all(&answer).await;
        if answer.windows(17).any(|seen| seen == b"connection: close") {
            return;
        }
    }
}

/// The head of a request whose body was read.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&piece[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if bytes.len() >= end + 4 + length.map_or(0, |length| length.parse().unwrap()) {
            return Some(head);
        }
    }
}

fn http(head: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn encoded(coding: &str, body: &[u8]) -> Vec<u8> {
    http(&format!("200 OK\r\ncontent-encoding: {coding}"), body)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

/// Whether this is an exchange's path, or the head of one.
fn is_exchange(path: &str) -> bool {
    path.contains("exchange")
}

/// An answer with a token.
fn token(bank: Bank) -> &'static str {
    match bank {
        Bank::Dapi => TOKEN,
        Bank::Plaid => {
            r#"{"access_token":"CANARY/token==","item_id":"item","request_id":"done","x":true}"#
        }
    }
}

/// A result as the link hands it over, for a bank link that is not the sandbox.
fn result_of(bank: Bank, number: usize) -> Value {
    match bank {
        Bank::Dapi => result(number),
        Bank::Plaid => json!({ "public_token": format!("public-sandbox-{number}") }),
    }
}

/// One of Dapi's.
fn result(number: usize) -> Value {
    json!({
        "success": true, "accessCode": format!("code-{number}"), "userSecret": "CANARY-secret",
        "connectionID": format!("login-{number}"), "userID": "u", "tokenID": "t",
    })
}

async fn import(app: &TestApp) -> Value {
    let import = json!({
        "clientUserID": "ada", "connectionID": "c", "accessToken": "CANARY/token==",
        "userSecret": "CANARY-secret",
    });
    let imported = app.api.post(&app.token().await, "/v1/connections/import", &import).await;
    assert_eq!(imported.status, 201, "{}", imported.text);
    imported.json
}

async fn relayed(app: &TestApp, connection: &Value) -> Answer {
    let url = format!("/v1/connections/{}/dapi/{ACCOUNTS}", id(connection));
    app.api.post(&app.token().await, &url, &json!({})).await
}

fn utf16(text: &str) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

async fn a_token_survives_whatever_its_answer_is_wrapped_in(bank: Bank) {
    let token = token(bank);
    let short = token.len() + 100;
    let answers = vec![
        encoded("gzip", &gzip(token.as_bytes())),
        encoded("X-GZIP", &gzip(token.as_bytes())),
        encoded("deflate", &zlib(token.as_bytes())),
        encoded("deflate", &raw_deflate(token.as_bytes())),
        encoded("deflate, gzip", &gzip(&zlib(token.as_bytes()))),
        encoded("gzip", token.as_bytes()),
        http("200 OK", &[b"\xef\xbb\xbf", token.as_bytes()].concat()),
        http("200 OK", &utf16(token)),
        http("200 OK", &token.replace("done", "d\u{1}ne").into_bytes()),
        http("200 OK\r\ncontent-type: text/html", &token.as_bytes().replace_byte(b"done", 0xe9)),
        http("200 OK", token.replace("true", "\"true\",\"tokenID\":7,\"x\":1,\"x\":2").as_bytes()),
        http("200 OK", format!("\r\n {token}\n\0<!-- -->").as_bytes()),
        http("200 OK\r\nodd header\r\nx: \x01", token.as_bytes()),
        // It promises more than it sends.
        format!("HTTP/1.1 200 OK\r\ncontent-length: {short}\r\nconnection: close\r\n\r\n{token}")
            .into_bytes(),
    ];
    let mine = answers.clone();
    let asked = Mutex::new(0);
    let odd = Odd::new(move |path, _| {
        if !is_exchange(path) {
            return Some(http("503 X", b""));
        }
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        mine.get(*asked - 1).cloned()
    })
    .await;
    let app = odd.builder(bank).spawn().await;
    for (number, answer) in answers.iter().enumerate() {
        let told = app.hand_in("ada", &result_of(bank, number)).await;
        let answer = String::from_utf8_lossy(answer);
        assert_eq!(told.status, 201, "{answer}: {}", told.text);
        let revealed = app.api.reveal(&app.token().await, id(&told.json)).await;
        assert_eq!(revealed.json["accessToken"], "CANARY/token==", "{answer}");
    }
    let heads = odd.exchanges();
    assert!(heads.iter().all(|head| head.contains("accept-encoding: identity")), "{heads:?}");
}

trait ReplaceByte {
    fn replace_byte(&self, word: &[u8], byte: u8) -> Vec<u8>;
}

impl ReplaceByte for [u8] {
    /// The bytes with the first of `word` changed.
    fn replace_byte(&self, word: &[u8], byte: u8) -> Vec<u8> {
        let place = self.windows(word.len()).position(|seen| seen == word).unwrap();
        let mut changed = self.to_vec();
        changed[place] = byte;
        changed
    }
}

async fn what_cannot_be_read_for_sure_settles_nothing(bank: Bank) {
    let token = token(bank);
    let damaged = token.as_bytes().replace_byte(b"token", 0xff);
    let bomb = gzip(format!("{{\"x\":\"{}\"}}", " ".repeat(50_000_000)).as_bytes());
    for answer in [
        encoded("zstd", token.as_bytes()),
        encoded("gzip", &bomb),
        http("200 OK", &damaged),
        http("200 OK", token.replace("CANARY", "CANARY\\r\\nx: y").as_bytes()),
        http("200 OK", b"[true,\"CANARY/token==\"]"),
    ] {
        let odd = Odd::answering(answer.clone()).await;
        let app = odd.builder(bank).by_hand().spawn().await;
        let told = app.hand_in("ada", &result_of(bank, 1)).await;
        let found = app.settled(id(&told.json)).await;
        assert_eq!(found["status"], "pending", "{}", String::from_utf8_lossy(&answer));
    }
}

async fn a_delinking_is_confirmed_by_an_answer_that_is_encoded_or_marked(bank: Bank) {
    let (yes, twice): (&[u8], &[u8]) = match bank {
        Bank::Dapi => {
            (br#"{"success":true,"status":"done"}"#, br#"{"success":"true","msg":"","msg":""}"#)
        }
        Bank::Plaid => (br#"{"request_id":"r"}"#, br#"{"request_id":"r","x":"","x":""}"#),
    };
    for answer in [
        encoded("gzip", &gzip(yes)),
        http("200 OK", &[b"\xef\xbb\xbf", yes].concat()),
        http("200 OK", twice),
    ] {
        let odd = Odd::answering(answer).await;
        let app = odd.builder(bank).by_hand().spawn().await;
        let body = bank.import("ada", "c", "CANARY/token==");
        let imported = app.api.post(&app.token().await, "/v1/connections/import", &body).await.json;
        app.api.delink(&app.token().await, id(&imported)).await;
        app.tick().await;
        let found = app.api.connection(&app.token().await, id(&imported)).await;
        assert_eq!(found["status"], "delinked", "{found}");
    }
}

#[tokio::test]
async fn a_relayed_answer_is_decoded_for_the_caller_and_its_secrets_are_taken_out() {
    let body = br#"{"success":true,"msg":"CANARY/token== CANARY-secret","amount":1.50}"#;
    let clean = r#"{"success":true,"msg":"(secret) (secret)","amount":1.50}"#;
    for answer in [
        encoded("gzip", &gzip(body)),
        encoded("deflate", &zlib(body)),
        encoded("identity", body),
        http("200 OK", &[b"\xef\xbb\xbf".as_slice(), body].concat()),
        http("200 OK", &utf16(std::str::from_utf8(body).unwrap())),
    ] {
        let dapi = Odd::answering(answer).await;
        let app = dapi.service().await;
        let answer = relayed(&app, &import(&app).await).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, clean));
        assert_eq!(answer.header("content-encoding"), "");
        assert_eq!(answer.header("strongroom-upstream"), "dapi");
    }
}

#[tokio::test]
async fn a_large_encoded_answer_is_streamed_without_the_secrets_in_it() {
    let filler = "x".repeat(300_000);
    let all: Vec<_> = (0..30).map(|_| format!("{filler}CANARY/token==")).collect();
    let body = json!({ "success": true, "all": all }).to_string();
    let dapi = Odd::answering(encoded("gzip", &gzip(body.as_bytes()))).await;
    let app = dapi.service().await;
    let answer = relayed(&app, &import(&app).await).await;
    assert_eq!((answer.status, answer.header("transfer-encoding")), (200, "chunked"));
    assert_eq!(answer.text, body.replace("CANARY/token==", "(secret)"));
}

#[tokio::test]
async fn what_an_encoded_answer_says_about_the_token_is_heard() {
    let dead = br#"{"success":false,"type":"USER_DELINKED","msg":"no","msg":"no"}"#;
    let dapi = Odd::answering(encoded("gzip", &gzip(dead))).await;
    let app = dapi.service().await;
    let imported = import(&app).await;
    assert_eq!(relayed(&app, &imported).await.json["type"], "USER_DELINKED");
    let found = app.api.connection(&app.token().await, id(&imported)).await;
    assert_eq!(found["status"], "invalidated");
}

#[tokio::test]
async fn an_encoding_that_is_not_known_or_swells_is_a_problem_of_ours() {
    let bomb = gzip(&gzip(&vec![b' '; 100_000_000]));
    for answer in
        [encoded("zstd", b"{}"), encoded("gzip, gzip", &bomb), encoded("gzip", b"\x1f\x8bx")]
    {
        let dapi = Odd::answering(answer).await;
        let app = dapi.service().await;
        let answer = relayed(&app, &import(&app).await).await;
        assert_eq!(answer.problem(), (502, "upstream_failed"));
    }
}

#[tokio::test]
async fn a_call_without_a_token_is_decoded_too() {
    let body = br#"{"success":true,"status":"done"}"#;
    let dapi = Odd::answering(encoded("gzip", &gzip(body))).await;
    let app = dapi.service().await;
    let secret = format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}");
    let call = json!({ "appSecret": secret, "operationID": "o" });
    let request = app.api.request(Method::POST, "/dapi/v2/operation/status").json(&call);
    let answer = app.api.send(request).await;
    assert_eq!((answer.status, answer.text.as_bytes()), (200, body.as_slice()));
}

/// An upstream whose token endpoint this is.
async fn add_upstream(app: &TestApp, url: &str) {
    let upstream = json!({ "name": "crm", "tokenURL": url, "clientID": "i", "clientSecret": "s" });
    let added = app.api.post(&app.token().await, "/v1/admin/upstreams", &upstream).await;
    assert_eq!(added.status, 201, "{}", added.text);
}

async fn upstream_token(app: &TestApp) -> Answer {
    app.api.post_empty(&app.token().await, "/v1/upstreams/crm/token").await
}

#[tokio::test]
async fn an_upstreams_token_survives_what_it_is_wrapped_in() {
    let body = br#"{"access_token":"tok","token_type":"Bearer","expires_in":3600,"x":1,"x":2}"#;
    for answer in [
        encoded("gzip", &gzip(body)),
        http("200 OK", &[b"\xef\xbb\xbf".as_slice(), body].concat()),
        http("200 OK", &body.replace_byte(b"x", 0xff)),
    ] {
        let upstream = Odd::answering(answer).await;
        let builder = TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
        let app = builder.spawn().await;
        add_upstream(&app, &upstream.base).await;
        assert_eq!(upstream_token(&app).await.json["access_token"], "tok");
        assert!(upstream.heads.lock().unwrap()[0].contains("accept-encoding: identity"));
    }
}

fn http_date(from_now: Duration) -> String {
    httpdate::fmt_http_date(SystemTime::now() + from_now)
}

#[tokio::test]
async fn a_date_in_retry_after_is_waited_for() {
    let wait = http_date(Duration::from_mins(20));
    let dapi = Odd::answering(http(&format!("503 X\r\nretry-after: {wait}"), b"")).await;
    let app = dapi.service().await;
    let told = app.hand_in("ada", &result(1)).await;
    app.settled(id(&told.json)).await;
    let waits = "SELECT due_at - strongroom_now() > interval '19 minutes' FROM connections";
    assert_eq!(app.database.value(waits).await, "true");

    let upstream = Odd::answering(http(&format!("429 X\r\nretry-after: {wait}"), b"")).await;
    let builder = TestApp::builder().set("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "true");
    let app = builder.spawn().await;
    add_upstream(&app, &upstream.base).await;
    let failed = upstream_token(&app).await;
    assert_eq!(failed.problem(), (502, "upstream_failed"));
    let told: u64 = failed.header("retry-after").parse().unwrap();
    assert!((19 * 60..=20 * 60).contains(&told), "{told}");
}

#[tokio::test]
async fn a_date_in_retry_after_is_passed_on_as_seconds() {
    let wait = "retry-after: Sun, 06 Nov 1994 08:49:57 GMT\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT";
    let dapi = Odd::answering(http(&format!("429 X\r\n{wait}"), b"{}")).await;
    let app = dapi.service().await;
    let answer = relayed(&app, &import(&app).await).await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, "20"));
}

async fn an_exchange_that_may_be_tried_once_never_meets_a_connection_that_was_kept(bank: Bank) {
    let token = token(bank);
    let keep = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{token}", token.len());
    // Whoever uses a connection twice is cut off without a byte.
    let odd = Odd::new(move |_, number| (number == 1).then(|| keep.clone().into_bytes())).await;
    let app = odd.builder(bank).set(&bank.variable("EXCHANGE_PROBE"), "false").spawn().await;
    for number in 0..5 {
        let told = app.hand_in("ada", &result_of(bank, number)).await;
        assert_eq!(told.status, 201, "{}", told.text);
    }
    assert_eq!(odd.exchanges().len(), 5);
}

#[tokio::test]
async fn a_type_that_means_gone_counts_for_a_proven_user_secret_alone() {
    for kind in ["INVALID_CONNECTION", "USER_DELINKED"] {
        let refused = format!(r#"{{"success":false,"type":"{kind}","msg":"no"}}"#);
        let (token, refused) =
            (http("200 OK", TOKEN.as_bytes()), http("401 X", refused.as_bytes()));
        let dapi = Odd::new(move |path, _| {
            Some(if path.ends_with("/auth/exchangetoken") {
                token.clone()
            } else {
                refused.clone()
            })
        })
        .await;
        let app = TestApp::builder()
            .set("DAPI_BASE_URL", format!("{}/v2", dapi.base))
            .set("STRONGROOM_ANSWER_WITHIN", "1")
            .spawn()
            .await;
        let secret = format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}");
        let wire = async |path: &str, token: &str, body: Value| {
            let body = with(&body, json!({ "appSecret": secret }));
            let request = app.api.request(Method::POST, &format!("/dapi/v2/{path}"));
            app.api.send(request.bearer_auth(token).json(&body)).await
        };
        let code = json!({ "accessCode": "code", "connectionID": "login" });
        let linked = wire("auth/ExchangeToken", "none", code).await;
        let stand_in = linked.json["accessToken"].as_str().unwrap();
        let called = wire(ACCOUNTS, stand_in, json!({ "userSecret": "wrong" })).await;
        assert_eq!(called.json["type"], kind);
        let status = "SELECT status FROM connections";
        assert_eq!(app.database.value(status).await, "active", "a wrong secret kills no token");

        wire("users/DelinkUser", stand_in, json!({ "userSecret": "wrong" })).await;
        let told = "SELECT status || ' ' || revocation_last_error FROM connections";
        let told = app.database.value(told).await;
        assert_eq!(told, format!("revoking {kind}: no (the user secret is not proven)"));

        app.database.execute("UPDATE connections SET user_secret_proven = true").await;
        app.turn_clock(Duration::from_mins(1)).await;
        app.tick().await;
        assert_eq!(app.database.value(status).await, "delinked");
    }
}
