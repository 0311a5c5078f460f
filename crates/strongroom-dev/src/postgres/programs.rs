//! Finds the folder of PostgreSQL's programs.
//!
//! May import: home, error.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Settings;
use super::error::StartError;
use super::home::{Home, major};

/// How long a program may take to print its version, or the folder of the others.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Folders with one subfolder per version of PostgreSQL, and the subfolder's prefix: Debian, PostgreSQL's own
/// packages for Fedora and RHEL, Homebrew, Postgres.app.
const VERSIONED: [(&str, &str); 6] = [
    ("usr/lib/postgresql", ""),
    ("usr", "pgsql-"),
    ("opt/homebrew/opt", "postgresql@"),
    ("usr/local/opt", "postgresql@"),
    ("home/linuxbrew/.linuxbrew/opt", "postgresql@"),
    ("Applications/Postgres.app/Contents/Versions", ""),
];

/// PostgreSQL's programs, verified to run.
#[derive(Debug)]
pub(super) struct Programs {
    folder: PathBuf,
    major: u32,
}

/// Where to search, in this order.
#[derive(Debug, Clone, Copy)]
enum Place {
    Path,
    PgConfig,
    Usual,
}

impl Programs {
    /// Returns the programs that the settings name, or else the first that are found. If the home already holds data,
    /// prefers the version that created them.
    pub(super) async fn find(settings: &Settings, home: &Home) -> Result<Self, StartError> {
        let made_by = home.made_by()?;
        let found = match &settings.programs {
            Some(folder) => Self::named(folder, home).await?,
            None => Self::search(settings.path.as_deref(), Path::new("/"), home, made_by).await?,
        };
        match made_by {
            Some(made_by) if made_by != found.major => Err(StartError::OtherVersion {
                folder: home.folder().to_owned(),
                made_by,
                found: found.major,
            }),
            _ => Ok(found),
        }
    }

    pub(super) fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    async fn named(folder: &Path, home: &Home) -> Result<Self, StartError> {
        match real_folder(folder) {
            Some(real) => Self::probe(real, home).await,
            None => Err(StartError::NotPrograms(folder.to_owned())),
        }
    }

    /// Returns the first programs that run and have the wanted version, or else the first that run.
    async fn search(
        path: Option<&OsStr>,
        root: &Path,
        home: &Home,
        wanted: Option<u32>,
    ) -> Result<Self, StartError> {
        let mut second_best = Err(StartError::NoPrograms);
        let mut seen = Vec::new();
        for place in [Place::Path, Place::PgConfig, Place::Usual] {
            for folder in place.folders(path, root, home).await {
                let Some(real) = real_folder(&folder).filter(|real| !seen.contains(real)) else {
                    continue;
                };
                seen.push(real.clone());
                match Self::probe(real, home).await {
                    Ok(found) if wanted.is_none_or(|wanted| wanted == found.major) => {
                        return Ok(found);
                    }
                    other if second_best.is_err() => second_best = other,
                    _ => {}
                }
            }
        }
        second_best
    }

    /// Runs `initdb --version` as the user who will run it.
    async fn probe(folder: PathBuf, home: &Home) -> Result<Self, StartError> {
        let program = folder.join("initdb");
        let major = output(home, &program, "--version").await.and_then(|text| {
            let version = text.split_whitespace().find_map(major);
            version.ok_or_else(|| format!("it calls itself `{}`", text.trim()))
        });
        match major {
            Ok(major) => Ok(Self { folder, major }),
            Err(reason) => Err(StartError::UnusableProgram { program, reason }),
        }
    }
}

impl Place {
    async fn folders(self, path: Option<&OsStr>, root: &Path, home: &Home) -> Vec<PathBuf> {
        match self {
            Self::Path => in_path(path).collect(),
            Self::PgConfig => pg_config(path, home).await.into_iter().collect(),
            Self::Usual => usual(root),
        }
    }
}

