//! The settings alone, for `fuzz/`: read, merged and judged, and no file of theirs opened. No part of the public face.

use super::settings::Settings;
use crate::config::Secret;
use clap::{Args, Command, FromArgMatches};
use std::ffi::OsString;

/// What one source of settings says.
#[derive(Clone, Debug)]
pub struct SettingsProbe(Settings);

impl SettingsProbe {
    /// Of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        Settings::from_toml(text).map(Self)
    }

    /// Of flags.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn from_flags(flags: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let command = Settings::augment_args(Command::new("serve").no_binary_name(true));
        let matches = command.try_get_matches_from(flags);
        let settings = matches.and_then(|matches| Settings::from_arg_matches(&matches));
        settings.map(Self).map_err(|error| error.to_string())
    }

    /// These settings; what they do not say, `below` says.
    pub fn over(self, below: Self) -> Self {
        Self(self.0.over(below.0))
    }

    /// What they come to, as text; a file that holds a secret counts as one.
    ///
    /// # Errors
    /// Every fault.
    pub fn judged(self) -> Result<String, String> {
        let mut settings = self.0;
        let key_in_file = settings.access_key_file.take().map(secret);
        let (key, shared) = (
            settings.access_key.take(),
            settings.secret_file.take().map(secret),
        );
        let config = settings.config(shared, key.or(key_in_file));
        config.validate().map_err(|error| error.to_string())?;
        Ok(format!("{config:?}"))
    }
}

fn secret(_: std::path::PathBuf) -> Secret {
    Secret::new("what a file held")
}
