//! Bodies of requests as the `OpenAPI` document describes them: one type per bank link, although one type reads them.

#![expect(dead_code, reason = "describes requests in the OpenAPI document")]

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::connections::input::schema;
use crate::users::ClientUserID;

macro_rules! flags {
    ($($(#[doc = $doc:literal])+ $name:ident $value:literal;)+) => { $(
        $(#[doc = $doc])+
        pub struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let flag = ObjectBuilder::new().schema_type(Type::Boolean);
                flag.description(Some(concat!($($doc),+).trim())).enum_values(Some([$value])).build().into()
            }
        }

        impl ToSchema for $name {}
    )+ };
}
flags! {
    /// Connect succeeded.
    Succeeded true;
    /// Connect did not succeed.
    Failed false;
}

/// What the bank link's page handed out, as it came, with the user where a backend hands it in. Unknown fields are
/// ignored.
#[derive(ToSchema)]
#[schema(example = json!({
    "success": true,
    "accessCode": "eyJhbGciOiJIUzI1NiJ9.code.c2lnbmF0dXJl",
    "userSecret": "zD0kHc1qXhV3t4bY8mWn2g==",
    "connectionID": "a2b6c1d4-5e8f-4a30-b7c9-1d2e3f405162",
    "userID": "3e1d2b6a-9f10-4f0e-8a4b-7f1c2d5e9c57",
    "tokenID": "9c57a2b6-c1d4-4a30-b7c9-5e8f1d2e3f40",
    "clientUserID": "user-42",
}))]
#[serde(untagged)]
pub enum LinkResult {
    /// Of an app at Dapi.
    Connect(ConnectResult),
    /// Of an app at Dapi, refused with `connect_failed`.
    ConnectFailed(FailedConnectResult),
    /// Of an app at Plaid.
    Link(PlaidLinkResult),
}

/// The result of Dapi's Connect.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct ConnectResult {
    #[schema(inline)]
    success: Succeeded,
    /// The single-use code.
    access_code: schema::AccessCode,
    /// Connect's user secret.
    user_secret: schema::UserSecret,
    /// Dapi's name for the bank login.
    #[schema(rename = "connectionID")]
    login_id: schema::DapiConnectionID,
    /// Dapi's name for the user; empty counts as left out.
    #[schema(rename = "userID", max_length = 1024)]
    user_id: Option<String>,
    /// Dapi's name for the token; empty counts as left out.
    #[schema(rename = "tokenID", max_length = 1024)]
    token_id: Option<String>,
    /// The app's own name for the user. A connect session knows it already and refuses any other; a client has to
    /// name it.
    #[schema(rename = "clientUserID")]
    client_user_id: Option<ClientUserID>,
}

/// A result of Dapi's Connect without a code.
#[derive(ToSchema)]
pub struct FailedConnectResult {
    #[schema(inline)]
    success: Failed,
    /// The app's own name for the user.
    #[schema(rename = "clientUserID")]
    client_user_id: Option<ClientUserID>,
}

/// What Plaid's Link hands to `onSuccess`.
#[derive(ToSchema)]
pub struct PlaidLinkResult {
    /// The single-use token.
    public_token: schema::AccessCode,
    /// Link's metadata, of which `institution` and `accounts` are kept until Plaid has confirmed them.
    #[schema(value_type = Option<Object>)]
    metadata: Option<serde_json::Value>,
    /// The app's own name for the user. A connect session knows it already and refuses any other; a client has to
    /// name it.
    #[schema(rename = "clientUserID")]
    client_user_id: Option<ClientUserID>,
}

/// A token that the app already holds.
#[derive(ToSchema)]
#[schema(example = json!({
    "clientUserID": "user-42",
    "connectionID": "a2b6c1d4-5e8f-4a30-b7c9-1d2e3f405162",
    "accessToken": "eyJhbGciOiJIUzI1NiJ9.token.c2lnbmF0dXJl",
    "userSecret": "zD0kHc1qXhV3t4bY8mWn2g==",
    "userID": "3e1d2b6a-9f10-4f0e-8a4b-7f1c2d5e9c57",
    "tokenID": "9c57a2b6-c1d4-4a30-b7c9-5e8f1d2e3f40",
    "verify": false,
}))]
#[serde(untagged)]
pub enum ImportRequest {
    /// Of an app at Dapi.
    Dapi(DapiImportRequest),
    /// Of an app at Plaid.
    Plaid(PlaidImportRequest),
}

/// A token of Dapi's.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct DapiImportRequest {
    /// The app's own name for the user.
    #[schema(rename = "clientUserID")]
    client_user_id: ClientUserID,
    /// Dapi's name for the bank login.
    #[schema(rename = "connectionID")]
    login_id: schema::DapiConnectionID,
    /// The permanent token.
    access_token: schema::AccessToken,
    /// Connect's user secret.
    user_secret: schema::UserSecret,
    /// Dapi's name for the user; empty counts as left out.
    #[schema(rename = "userID", max_length = 1024)]
    user_id: Option<String>,
    /// Dapi's name for the token; empty counts as left out.
    #[schema(rename = "tokenID", max_length = 1024)]
    token_id: Option<String>,
    /// Ask Dapi first whether it takes the token and the user secret, by one call for the account's metadata.
    #[schema(default = false, required = false)]
    verify: bool,
}

/// A token of Plaid's.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub struct PlaidImportRequest {
    /// The app's own name for the user.
    #[schema(rename = "clientUserID")]
    client_user_id: ClientUserID,
    /// Plaid's name for the bank login, its `item_id`.
    #[schema(rename = "itemID")]
    item_id: schema::DapiConnectionID,
    /// The permanent token.
    access_token: schema::AccessToken,
    /// Ask Plaid first whether it takes the token.
    #[schema(default = false, required = false)]
    verify: bool,
}
