//! Requests to try, in the order of a connection's life: a file for the HTTP clients of editors, and a Postman collection.
//! Both are private files of the folder, because they hold a client's secret.
//!
//! May import: demo.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::demo::AppClient;

/// Where the requests go, and whose they are.
#[derive(Debug)]
pub struct Requests<'a> {
    /// The URL of Strongroom's API.
    pub api: &'a str,
    /// The sandbox's URL.
    pub sandbox: &'a str,
    /// The client that sends them.
    pub client: &'a AppClient,
}

/// A request. Its texts refer to `api`, `sandbox`, `client_id`, `client_secret` and to what earlier answers set, as `{{name}}`.
struct Request {
    name: &'static str,
    method: &'static str,
    url: &'static str,
    caller: Caller,
    body: Option<&'static str>,
    /// A name, and the member of the answer that it stands for from here on.
    sets: Option<(&'static str, &'static str)>,
}

/// How a request proves who sends it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// The client, by its id and secret.
    Client,
    /// The app's backend, by its access token.
    Backend,
    /// A frontend, by the token of its session.
    Session,
    /// Nobody: the bank's side.
    Bank,
}

impl Caller {
    const fn token(self) -> Option<&'static str> {
        match self {
            Self::Backend => Some("{{token}}"),
            Self::Session => Some("{{session}}"),
            Self::Client | Self::Bank => None,
        }
    }
}

const GRANT: &str = "grant_type=client_credentials";

