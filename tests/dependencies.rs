//! No dependency stands in a `Cargo.toml` that the code beside it does not use.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What `cargo metadata` says of the workspace's own packages.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Appends the text of every Rust file below `folder`.
fn read_sources(folder: &Path, sources: &mut String) {
    let Ok(entries) = folder.read_dir() else { return };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            read_sources(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

/// Returns whether a comment has an example that a documentation test would run: a block of code without a language, or of
/// Rust's.
fn has_example(sources: &str) -> bool {
    let comments = sources.lines().filter_map(|line| line.trim_start().strip_prefix("//"));
    let fences = comments.filter_map(|line| line.trim_start_matches(['/', '!']).trim().strip_prefix("```"));
    let rust = ["", "rust", "no_run", "ignore", "should_panic", "compile_fail"];
    // Every second one ends a block
    fences.step_by(2).any(|language| rust.contains(&language.split(',').next().unwrap()))
}

#[test]
fn crate_whose_documentation_is_not_tested_has_no_example() {
    let mut untested = 0;
    for package in packages() {
        let targets = package["targets"].as_array().unwrap();
        let library = targets.iter().find(|target| target["kind"][0] == "lib");
        if library.is_some_and(|library| library["doctest"] == false) {
            untested += 1;
            let mut sources = String::new();
            let root = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
            read_sources(&root.join("src"), &mut sources);
            assert!(!has_example(&sources), "{}: remove doctest = false", package["name"]);
        }
    }
    assert!(untested > 0);
    assert!(has_example("/// ```\n/// let a = 1;\n/// ```") && !has_example("//! ```text\n//! a\n//! ```"));
}

/// The name that code calls a dependency by.
fn crate_name(dependency: &Value) -> String {
    dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap().replace('-', "_")
}

#[test]
fn dependency_without_a_use_does_not_stay() {
    // A crate whose library has another name than its package
    let library = |name: String| if name == "md_5" { "md5".to_owned() } else { name };
    let mut unused = Vec::new();
    for package in packages() {
        let root = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned();
        let mut sources = String::new();
        // The root package has its program in `cli/src`.
        for folder in ["src", "tests", "benches", "cli/src"] {
            read_sources(&root.join(folder), &mut sources);
        }
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = library(crate_name(dependency));
            let is_used = [format!("{name}::"), format!("use {name};")].iter().any(|used| sources.contains(used));
            if !is_used {
                unused.push(format!("{}: {name}", package["name"]));
            }
        }
    }
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn workspace_dependency_without_a_package_does_not_stay() {
    let used: BTreeSet<String> =
        packages().iter().flat_map(|package| package["dependencies"].as_array().unwrap()).map(crate_name).collect();
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let table = manifest.split("[workspace.dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let unused: Vec<&str> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .filter(|name| !used.contains(&name.replace('-', "_")))
        .collect();
    assert!(table.lines().count() > 40 && unused.is_empty(), "{unused:?}");
}

/// Returns what a lock file says of the packages of this project: each dependency with its version up to the number whose
/// change breaks others.
fn locked(path: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let packages: Vec<&str> = text.split("[[package]]\n").skip(1).collect();
    let value = |package: &str, key: &str| -> Option<String> {
        let line = package.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")))?;
        Some(line.trim_matches('"').to_owned())
    };
    let compatible = |version: &str| {
        let mut numbers = version.split('.');
        match numbers.next() {
            Some("0") => format!("0.{}", numbers.next().unwrap()),
            first => first.unwrap().to_owned(),
        }
    };
    let mut found = BTreeSet::new();
    for package in packages.iter().filter(|package| value(package, "source").is_none()) {
        let name = value(package, "name").unwrap();
        let lines = package.split("dependencies = [\n").nth(1).unwrap_or_default().lines();
        for line in lines.map_while(|line| line.strip_prefix(" \"")) {
            let mut words = line.trim_end_matches("\",").split(' ');
            let dependency = words.next().unwrap();
            let version = words.next().map(str::to_owned).or_else(|| {
                let other = packages.iter().find(|other| value(other, "name").as_deref() == Some(dependency))?;
                value(other, "version")
            });
            found.insert(format!("{name}: {dependency} {}", compatible(&version.unwrap())));
        }
    }
    found
}

#[test]
fn lock_file_of_the_fuzz_targets_follows_the_dependencies() {
    let (all, fuzz) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let other: Vec<_> = fuzz.difference(&all).filter(|line| !line.starts_with("rbr-fuzz: ")).collect();
    assert!(fuzz.len() > 50 && other.is_empty(), "run cargo metadata in fuzz/: {other:#?}");
}

/// `scripts/fuzz` builds with `--locked`, which fails if a dependency is missing.
#[test]
fn lock_file_of_the_fuzz_targets_lacks_no_dependency() {
    let fuzz = locked("fuzz/Cargo.lock");
    let holds = |start: &str| fuzz.iter().any(|line| line.starts_with(start));
    let mut missing = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let needed =
            package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"] != "dev");
        let lines = needed.map(|dependency| format!("{name}: {} ", dependency["name"].as_str().unwrap()));
        // Packages of which the targets use nothing are not in the file
        if holds(&format!("{name}: ")) {
            missing.extend(lines.filter(|line| !holds(line)));
        }
    }
    assert!(missing.is_empty(), "run cargo metadata in fuzz/: {missing:#?}");
}
