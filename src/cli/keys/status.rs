//! `strongroom keys status` and `strongroom keys verify`.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use crate::cli::Failure;
use crate::cli::clients::moment;
use crate::cli::output::Output;
use crate::cli::session::Session;
use crate::config::{Environment, read_master_key_file};
use crate::vault::{self, DataKeyGroup, KnownMasterKey, MasterKeyId, Trial, Vault};

/// The encryptions under one key after which it is to be replaced: a hundredth of what SP 800-38D §8.3 allows (2³²).
const ROTATE_AT: i64 = (1 << 32) / 100;
/// How many data keys a copy of a master key has to open.
const SAMPLES: i64 = 1000;

/// Show what hangs on each master key: data keys, their ages, what is sealed under them, and what blocks a retirement.
#[derive(Debug, Args)]
pub(super) struct Status {}

/// Prove that a kept copy of master keys is the right one: it opens data keys of this database. Nothing is changed, and
/// nothing needs to be restored.
///
/// Example: `strongroom keys verify --key-file /media/safe/master-keys`
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The file of the copy, with entries as in `STRONGROOM_MASTER_KEYS`.
    #[arg(long)]
    key_file: PathBuf,
}

/// A master key with all that hangs on it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Branch {
    #[serde(flatten)]
    key: KnownMasterKey,
    /// `local`, `transit` or `awskms`; absent if this process does not have the key.
    kind: Option<&'static str>,
    /// `wraps`, `opens` or `notGiven`.
    state: &'static str,
    wraps: i64,
    data_keys: Vec<DataKeyGroup>,
    /// Why it cannot be retired; empty if it can.
    blocked_by: Vec<String>,
    /// Whether a key has so many seals that it is to be replaced.
    rotation_due: bool,
}

impl Status {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let Session { mut conn, vault, .. } = Session::read(environment).await?;
        let known = vault::known_masters(&mut conn).await?;
        let mut groups = vault::data_key_groups(&mut conn).await?;
        let branches = known.into_iter().map(|key| {
            let (own, others) = std::mem::take(&mut groups)
                .into_iter()
                .partition(|group| group.master_key == key.id);
            groups = others;
            Branch::new(&vault, key, own)
        });
        let branches: Vec<_> = branches.collect();
        output.result(&branches, || {
            branches.iter().map(Branch::describe).collect::<Vec<_>>().join("\n")
        });
        Ok(())
    }
}

impl Branch {
    fn new(vault: &Vault, key: KnownMasterKey, data_keys: Vec<DataKeyGroup>) -> Self {
        let position = vault.masters().iter().position(|held| *held.id() == key.id);
        let held = position.and_then(|position| vault.masters().iter().nth(position));
        let state = match position {
            Some(0) => "wraps",
            Some(_) => "opens",
            None => "notGiven",
        };
        let wraps = data_keys.iter().map(|group| group.count).sum();
        let mut blocked_by = Vec::new();
        if position == Some(0) {
            blocked_by.push("it is the first, which wraps new data keys".to_owned());
        }
        if wraps > 0 {
            let how =
                if position == Some(0) { "" } else { "; `strongroom keys rewrap` moves them" };
            blocked_by.push(format!("it wraps {wraps} data keys{how}"));
        }
        let most = data_keys.iter().map(|group| group.most_seals).max().unwrap_or(0);
        let rotation_due = most.max(wraps) >= ROTATE_AT;
        let kind = held.map(vault::MasterKey::kind);
        Self { key, kind, state, wraps, data_keys, blocked_by, rotation_due }
    }

    fn describe(&self) -> String {
        let state = match self.state {
            "wraps" => "wraps new data keys",
            "opens" => "opens",
            _ => "not given to this process",
        };
        let kind = self.kind.unwrap_or("-");
        let since = self.key.created_at.date();
        let mut lines = vec![format!("{}  {kind}  {state}  since {since}", self.key.id)];
        for group in &self.data_keys {
            let DataKeyGroup { purpose, count, seals, most_seals, .. } = group;
            let days = |at: OffsetDateTime| at.date();
            let (oldest, newest) = (days(group.oldest), days(group.newest));
            lines.push(format!(
                "├─ {purpose}: {count} data keys of {oldest} to {newest}; {seals} seals, at most {most_seals} under one"
            ));
            if group.rotating > 0 {
                let since = moment(group.rotating_since, "-");
                let DataKeyGroup { rotating, former_seals, .. } = group;
                lines.push(format!(
                    "│  {rotating} of them rotate, since {since}; {former_seals} seals are under their former keys: strongroom keys rotate-data goes on"
                ));
            }
        }
        if self.rotation_due {
            lines.push(
                "├─ rotation is due: more than a hundredth of 2^32 encryptions under one key"
                    .to_owned(),
            );
        }
        let retirement = if self.blocked_by.is_empty() {
            format!("can be retired: strongroom keys retire {}", self.key.id)
        } else {
            format!("cannot be retired: {}", self.blocked_by.join("; "))
        };
        lines.push(format!("└─ {retirement}"));
        lines.join("\n")
    }
}

/// What became of one key of the copy.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    id: MasterKeyId,
    right: bool,
    opened: usize,
    what: String,
}

impl Verify {
    pub(super) async fn run(
        self,
        environment: &Environment,
        output: &Output,
    ) -> Result<(), Failure> {
        let keys = read_master_key_file(environment, &self.key_file)?;
        let mut conn = Session::connect(environment).await?;
        let mut all = Vec::new();
        for key in keys.iter() {
            let trial = vault::try_key(&mut conn, key, SAMPLES).await?;
            all.push(Verified::of(key.id(), trial));
        }
        output.result(&all, || {
            all.iter().map(|one| format!("{}: {}", one.id, one.what)).collect::<Vec<_>>().join("\n")
        });
        if all.iter().all(|one| one.right) {
            return Ok(());
        }
        Err(Failure::Other("not every key of this file is the right one".to_owned()))
    }
}

impl Verified {
    fn of(id: &MasterKeyId, trial: Trial) -> Self {
        let (right, opened, what) = match trial {
            Trial::Unknown => {
                (false, 0, "the database knows no master key of this name".to_owned())
            }
            Trial::Another => {
                (false, 0, "another key than the one that the database was sealed with".to_owned())
            }
            Trial::Opens(0) => (true, 0, "the right key; it wraps nothing at present".to_owned()),
            Trial::Opens(count) => {
                (true, count, format!("the right key; {count} data keys opened"))
            }
            Trial::Damaged(id) => {
                (false, 0, format!("the right key, and data key {id} does not open: it is damaged"))
            }
        };
        Self { id: id.clone(), right, opened, what }
    }
}
