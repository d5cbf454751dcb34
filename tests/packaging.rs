//! What users install: Debian packages, systemd units, container and Kubernetes files.

mod manifests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::env::Run;
use crate::env::oracle::{optional_oracle, skip};

/// The project's directory.
fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Builds the packages from the program under test. Returns `None` if this system has no `dpkg-deb`.
fn build_packages(into: &Path) -> Option<Vec<PathBuf>> {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        skip("no dpkg-deb");
        return None;
    }
    let mut build = Command::new(project().join("scripts/deb"));
    build.arg(env!("CARGO_BIN_EXE_rbr")).arg(into).env("RBR_DEB_COMPRESS", "gzip");
    Run::of(build).success();
    let mut packages: Vec<PathBuf> = into.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    packages.sort();
    Some(packages)
}

/// Checks the syntax of a shell script without running it.
fn check_syntax(shell: &str, script: &Path) {
    let mut check = Command::new(shell);
    check.arg("-n").arg(script);
    Run::of(check).success();
}

#[test]
fn debian_packages_contain_a_program_that_runs() {
    let dir = TempDir::new().unwrap();
    let Some(packages) = build_packages(&dir.path().join("packages")) else { return };
    let names: Vec<_> = packages.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert!(matches!(names[..], [link, program] if link.starts_with("rbr-pgbackrest_") && program.starts_with("rbr_")));

    let root = dir.path().join("root");
    for package in &packages {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(package).arg(&root);
        Run::of(unpack).success();
        let control = dir.path().join("control");
        let mut extract = Command::new("dpkg-deb");
        extract.arg("--control").arg(package).arg(&control);
        Run::of(extract).success();
        for script in ["postinst", "prerm", "postrm"].map(|name| control.join(name)) {
            if script.exists() {
                check_syntax("sh", &script);
            }
        }
        fs::remove_dir_all(control).unwrap();
    }

    let mut version = Command::new(root.join("usr/bin/rbr"));
    version.arg("version");
    Run::of(version).success().says(env!("CARGO_PKG_VERSION"));
    // What calls pgBackRest finds the version that it expects
    let mut version = Command::new(root.join("usr/bin/pgbackrest"));
    version.arg("version");
    assert_eq!(Run::of(version).success().stdout, "pgBackRest 2.60.0\n");
    let share = root.join("usr/share");
    check_syntax("bash", &share.join("bash-completion/completions/rbr"));
    for file in ["man/man1/rbr.1.gz", "zsh/vendor-completions/_rbr", "fish/vendor_completions.d/rbr.fish"] {
        assert!(fs::metadata(share.join(file)).unwrap().len() > 1000, "{file}");
    }
    for command in ["backup", "init", "test-restore", "schedule"] {
        let page = share.join(format!("man/man1/rbr-{command}.1.gz"));
        assert!(fs::metadata(&page).unwrap().len() > 500, "{}", page.display());
    }
    let sample = fs::read_to_string(share.join("doc/rbr/examples/pgbackrest.conf")).unwrap();
    assert!(sample.contains("repo1-path"), "{sample}");
}

#[test]
fn units_start_commands_that_the_program_has() {
    for entry in project().join("contrib/systemd").read_dir().unwrap() {
        let path = entry.unwrap().path();
        let unit = fs::read_to_string(&path).unwrap();
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/rbr ")).unwrap();
        let mut help = Command::new(env!("CARGO_BIN_EXE_rbr"));
        help.arg("help").args(start.split(' ').next());
        Run::of(help).success();
    }
}

#[test]
fn kubernetes_manifests_fit_the_schemas() {
    let Some(packages) = optional_oracle("kubernetes") else { return };
    let mut count = 0;
    for entry in project().join("contrib/kubernetes").read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let mut check = Command::new("python3");
            check.env("PYTHONPATH", &packages).args(["-m", "kubernetes_validate", "--strict"]).arg(&path);
            Run::of(check).success();
            count += 1;
        }
    }
    assert!(count > 0);
}