/// Returns the folder that `pg_config` names. Debian puts `pg_config`, unlike the programs, on the `PATH`.
async fn pg_config(path: Option<&OsStr>, home: &Home) -> Option<PathBuf> {
    let program =
        in_path(path).map(|folder| folder.join("pg_config")).find(|file| is_program(file))?;
    let text = output(home, &program, "--bindir").await.ok()?;
    Some(PathBuf::from(text.trim()))
}

/// Returns the folders of `PATH`, except relative ones: those depend on the working folder.
fn in_path(path: Option<&OsStr>) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(path.unwrap_or_default()).filter(|folder| folder.is_absolute())
}

/// Returns the folders of packages that do not put the programs on the `PATH`, newest version first.
fn usual(root: &Path) -> Vec<PathBuf> {
    VERSIONED.iter().flat_map(|(parent, prefix)| versions(&root.join(parent), prefix)).collect()
}

fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    found.sort_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, folder)| folder).collect()
}

/// Resolves a link to `initdb` alone, as a `PATH` may have it, to the folder of all programs. Returns `None` if
/// they are not there.
fn real_folder(folder: &Path) -> Option<PathBuf> {
    let folder = folder.canonicalize().ok()?;
    let target = folder.join("initdb").canonicalize().ok()?;
    [target.parent()?, &folder]
        .into_iter()
        .find(|folder| ["initdb", "postgres"].iter().all(|name| is_program(&folder.join(name))))
        .map(Path::to_owned)
}

fn is_program(file: &Path) -> bool {
    file.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Returns a program's output, or why there is none.
async fn output(home: &Home, program: &Path, argument: &str) -> Result<String, String> {
    let mut command = home.command(program);
    command.arg(argument);
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = match tokio::time::timeout(PROBE_LIMIT, output).await {
        Ok(output) => output.map_err(|error| error.to_string())?,
        Err(_) => return Err(format!("no answer within {} s", PROBE_LIMIT.as_secs())),
    };
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("{}, {}", output.status, said.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_programs(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["initdb", "postgres"] {
            std::fs::write(folder.join(name), "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn the_newest_version_of_the_usual_places_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for folder in [
            "usr/lib/postgresql/9.6",
            "usr/lib/postgresql/14",
            "usr/lib/postgresql/9",
            "usr/pgsql-16",
            "usr/lib/postgresql/15",
        ] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let found: Vec<_> = usual(root.path())
            .into_iter()
            .map(|folder| folder.strip_prefix(root.path()).unwrap().to_owned())
            .collect();
        let expected = [
            "usr/lib/postgresql/15/bin",
            "usr/lib/postgresql/14/bin",
            "usr/lib/postgresql/9/bin",
            "usr/pgsql-16/bin",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn a_link_to_one_program_leads_to_the_folder_of_all() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        put_programs(&root.join("real"));
        let links = root.join("links");
        std::fs::create_dir(&links).unwrap();
        std::os::unix::fs::symlink("../real/initdb", links.join("initdb")).unwrap();
        assert_eq!(real_folder(&links), Some(root.join("real")));
    }

    #[test]
    fn a_folder_without_the_server_is_none_of_postgresqls() {
        let root = tempfile::tempdir().unwrap();
        put_programs(root.path());
        std::fs::remove_file(root.path().join("postgres")).unwrap();
        assert_eq!(real_folder(root.path()), None);
    }

    #[tokio::test]
    async fn where_nothing_is_found_the_search_says_so() {
        let root = tempfile::tempdir().unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let home = Home::prepare(&root.path().join("home")).await.unwrap();
        let found = Programs::search(Some(OsStr::new("/nowhere")), root.path(), &home, None).await;
        assert!(matches!(found, Err(StartError::NoPrograms)), "{found:?}");
    }

    #[test]
    fn relative_folders_of_the_path_are_not_looked_into() {
        let folders: Vec<_> = in_path(Some(OsStr::new("bin::/usr/bin:."))).collect();
        assert_eq!(folders, [PathBuf::from("/usr/bin")]);
    }
}
