//! Reads variables one by one and collects the mistakes, so that an operator sees all of them at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use crate::common::secret::SecretText;
use crate::common::text;

/// A snapshot of environment variables.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, Option<SecretText>>);

impl Environment {
    /// Takes a snapshot of this process's variables. Marks a variable that is not UTF-8 as unreadable.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub fn of_process() -> Self {
        let text = |value: std::ffi::OsString| value.into_string().ok().map(SecretText::new);
        let vars = std::env::vars_os();
        Self(
            vars.filter_map(|(name, value)| Some((name.into_string().ok()?, text(value))))
                .collect(),
        )
    }

    /// Returns a variable's value if it is set and readable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_ref().map(SecretText::expose)
    }

    /// Sets a variable in this snapshot only.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), Some(SecretText::new(value.into())));
    }

    /// Removes a variable from this snapshot only.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Returns the names that begin with `prefix`.
    pub fn names<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(vars: I) -> Self {
        let secret = |value: V| Some(SecretText::new(value.into()));
        Self(vars.into_iter().map(|(name, value)| (name.into(), secret(value))).collect())
    }
}

/// All mistakes of a configuration. Names variables and never shows their values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    mistakes: Vec<String>,
}

impl ConfigError {
    /// Creates an error for a mistake that was found without a [`Reader`].
    #[must_use]
    pub fn one(name: &str, mistake: impl Display) -> Self {
        Self { mistakes: vec![format!("{name}: {mistake}")] }
    }

    /// Returns one line for each mistake, `NAME: what is wrong`.
    #[must_use]
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the configuration does not work:")?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Reads variables and collects mistakes.
pub struct Reader<'a> {
    environment: &'a Environment,
    mistakes: Vec<String>,
}

impl<'a> Reader<'a> {
    /// Creates a reader without mistakes.
    #[must_use]
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment, mistakes: Vec::new() }
    }

    /// Records a mistake about a variable.
    pub fn mistake(&mut self, name: &str, what: impl Display) {
        self.mistakes.push(format!("{name}: {what}"));
    }

    /// Returns the value, or all mistakes. `value` may be `None` only if a mistake was recorded for it.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) if self.mistakes.is_empty() => Ok(value),
            _ => Err(ConfigError { mistakes: self.mistakes }),
        }
    }

    /// Returns whether the variable, or its `_FILE` form, is set and not empty.
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        let set = |name: &str| self.environment.get(name).is_some_and(|value| !value.is_empty());
        set(name) || set(&format!("{name}_FILE"))
    }

    /// Returns a variable's text; an empty one counts as not set.
    fn text(&mut self, name: &str) -> Option<&'a str> {
        if matches!(self.environment.0.get(name), Some(None)) {
            self.mistake(name, "is not valid UTF-8");
        }
        self.environment.get(name).filter(|value| !value.is_empty())
    }

    /// Reads an optional variable.
    pub fn optional<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(name)?;
        parse(text).map_err(|mistake| self.mistake(name, mistake)).ok()
    }

    /// Reads a variable with a default. A value that does not parse is a mistake and never the default.
    pub fn or<T, E: Display>(
        &mut self,
        name: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> T {
        self.optional(name, parse).unwrap_or(default)
    }

    /// Reads a secret of one line, from the variable or from the file that `NAME_FILE` names. White space around
    /// a file's content is ignored; anywhere else it is a mistake, as are control characters, because a secret
    /// pasted with them would only fail later.
    pub fn secret(&mut self, name: &str) -> Option<SecretText> {
        let secret = self.secret_lines(name)?;
        match text::check_line(secret.expose(), usize::MAX) {
            Ok(()) => Some(secret),
            Err(mistake) => {
                let file_name = format!("{name}_FILE");
                let from_file = self.environment.get(&file_name).is_some_and(|it| !it.is_empty());
                self.mistake(if from_file { &file_name } else { name }, mistake);
                None
            }
        }
    }

    /// Reads a secret that may have several lines.
    fn secret_lines(&mut self, name: &str) -> Option<SecretText> {
        let file_name = format!("{name}_FILE");
        match (self.text(name), self.text(&file_name)) {
            (Some(_), Some(_)) => {
                self.mistake(name, format_args!("is set, and so is {file_name}; set one of them"));
                None
            }
            (Some(value), None) => Some(SecretText::new(value.to_owned())),
            (None, Some(path)) => self.secret_file(&file_name, path),
            (None, None) => None,
        }
    }

    fn secret_file(&mut self, name: &str, path: &str) -> Option<SecretText> {
        match std::fs::read_to_string(path).map(zeroize::Zeroizing::new) {
            Ok(text) => {
                // Some editors put a byte order mark first.
                let text = text.trim_start_matches('\u{feff}').trim().to_owned();
                if text.is_empty() {
                    self.mistake(name, "names an empty file");
                    return None;
                }
                Some(SecretText::new(text))
            }
            Err(error) => {
                self.mistake(name, format_args!("names a file that cannot be read: {error}"));
                None
            }
        }
    }

    /// Reads a mandatory secret; `hint` says how to get one.
    pub fn required_secret(&mut self, name: &str, hint: &str) -> Option<SecretText> {
        self.required(name, hint, Self::secret)
    }

    /// Reads a mandatory secret that may have several lines.
    pub fn required_secret_lines(&mut self, name: &str, hint: &str) -> Option<SecretText> {
        self.required(name, hint, Self::secret_lines)
    }

    fn required(
        &mut self,
        name: &str,
        hint: &str,
        read: fn(&mut Self, &str) -> Option<SecretText>,
    ) -> Option<SecretText> {
        let before = self.mistakes.len();
        let secret = read(self, name);
        if secret.is_none() && self.mistakes.len() == before {
            self.mistake(name, format_args!("is missing; {hint}"));
        }
        secret
    }

    /// Reads `true` or `false`.
    pub fn switch(&mut self, name: &str, default: bool) -> bool {
        self.or(name, default, |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("must be true or false"),
        })
    }

    /// Reads a whole number within bounds.
    pub fn number(
        &mut self,
        name: &str,
        default: u32,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> u32 {
        self.or(name, default, |text| {
            let number = text.parse().ok().filter(|number| bounds.contains(number));
            number.ok_or_else(|| {
                format!("must be a whole number from {} to {}", bounds.start(), bounds.end())
            })
        })
    }

    /// Reads a duration in whole seconds within bounds.
    pub fn seconds(
        &mut self,
        name: &str,
        default: u32,
        bounds: std::ops::RangeInclusive<u32>,
    ) -> Duration {
        let seconds = self.or(name, default, |text| {
            let seconds = text.parse().ok().filter(|seconds| bounds.contains(seconds));
            seconds.ok_or_else(|| {
                format!("must be whole seconds from {} to {}", bounds.start(), bounds.end())
            })
        });
        Duration::from_secs(seconds.into())
    }

    /// Reads a comma-separated list and ignores white space around the items.
    pub fn list<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Vec<T> {
        let Some(text) = self.text(name) else {
            return Vec::new();
        };
        let mut items = Vec::new();
        for (index, item) in text.split(',').map(str::trim).enumerate() {
            match parse(item) {
                Ok(item) => items.push(item),
                Err(mistake) => self.mistake(name, format_args!("item {}: {mistake}", index + 1)),
            }
        }
        items
    }
}