/// A connection's life, a request each.
const LIFE: [Request; 9] = [
    Request {
        name: "An access token",
        method: "POST",
        url: "{{api}}/oauth2/token",
        caller: Caller::Client,
        body: Some(GRANT),
        sets: Some(("token", "access_token")),
    },
    Request {
        name: "A session for a frontend",
        method: "POST",
        url: "{{api}}/v1/connect-sessions",
        caller: Caller::Backend,
        body: Some(r#"{ "clientUserID": "ada" }"#),
        sets: Some(("session", "token")),
    },
    Request {
        name: "A user connects a bank (the sandbox's Connect)",
        method: "POST",
        url: "{{sandbox}}/sandbox/connect",
        caller: Caller::Bank,
        body: Some(r#"{ "clientUserID": "ada" }"#),
        sets: Some(("result", "")),
    },
    Request {
        name: "The frontend hands the result in",
        method: "POST",
        url: "{{api}}/v1/connections",
        caller: Caller::Session,
        body: Some("{{result}}"),
        sets: Some(("connection", "id")),
    },
    Request {
        name: "A user's connections",
        method: "GET",
        url: "{{api}}/v1/connections?clientUserID=ada",
        caller: Caller::Backend,
        body: None,
        sets: None,
    },
    Request {
        name: "Their accounts, without holding the token",
        method: "POST",
        url: "{{api}}/v1/connections/{{connection}}/dapi/data/accounts/get",
        caller: Caller::Backend,
        body: Some("{}"),
        sets: None,
    },
    Request {
        name: "The token itself, for a reason",
        method: "POST",
        url: "{{api}}/v1/connections/{{connection}}/token",
        caller: Caller::Backend,
        body: Some(r#"{ "reason": "a first look" }"#),
        sets: None,
    },
    Request {
        name: "What happened",
        method: "GET",
        url: "{{api}}/v1/events",
        caller: Caller::Backend,
        body: None,
        sets: None,
    },
    Request {
        name: "The end",
        method: "POST",
        url: "{{api}}/v1/connections/{{connection}}/delink",
        caller: Caller::Backend,
        body: None,
        sets: None,
    },
];

impl Requests<'_> {
    fn variables(&self) -> [(&'static str, &str); 4] {
        let AppClient { id, secret, .. } = self.client;
        [
            ("api", self.api),
            ("sandbox", self.sandbox),
            ("client_id", id),
            ("client_secret", secret.expose()),
        ]
    }

    /// Returns a file for VS Code's REST Client and what reads its format.
    #[must_use]
    pub fn http(&self) -> String {
        let mut text = String::from(
            "# Requests to try against this `strongroom dev`, from top to bottom. Rewritten by each start.\n\n",
        );
        for (name, value) in self.variables() {
            let _ = writeln!(text, "@{name} = {value}");
        }
        for request in &LIFE {
            let Request { name, method, url, caller, body, sets } = request;
            let _ = write!(text, "\n### {name}\n");
            if let Some((sets, _)) = sets {
                let _ = writeln!(text, "# @name {sets}");
            }
            let _ = writeln!(text, "{method} {}", in_editor(url));
            if *caller == Caller::Client {
                text.push_str("Authorization: Basic {{client_id}}:{{client_secret}}\n");
            }
            if let Some(token) = caller.token() {
                let _ = writeln!(text, "Authorization: Bearer {}", in_editor(token));
            }
            if let Some(body) = body {
                let _ = writeln!(text, "Content-Type: {}\n\n{}", media_type(body), in_editor(body));
            }
        }
        text
    }

    /// Returns a collection in Postman's format 2.1.
    #[must_use]
    pub fn postman(&self) -> String {
        let variable = |(key, value): (&str, &str)| json!({ "key": key, "value": value });
        let collection = json!({
            "info": {
                "name": "Strongroom",
                "description": "A connection's life against this `strongroom dev`, from top to bottom. Written anew by each start.",
                "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
            },
            "variable": self.variables().map(variable),
            "item": LIFE.iter().map(postman_item).collect::<Vec<_>>(),
        });
        format!("{collection:#}\n")
    }
}

/// Refers to an answer's member as the editors do, by the request's name.
fn in_editor(text: &str) -> String {
    LIFE.iter().filter_map(|request| request.sets).fold(text.to_owned(), |text, (name, member)| {
        let path = if member.is_empty() { "*".to_owned() } else { format!("$.{member}") };
        text.replace(&format!("{{{{{name}}}}}"), &format!("{{{{{name}.response.body.{path}}}}}"))
    })
}

fn media_type(body: &str) -> &'static str {
    if body == GRANT { "application/x-www-form-urlencoded" } else { "application/json" }
}

fn postman_item(request: &Request) -> Value {
    let Request { name, method, url, caller, body, sets } = request;
    let basic = |key: &str, value: &str| json!({ "key": key, "value": value, "type": "string" });
    let auth = match (caller, caller.token()) {
        (Caller::Client, _) => json!({
            "type": "basic",
            "basic": [basic("username", "{{client_id}}"), basic("password", "{{client_secret}}")],
        }),
        (_, Some(token)) => json!({ "type": "bearer", "bearer": [basic("token", token)] }),
        _ => json!({ "type": "noauth" }),
    };
    let media = body.map(|body| json!({ "key": "Content-Type", "value": media_type(body) }));
    let script = sets.map(|(name, member)| {
        let answer = match member {
            "" => "pm.response.text()".to_owned(),
            member => format!("pm.response.json().{member}"),
        };
        json!({ "exec": [format!("pm.collectionVariables.set('{name}', {answer});")] })
    });
    let event = script.map(|script| json!({ "listen": "test", "script": script }));
    json!({
        "name": name,
        "request": {
            "method": method,
            "url": url,
            "auth": auth,
            "header": media.into_iter().collect::<Vec<_>>(),
            "body": body.map(|body| json!({ "mode": "raw", "raw": body })),
        },
        "event": event.into_iter().collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use strongroom_common::secret::SecretText;

    use super::*;

    fn client() -> AppClient {
        AppClient {
            app: "default",
            id: "dev1".to_owned(),
            secret: SecretText::new("secret".to_owned()),
        }
    }

    fn requests(client: &AppClient) -> Requests<'_> {
        Requests { api: "http://api", sandbox: "http://sandbox", client }
    }

    #[test]
    fn a_file_for_editors_refers_to_earlier_answers() {
        let client = client();
        let text = requests(&client).http();
        for line in [
            "@client_secret = secret",
            "# @name token",
            "Authorization: Bearer {{token.response.body.$.access_token}}",
            "{{result.response.body.*}}",
            "POST {{api}}/v1/connections/{{connection.response.body.$.id}}/delink",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
    }

    #[test]
    fn every_name_that_a_request_uses_is_set_before_it() {
        let client = client();
        let mut known = requests(&client).variables().map(|(name, _)| name).to_vec();
        for request in &LIFE {
            let texts = [Some(request.url), request.body, request.caller.token()];
            for text in texts.into_iter().flatten() {
                for used in text.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")) {
                    assert!(known.contains(&used.0), "{}: {}", request.name, used.0);
                }
            }
            known.extend(request.sets.map(|(name, _)| name));
        }
    }

    #[test]
    fn a_collection_is_json_in_postmans_format() {
        let client = client();
        let collection: Value = serde_json::from_str(&requests(&client).postman()).unwrap();
        assert_eq!(collection["item"].as_array().unwrap().len(), LIFE.len());
        assert_eq!(collection["item"][0]["request"]["auth"]["type"], "basic");
        let script = &collection["item"][0]["event"][0]["script"]["exec"][0];
        assert_eq!(script, "pm.collectionVariables.set('token', pm.response.json().access_token);");
    }
}
