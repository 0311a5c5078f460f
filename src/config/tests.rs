use super::*;

const KEY: &str = "k1:QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI=";

fn minimal() -> Environment {
    [("DATABASE_URL", "postgres://u:canary@db/x"), ("STRONGROOM_MASTER_KEYS", KEY)]
        .into_iter()
        .collect()
}

fn with(name: &str, value: &str) -> Result<Config, ConfigError> {
    let mut environment = minimal();
    environment.set(name, value);
    Config::from_environment(&environment)
}

#[test]
fn a_database_and_a_master_key_are_enough() {
    let config = Config::from_environment(&minimal()).unwrap();
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.metrics_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.http.public_url.as_str(), "http://127.0.0.1:8080");
    assert_eq!(config.providers.dapi.base_url.as_str(), "https://api.dapi.com/v2");
    assert_eq!(config.providers.delink_path, "/users/DelinkUser");
    assert_eq!(config.providers.dapi.exchange_timeout, Duration::from_mins(2));
    assert_eq!(config.pace.answer_within, Duration::from_secs(10));
    assert!(
        config.database.migrate && config.pace.code_exp_cap && config.providers.dapi.exchange_probe
    );
    assert!(config.default_app.is_none() && config.bootstrap.is_none());
    assert!(!config.allow_private_addresses);
}

#[test]
fn all_mistakes_are_reported_at_once_and_no_secret_with_them() {
    let environment = [
        ("DATABASE_URL", "mysql://u:canary@db/x"),
        ("STRONGROOM_MASTER_KEYS", "k1:canary"),
        ("STRONGROOM_LISTEN", "nowhere"),
        ("STRONGROOM_METRICS_LISTEN", "9090"),
        ("STRONGROOM_PUBLIC_URL", "https://host/path?canary"),
        ("STRONGROOM_CORS_ORIGINS", "https://a.example, *"),
        ("STRONGROOM_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("STRONGROOM_MIGRATE", "yes"),
        ("STRONGROOM_SWEEP_INTERVAL", "0"),
        ("STRONGROOM_ANSWER_WITHIN", "10s"),
        ("STRONGROOM_ALLOW_PRIVATE_ADDRESSES", "127.0.0.1"),
        ("DAPI_BASE_URL", "ftp://canary"),
        ("DAPI_DELINK_PATH", "users"),
        ("DAPI_APP_SECRET", "canary"),
        ("STRONGROOM_BOOTSTRAP_CLIENT_ID", "not-only-letters"),
        ("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", "canary"),
        ("STRONGROOM_LOG_FORMAT", "xml"),
    ];
    let error = Config::from_environment(&environment.into_iter().collect()).unwrap_err();
    let named: Vec<_> = error.mistakes().iter().filter_map(|line| line.split(':').next()).collect();
    let expected: Vec<_> = environment.iter().map(|(name, _)| *name).collect();
    for name in &expected {
        let reported_as = if *name == "DAPI_APP_SECRET" { "DAPI_APP_KEY" } else { name };
        assert!(named.contains(&reported_as), "{name} is missing in {error}");
    }
    assert_eq!(named.len(), expected.len(), "{error}");
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[test]
fn a_missing_master_key_comes_with_the_way_to_make_one() {
    let environment = [("DATABASE_URL", "postgres://db/x")].into_iter().collect();
    let error = Config::from_environment(&environment).unwrap_err();
    assert_eq!(
        error.mistakes(),
        ["STRONGROOM_MASTER_KEYS: is missing; `strongroom keys generate` makes one"]
    );
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert!(with("DAPI_APP_KEY", "").unwrap().default_app.is_none());
    assert!(with("STRONGROOM_LISTEN", "").is_ok());
}

#[test]
fn a_secret_can_come_from_a_file_without_its_line_break() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, format!("{KEY}\n")).unwrap();
    let mut environment: Environment = [("DATABASE_URL", "postgres://db/x")].into_iter().collect();
    environment.set("STRONGROOM_MASTER_KEYS_FILE", path.to_str().unwrap());
    let config = Config::from_environment(&environment).unwrap();
    assert_eq!(config.master_keys.first().id().as_str(), "k1");
}

#[test]
fn a_secret_from_two_places_or_from_a_missing_file_is_a_mistake() {
    let error = with("STRONGROOM_MASTER_KEYS_FILE", "/nowhere").unwrap_err();
    assert_eq!(
        error.mistakes(),
        ["STRONGROOM_MASTER_KEYS: is set, and so is STRONGROOM_MASTER_KEYS_FILE; set one of them"]
    );
    let error = with("DAPI_APP_SECRET_FILE", "/nowhere").unwrap_err();
    assert!(
        error.mistakes()[0].starts_with("DAPI_APP_SECRET_FILE: names a file that cannot be read")
    );
}

