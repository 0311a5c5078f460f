//! Dapi's own word: a token that it calls dead is dead here at once.

use serde_json::json;
use strongroom::connections::end_dead_token;
use strongroom::providers::{AccessToken, Provider};

use crate::for_each_bank;
use crate::support::{Bank, TestApp, id};

for_each_bank! {
    a_type_that_means_dead_invalidates_at_once_and_tells_the_provider_nothing,
    a_call_that_the_provider_refuses_because_the_token_is_dead_ends_the_connection,
}

async fn default_app(app: &TestApp) -> strongroom::common::ids::AppId {
    let mut conn = app.context.pool.acquire().await.unwrap();
    strongroom::apps::find(&mut conn, app.bank.app()).await.unwrap().unwrap().id
}

async fn a_type_that_means_dead_invalidates_at_once_and_tells_the_provider_nothing(bank: Bank) {
    let app = bank.by_hand().await;
    let active = app.active("ada").await;
    let (tenant, connection) = (default_app(&app).await, id(&active).parse().unwrap());
    let (provider, kind) = (bank.provider(), bank.gone()[0]);
    let end = || end_dead_token(&app.context, tenant, connection, provider, kind, None);
    assert!(end().await.unwrap());
    let found = app.api.connection(&app.token().await, id(&active)).await;
    assert_eq!((&found["status"], &found["failure"]), (&json!("invalidated"), &json!(null)));
    assert_eq!(found["revocation"]["reason"], format!("{} answered {kind}", provider.name()));
    assert!(found["revocation"]["confirmedAt"].is_string());
    assert!(!end().await.unwrap());
    app.tick().await;
    assert_eq!(app.revocations(), 0);
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

async fn a_call_that_the_provider_refuses_because_the_token_is_dead_ends_the_connection(
    bank: Bank,
) {
    let app = bank.spawn().await;
    let active = app.active("ada").await;
    let path = bank.relayed(&active);
    let call = async |kind: &str| {
        app.sandbox.set_fault(bank.refusal(kind).times(1)).unwrap();
        app.api.post(&app.token().await, &path, &json!({})).await
    };
    assert_eq!(call("INVALID_FIELD").await.json[bank.error()], "INVALID_FIELD");
    assert_eq!(app.api.connection(&app.token().await, id(&active)).await["status"], "active");
    assert_eq!(
        call(bank.gone()[0]).await.json[bank.error()],
        bank.gone()[0],
        "the provider's answer as it came"
    );
    let found = app.api.connection(&app.token().await, id(&active)).await;
    assert_eq!(found["status"], "invalidated");
    let next = app.api.post(&app.token().await, &path, &json!({})).await;
    assert_eq!(next.problem(), (409, "connection_not_active"));
}
