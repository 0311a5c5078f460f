//! Dapi's own word: a token that it calls dead is dead here at once.

use serde_json::json;
use strongroom::connections::end_dead_token;
use strongroom::providers::{AccessToken, Provider};
use strongroom_dev::sandbox::{Effect, Fault, Refuse};

use crate::support::{TestApp, id};

async fn default_app(app: &TestApp) -> strongroom::common::ids::AppId {
    let mut conn = app.context.pool.acquire().await.unwrap();
    strongroom::apps::find(&mut conn, "default").await.unwrap().unwrap().id
}

#[tokio::test]
async fn a_type_that_means_dead_invalidates_at_once_and_tells_dapi_nothing() {
    let app = TestApp::by_hand().await;
    let active = app.active("ada").await;
    let (tenant, connection) = (default_app(&app).await, id(&active).parse().unwrap());
    let end =
        || end_dead_token(&app.context, tenant, connection, Provider::Dapi, "USER_DELINKED", None);
    assert!(end().await.unwrap());
    let found = app.api.connection(&app.token().await, id(&active)).await;
    assert_eq!((&found["status"], &found["failure"]), (&json!("invalidated"), &json!(null)));
    assert_eq!(found["revocation"]["reason"], "Dapi answered USER_DELINKED");
    assert!(found["revocation"]["confirmedAt"].is_string());
    assert!(!end().await.unwrap());
    app.tick().await;
    assert_eq!(app.sandbox.calls_to("users/DelinkUser"), 0);
    assert_eq!(app.database.audit().await.last().unwrap(), "connection.invalidated invalidated");
}

#[tokio::test]
async fn other_types_and_other_apps_say_nothing_about_a_token() {
    let app = TestApp::builder().set("DAPI_DEAD_TYPES", "TOKEN_DEAD").by_hand().spawn().await;
    let active = app.active("ada").await;
    let (tenant, connection) = (default_app(&app).await, id(&active).parse().unwrap());
    let token = AccessToken::new("t".to_owned());
    let dapi = Provider::Dapi;
    let reports =
        |kind, proven| app.context.providers.reports_dead_token(dapi, kind, &token, proven);
    for kind in ["USER_DELINKED", "INVALID_CREDENTIALS", "", "token_dead"] {
        assert!(!reports(kind, true), "{kind}");
    }
    assert!(reports("TOKEN_DEAD", true) && !reports("TOKEN_DEAD", false));
    let stranger = strongroom::common::ids::AppId::new();
    let end = async |tenant| {
        end_dead_token(&app.context, tenant, connection, dapi, "TOKEN_DEAD", None).await.unwrap()
    };
    assert!(!end(stranger).await);
    let found = app.api.connection(&app.token().await, id(&active)).await;
    assert_eq!(found["status"], "active");
    assert!(end(tenant).await);
}

#[tokio::test]
async fn a_call_that_dapi_refuses_because_the_token_is_dead_ends_the_connection() {
    let app = TestApp::spawn().await;
    let active = app.active("ada").await;
    let path = format!("/v1/connections/{}/dapi/data/accounts/get", id(&active));
    let call = async |kind: &str| {
        let refuse = Refuse { kind: kind.to_owned(), msg: "no".to_owned(), status: 400 };
        app.sandbox.set_fault(Fault::new(Effect::Refuse(refuse)).times(1)).unwrap();
        app.api.post(&app.token().await, &path, &json!({})).await
    };
    assert_eq!(call("INVALID_FIELD").await.json["type"], "INVALID_FIELD");
    assert_eq!(app.api.connection(&app.token().await, id(&active)).await["status"], "active");
    assert_eq!(
        call("USER_DELINKED").await.json["type"],
        "USER_DELINKED",
        "Dapi's answer as it came"
    );
    let found = app.api.connection(&app.token().await, id(&active)).await;
    assert_eq!(found["status"], "invalidated");
    let next = app.api.post(&app.token().await, &path, &json!({})).await;
    assert_eq!(next.problem(), (409, "connection_not_active"));
}
