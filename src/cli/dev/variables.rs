//! The variables of a `strongroom dev`: the user's own, and what is offered where they left one out.
//!
//! A variable that the user set always wins. One that an earlier `dev` told their shell, by the file
//! `env`, is not theirs: it would name a database that is gone.

use strongroom_dev::folder::Lines;

use crate::base::secret::SecretText;
use crate::config::Environment;

/// Marks the URL of a database that `dev` runs. `psql` and sqlx take it for what it is, the name of
/// the application.
const OWN_DATABASE: &str = "application_name=strongroom-dev";

/// The URL of a database that `dev` runs, recognisable later.
#[must_use]
pub(super) fn own_database_url(url: &str) -> String {
    format!("{url}&{OWN_DATABASE}")
}

/// The environment of the service to be started, and what in it was offered.
pub(super) struct Variables {
    environment: Environment,
    offered: Lines,
}

impl Variables {
    /// The user's own variables: those of the process without what an earlier `dev` told.
    #[must_use]
    pub(super) fn of(process: &Environment, told: &Lines) -> Self {
        let mut environment = process.clone();
        for (name, value) in told {
            if process.get(name) == Some(value.expose()) {
                environment.remove(name);
            }
        }
        if process.get("DATABASE_URL").is_some_and(|url| url.contains(OWN_DATABASE)) {
            environment.remove("DATABASE_URL");
        }
        Self { environment, offered: Lines::new() }
    }

    /// Whether the variable, or its `_FILE` form, is set to something.
    #[must_use]
    pub(super) fn has(&self, name: &str) -> bool {
        let set = |name: &str| self.environment.get(name).is_some_and(|value| !value.is_empty());
        set(name) || set(&format!("{name}_FILE"))
    }

    /// Sets variables that belong together where the user set none of them, and keeps them for the
    /// file `env`.
    pub(super) fn offer<const N: usize>(&mut self, together: [(&str, &str); N]) {
        if together.iter().any(|(name, _)| self.has(name)) {
            return;
        }
        for (name, value) in together {
            self.environment.set(name, value);
            self.tell(name, value);
        }
    }

    /// Adds an item to a variable that is a list.
    pub(super) fn add(&mut self, name: &str, item: &str) {
        let list = match self.environment.get(name).filter(|list| !list.is_empty()) {
            Some(list) => format!("{list},{item}"),
            None => item.to_owned(),
        };
        self.environment.set(name, list);
    }

    /// Sets a variable for this process alone where the user set none.
    pub(super) fn prefer(&mut self, name: &str, value: &str) {
        if !self.has(name) {
            self.environment.set(name, value);
        }
    }

    /// Keeps a variable for the file `env`.
    pub(super) fn tell(&mut self, name: &str, value: &str) {
        self.offered.insert(name.to_owned(), SecretText::new(value.to_owned()));
    }

    /// The environment to read the configuration from.
    #[must_use]
    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What the file `env` is to tell.
    #[must_use]
    pub(super) fn offered(&self) -> &Lines {
        &self.offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(process: &[(&str, &str)], told: &[(&str, &str)]) -> Variables {
        let secret = |value: &str| SecretText::new(value.to_owned());
        let told = told.iter().map(|(name, value)| ((*name).to_owned(), secret(value))).collect();
        Variables::of(&process.iter().copied().collect(), &told)
    }

    #[test]
    fn what_the_user_set_wins() {
        let mut all = variables(&[("A", "theirs"), ("B_FILE", "/theirs")], &[]);
        all.offer([("A", "ours")]);
        all.offer([("B", "ours"), ("C", "ours")]);
        all.offer([("D", "ours")]);
        let get = |name: &str| all.environment().get(name);
        assert_eq!([get("A"), get("B"), get("C")], [Some("theirs"), None, None]);
        assert_eq!(get("D"), Some("ours"));
        assert_eq!(all.offered().keys().collect::<Vec<_>>(), ["D"]);
    }

    #[test]
    fn what_an_earlier_start_told_the_shell_is_not_the_users() {
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
