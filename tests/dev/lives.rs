//! Starts and ends: what is kept, what is told, what is left behind.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Dev, ROOM, command, fails, strongroom, temporary};

/// The process id of the database's server, where it runs.
fn server(folder: &Path) -> Option<String> {
    let file = std::fs::read_to_string(folder.join(ROOM).join("postgres/data/postmaster.pid"));
    file.ok()?.lines().next().map(str::to_owned)
}

fn lives(pid: &str) -> bool {
    let asked = Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status();
    asked.unwrap().success()
}

#[tokio::test]
async fn ctrl_c_ends_everything_and_leaves_no_server_behind() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let (pid, demo) = (server(folder.path()).unwrap(), dev.url("demoURL").to_owned());
    assert!(lives(&pid));
    let http = dev.http.clone();
    assert_eq!(dev.interrupt().code(), Some(0));
    assert!(!lives(&pid));
    assert!(http.get(demo).send().await.is_err());
}

#[tokio::test]
async fn what_was_made_is_for_its_owner_alone() {
    let folder = temporary();
    let _dev = Dev::start(folder.path());
    for file in ["env", "secrets", "plaid-client", "lock"] {
        let metadata = folder.path().join(ROOM).join(file).metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_second_one_on_the_same_folder_is_told_where_the_first_is() {
    let folder = temporary();
    let dev = Dev::start(folder.path());
    let (status, told) = fails(command(folder.path(), &[]));
    assert_eq!(status, Some(1));
    let expected = format!("runs on room, its demo is at {}", dev.url("demoURL"));
    assert!(told.contains(&expected), "{told}");
    assert!(told.contains("--folder"), "{told}");
    assert_eq!(dev.get("/api/connections").await["connections"], serde_json::json!([]));
}

#[test]
fn a_busy_port_is_told_with_what_changes_it() {
    let folder = temporary();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--demo-listen", "--sandbox-listen"] {
        let mut dev = strongroom(folder.path(), &[]);
        let other = if flag == "--demo-listen" { "--sandbox-listen" } else { "--demo-listen" };
        dev.args(["dev", "--folder", ROOM, flag, &address, other, "127.0.0.1:0"]);
        let (status, told) = fails(dev);
        assert_eq!(status, Some(1));
        assert!(told.contains(&address) && told.contains(flag), "{told}");
    }
    for variable in ["STRONGROOM_LISTEN", "STRONGROOM_METRICS_LISTEN"] {
        let (status, told) = fails(command(folder.path(), &[(variable, &address)]));
        assert_eq!(status, Some(1));
        assert!(told.contains(&format!("{variable}={address}")), "{told}");
        assert!(server(folder.path()).is_none(), "its database still runs");
    }
}

#[tokio::test]
async fn a_variable_of_the_users_own_wins_and_one_that_was_told_to_the_shell_does_not() {
    let folder = temporary();
    let secret = "0123456789abcdef0123456789abcdef";
    let mine = [
        ("STRONGROOM_BOOTSTRAP_CLIENT_ID", "mine"),
        ("STRONGROOM_BOOTSTRAP_CLIENT_SECRET", secret),
    ];
    let dev = Dev::with(folder.path(), &mine);
    let env = std::fs::read_to_string(folder.path().join(ROOM).join("env")).unwrap();
    assert!(!env.contains(secret) && !env.contains("BOOTSTRAP"), "{env}");
    let token = dev.http.post(format!("{}/oauth2/token", dev.url("apiURL")));
    let token = token
        .basic_auth("mine", Some(secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials");
    assert_eq!(token.send().await.unwrap().status(), 200);
    assert!(dev.interrupt().success());

    // A shell that read the file of that start names a database that is gone.
    let url = env.lines().find_map(|line| line.strip_prefix("export DATABASE_URL='")).unwrap();
    let stale = [("DATABASE_URL", url.trim_end_matches('\''))];
    assert!(Dev::with(folder.path(), &stale).interrupt().success());
}

#[tokio::test]
async fn keys_that_do_not_fit_the_database_are_told_with_a_way_out() {
    let folder = temporary();
    assert!(Dev::start(folder.path()).interrupt().success());
    std::fs::remove_file(folder.path().join(ROOM).join("secrets")).unwrap();
    let (status, told) = fails(command(folder.path(), &[]));
    assert_eq!(status, Some(1));
    assert!(told.contains("begin anew by moving that folder away"), "{told}");
    assert!(server(folder.path()).is_none(), "its database still runs");
}
