//! The pages of the documentation: all are in the contents, and their links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The pages for those who work on rbr, which are not part of the site.
const INTERNAL: [&str; 2] = ["architecture.md", "SUMMARY.md"];

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// The targets of the links of a page, without code.
fn links(page: &str) -> Vec<String> {
    let mut text = String::new();
    let mut in_block = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block && !line.starts_with("    ") {
            // What is between backquotes is no link
            text.extend(line.split('`').step_by(2));
            text.push('\n');
        }
    }
    let ends = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// The names of a page's headings in links, as mdBook and GitHub make them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |char: &char| char.is_alphanumeric() || matches!(char, '-' | '_' | ' ');
    headings.map(|text| text.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

/// The path without `..`.
fn clean(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::ParentDir => drop(clean.pop()),
            _ => clean.push(part),
        }
        clean
    })
}

/// The names of the pages in a folder of the documentation.
fn pages(folder: &str) -> BTreeSet<PathBuf> {
    let entries = docs().join(folder).read_dir().unwrap().map(|entry| entry.unwrap().file_name());
    let pages = entries.map(|name| Path::new(folder).join(name));
    pages.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

fn contents() -> BTreeSet<PathBuf> {
    links(&fs::read_to_string(docs().join("SUMMARY.md")).unwrap()).into_iter().map(PathBuf::from).collect()
}

#[test]
fn every_page_is_in_the_contents() {
    let all = pages("").into_iter().chain(pages("guide"));
    let wanted: BTreeSet<PathBuf> = all.filter(|page| !INTERNAL.iter().any(|name| Path::new(name) == page)).collect();
    assert_eq!(contents(), wanted);
}

#[test]
fn every_link_leads_to_a_page_and_a_heading() {
    let contents = contents();
    let all = pages("").into_iter().chain(pages("guide")).chain(pages("decisions"));
    let mut count = 0;
    for page in all {
        let text = fs::read_to_string(docs().join(&page)).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { clean(&page.parent().unwrap().join(file)) };
            // A folder shows its files
            let path = docs().join(&target);
            let found = if path.is_dir() { Ok(String::new()) } else { fs::read_to_string(path) };
            assert!(found.is_ok(), "{}: '{link}' leads to no file", page.display());
            let is_known = anchor.is_empty() || anchors(&found.unwrap()).contains(anchor);
            assert!(is_known, "{}: '{link}' leads to no heading", page.display());
            // The site has no other files
            assert!(!contents.contains(&page) || contents.contains(&target), "{}: '{link}'", page.display());
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

#[test]
fn links_in_code_are_none() {
    assert_eq!(links("a [b](c.md#d) `[x](y)` [e](f)\n```\n[g](h)\n```\n"), ["c.md#d", "f"]);
    assert!(anchors("# A b\n## `init`: c-d\n").is_superset(&["a-b".to_owned(), "init-c-d".to_owned()].into()));
}
