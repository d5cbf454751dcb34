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
    for path in ["", "/", "/repository", "/etc/passwd", "repo/x", "/repo/", "/repo//x", "/repo/../etc", "/repo/x/.."] {
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
fn link_leads_only_to_places_of_the_stanza() {
    let area = area("/repo", Some("demo"), false);
    let link = RepoPath::new("backup/demo/latest").unwrap();
    for target in ["20250101-000000F", "../demo/x", "./x", "a/../b", "/repo/backup/demo/x"] {
        assert!(area.link_target(&link, target).is_ok(), "{target}");
    }
    for target in ["..", "../..", "../other", "../../archive/demo", "/etc", "../../../etc", "../other/../demo/x"] {
        assert!(denied(area.link_target(&link, target)), "{target}");
    }
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
    assert_eq!(area.base(), "/pg");
    assert!(area.reach("/pg").is_ok() && area.reach("/pg/base/1/2").is_ok());
    for path in ["/pgx", "/pg/../etc", "/", "pg/base", "/pg/"] {
        assert!(denied(area.reach(path)), "{path}");
    }
}
