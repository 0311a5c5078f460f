//! Master keys at AWS KMS: what is its own. What every engine has in common is in `keys_elsewhere`.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use strongroom::config::Config;

use crate::keys_elsewhere::{is_keys_unavailable, readyz, refused, rewrap};
use crate::support::{
    AwsKms, Elsewhere, Line, MASTER_KEY, Source, Stage, TestApp, Transit, command, id, until,
};

async fn stage(kms: &AwsKms) -> Stage {
    kms.on(TestApp::builder()).set("STRONGROOM_MASTER_KEYS", kms.entry("a1")).stage().await
}

async fn app(kms: &AwsKms) -> TestApp {
    kms.on(TestApp::builder()).set("STRONGROOM_MASTER_KEYS", kms.entry("a1")).spawn().await
}

#[tokio::test]
async fn keys_that_are_needed_at_once_are_opened_at_once() {
    let engine = Elsewhere::AwsKms.start().await;
    let app = engine.app().await;
    let replica = app.replica().await;
    let token = app.token().await;
    let mut connections = Vec::new();
    for index in 0..30 {
        let answer = replica.hand_in(&token, &format!("user-{index}"), &app.connect()).await;
        connections.push(id(&answer.json).to_owned());
    }
    // One after the other they would wait for longer than anything waits for its turn.
    engine.cut(Line::Slow(Duration::from_millis(400)));
    let reveals = connections.iter().map(|id| app.api.reveal(&token, id));
    let answers = futures_util::future::join_all(reveals).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn each_call_names_its_key_and_binds_the_row_and_names_no_user() {
    let engine = Elsewhere::AwsKms.start().await;
    let app = engine.app().await;
    let ada = app.active("ada").await;
    let answer = app.replica().await.reveal(&app.token().await, id(&ada)).await;
    assert_eq!(answer.status, 200);
    let sent = String::from_utf8_lossy(&engine.sent()).into_owned();
    let count = |part: &str| sent.matches(part).count();
    let calls = count("TrentService.Encrypt") + count("TrentService.Decrypt");
    assert!(calls >= 4 && count("TrentService.Decrypt") > 0, "{calls}");
    let arn = engine.entry("").replace(":awskms:", "");
    assert_eq!(count(&format!("\"KeyId\":\"{arn}\"")), calls);
    assert_eq!(count("\"strongroom:row\":\""), calls);
    assert!(count("\"strongroom:purpose\":\"user\"") >= 1);
    for known in ["SELECT id::text FROM users", "SELECT id::text FROM apps"] {
        for row in app.database.values(known).await {
            assert!(!sent.contains(&row), "{known}");
        }
    }
}

#[tokio::test]
async fn a_disabled_key_is_an_outage_that_ends_when_it_is_enabled() {
    let kms = AwsKms::start().await;
    let app = app(&kms).await;
    let ada = app.active("ada").await;
    let (cold, token) = (app.replica().await, app.token().await);
    kms.disable(true).await;
    assert_eq!(app.api.reveal(&token, id(&ada)).await.status, 200, "her key is kept");
    let refused = cold.reveal(&token, id(&ada)).await;
    assert!(is_keys_unavailable(&refused), "{} {}", refused.status, refused.json);
    let ready = readyz(&cold).await;
    assert_eq!(ready.json["keysUnavailable"][0]["cause"], "DisabledException");
    kms.disable(false).await;
    until("the return", async || cold.reveal(&token, id(&ada)).await.status == 200).await;
}

#[tokio::test]
async fn a_refusal_of_aws_names_neither_account_nor_role_to_callers() {
    let kms = AwsKms::stand_in().await;
    let stage = stage(&kms).await;
    kms.disable(true).await;
    let text = refused(&stage).await;
    assert!(text.contains("`a1`") && text.contains("DisabledException"), "{text}");
    assert!(!text.contains("111122223333") && !text.contains("CANARY"), "{text}");
}

#[tokio::test]
async fn a_key_moves_from_here_to_aws_to_transit_and_back_and_reads_go_on() {
    let (kms, transit) = (AwsKms::start().await, Transit::start().await);
    let builder = kms.on(transit.on(TestApp::builder()).await);
    let app = builder.spawn().await;
    let ada = app.active("ada").await;
    let token = app.token().await;
    let (aws, bao) = (kms.entry("a1"), transit.entry("t1"));
    for (to, from, format) in [
        (&*aws, MASTER_KEY, "3"),
        (&*bao, &*aws, "2"),
        (&*aws, &*bao, "3"),
        (MASTER_KEY, &*aws, "1"),
    ] {
        rewrap(&app, &format!("{to},{from}"), 2).await;
        let formats = "SELECT string_agg(DISTINCT get_byte(wrapped, 0)::text, ',') FROM data_keys";
        assert_eq!(app.database.value(formats).await, format);
        let alone = app.replica_with(&[("STRONGROOM_MASTER_KEYS", to)]).await;
        until("a reading", async || alone.reveal(&token, id(&ada)).await.status == 200).await;
    }
}

#[tokio::test]
async fn status_and_verification_know_keys_at_aws_and_a_retirement_forgets_them() {
    let kms = AwsKms::start().await;
    let stage = stage(&kms).await;
    let both = format!("{},{MASTER_KEY}", kms.entry("a1"));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    std::fs::write(&copy, kms.entry("a1")).unwrap();
    let run = async |keys: &str, arguments: &[&str]| {
        let mut process = command(&stage, &[("STRONGROOM_MASTER_KEYS", keys)]);
        process.args(arguments);
        let output = output(process).await;
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&both, &["keys", "rewrap"]).await;
    let status = run(&both, &["keys", "status"]).await;
    assert!(status.contains("a1  awskms  wraps new data keys"), "{status}");
    let verified = run(&both, &["keys", "verify", "--key-file", copy.to_str().unwrap()]).await;
    assert!(verified.contains("the right key; 3 data keys opened"), "{verified}");
    let back = format!("{MASTER_KEY},{}", kms.entry("a1"));
    run(&back, &["keys", "rewrap"]).await;
    run(&back, &["keys", "retire", "a1"]).await;
    assert!(!run(MASTER_KEY, &["keys", "status"]).await.contains("a1"));
}

/// Runs a command on another thread: the line to the engine needs this one.
async fn output(mut process: Command) -> Output {
    process.stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || process.output().unwrap()).await.unwrap()
}

