//! Tests of cleaning and building the target directories.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::super::clean::check;
use super::super::fixture::{self, TABLESPACE_DIR, manifest};
use super::super::remap::{MapSettings, remap};
use super::*;
use crate::users::Users;

/// Returns a manifest with all targets in a new directory.
fn mapped() -> (tempfile::TempDir, Manifest, Ownership) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().display().to_string();
    let mut manifest = manifest();
    let settings = MapSettings {
        tablespaces_all: Some(format!("{root}/ts")),
        links: [("pg_wal", "wal"), ("pg_hba.conf", "conf/hba.conf")]
            .map(|(link, destination)| (link.to_owned(), format!("{root}/{destination}")))
            .into(),
        ..MapSettings::default()
    };
    remap(&mut manifest, &format!("{root}/pg"), &settings).unwrap();
    let ownership = own(&manifest);
    (dir, manifest, ownership)
}

/// Returns an ownership that gives everything to the user who runs the test.
fn own(manifest: &Manifest) -> Ownership {
    let current = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    Ownership::new(manifest, &Users::new(), current, Some(current))
}

fn prepare(dir: &tempfile::TempDir, manifest: &Manifest, ownership: &Ownership, delta: bool) -> Result<Places> {
    let pg_path = dir.path().join("pg").display().to_string();
    let settings = CleanSettings { pg_path: &pg_path, delta, keep: &["recovery.conf"], tablespace_dir: TABLESPACE_DIR };
    check(manifest, ownership, &settings)?;
    let mut places = open_data_dir(manifest, ownership, &settings)?;
    build(manifest, ownership, &settings, &mut places)?;
    Ok(places)
}

#[test]
fn build_in_nothing_makes_all_directories_and_links() {
    let (dir, manifest, ownership) = mapped();
    prepare(&dir, &manifest, &ownership, false).unwrap();
    let root = dir.path();
    assert!(root.join("pg/base/1").is_dir());
    assert!(root.join("ts/ts1").join(TABLESPACE_DIR).join("1").is_dir());
    assert!(root.join("conf").is_dir());
    assert_eq!(fs::read_link(root.join("pg/pg_wal")).unwrap(), root.join("wal"));
    assert_eq!(fs::read_link(root.join("pg/pg_hba.conf")).unwrap(), root.join("conf/hba.conf"));
    assert_eq!(fs::read_link(root.join("pg/pg_tblspc/16384")).unwrap(), root.join("ts/ts1"));
    assert_eq!(root.join("pg/base").metadata().unwrap().mode() & 0o777, 0o700);
    // Repeat with everything in place
    prepare(&dir, &manifest, &ownership, true).unwrap();
}

#[test]
fn check_of_directories_with_files_is_refused_and_changes_nothing() {
    for (file, code) in [
        ("pg/x", ErrorCode::PathNotEmpty),
        ("wal/x", ErrorCode::PathNotEmpty),
        ("ts/ts1/PG_15_202209061/x", ErrorCode::PathNotEmpty),
        ("conf/hba.conf", ErrorCode::FileExists),
    ] {
        let (dir, manifest, ownership) = mapped();
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
        assert_eq!(prepare(&dir, &manifest, &ownership, false).unwrap_err().code, code, "{file}");
        assert!(path.exists() && !dir.path().join("pg/base").exists());
    }
}

#[test]
fn check_ignores_kept_files_and_other_files_of_shared_directories() {
    let (dir, manifest, ownership) = mapped();
    for file in ["pg/recovery.conf", "pg/backup.manifest", "conf/other.conf", "ts/ts1/PG_14_1/x"] {
        let path = dir.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "x").unwrap();
    }
    prepare(&dir, &manifest, &ownership, false).unwrap();
    for file in ["pg/recovery.conf", "pg/backup.manifest", "conf/other.conf", "ts/ts1/PG_14_1/x"] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
}

