//! Names and ids of users and groups.
//!
//! `/etc/passwd` and `/etc/group` are read directly, because a static binary can't load the C library's name service
//! modules. Entries that they do not have (LDAP and similar) are requested from `getent`, which every system with such
//! users has.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// One of the two databases.
#[derive(Clone, Copy)]
enum Database {
    Passwd,
    Group,
}

impl Database {
    fn name(self) -> &'static str {
        match self {
            Database::Passwd => "passwd",
            Database::Group => "group",
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    loaded: bool,
    names: HashMap<u32, Option<String>>,
    ids: HashMap<String, Option<u32>>,
}

impl Table {
    /// Adds the first entry for each name and each id, like the C library.
    fn add(&mut self, text: &str) {
        for (name, id) in text.lines().filter_map(parse_line) {
            self.names.entry(id).or_insert_with(|| Some(name.to_owned()));
            self.ids.entry(name.to_owned()).or_insert(Some(id));
        }
    }

    fn load(&mut self, database: Database) {
        if !self.loaded {
            self.loaded = true;
            let text = fs::read(format!("/etc/{}", database.name())).unwrap_or_default();
            self.add(&String::from_utf8_lossy(&text));
        }
    }
}

/// Parses name and id from `name:password:number:...`, the beginning of lines in both databases.
fn parse_line(line: &str) -> Option<(&str, u32)> {
    let mut parts = line.split(':');
    let name = parts.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
    let id = parts.nth(1)?.parse().ok()?;
    Some((name, id))
}

/// Parses the home directory of a user's first entry in text of the form of `/etc/passwd`.
fn parse_home(text: &str, uid: u32) -> Option<PathBuf> {
    let line = text.lines().find(|line| parse_line(line).is_some_and(|(_, id)| id == uid))?;
    line.split(':').nth(5).filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// Asks the system's name service; `None` if there is no `getent` or it does not know the key.
fn ask(database: Database, key: &str) -> Option<(String, u32)> {
    let text = ask_text(database, key)?;
    let (name, id) = parse_line(text.lines().next()?)?;
    Some((name.to_owned(), id))
}

fn ask_text(database: Database, key: &str) -> Option<String> {
    // No database contains a key that looks like an option or contains a separator
    if key.starts_with('-') || key.contains(':') {
        return None;
    }
    let output = Command::new("getent")
        .args([database.name(), key])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Looks up users and groups, and caches every answer. Threads can share it.
#[derive(Debug, Default)]
pub struct Users {
    users: Mutex<Table>,
    groups: Mutex<Table>,
}

impl Users {
    /// A look-up that has read nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the user with this number.
    pub(crate) fn user_name(&self, uid: u32) -> Option<String> {
        name(&self.users, Database::Passwd, uid)
    }

    /// The name of the group with this number.
    pub(crate) fn group_name(&self, gid: u32) -> Option<String> {
        name(&self.groups, Database::Group, gid)
    }

    /// The number of the user with this name.
    pub(crate) fn user_id(&self, name: &str) -> Option<u32> {
        id(&self.users, Database::Passwd, name)
    }

    /// The number of the group with this name.
    pub(crate) fn group_id(&self, name: &str) -> Option<u32> {
        id(&self.groups, Database::Group, name)
    }

    /// The name of the user that runs this process (effective).
    pub(crate) fn current_user(&self) -> Option<String> {
        self.user_name(rustix::process::geteuid().as_raw())
    }

    /// Returns the home directory of the user that runs this process (effective), regardless of the environment.
    pub fn current_home(&self) -> Option<PathBuf> {
        let uid = rustix::process::geteuid().as_raw();
        let text = fs::read("/etc/passwd").unwrap_or_default();
        let own = |text: &str| parse_home(text, uid);
        own(&String::from_utf8_lossy(&text)).or_else(|| own(&ask_text(Database::Passwd, &uid.to_string())?))
    }

    /// The name of the group that runs this process (effective).
    pub(crate) fn current_group(&self) -> Option<String> {
        self.group_name(rustix::process::getegid().as_raw())
    }
}

fn name(table: &Mutex<Table>, database: Database, id: u32) -> Option<String> {
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.load(database);
    table
        .names
        .entry(id)
        .or_insert_with(|| ask(database, &id.to_string()).filter(|(_, found)| *found == id).map(|(name, _)| name))
        .clone()
}

fn id(table: &Mutex<Table>, database: Database, name: &str) -> Option<u32> {
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.load(database);
    if let Some(known) = table.ids.get(name) {
        return *known;
    }
    // `getent` takes digits for an id, so a name of only digits must be returned as that name
    let found = ask(database, name).filter(|(found, _)| found == name).map(|(_, id)| id);
    table.ids.insert(name.to_owned(), found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_takes_first_entry_of_a_number_and_skips_noise() {
        let mut table = Table::default();
        table.add(
            "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\n# a:b:1\n\n:x:2:\nbroken\nbad:x:y:\npg:x:26:26::/:",
        );
        assert_eq!(table.names[&0], Some("root".to_owned()));
        assert_eq!(table.ids["toor"], Some(0));
        assert_eq!(table.ids["pg"], Some(26));
        assert_eq!(table.names.len(), 2);
    }

    #[test]
    fn home_is_that_of_the_first_entry_of_the_user() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\npg:x:26:26:,,,:/var/lib/pg:/bin/sh\npg2:x:26:26::/other:\nnone:x:7:7:::";
        assert_eq!(parse_home(text, 26), Some(PathBuf::from("/var/lib/pg")));
        assert_eq!(parse_home(text, 7), None);
        assert_eq!(parse_home(text, 8), None);
    }

    #[test]
    fn users_root_is_found_both_ways() {
        let users = Users::new();
        assert_eq!(users.user_name(0).as_deref(), Some("root"));
        assert_eq!(users.user_id("root"), Some(0));
        assert_eq!(users.group_name(0).as_deref(), Some("root"));
        assert_eq!(users.group_id("root"), Some(0));
    }

    #[test]
    fn users_unknown_is_none() {
        let users = Users::new();
        assert_eq!(users.user_name(4_123_456_789), None);
        assert_eq!(users.user_id("no-such-user-here"), None);
        assert_eq!(users.user_id("-h"), None);
        assert_eq!(users.group_id("0"), None);
    }
}
