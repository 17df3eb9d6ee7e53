//! The key that may do everything: the configured one, or one made at the first start and kept in the data folder.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::PathBuf,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::config::{Config, ConfigError};

const FILE: &str = "admin.key";

/// The admin key, and where it is kept when it is not configured.
pub struct AdminKey {
    pub key: String,
    pub file: Option<PathBuf>,
}

/// The configured key; or, as only a loopback listener may do without one, the one kept in the data folder (mode 0600).
///
/// # Errors
/// It cannot be read, or made and kept.
pub fn admin_key(config: &Config) -> Result<AdminKey, ConfigError> {
    if let Some(key) = &config.api.admin_key {
        return Ok(AdminKey { key: key.expose().to_owned(), file: None });
    }
    config.check_api()?;
    let file = config.data_dir.join(FILE);
    let refused = |doing: &str, error: std::io::Error| {
        config.refuse("data_dir", format_args!("{} cannot be {doing}: {error}", file.display()))
    };
    match fs::read_to_string(&file) {
        Ok(key) if !key.trim().is_empty() => Ok(AdminKey { key: key.trim().to_owned(), file: Some(file) }),
        Ok(_) => make(&file).map_err(|error| refused("written", error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            make(&file).map_err(|error| refused("made", error))
        }
        Err(error) => Err(refused("read", error)),
    }
}

fn make(file: &PathBuf) -> std::io::Result<AdminKey> {
    let key = format!("ph_admin_{}", BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    if let Some(folder) = file.parent() {
        // The data are in it: for its owner alone, as the embedded Redis would make it.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut opened = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    writeln!(opened, "{key}")?;
    opened.sync_all()?;
    Ok(AdminKey { key, file: Some(file.clone()) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(folder: &tempfile::TempDir, env: &[(&str, &str)]) -> Config {
        let data_dir = folder.path().join("data");
        let base = [("POSTHASTE_DATA_DIR".to_owned(), data_dir.display().to_string())];
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(None, base.into_iter().chain(env), None).expect("settings")
    }

    #[test]
    fn a_made_key_is_kept_for_its_owner_alone_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config(&folder, &[]);
        let made = admin_key(&config).expect("a key");
        assert!(made.key.len() > 40);
        let mode = |path: &std::path::Path| fs::metadata(path).expect("its mode").permissions().mode() & 0o777;
        assert_eq!(mode(&made.file.expect("a file")), 0o600);
        assert_eq!(mode(&config.data_dir), 0o700);
        assert_eq!(admin_key(&config).expect("the key").key, made.key);
    }

    #[test]
    fn a_configured_key_wins_and_others_than_loopback_need_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let key =
            admin_key(&config(&folder, &[("POSTHASTE_API__ADMIN_KEY", "a-long-admin-key-of-ours")])).expect("a key");
        assert_eq!((key.key.as_str(), key.file), ("a-long-admin-key-of-ours", None));
        let open = config(&folder, &[("POSTHASTE_API__LISTEN", "0.0.0.0:8080")]);
        assert!(admin_key(&open).is_err_and(|error| error.to_string().contains("api.admin_key")));
    }
}
