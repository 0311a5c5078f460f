//! Owners and servers that are killed, dropped or interrupted.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use strongroom_dev::postgres::Durability;

use crate::*;

/// Not a test: [`child`] runs it. It ends when its parent closes its input.
#[tokio::test]
#[ignore = "only a child process of other tests"]
async fn own_a_server_until_killed() {
    let Some(folder) = environment(CHILD_FOLDER) else {
        return;
    };
    let durability = match environment(CHILD_THROWAWAY) {
        Some(flag) if !flag.is_empty() => Durability::Throwaway,
        _ => Durability::Durable,
    };
    let server = start(folder, durability).await;
    let mut out = std::io::stdout();
    writeln!(out, "{}", server.url()).and_then(|()| out.flush()).expect("stdout");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("stdin");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_dropped_stops_by_itself_and_the_next_start_waits_for_it() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let server = start(&folder, Durability::Durable).await;
    run(&server, "CREATE TABLE kept AS SELECT 'yes' AS answer").await;
    let pid = server_pid(&folder);
    drop(server);

    let server = start(&folder, Durability::Durable).await;
    assert!(!server.is_shared());
    assert_ne!(server_pid(&folder), pid);
    assert_eq!(text(&server, "SELECT answer FROM kept").await, "yes");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_second_start_from_another_process_uses_the_running_server_too() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let mut child = child(&folder, Durability::Durable);
    let url = url_of(&mut child);
    let guest = start(&folder, Durability::Durable).await;
    assert!(guest.is_shared());
    assert_eq!(guest.url(), url);
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[tokio::test]
async fn killing_the_owner_leaves_no_server_and_loses_no_row() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let mut child = child(&folder, Durability::Durable);
    let url = url_of(&mut child);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE kept AS SELECT 'yes' AS answer")
        .execute(&mut connection)
        .await
        .unwrap();
    let pid = server_pid(&folder);
    let socket = std::fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
    let socket = PathBuf::from(socket.lines().nth(4).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the server ends", || !signal("0", &pid)).await;
    eventually("its socket folder goes", || !socket.exists()).await;

    let server = start(&folder, Durability::Durable).await;
    assert!(!server.is_shared());
    assert_eq!(text(&server, "SELECT answer FROM kept").await, "yes");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_right_after_the_owner_was_killed_does_not_take_the_dying_server_for_a_running_one()
{
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let mut child = child(&folder, Durability::Durable);
    url_of(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();

    let server = start(&folder, Durability::Durable).await;
    assert!(!server.is_shared());
    connect(&server).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_owner_that_is_killed_at_any_moment_of_a_start_leaves_no_server() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let server = start(&folder, Durability::Durable).await;
    server.stop().await.unwrap();
    for after in (0..120).step_by(10).map(Duration::from_millis) {
        let mut child = child(&folder, Durability::Durable);
        tokio::time::sleep(after).await;
        child.kill().unwrap();
        child.wait().unwrap();

        // A server that stayed would be shared as another process's.
        let server = start(&folder, Durability::Durable).await;
        assert!(!server.is_shared(), "killed after {after:?}");
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn killing_the_owner_of_a_throwaway_database_leaves_nothing() {
    // Directly below a sticky folder, such as `/tmp`.
    let folder = std::env::temp_dir().join(format!("strongroom-throwaway-{}", std::process::id()));
    let mut child = child(&folder, Durability::Throwaway);
    url_of(&mut child);
    let pid = server_pid(&folder);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the folder goes", || !folder.exists()).await;
    assert!(!signal("0", &pid), "the server is still there");
}

#[tokio::test]
async fn a_database_that_was_half_made_when_its_owner_was_killed_is_made_anew() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let mut child = child(&folder, Durability::Durable);
    let unfinished = || names_in(&folder).into_iter().find(|name| name.starts_with("data.new-"));
    eventually("initdb writes", || {
        unfinished().is_some_and(|name| folder.join(name).join("PG_VERSION").exists())
    })
    .await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!folder.join("data").exists(), "initdb was quicker than this test");
    // What a failing machine leaves if even the supervisor could not clean up.
    std::fs::create_dir_all(folder.join("data.new-1/base")).unwrap();

    let server = start(&folder, Durability::Durable).await;
    connect(&server).await;
    eventually("all that was unfinished goes", || unfinished().is_none()).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn killing_the_server_itself_loses_no_acknowledged_row() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let server = start(&folder, Durability::Durable).await;
    run(&server, "CREATE TABLE kept (n bigint PRIMARY KEY)").await;
    let mut connection = connect(&server).await;
    let pid = server_pid(&folder);
    let writer = tokio::spawn(async move {
        let mut acknowledged = 0_i64;
        let insert = "INSERT INTO kept VALUES ($1)";
        while sqlx::query(insert).bind(acknowledged + 1).execute(&mut connection).await.is_ok() {
            acknowledged += 1;
        }
        acknowledged
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The server first, so that it cannot clean up, then the backend that serves the writer.
    let backends = Command::new("pgrep").args(["-P", &pid]).output().unwrap();
    assert!(signal("KILL", &pid));
    for backend in String::from_utf8_lossy(&backends.stdout).lines() {
        signal("KILL", backend);
    }
    let acknowledged = writer.await.unwrap();
    server.stop().await.unwrap();

    let server = start(&folder, Durability::Durable).await;
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM kept")
        .fetch_one(&mut connect(&server).await)
        .await
        .unwrap();
    assert!(acknowledged > 0 && found >= acknowledged, "{found} of {acknowledged}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn signals_of_the_terminal_reach_neither_the_server_nor_its_supervisor() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let server = start(&folder, Durability::Throwaway).await;
    let ps = |field: &str, pid: &str| {
        let output = Command::new("ps").args(["-o", field, "-p", pid]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let pid = server_pid(&folder);
    let supervisor = ps("ppid=", &pid);
    assert_eq!(ps("pgid=", &pid), supervisor, "the supervisor leads a group of its own");
    assert_ne!(ps("pgid=", &std::process::id().to_string()), supervisor);
    for name in ["INT", "TERM", "HUP"] {
        assert!(signal(name, &supervisor));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    connect(&server).await;
    server.stop().await.unwrap();
    assert!(!folder.exists());
}
