//! Tests of the storage drivers: each passes the same suite, also while its calls fail, against a real server if it
//! needs one.

mod conformance;
mod failures;
mod servers;
mod sftp;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use engine::storage::faulty::FaultyStorage;
use engine::storage::memory::MemoryStorage;
use engine::storage::posix::PosixStorage;
use engine::storage::{OpenStorage, RepoStorage};

use crate::env::{Azurite, Gcs, Sshd, Weed};

/// Opens a storage as the program does.
fn open(settings: impl OpenStorage) -> Arc<dyn RepoStorage> {
    settings.open().expect("settings of a repository").storage
}

/// Everything that a driver must pass. `open` takes the name of an empty repository.
fn drive(open: impl Fn(&str) -> Arc<dyn RepoStorage>) {
    let plain = open("plain");
    conformance::run(&*plain);
    conformance::large_things(&*plain);
    let short = FaultyStorage::new(open("short-reads")).short_reads(3);
    conformance::run(&short);
    failures::run(&open("failures"));
    conformance::two_writers(&*open("two-writers"), &*open("two-writers"));
}

#[test]
fn posix_driver_conforms() {
    let folder = tempfile::tempdir().expect("temporary folder");
    drive(|name| Arc::new(PosixStorage::new(folder.path().join(name))));
}

#[test]
fn posix_driver_without_links_conforms() {
    let folder = tempfile::tempdir().expect("temporary folder");
    drive(|name| Arc::new(PosixStorage::new(folder.path().join(name)).with_symlinks(false)));
}

#[test]
fn cifs_driver_conforms() {
    let folder = tempfile::tempdir().expect("temporary folder");
    drive(|name| Arc::new(PosixStorage::cifs(folder.path().join(name))));
}

#[test]
fn memory_driver_conforms() {
    let stores = Mutex::new(BTreeMap::<String, Arc<MemoryStorage>>::new());
    drive(|name| Arc::clone(stores.lock().unwrap().entry(name.to_owned()).or_default()) as Arc<dyn RepoStorage>);
}

#[test]
fn s3_driver_conforms() {
    let Some(weed) = Weed::start() else { return };
    drive(|name| open(servers::s3(&weed, &format!("/{name}"))));
    assert_eq!(weed.uploads(), Vec::<String>::new(), "uploads that were not aborted");
}

#[test]
fn azure_driver_conforms() {
    let Some(server) = Azurite::start() else { return };
    drive(|name| open(servers::azure(&server, &format!("/{name}"))));
}

#[test]
fn gcs_driver_conforms() {
    let Some(server) = Gcs::start() else { return };
    drive(|name| open(servers::gcs(&server, &format!("/{name}"))));
}

#[test]
fn sftp_driver_conforms() {
    let Some(server) = Sshd::start_usual() else { return };
    drive(|name| open(servers::sftp(&server, name, server.port())));
}