/// Runs a command that uses the key, with credentials from one source alone; returns the access keys that signed.
async fn signed_by(variables: impl Fn(&AwsKms) -> Vec<(&'static str, String)>) -> Vec<String> {
    let kms = AwsKms::stand_in().await;
    let mut stage = stage(&kms).await;
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        stage.environment.remove(name);
    }
    let variables = variables(&kms);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut process = command(&stage, &[("AWS_ENDPOINT_URL_STS", &kms.url())]);
    process.envs(variables).args(["keys", "status"]);
    let output = output(process).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut used = kms.used();
    used.dedup();
    used
}

#[tokio::test]
async fn a_profile_has_the_access_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    let key = Source::Profile.access_key();
    let profile = format!("[bank]\naws_access_key_id={key}\naws_secret_access_key=CANARY\n");
    std::fs::write(&file, profile).unwrap();
    let used = signed_by(|_| {
        let file = file.to_str().unwrap().to_owned();
        vec![("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", "bank".to_owned())]
    })
    .await;
    assert_eq!(used, [key]);
}

#[tokio::test]
async fn a_pods_web_identity_becomes_the_role() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "CANARY-web-identity").unwrap();
    let used = signed_by(|_| {
        let role = "arn:aws:iam::111122223333:role/strongroom".to_owned();
        let file = file.to_str().unwrap().to_owned();
        vec![("AWS_WEB_IDENTITY_TOKEN_FILE", file), ("AWS_ROLE_ARN", role)]
    })
    .await;
    assert_eq!(used, [Source::WebIdentity.access_key()]);
}

#[tokio::test]
async fn a_containers_role_is_used() {
    let used = signed_by(|kms| {
        vec![
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/container", kms.url())),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "CANARY-container".to_owned()),
        ]
    })
    .await;
    assert_eq!(used, [Source::Container.access_key()]);
}

#[tokio::test]
async fn an_instances_role_is_used() {
    let used = signed_by(|kms| vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", kms.url())]).await;
    assert_eq!(used, [Source::Instance.access_key()]);
}

#[tokio::test]
async fn without_credentials_the_outage_says_so() {
    let kms = AwsKms::stand_in().await;
    let mut stage = stage(&kms).await;
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        stage.environment.remove(name);
    }
    let mut process = command(&stage, &[("AWS_EC2_METADATA_DISABLED", "true")]);
    process.args(["keys", "status"]);
    let output = output(process).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("credentials"), "{said}");
    assert_eq!(kms.used(), [""; 0]);
}

#[tokio::test]
async fn an_endpoint_in_a_profile_gets_no_data_key_in_the_clear() {
    let kms = AwsKms::stand_in().await;
    let mut stage = stage(&kms).await;
    stage.environment.remove("AWS_ENDPOINT_URL_KMS");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    std::fs::write(&file, "[default]\nendpoint_url = http://kms.example:80\n").unwrap();
    let mut process = command(&stage, &[("AWS_CONFIG_FILE", file.to_str().unwrap())]);
    process.args(["keys", "status"]);
    let output = output(process).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("neither https nor on loopback"), "{said}");
}

#[tokio::test]
async fn mistakes_in_keys_at_aws_are_reported() {
    let base = TestApp::builder().stage().await.environment;
    let mistakes = |variables: &[(&str, &str)]| {
        let mut environment = base.clone();
        for (name, value) in variables {
            environment.set(name, *value);
        }
        match Config::from_environment(&environment) {
            Ok(_) => String::new(),
            Err(error) => error.mistakes().join("\n"),
        }
    };
    let key = "a1:awskms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd";
    let key = ("STRONGROOM_MASTER_KEYS", key);
    assert_eq!(mistakes(&[key]), "");
    let alias = "a1:awskms:arn:aws:kms:eu-central-1:111122223333:alias/strongroom";
    assert!(mistakes(&[("STRONGROOM_MASTER_KEYS", alias)]).contains("names an alias"));
    assert!(mistakes(&[("STRONGROOM_MASTER_KEYS", "a1:awskms:1234abcd")]).contains("a key's ARN"));
    for name in ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"] {
        let plain = mistakes(&[key, (name, "http://kms.internal")]);
        assert!(plain.contains("must be https://host:port"), "{plain}");
        assert_eq!(mistakes(&[(name, "http://kms.internal")]), "", "no key is there");
        let ignored = ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true");
        assert_eq!(mistakes(&[key, (name, "http://kms.internal"), ignored]), "");
    }
}
