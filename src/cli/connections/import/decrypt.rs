//! The hook that decrypts an old store's columns: a command that reads one encrypted value a line from standard input and
//! writes the plain one for each, in the same order.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, BufWriter};
use tokio::process::Command;

use super::file::Line;
use crate::cli::Failure;
use crate::common::secret::SecretText;

/// Decrypts these fields of all lines, by one run of `command` in the shell.
///
/// # Errors
/// If the command fails, or writes another number of lines than it read.
pub(super) async fn decrypt(
    command: &str,
    fields: &[&'static str],
    lines: &mut [Line],
) -> Result<(), Failure> {
    let encrypted = lines.iter().flat_map(|line| {
        fields.iter().filter_map(|field| Some((line.number, line.fields.get(field)?.clone())))
    });
    let encrypted = encrypted.collect::<Vec<_>>();
    if let Some((line, _)) =
        encrypted.iter().find(|(_, value)| value.expose().contains(['\n', '\r']))
    {
        return Err(Failure::Usage(format!(
            "line {line}: a value of several lines cannot go through --decrypt-command"
        )));
    }
    let count = encrypted.len();
    let plain = filter(command, encrypted.into_iter().map(|(_, value)| value).collect()).await?;
    if plain.len() != count {
        return Err(Failure::Other(format!(
            "--decrypt-command wrote {} lines for {} values",
            plain.len(),
            count
        )));
    }
    let mut plain = plain.into_iter();
    for line in lines {
        for field in fields {
            if line.fields.contains_key(field)
                && let Some(value) = plain.next()
            {
                line.fields.insert(field, value);
            }
        }
    }
    Ok(())
}

/// Passes values through the command.
async fn filter(command: &str, values: Vec<SecretText>) -> Result<Vec<SecretText>, Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("--decrypt-command: {error}"));
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        let Some(stdin) = stdin else { return Ok(()) };
        let mut stdin = BufWriter::new(stdin);
        for value in values {
            stdin.write_all(value.expose().as_bytes()).await?;
            stdin.write_all(b"\n").await?;
        }
        stdin.shutdown().await
    };
    let read = async {
        let (mut plain, Some(stdout)) = (Vec::new(), stdout) else { return Ok(Vec::new()) };
        let mut lines = BufReader::new(stdout).lines();
        while let Some(line) = lines.next_line().await? {
            plain.push(SecretText::new(line));
        }
        Ok::<_, std::io::Error>(plain)
    };
    // Both at once: a pipe holds little.
    let (written, plain) = tokio::join!(write, read);
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(Failure::Other(format!("--decrypt-command failed: {status}")));
    }
    written.map_err(failed)?;
    plain.map_err(failed)
}