#[test]
fn build_with_delta_removes_what_the_backup_does_not_have() {
    let (dir, manifest, ownership) = mapped();
    prepare(&dir, &manifest, &ownership, false).unwrap();
    let pg = dir.path().join("pg");
    let outside = dir.path().join("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("sub/file"), "x").unwrap();

    for file in ["base/1/1259", "base/1/9999", "global/pg_control", "recovery.conf"] {
        fs::write(pg.join(file), "x").unwrap();
    }
    fs::create_dir_all(pg.join("extra/deep")).unwrap();
    symlink(&outside, pg.join("extra/link")).unwrap();
    symlink(&outside, pg.join("link")).unwrap();
    // A directory that became a link, a link with another destination, a file that became a link
    fs::remove_dir(pg.join("global")).unwrap_err();
    fs::remove_file(pg.join("pg_wal")).unwrap();
    symlink(&outside, pg.join("pg_wal")).unwrap();
    symlink(outside.join("sub/file"), pg.join("PG_VERSION")).unwrap();
    fs::remove_dir_all(pg.join("pg_tblspc")).unwrap();
    symlink(&outside, pg.join("pg_tblspc")).unwrap();

    prepare(&dir, &manifest, &ownership, true).unwrap();
    for gone in ["base/1/9999", "global/pg_control", "extra", "link", "PG_VERSION"] {
        assert!(pg.join(gone).symlink_metadata().is_err(), "{gone}");
    }
    for kept in ["base/1/1259", "recovery.conf"] {
        assert!(pg.join(kept).exists(), "{kept}");
    }
    assert_eq!(fs::read_link(pg.join("pg_wal")).unwrap(), dir.path().join("wal"));
    assert!(pg.join("pg_tblspc").symlink_metadata().unwrap().is_dir());
    // Nothing was removed through a link
    assert!(outside.join("sub/file").exists());
}

#[test]
fn directory_that_its_owner_may_not_write_to_gets_that_mode_last() {
    let (dir, mut manifest, _) = mapped();
    let mode = |mode| {
        move |manifest: &mut Manifest| {
            for path in manifest.paths.iter_mut().filter(|path| path.name.starts_with("pg_data/base")) {
                path.mode = mode;
            }
        }
    };
    fixture::without_root(dir.path(), || {
        let base = dir.path().join("pg/base");
        let ownership = own(&manifest);
        for (modes, delta) in [(0o500, false), (0o500, true), (0o700, true), (0, true)] {
            mode(modes)(&mut manifest);
            let places = prepare(&dir, &manifest, &ownership, delta).unwrap();
            fs::write(base.join("1/1259"), "x").unwrap();
            take_rights(&manifest, &places).unwrap();
            assert_eq!(base.metadata().unwrap().mode() & 0o777, u32::from(modes));
        }
        // Without these modes the temporary directory could not be removed
        fs::set_permissions(&base, fs::Permissions::from_mode(0o700)).unwrap();
        fs::set_permissions(base.join("1"), fs::Permissions::from_mode(0o700)).unwrap();
    });
}

#[test]
fn directories_above_new_targets_and_a_linked_data_directory_get_the_owner_as_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (dir, mut manifest, _) = mapped();
    let root = dir.path();
    let links = [("pg_wal".to_owned(), format!("{}/far/away/wal", root.display()))].into();
    remap(
        &mut manifest,
        root.join("pg").to_str().unwrap(),
        &MapSettings { links, links_all: true, ..MapSettings::default() },
    )
    .unwrap();
    let other = Owner { uid: 12345, gid: 12345 };
    let ownership = Ownership::new(&manifest, &Users::new(), Owner { uid: 0, gid: 0 }, Some(other));
    fs::create_dir(root.join("real")).unwrap();
    symlink(root.join("real"), root.join("pg")).unwrap();
    prepare(&dir, &manifest, &ownership, false).unwrap();
    let made =
        ["real", "real/base/1", "far", "far/away", "far/away/wal", "ts", "ts/ts1", "ts/ts1/PG_15_202209061", "conf"];
    for path in made {
        assert_eq!(root.join(path).metadata().unwrap().uid(), 12345, "{path}");
    }
    for link in ["real/pg_wal", "real/pg_tblspc/16384"] {
        assert_eq!(root.join(link).symlink_metadata().unwrap().uid(), 12345, "{link}");
    }
}