#[test]
fn a_secret_with_a_stray_line_break_or_space_is_a_mistake_by_name() {
    for name in ["DAPI_APP_KEY", "DAPI_APP_SECRET", "STRONGROOM_BOOTSTRAP_CLIENT_SECRET"] {
        for value in ["canary0123456789canary0123456789\r", " canary", "can\u{7f}ary", "can\nary"] {
            let mut environment = minimal();
            environment.set("DAPI_APP_KEY", "key");
            environment.set("DAPI_APP_SECRET", "secret");
            environment.set("STRONGROOM_BOOTSTRAP_CLIENT_ID", "boot");
            environment.set("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", "a".repeat(32));
            environment.set(name, value);
            let error = Config::from_environment(&environment).unwrap_err();
            assert_eq!(error.mistakes().len(), 1, "{error}");
            assert!(error.mistakes()[0].starts_with(&format!("{name}: ")), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
    assert!(with("DATABASE_URL", "postgres://u:p@db/x\r").is_err());
}

#[test]
fn a_files_secret_is_trimmed_and_then_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let read = |content: &str| {
        std::fs::write(&path, content).unwrap();
        let mut environment = minimal();
        environment.set("DAPI_APP_KEY", "key");
        environment.set("DAPI_APP_SECRET_FILE", path.to_str().unwrap());
        Config::from_environment(&environment)
    };
    let app = read("\u{feff} canary \t\r\n").unwrap().default_app.unwrap();
    assert_eq!(app.app_secret.expose(), "canary");
    let error = read("can\rary\n").unwrap_err();
    assert_eq!(error.mistakes(), ["DAPI_APP_SECRET_FILE: must not contain control characters"]);
    assert!(read(" \r\n").is_err());
}

#[test]
fn a_public_url_loses_its_last_slash_and_may_have_no_path() {
    let url = |text: &str| with("STRONGROOM_PUBLIC_URL", text).map(|config| config.http.public_url);
    assert_eq!(url("https://bank.example/").unwrap().as_str(), "https://bank.example");
    assert_eq!(url("http://localhost:8080").unwrap().as_str(), "http://localhost:8080");
    assert_eq!(url("HTTPS://Bank.Example:443").unwrap().as_str(), "https://bank.example");
    for wrong in [
        "bank.example",
        "https://bank.example/x",
        "https://bank.example?q",
        "https://u@bank.example",
    ] {
        assert!(url(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn an_origin_must_be_exact() {
    let origins = |text: &str| with("STRONGROOM_CORS_ORIGINS", text).map(|c| c.http.cors_origins);
    assert_eq!(
        origins("https://a.example, http://localhost:3000").unwrap(),
        ["https://a.example", "http://localhost:3000"]
    );
    let of_apps = ["capacitor://localhost", "ionic://localhost", "app://bank.example:1"];
    assert_eq!(origins(&of_apps.join(",")).unwrap(), of_apps);
    for wrong in [
        "*",
        "null",
        "https://a.example/",
        "https://a.example:443",
        "HTTPS://a.example",
        "a.example",
        ",",
        "https://*.example.com",
        "capacitor://*",
        "capacitor://localhost/",
        "app:localhost",
        "app:///x",
        "app://u@x",
        "data:x",
    ] {
        assert!(origins(wrong).is_err(), "{wrong}");
    }
    let named = origins("https://*.example.com").unwrap_err().to_string();
    assert!(named.contains("no wildcards"), "{named}");
}

#[test]
fn a_proxy_is_trusted_by_network_or_by_address() {
    let config = with("STRONGROOM_TRUSTED_PROXIES", "10.0.0.0/8, ::1").unwrap();
    assert_eq!(config.http.trusted_proxies.len(), 2);
}

#[test]
fn a_mistyped_name_is_noticed() {
    let config = with("STRONGROOM_LISTENS", "127.0.0.1:1").unwrap();
    let [unknown] = config.unknown.as_slice() else { panic!("{:?}", config.unknown) };
    assert_eq!(unknown.name, "STRONGROOM_LISTENS");
    assert_eq!(unknown.nearest, Some("STRONGROOM_LISTEN"));
}

#[test]
fn a_name_like_no_other_has_no_nearest() {
    let config = with("STRONGROOM_XYZ", "1").unwrap();
    assert_eq!(config.unknown.first().and_then(|unknown| unknown.nearest), None);
}

#[test]
fn what_kubernetes_sets_beside_a_service_of_this_name_is_ignored() {
    let mut environment = minimal();
    for name in [
        "STRONGROOM_SERVICE_HOST",
        "STRONGROOM_SERVICE_PORT",
        "STRONGROOM_SERVICE_PORT_HTTP",
        "STRONGROOM_PORT",
        "STRONGROOM_PORT_8080_TCP",
        "STRONGROOM_PORT_8080_TCP_ADDR",
        "STRONGROOM_METRICS_PORT_9090_TCP_PROTO",
    ] {
        environment.set(name, "10.0.0.1");
    }
    assert_eq!(Config::from_environment(&environment).unwrap().unknown, []);
}

#[test]
fn the_configuration_shows_no_secret_when_printed() {
    let mut environment = minimal();
    environment.set("DAPI_APP_KEY", "key");
    environment.set("DAPI_APP_SECRET", "canary");
    environment.set("STRONGROOM_BOOTSTRAP_CLIENT_ID", "boot");
    environment.set("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", "canary0123456789canary0123456789");
    let printed = format!("{:?}", Config::from_environment(&environment).unwrap());
    assert!(!printed.contains("canary"), "{printed}");
}

#[test]
fn the_example_names_every_variable_and_no_other() {
    let example = include_str!("../../.env.example");
    let names = example.lines().filter_map(|line| line.trim_start_matches("# ").split_once('='));
    let names: std::collections::BTreeSet<_> = names
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert_eq!(names, VARIABLES.iter().copied().collect());
}
