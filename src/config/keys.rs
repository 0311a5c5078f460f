//! The master keys, and the engines that those are at which are elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ConfigError, Environment, Reader};
use crate::common::secret::SecretText;
use crate::vault::{
    AwsSettings, Engines, InvalidTransitAddress, KEEP_DATA_KEYS, Login, MasterKeys, SecretSource,
    StaticCredentials, TransitClient,
};

const ADDRESS: &str = "STRONGROOM_TRANSIT_ADDR";
const CA: &str = "STRONGROOM_TRANSIT_CA";
const TOKEN: &str = "STRONGROOM_TRANSIT_TOKEN";
const ROLE_ID: &str = "STRONGROOM_TRANSIT_ROLE_ID";
const SECRET_ID: &str = "STRONGROOM_TRANSIT_SECRET_ID";
const KUBERNETES_ROLE: &str = "STRONGROOM_TRANSIT_KUBERNETES_ROLE";
const KUBERNETES_TOKEN: &str = "STRONGROOM_TRANSIT_KUBERNETES_TOKEN_PATH";
/// Where Kubernetes keeps the token of a pod's service account, and renews it.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Reads `STRONGROOM_MASTER_KEYS` and what belongs to it.
pub fn read_master_keys(reader: &mut Reader<'_>) -> Option<MasterKeys> {
    const NAME: &str = "STRONGROOM_MASTER_KEYS";
    let text = reader.required_secret_lines(NAME, "`strongroom keys generate` makes one");
    let default = u32::try_from(KEEP_DATA_KEYS.as_secs()).unwrap_or(u32::MAX);
    let keep = reader.seconds("STRONGROOM_DATA_KEY_CACHE_SECONDS", default, 0..=86_400);
    let is_set = reader.is_set(ADDRESS);
    let transit = read_transit(reader);
    if is_set && transit.is_none() {
        // Its mistakes are recorded; the keys at it would only repeat them.
        return None;
    }
    let engines = Engines { transit, aws: Arc::new(read_aws(reader)) };
    let keys = MasterKeys::parse_with(text?.expose(), &engines);
    let keys = keys.map_err(|mistake| reader.mistake(NAME, mistake)).ok()?;
    Some(keys.keeping_data_keys(keep))
}

/// Reads master keys from a file, a kept copy, with the engines that the environment names.
///
/// # Errors
/// All mistakes at once.
pub fn read_master_key_file(
    environment: &Environment,
    path: &Path,
) -> Result<MasterKeys, ConfigError> {
    let mut reader = Reader::new(environment);
    let transit = read_transit(&mut reader);
    let engines = Engines { transit, aws: Arc::new(read_aws(&mut reader)) };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let text = text.map_err(|error| reader.mistake(&name, error)).ok();
    // One entry a line is as good as one line.
    let text = text.map(|text| zeroize::Zeroizing::new(text.trim().replace(['\n', '\r'], ",")));
    let keys = text.map(|text| MasterKeys::parse_with(&text, &engines));
    let keys = keys.and_then(|keys| keys.map_err(|mistake| reader.mistake(&name, mistake)).ok());
    reader.finish(keys)
}

fn read_transit(reader: &mut Reader<'_>) -> Option<Arc<TransitClient>> {
    let address = reader.optional(ADDRESS, |text| Ok::<_, String>(text.to_owned()));
    let pem = reader.optional(CA, |path| {
        std::fs::read(path).map_err(|error| format!("names a file that cannot be read: {error}"))
    });
    let login = read_login(reader, address.is_some());
    let (address, login) = (address?, login?);
    if reader.is_set(CA) && pem.is_none() {
        return None;
    }
    let client = TransitClient::new(&address, login, pem.as_deref());
    let at = if client.as_ref().is_err_and(InvalidTransitAddress::is_about_certificates) {
        CA
    } else {
        ADDRESS
    };
    client.map_err(|mistake| reader.mistake(at, mistake)).ok().map(Arc::new)
}

fn read_login(reader: &mut Reader<'_>, is_needed: bool) -> Option<Login> {
    let own = |text: &str| Ok::<_, String>(text.to_owned());
    let token = read_source(reader, TOKEN);
    let role_id = reader.optional(ROLE_ID, own);
    let secret_id = read_source(reader, SECRET_ID);
    let kubernetes = reader.optional(KUBERNETES_ROLE, own);
    let token_path = reader.optional(KUBERNETES_TOKEN, own);
    match (token, role_id, secret_id, kubernetes) {
        (Some(token), None, None, None) => Some(Login::Token(token)),
        (None, Some(role_id), Some(secret_id), None) => Some(Login::AppRole { role_id, secret_id }),
        (None, None, None, Some(role)) => {
            let path = token_path.unwrap_or_else(|| SERVICE_ACCOUNT.to_owned());
            let token = SecretSource::File(PathBuf::from(path));
            Some(Login::Kubernetes { role, token })
        }
        (None, None, None, None) if !is_needed => None,
        (None, Some(_), None, None) => {
            reader.mistake(SECRET_ID, format_args!("is missing while {ROLE_ID} is set"));
            None
        }
        (None, None, Some(_), None) => {
            reader.mistake(ROLE_ID, format_args!("is missing while {SECRET_ID} is set"));
            None
        }
        _ => {
            let one = format!(
                "set one way to log in: {TOKEN} (or {TOKEN}_FILE), {ROLE_ID} with {SECRET_ID}, or {KUBERNETES_ROLE}"
            );
            reader.mistake(ADDRESS, one);
            None
        }
    }
}

/// Reads where a secret comes from. A file is read now, to find mistakes, and again whenever it is needed.
fn read_source(reader: &mut Reader<'_>, name: &str) -> Option<SecretSource> {
    let secret = reader.secret(name)?;
    let file =
        reader.optional(&format!("{name}_FILE"), |path| Ok::<_, String>(PathBuf::from(path)));
    Some(file.map_or(SecretSource::Text(secret), SecretSource::File))
}

/// Reads the standard variables of AWS that matter here. All others, and the files that they name, are read by AWS's own
/// library, with the first call.
fn read_aws(reader: &mut Reader<'_>) -> AwsSettings {
    let mut own = |name: &str| reader.optional(name, |text| Ok::<_, String>(text.to_owned()));
    let ignores = own("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    let [of_kms, of_all] = ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"].map(&mut own);
    let endpoint = of_kms.or(of_all).filter(|_| ignores.is_none_or(|it| it != "true"));
    let session = own("AWS_SESSION_TOKEN").map(SecretText::new);
    let key = own("AWS_ACCESS_KEY_ID").zip(own("AWS_SECRET_ACCESS_KEY").map(SecretText::new));
    let credentials = key.map(|(id, secret)| StaticCredentials { id, secret, session });
    AwsSettings { endpoint, credentials }
}