#[test]
fn relative_links_lead_where_they_are_restored_to_although_what_is_above_them_is_a_link() {
    let (dir, mut manifest, ownership) = mapped();
    let root = dir.path();
    fs::create_dir_all(root.join("deep/real")).unwrap();
    symlink("deep/real", root.join("pg")).unwrap();
    let links =
        [("pg_wal", "../wal"), ("base", "../far/away/base"), ("base/1", "../one"), ("PG_VERSION", "../v/version")];
    let links = links.map(|(link, destination)| (link.to_owned(), destination.to_owned())).into();
    remap(&mut manifest, root.join("pg").to_str().unwrap(), &MapSettings { links, ..MapSettings::default() }).unwrap();
    let places = prepare(&dir, &manifest, &ownership, false).unwrap();
    for (link, real) in [("pg_wal", "deep/wal"), ("base", "deep/far/away/base"), ("base/1", "deep/far/away/one")] {
        assert_eq!(fs::canonicalize(root.join("pg").join(link)).unwrap(), fs::canonicalize(root.join(real)).unwrap());
    }
    let file = places.content("pg_data/PG_VERSION").unwrap();
    file.write(rustix::fs::OFlags::WRONLY, Mode::RUSR, false, "").unwrap();
    assert!(root.join("deep/v/version").is_file() && root.join("pg/PG_VERSION").exists());
    assert!(!root.join("wal").exists() && !root.join("v").exists());
    // Repeat over the existing files
    prepare(&dir, &manifest, &ownership, true).unwrap();
}

#[test]
fn pg_control_behind_a_link_is_removed_only_if_the_link_is_the_restores() {
    let (dir, mut manifest, ownership) = mapped();
    prepare(&dir, &manifest, &ownership, false).unwrap();
    let (pg, away) = (dir.path().join("pg"), dir.path().join("away"));
    fs::remove_dir(pg.join("global")).unwrap();
    fs::create_dir(&away).unwrap();
    fs::write(away.join("pg_control"), "of another cluster").unwrap();
    symlink("../away", pg.join("global")).unwrap();
    prepare(&dir, &manifest, &ownership, true).unwrap();
    assert!(away.join("pg_control").exists());
    assert!(pg.join("global").symlink_metadata().unwrap().is_dir());

    let links = [("global".to_owned(), away.display().to_string())].into();
    remap(&mut manifest, pg.to_str().unwrap(), &MapSettings { links, links_all: true, ..MapSettings::default() })
        .unwrap();
    fs::remove_dir(pg.join("global")).unwrap();
    symlink("../away", pg.join("global")).unwrap();
    let settings =
        CleanSettings { pg_path: pg.to_str().unwrap(), delta: true, keep: &[], tablespace_dir: TABLESPACE_DIR };
    open_data_dir(&manifest, &ownership, &settings).unwrap();
    assert!(!away.join("pg_control").exists() && pg.join("global").exists());
}

#[test]
fn build_does_not_change_the_mode_of_a_file_with_another_name() {
    let (dir, manifest, ownership) = mapped();
    prepare(&dir, &manifest, &ownership, false).unwrap();
    let (file, other) = (dir.path().join("pg/base/1/1259"), dir.path().join("other"));
    let mode = u32::from(manifest.file("pg_data/base/1/1259").unwrap().mode) & MODE_MASK;
    for (actual, stays) in [(mode, true), (mode ^ 0o040, false)] {
        fs::write(&other, "x").unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(actual)).unwrap();
        fs::hard_link(&other, &file).unwrap();
        prepare(&dir, &manifest, &ownership, true).unwrap();
        assert_eq!(file.exists(), stays);
        assert_eq!(other.metadata().unwrap().mode() & 0o777, actual);
        let _ = fs::remove_file(&file);
    }
}

#[test]
fn check_of_a_directory_without_rights_is_refused() {
    let (dir, manifest, ownership) = mapped();
    let pg = dir.path().join("pg");
    fs::create_dir(&pg).unwrap();
    fs::set_permissions(&pg, fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(prepare(&dir, &manifest, &ownership, true).unwrap_err().code, ErrorCode::PathOpen);
}
