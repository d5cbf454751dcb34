//! The owners of restored files.
//!
//! As root, owners come from the manifest if they exist on this host. Otherwise everything belongs to the user that
//! runs the restore, because nobody else can change owners (pgBackRest `restoreManifestOwner` in
//! `src/command/restore/clean.c.inc`).

use std::collections::{HashMap, HashSet};

use repo_format::manifest::{Manifest, OwnerId};

use crate::users::Users;
use crate::warn;

/// User and group of a file, directory or link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// Every owner of a manifest as numbers of this host.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    root: bool,
    current: Owner,
    users: HashMap<OwnerId, u32>,
    groups: HashMap<OwnerId, u32>,
}

impl Ownership {
    /// Looks up all owners. `data_dir` is the owner of the existing data directory. It replaces owners that had no name
    /// when the backup was made. Warns about every replaced owner.
    pub fn new(manifest: &Manifest, users: &Users, current: Owner, data_dir: Option<Owner>) -> Self {
        let root = current.uid == 0;
        let mut user_ids: Vec<OwnerId> = Vec::new();
        let mut group_ids: Vec<OwnerId> = Vec::new();
        let (mut users_known, mut groups_known) = (HashSet::new(), HashSet::new());
        let mut last = None;
        let mut add = |user: OwnerId, group: OwnerId| {
            // A cluster has one owner or two
            if last.replace((user, group)) == Some((user, group)) {
                return;
            }
            if users_known.insert(user) {
                user_ids.push(user);
            }
            if groups_known.insert(group) {
                group_ids.push(group);
            }
        };
        manifest.files.iter().for_each(|file| add(file.user, file.group));
        manifest.links.iter().for_each(|link| add(link.user, link.group));
        manifest.paths.iter().for_each(|path| add(path.user, path.group));

        let fallback = data_dir.unwrap_or(current);
        Ownership {
            root,
            current,
            users: resolve(
                manifest,
                &user_ids,
                &Kind {
                    word: "user",
                    root,
                    current: current.uid,
                    fallback: fallback.uid,
                    id: &|name| users.user_id(name),
                    name: &|id| users.user_name(id),
                },
            ),
            groups: resolve(
                manifest,
                &group_ids,
                &Kind {
                    word: "group",
                    root,
                    current: current.gid,
                    fallback: fallback.gid,
                    id: &|name| users.group_id(name),
                    name: &|id| users.group_name(id),
                },
            ),
        }
    }

    /// The owner that something must have.
    pub fn of(&self, user: OwnerId, group: OwnerId) -> Owner {
        Owner {
            uid: self.users.get(&user).copied().unwrap_or(self.current.uid),
            gid: self.groups.get(&group).copied().unwrap_or(self.current.gid),
        }
    }

    /// Returns the owner of new files that are not in the manifest, such as recovery settings: as root, the owner of
    /// the data directory.
    pub fn of_new_file(&self, data_dir: Owner) -> Owner {
        if self.root { data_dir } else { self.current }
    }

    /// The user that runs the restore.
    pub fn current(&self) -> Owner {
        self.current
    }

    /// Whether the restore runs as root.
    pub fn is_root(&self) -> bool {
        self.root
    }
}

/// What differs between users and groups.
struct Kind<'a> {
    word: &'static str,
    root: bool,
    current: u32,
    fallback: u32,
    id: &'a dyn Fn(&str) -> Option<u32>,
    name: &'a dyn Fn(u32) -> Option<String>,
}

fn resolve(manifest: &Manifest, owners: &[OwnerId], kind: &Kind<'_>) -> HashMap<OwnerId, u32> {
    let word = kind.word;
    let current_name = (kind.name)(kind.current);
    // The warning about owners without name comes first
    let mut sorted = owners.to_vec();
    sorted.sort_by_key(|owner| manifest.owners.name(*owner).is_some());
    sorted
        .into_iter()
        .map(|owner| {
            let id = match (manifest.owners.name(owner), kind.root) {
                (None, true) => {
                    let fallback = (kind.name)(kind.fallback).unwrap_or_else(|| kind.fallback.to_string());
                    warn!("unknown {word} in backup manifest mapped to '{fallback}'");
                    kind.fallback
                }
                (None, false) => {
                    warn!("unknown {word} in backup manifest mapped to current {word}");
                    kind.current
                }
                (Some(name), true) => (kind.id)(name).unwrap_or_else(|| {
                    // pgBackRest maps it without a word, and PostgreSQL does not start with files of root
                    warn!("unknown {word} '{name}' in backup manifest mapped to current {word}");
                    kind.current
                }),
                (Some(name), false) => {
                    if current_name.as_deref() != Some(name) {
                        warn!("unknown {word} '{name}' in backup manifest mapped to current {word}");
                    }
                    kind.current
                }
            };
            (owner, id)
        })
        .collect()
}
