//! The unprivileged user that servers and backup programs run as.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// A user of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Whether a command must switch to this user, because the tests run as root.
    change: bool,
}

impl User {
    /// Returns the user for the tests: the current one, or for root the first of `postgres` and `nobody` that exists.
    pub fn for_tests() -> &'static Self {
        static USER: OnceLock<User> = OnceLock::new();
        USER.get_or_init(|| {
            let passwd = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
            let current = rustix::process::geteuid().as_raw();
            if current == 0 {
                ["postgres", "nobody"]
                    .iter()
                    .find_map(|name| Self::parse(&passwd, true, |user| user.name == *name))
                    .expect("no user 'postgres' or 'nobody' to run the tests as")
            } else {
                Self::parse(&passwd, false, |user| user.uid == current).expect("current user in /etc/passwd")
            }
        })
    }

    fn parse(passwd: &str, change: bool, wanted: impl Fn(&Self) -> bool) -> Option<Self> {
        passwd
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?.to_owned();
                let uid = fields.nth(1)?.parse().ok()?;
                let gid = fields.next()?.parse().ok()?;
                Some(Self { name, uid, gid, change })
            })
            .find(wanted)
    }

    /// Makes `command` run as this user.
    pub fn apply(&self, command: &mut Command) {
        if self.change {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Changes the owner of the file or folder at `path` (of a link itself, not its target) to this user.
    pub fn own(&self, path: &Path) {
        if self.change {
            std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).expect("chown");
        }
    }
}
