//! The environment of `strongroom dev`: the user's variables, and defaults for those that they left
//! out.
//!
//! A variable that the user set always wins. One that an earlier `dev` wrote to the file `env`,
//! which their shell has read, is not theirs: it would name a database that no longer exists.

use strongroom_dev::folder::Lines;

use crate::common::secret::SecretText;
use crate::config::Environment;

/// Marks the URL of a database that `dev` runs, as the application's name, which `psql` and sqlx
/// accept.
const OWN_DATABASE: &str = "application_name=strongroom-dev";

/// Returns the URL of a database that `dev` runs, recognizable later.
#[must_use]
pub(super) fn own_database_url(url: &str) -> String {
    format!("{url}&{OWN_DATABASE}")
}

/// The environment of the service, and the defaults in it.
pub(super) struct Variables {
    environment: Environment,
    defaults: Lines,
}

impl Variables {
    /// Returns the user's own variables: those of the process without the ones that an earlier
    /// `dev` wrote.
    #[must_use]
    pub(super) fn of(process: &Environment, written: &Lines) -> Self {
        let mut environment = process.clone();
        for (name, value) in written {
            if process.get(name) == Some(value.expose()) {
                environment.remove(name);
            }
        }
        if process.get("DATABASE_URL").is_some_and(|url| url.contains(OWN_DATABASE)) {
            environment.remove("DATABASE_URL");
        }
        Self { environment, defaults: Lines::new() }
    }

    /// Returns whether the variable, or its `_FILE` form, is set.
    #[must_use]
    pub(super) fn has(&self, name: &str) -> bool {
        let set = |name: &str| self.environment.get(name).is_some_and(|value| !value.is_empty());
        set(name) || set(&format!("{name}_FILE"))
    }

    /// Sets variables that belong together, unless the user set one of them, and adds them to the
    /// file `env`.
    pub(super) fn set_default<const N: usize>(&mut self, together: [(&str, &str); N]) {
        if together.iter().any(|(name, _)| self.has(name)) {
            return;
        }
        for (name, value) in together {
            self.environment.set(name, value);
            self.write(name, value);
        }
    }

    /// Appends an item to a variable that is a list.
    pub(super) fn add(&mut self, name: &str, item: &str) {
        let list = match self.environment.get(name).filter(|list| !list.is_empty()) {
            Some(list) => format!("{list},{item}"),
            None => item.to_owned(),
        };
        self.environment.set(name, list);
    }

    /// Sets a variable for this process alone, unless the user set it.
    pub(super) fn prefer(&mut self, name: &str, value: &str) {
        if !self.has(name) {
            self.environment.set(name, value);
        }
    }

    /// Adds a variable to the file `env`.
    pub(super) fn write(&mut self, name: &str, value: &str) {
        self.defaults.insert(name.to_owned(), SecretText::new(value.to_owned()));
    }

    /// The environment from which the configuration is read.
    #[must_use]
    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The contents of the file `env`.
    #[must_use]
    pub(super) fn defaults(&self) -> &Lines {
        &self.defaults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(process: &[(&str, &str)], written: &[(&str, &str)]) -> Variables {
        let secret = |value: &str| SecretText::new(value.to_owned());
        let written =
            written.iter().map(|(name, value)| ((*name).to_owned(), secret(value))).collect();
        Variables::of(&process.iter().copied().collect(), &written)
    }

    #[test]
    fn what_the_user_set_wins() {
        let mut all = variables(&[("A", "theirs"), ("B_FILE", "/theirs")], &[]);
        all.set_default([("A", "ours")]);
        all.set_default([("B", "ours"), ("C", "ours")]);
        all.set_default([("D", "ours")]);
        let get = |name: &str| all.environment().get(name);
        assert_eq!([get("A"), get("B"), get("C")], [Some("theirs"), None, None]);
        assert_eq!(get("D"), Some("ours"));
        assert_eq!(all.defaults().keys().collect::<Vec<_>>(), ["D"]);
    }

    #[test]
    fn what_an_earlier_start_wrote_is_not_the_users() {
        let gone = own_database_url("postgres:///postgres?host=/tmp/gone");
        let process = [("DATABASE_URL", gone.as_str()), ("A", "ours"), ("B", "theirs")];
        let all = variables(&process, &[("A", "ours"), ("B", "ours")]);
        assert!(!all.has("DATABASE_URL") && !all.has("A") && all.has("B"));
    }

    #[test]
    fn an_item_is_added_to_the_users_list() {
        let mut all = variables(&[("A", "x")], &[]);
        all.add("A", "y");
        all.add("B", "y");
        assert_eq!(all.environment().get("A"), Some("x,y"));
        assert_eq!(all.environment().get("B"), Some("y"));
    }
}
