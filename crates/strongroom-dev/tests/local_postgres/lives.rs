//! Starting, sharing and stopping in everyday use.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use strongroom_dev::postgres::{Durability, LocalPostgres, StartError};

use crate::*;

#[tokio::test]
async fn the_first_start_makes_a_database_that_listens_on_a_private_socket_only() {
    let temporary = temporary();
    let folder = temporary.path().join("made/as/needed");
    let began = Instant::now();
    let server = start(&folder, Durability::Durable).await;
    assert_eq!(text(&server, "SHOW server_encoding").await, "UTF8");
    eprint_time("cold, durable", began);

    assert!(!server.is_shared());
    assert_eq!(server.data_folder(), folder);
    assert_eq!(text(&server, "SHOW listen_addresses").await, "");
    assert_eq!(text(&server, "SHOW fsync").await, "on");
    assert_eq!(
        text(&server, "SELECT datcollate::text FROM pg_database WHERE datname = 'postgres'").await,
        "C"
    );
    let version = text(&server, "SHOW server_version").await;
    assert!(version.starts_with(&server.version().to_string()), "{version}");
    for private in [&folder, &socket_folder(&server)] {
        assert_eq!(private.metadata().unwrap().mode() & 0o777, 0o700);
    }
    assert_eq!(names_in(&folder), ["data", "log"]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_url_serves_sqlx_and_psql() {
    let temporary = temporary();
    let server = start(temporary.path().join("db"), Durability::Throwaway).await;
    PgConnection::connect(&server.url()).await.unwrap();
    let psql = Command::new("psql").args([&server.url(), "-Atc", "SELECT 6 * 7"]).output();
    // With the server's package alone there is no client to check.
    if let Ok(psql) = psql {
        assert_eq!(String::from_utf8_lossy(&psql.stdout), "42\n", "{psql:?}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stopped_server_is_gone_and_the_next_start_finds_the_rows() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let server = start(&folder, Durability::Durable).await;
    run(&server, "CREATE TABLE kept AS SELECT 'yes' AS answer").await;
    let (pid, socket) = (server_pid(&folder), socket_folder(&server));
    server.stop().await.unwrap();
    assert!(!signal("0", &pid), "the server is still there");
    assert!(!socket.exists(), "its socket folder is still there");

    let began = Instant::now();
    let server = start(&folder, Durability::Durable).await;
    assert_eq!(text(&server, "SELECT answer FROM kept").await, "yes");
    eprint_time("warm, durable", began);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_throwaway_database_leaves_nothing_when_it_stops() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let began = Instant::now();
    let server = start(&folder, Durability::Throwaway).await;
    assert_eq!(text(&server, "SHOW fsync").await, "off");
    eprint_time("cold, throwaway", began);
    let socket = socket_folder(&server);
    server.stop().await.unwrap();
    assert!(!folder.exists() && !socket.exists());
}

#[tokio::test]
async fn a_second_start_uses_the_running_server_and_cannot_stop_it() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let owner = start(&folder, Durability::Durable).await;
    let guest = start(&folder, Durability::Durable).await;
    assert!(guest.is_shared() && !owner.is_shared());
    assert_eq!((guest.url(), guest.version()), (owner.url(), owner.version()));

    let mut connection = connect(&guest).await;
    guest.stop().await.unwrap();
    connection.ping().await.unwrap();
    connect(&owner).await;
    owner.stop().await.unwrap();
    connection.ping().await.unwrap_err();
}

#[tokio::test]
async fn of_two_first_starts_at_once_one_makes_the_database_and_both_use_it() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let (one, other) =
        tokio::join!(start(&folder, Durability::Throwaway), start(&folder, Durability::Throwaway));
    assert_ne!(one.is_shared(), other.is_shared());
    assert_eq!(one.url(), other.url());
    connect(&one).await;
}

#[tokio::test]
async fn a_folder_with_spaces_and_quotes_in_its_path_will_do() {
    let temporary = temporary();
    let folder = temporary.path().join("it's a \"folder\" $HOME");
    let server = start(&folder, Durability::Throwaway).await;
    connect(&server).await;
    server.stop().await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test]
async fn the_socket_folder_of_a_server_that_is_long_gone_is_swept() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    start(&folder, Durability::Durable).await.stop().await.unwrap();
    let owner = folder.metadata().unwrap().uid();
    let abandoned = |name: &str| {
        let socket = PathBuf::from(format!("/tmp/strongroom-socket-{name}{}", std::process::id()));
        std::fs::create_dir(&socket).unwrap();
        std::fs::write(socket.join(".s.PGSQL.5432.lock"), "1\n").unwrap();
        chown(&socket, Some(owner), None).unwrap();
        socket
    };
    let (old, young) = (abandoned("old"), abandoned("young"));
    let made = old.metadata().unwrap().modified().unwrap();
    let handle = std::fs::File::open(&old).unwrap();
    handle.set_modified(made - Duration::from_mins(2)).unwrap();

    let server = start(&folder, Durability::Durable).await;
    assert!(!old.exists() && young.exists());
    std::fs::remove_dir_all(&young).unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_root_wants_where_the_servers_user_cannot_go_is_kept_elsewhere() {
    let temporary = with_mode(0o700);
    if !is_root(&temporary) {
        return;
    }
    let wanted = temporary.path().join("checkout/db");
    let server = start(&wanted, Durability::Durable).await;
    run(&server, "CREATE TABLE kept AS SELECT 'yes' AS answer").await;
    let folder = server.data_folder().to_owned();
    assert!(folder.starts_with("/var/tmp") && !wanted.exists(), "{}", folder.display());
    let metadata = folder.metadata().unwrap();
    assert!(metadata.uid() != 0 && metadata.mode() & 0o777 == 0o700);
    server.stop().await.unwrap();

    let server = start(&wanted, Durability::Durable).await;
    assert_eq!(server.data_folder(), folder);
    assert_eq!(text(&server, "SELECT answer FROM kept").await, "yes");
    server.stop().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();

    // Another user created the folder first.
    std::fs::create_dir(&folder).unwrap();
    chown(&folder, Some(12_345), None).unwrap();
    let error = LocalPostgres::start(settings(&wanted, Durability::Durable)).await.unwrap_err();
    assert!(matches!(error, StartError::OfAnotherUser { owner: 12_345, .. }), "{error}");
    // Another user created a link first.
    std::fs::remove_dir(&folder).unwrap();
    std::os::unix::fs::symlink(temporary.path(), &folder).unwrap();
    let error = LocalPostgres::start(settings(&wanted, Durability::Durable)).await.unwrap_err();
    assert!(matches!(error, StartError::Io { .. }), "{error}");
    std::fs::remove_file(&folder).unwrap();
}
