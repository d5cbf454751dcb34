use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn area(base: &str, stanza: Option<&str>, has_links: bool) -> RepositoryArea {
    RepositoryArea::new(base, stanza.map(|name| name.parse().unwrap()), has_links)
}

fn denied<T: std::fmt::Debug>(result: Result<T>) -> bool {
    result.is_err_and(|error| error.code == ErrorCode::Access)
}

#[test]
fn path_outside_of_the_repository_is_refused() {
    let area = area("/repo", None, false);
    assert_eq!(area.relative("/repo").unwrap().as_str(), "");
    assert_eq!(area.relative("/repo/backup/any/x").unwrap().as_str(), "backup/any/x");
    for path in ["", "/", "/repository", "/etc/passwd", "repo/x", "/repo//x", "/repo/./x", "/repo/../etc", "/repo/x/.."]
    {
        assert!(denied(area.relative(path)), "{path}");
    }
    let root = RepositoryArea::new("/", None, false);
    assert_eq!(root.relative("/backup").unwrap().as_str(), "backup");
}

#[test]
fn directory_of_another_stanza_is_refused() {
    let area = area("/repo", Some("demo"), false);
    for path in ["/repo", "/repo/archive", "/repo/backup", "/repo/backup/demo/x", "/repo/other"] {
        assert!(area.relative(path).is_ok(), "{path}");
    }
    for path in ["/repo/backup/demo2", "/repo/archive/other/archive.info", "/repo/backup/demo/../other"] {
        assert!(denied(area.relative(path)), "{path}");
    }
    for path in ["/repo", "/repo/archive", "/repo/backup"] {
        assert!(denied(area.change(path, false)), "{path}");
    }
}

#[test]
fn change_of_what_belongs_to_no_stanza_is_refused() {
    let area = area("/repo", Some("demo"), false);
    for path in ["/repo/other", "/repo/lost+found/x", "/repo/archive.info", "/repo/proof", "/repo/proof/other/x"] {
        assert!(denied(area.change(path, false)), "{path}");
    }
    for path in ["/repo/backup/demo", "/repo/archive/demo/archive.info", "/repo/proof/demo/20250101-000000F/x.json"] {
        assert!(area.change(path, false).is_ok() && area.create(path).is_ok(), "{path}");
    }
    for path in ["/repo", "/repo/archive", "/repo/backup"] {
        assert!(area.create(path).is_ok(), "{path}");
    }
    assert!(denied(area.create("/repo/other")));
    assert!(RepositoryArea::new("/repo", None, false).change("/repo/other", false).is_ok());
}

#[test]
fn link_to_other_stanzas_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("repo");
    for folder in ["backup/demo", "backup/other", "archive/demo"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    symlink(base.join("backup"), base.join("backup/demo/x")).unwrap();
    symlink(&base, base.join("backup/demo/top")).unwrap();
    let text = |path: &str| base.join(path).to_string_lossy().into_owned();
    let area = area(&base.to_string_lossy(), Some("demo"), true);
    for path in ["backup/demo/x/other/backup.info", "backup/demo/x/other", "backup/demo/top/backup/other/x"] {
        assert!(denied(area.reach(&text(path), true)) && denied(area.change(&text(path), false)), "{path}");
    }
    assert!(denied(area.change(&text("backup/demo/x"), true)), "the directory of all stanzas");
    assert!(denied(area.change(&text("backup/demo/top/file"), true)));
    assert!(area.change(&text("backup/demo/x/demo/file"), true).is_ok());
}

#[test]
fn link_in_the_place_of_the_stanza_gives_no_other_directory() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("repo");
    for folder in ["backup/other", "archive/demo"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    let text = |path: &str| base.join(path).to_string_lossy().into_owned();
    for target in [Path::new("/"), dir.path(), &base, &base.join("backup"), &base.join("backup/other")] {
        symlink(target, base.join("backup/demo")).unwrap();
        let area = area(&base.to_string_lossy(), Some("demo"), true);
        for path in ["backup/demo/file", "backup/demo/other/file"] {
            assert!(denied(area.change(&text(path), true)), "{path} with {}", target.display());
        }
        assert!(denied(area.reach(&text("backup/demo/etc/passwd"), true)) || target.starts_with(&base));
        fs::remove_file(base.join("backup/demo")).unwrap();
    }
    // A link to itself leads nowhere
    symlink("demo", base.join("backup/demo")).unwrap();
    let looped = area(&base.to_string_lossy(), Some("demo"), true);
    symlink(dir.path(), base.join("archive/demo/out")).unwrap();
    symlink(dir.path().join("missing"), base.join("archive/demo/dangling")).unwrap();
    let error = looped.change(&text("backup/demo/file"), true).unwrap_err();
    assert_eq!((error.code, error.message.contains("unable to resolve")), (ErrorCode::FileOpen, true), "{error}");
    for path in ["archive/demo/out/file", "archive/demo/dangling"] {
        assert!(denied(looped.change(&text(path), true)), "{path}");
    }
    fs::remove_file(base.join("backup/demo")).unwrap();
    // An administrator keeps the stanza on another disk
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    symlink(&disk, base.join("backup/demo")).unwrap();
    let area = area(&base.to_string_lossy(), Some("demo"), true);
    assert!(area.change(&text("backup/demo/file"), true).is_ok() && area.reach(&text("backup/demo"), true).is_ok());
}

#[test]
fn link_that_leads_out_of_the_repository_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (base, elsewhere) = (dir.path().join("repo"), dir.path().join("elsewhere"));
    fs::create_dir_all(base.join("backup/demo")).unwrap();
    fs::create_dir_all(elsewhere.join("archive/demo")).unwrap();
    // An administrator keeps archives on another disk
    symlink(elsewhere.join("archive"), base.join("archive")).unwrap();
    symlink(&elsewhere, base.join("backup/demo/out")).unwrap();
    symlink("inside", base.join("backup/demo/in")).unwrap();
    let text = |path: &str| base.join(path).to_string_lossy().into_owned();
    let area = area(&base.to_string_lossy(), Some("demo"), true);
    for path in ["backup/demo/new/file", "backup/demo/in", "archive/demo/archive.info", "backup/demo"] {
        assert!(area.reach(&text(path), true).is_ok(), "{path}");
    }
    assert!(denied(area.reach(&text("backup/demo/out"), true)));
    assert!(denied(area.reach(&text("backup/demo/out/x"), false)));
    // The link itself may be removed
    assert!(area.change(&text("backup/demo/out"), false).is_ok());
}

#[test]
fn path_outside_of_the_data_directory_is_refused() {
    let area = DataArea::new(Path::new("/pg/"));
    area.told(Path::new("/pg/pg_tblspc"), "../../ts/./1");
    assert!(area.reach_link("/ts/1").is_ok());
    // A client asks for an absolute target as it is written
    area.told(Path::new("/pg"), "/srv/x/../wal");
    assert!(area.reach_link("/srv/x/../wal").is_ok());
    assert!(denied(area.reach_link("/ts")) && denied(area.reach_link("/ts/1/x")) && denied(area.reach("/ts/1")));
    assert_eq!(area.base(), "/pg");
    assert!(area.reach("/pg").is_ok() && area.reach("/pg/base/1/2").is_ok());
    for path in ["/pgx", "/pg/../etc", "/", "pg/base", "/pg//x"] {
        assert!(denied(area.reach(path)), "{path}");
    }
}
