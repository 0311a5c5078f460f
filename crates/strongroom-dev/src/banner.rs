//! The text that `strongroom dev` prints when everything is ready.
//!
//! Imports no other module of this package.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The addresses to print.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The demo's URL.
    #[serde(rename = "demoURL")]
    pub demo: String,
    /// The URL of Strongroom's API.
    #[serde(rename = "apiURL")]
    pub api: String,
    /// The URL of the API's documentation.
    #[serde(rename = "docsURL")]
    pub docs: String,
    /// The sandbox's URL.
    #[serde(rename = "sandboxURL")]
    pub sandbox: String,
    /// The URL of the Prometheus metrics.
    #[serde(rename = "metricsURL")]
    pub metrics: String,
    /// The URL of the operators' console.
    #[serde(rename = "consoleURL")]
    pub console: String,
    /// A link that signs the operator `dev` in to the console, once and within five minutes.
    #[serde(rename = "signInURL")]
    pub sign_in: String,
    /// The log.
    pub log_file: PathBuf,
    /// The file of variables, for a shell to source.
    pub env_file: PathBuf,
    /// The database's folder, if `dev` runs one.
    pub database_folder: Option<PathBuf>,
    /// The URL that Dapi's exchanges go to, if that is not the sandbox.
    #[serde(rename = "foreignDapiURL")]
    pub external_dapi: Option<String>,
    /// The URL that Plaid's exchanges go to, if that is not the sandbox.
    #[serde(rename = "foreignPlaidURL")]
    pub external_plaid: Option<String>,
}

impl Addresses {
    /// Formats the addresses for people, with lines to paste into another terminal.
    #[must_use]
    pub fn banner(&self, user: &str) -> String {
        let Self { demo, docs, sandbox, metrics, console, sign_in, .. } = self;
        let database = match &self.database_folder {
            Some(folder) => format!("{} (kept for the next start)", folder.display()),
            None => "the one that DATABASE_URL names".to_owned(),
        };
        let log = self.log_file.display();
        let [requests, postman] =
            ["requests.http", "postman.json"].map(|name| self.env_file.with_file_name(name));
        let (requests, postman) = (requests.display(), postman.display());
        let external = [
            ("DAPI_BASE_URL", "codes", &self.external_dapi),
            ("PLAID_BASE_URL", "public tokens", &self.external_plaid),
        ];
        let external = external.map(|(name, codes, url)| match url {
            Some(url) => {
                format!("\n  {name} is yours, so {codes} go to {url} and not to the sandbox.\n")
            }
            None => String::new(),
        });
        let external = external.concat();
        let width =
            [demo, docs, sandbox, console].map(String::len).into_iter().max().unwrap_or_default();
        let lines = self.lines(user).map(|line| format!("    {line}")).join("\n");
        format!(
            "
  Strongroom is ready. No bank, no money and no person in it is real.

    Demo      {demo:width$}  connect a bank, reveal its token, delink it
    API       {docs:width$}  every request, to read and to try
    Sandbox   {sandbox:width$}  Dapi's and Plaid's stand-in, with faults on demand
    Console   {console:width$}  for operators; sign in, once and within five minutes, by
              {sign_in}
    Metrics   {metrics}
    Log       {log} (--verbose: here too)
    Requests  {requests} for your editor, {postman} for Postman
    Database  {database}
{external}
  The same by hand, line after line, in another terminal:

{lines}

  At Plaid the app is `plaid`; its client is $DEMO_PLAID_CLIENT_ID with $DEMO_PLAID_CLIENT_SECRET.

  Ctrl-C ends it all; the data stay.
",
        )
    }

    /// Returns lines of shell: a token, a session, a code, an exchange and what follows from it.
    fn lines(&self, user: &str) -> [String; 9] {
        let Self { api, sandbox, .. } = self;
        let connections = format!("{api}/v1/connections");
        let json = "-H 'content-type: application/json'";
        let app = r#"-H "authorization: Bearer $TOKEN""#;
        [
            format!(". '{}'", self.env_file.display()),
            r#"field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }"#.to_owned(),
            format!(
                "TOKEN=$(curl -s {api}/oauth2/token -u \"$STRONGROOM_BOOTSTRAP_CLIENT_ID:\
                 $STRONGROOM_BOOTSTRAP_CLIENT_SECRET\" -d grant_type=client_credentials \
                 | field access_token)"
            ),
            format!(
                "SESSION=$(curl -s {api}/v1/connect-sessions {app} {json} \
                 -d '{{\"clientUserID\": \"{user}\"}}' | field token)"
            ),
            format!(
                "RESULT=$(curl -s {sandbox}/sandbox/connect -d '{{\"clientUserID\": \"{user}\"}}')"
            ),
            format!(
                "ID=$(curl -s {connections} -H \"authorization: Bearer $SESSION\" {json} \
                 -d \"$RESULT\" | field id)"
            ),
            format!("curl -sw '\\n' '{connections}?clientUserID={user}' {app}"),
            format!(
                "curl -sw '\\n' {connections}/$ID/token {app} {json} -d '{{\"reason\": \"a first look\"}}'"
            ),
            format!("curl -sw '\\n' -X POST {connections}/$ID/delink {app}"),
        ]
    }
}
