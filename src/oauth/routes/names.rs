//! Names of scopes in the bodies of `/v1/admin/clients`.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::common::scope::Scope;

/// Names of scopes: a list, or one text with a space between them as OAuth writes it.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Names {
    /// A list.
    List(Vec<String>),
    /// As OAuth writes it.
    Text(String),
}

/// Names of Strongroom's own scopes: a list, or one text with a space between them as OAuth writes it.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(example = json!(["connections:read", "tokens:read"]))]
#[expect(dead_code, reason = "describes the request in the OpenAPI document")]
pub(super) enum ScopeNames {
    List(Vec<Scope>),
    Text(String),
}

/// Names of scopes: a list, or one text with a space between them as OAuth writes it.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(example = json!([]))]
#[expect(dead_code, reason = "describes the request in the OpenAPI document")]
pub(super) enum OtherScopeNames {
    List(Vec<String>),
    Text(String),
}

impl Default for Names {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Names {
    pub(super) fn each(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::List(names) => Box::new(names.iter().map(String::as_str)),
            Self::Text(text) => Box::new(text.split(' ').filter(|name| !name.is_empty())),
        }
    }
}
