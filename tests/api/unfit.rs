//! What cannot work is refused where it enters, by name: secrets that no header or JSON carries, shapes
//! that no body has.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{BOOTSTRAP_ID, BOOTSTRAP_SECRET, TestApp, command, with};

const CONTROLS: [&str; 6] = ["X\r", "\nX", "X\u{7f}Y", "X\tY", "X\u{0}", "X\u{1b}"];

#[tokio::test]
async fn a_secret_that_cannot_travel_is_not_imported() {
    let app = TestApp::spawn().await;
    let held = json!({
        "clientUserID": "ada", "connectionID": "c", "accessToken": "PERM", "userSecret": "s",
    });
    let token = app.token().await;
    let refused = async |field: &str, value: &str| {
        let body = with(&held, json!({ field: value }));
        let answer = app.api.post(&token, "/v1/connections/import", &body).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{field} {value:?}");
        assert_eq!(answer.json["field"], field);
        assert!(!answer.text.contains('X'), "{}", answer.text);
    };
    for field in ["accessToken", "userSecret", "connectionID"] {
        for value in CONTROLS {
            refused(field, value).await;
        }
        refused(field, &"y".repeat(17_000)).await;
    }
    for value in [" PERM", "PE RM", "P\u{e9}RM"] {
        refused("accessToken", value).await;
    }
    assert_eq!(app.database.value("SELECT count(*) FROM connections").await, "0");
    assert_eq!(app.api.post(&token, "/v1/connections/import", &held).await.status, 201);
}

#[tokio::test]
async fn a_result_that_cannot_travel_is_not_received() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    for field in ["accessCode", "userSecret", "connectionID"] {
        for value in CONTROLS {
            let answer = app.hand_in("ada", &with(&result, json!({ field: value }))).await;
            assert_eq!(answer.problem(), (400, "invalid_request"), "{field} {value:?}");
            assert_eq!(answer.json["field"], field);
        }
    }
    assert_eq!(app.hand_in("ada", &result).await.status, 201);
}

#[tokio::test]
async fn dapis_own_wire_takes_no_more_than_the_other_api() {
    let app = TestApp::spawn().await;
    let result = app.connect();
    let secret = format!("{BOOTSTRAP_ID}.{BOOTSTRAP_SECRET}");
    let call = async |path: &str, token: &str, body: &Value| {
        let body = with(body, json!({ "appSecret": secret }));
        let request = app.api.request(Method::POST, &format!("/dapi/v2/{path}"));
        app.api.send(request.bearer_auth(token).json(&body)).await
    };
    let code =
        json!({ "accessCode": result["accessCode"], "connectionID": result["connectionID"] });
    for field in ["accessCode", "connectionID"] {
        let answer = call("auth/ExchangeToken", "x", &with(&code, json!({ field: "X\r" }))).await;
        assert_eq!((answer.status, &answer.json["type"]), (400, &json!("PARAMETER_ERROR")));
    }
    let linked = call("auth/ExchangeToken", "x", &code).await;
    let stand_in = linked.json["accessToken"].as_str().unwrap();
    for path in ["data/accounts/get", "users/DelinkUser"] {
        for wrong in ["X\r".to_owned(), "y".repeat(17_000)] {
            let answer = call(path, stand_in, &json!({ "userSecret": wrong })).await;
            assert_eq!((answer.status, &answer.json["type"]), (400, &json!("PARAMETER_ERROR")));
        }
    }
    let held = "SELECT status || ' ' || (user_secret IS NULL) FROM connections";
    assert_eq!(app.database.value(held).await, "active true");
}

#[tokio::test]
async fn an_upstreams_credentials_have_to_travel_too() {
    let app = TestApp::spawn().await;
    let draft = json!({
        "name": "crm", "tokenURL": "https://crm.example/token", "clientID": "i", "clientSecret": "s",
    });
    let token = app.token().await;
    for auth in ["basic", "form", "json"] {
        for field in ["clientID", "clientSecret"] {
            for value in CONTROLS {
                let body = with(&draft, json!({ field: value, "auth": auth }));
                let answer = app.api.post(&token, "/v1/admin/upstreams", &body).await;
                assert_eq!(answer.problem(), (400, "invalid_request"), "{auth} {field} {value:?}");
                assert_eq!(answer.json["field"], field);
            }
        }
    }
}

#[tokio::test]
async fn a_code_that_only_looks_like_a_jwt_is_never_refused_for_it() {
    let app = TestApp::by_hand().await;
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = part(r#"{"alg":"HS256"}"#);
    for (number, code) in [
        format!("{header}.{}.c2ln", part("[1]")),
        format!("{header}.{}.c2ln", part(r#"[{"exp":1}]"#)),
        format!("{header}.{}.c2ln", part(r#"{"exp":[1]}"#)),
        format!("opaque.{}.c2ln", part(r#"{"exp":1}"#)),
        format!("{}.{}.c2ln", part("[\"HS256\"]"), part(r#"{"exp":1}"#)),
    ]
    .iter()
    .enumerate()
    {
        let login = format!("login-{number}");
        let result = with(&app.connect(), json!({ "accessCode": code, "connectionID": login }));
        // The sandbox knows no such code, and Dapi's word is what counts.
        let answer = app.hand_in("ada", &result).await;
        assert_ne!(answer.status, 410, "{code}");
    }
}

#[tokio::test]
async fn an_array_is_never_taken_for_an_object() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    let token = app.token().await;
    for filter in
        [json!([]), json!([null, null, null, null, null, true]), json!([[]]), json!("all")]
    {
        let order = json!({ "kind": "delink", "reason": "test", "filter": filter });
        let answer = app.api.post(&token, "/v1/admin/revocations", &order).await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{filter}");
        assert_eq!(answer.json["field"], "filter");
    }
    let array = json!(["delink", "test", false, null, { "all": true }]);
    let answer = app.api.post(&token, "/v1/admin/revocations", &array).await;
    assert_eq!(answer.problem(), (400, "invalid_request"));
    let id = crate::support::id(&active);
    assert_eq!(app.api.connection(&token, id).await["status"], "active");
}

/// Runs `apps add` with the secret on standard input.
fn add_app(app: &TestApp, key: &str, secret: &[u8]) -> std::process::Output {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = command(app, &[]);
    command.args(["apps", "add", "shop", "--app-key", key]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(secret).unwrap();
    child.wait_with_output().unwrap()
}

#[tokio::test]
async fn an_apps_secret_is_trimmed_and_then_checked() {
    let app = TestApp::spawn().await;
    for (key, secret) in
        [("k", "CAN\rARY"), ("k", "CANARY\u{7f}"), ("k\r", "CANARY"), (" k", "CANARY")]
    {
        let output = add_app(&app, key, secret.as_bytes());
        assert_eq!(output.status.code(), Some(2), "{key:?} {secret:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("CAN"), "{output:?}");
    }
    let output = add_app(&app, "k", b"\xef\xbb\xbf CANARY \r\n");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let mut conn = app.context.pool.acquire().await.unwrap();
    let shop = strongroom::apps::find(&mut conn, "shop").await.unwrap().unwrap();
    let sealed = strongroom::apps::credentials(&mut conn, shop.id).await.unwrap().unwrap();
    assert_eq!(sealed.open(&app.context.vault).await.unwrap().app_secret.expose(), "CANARY");
}
