//! The password file of PostgreSQL's client programs (`~/.pgpass`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The maximum size of a password file, in bytes.
const SIZE_MAX: u64 = 1024 * 1024;

/// The connection whose password is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PasswordTarget<'a> {
    /// `localhost` for the default socket directory, otherwise the configured socket directory or host.
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// Returns the password for this target; `None` if there is no file, no matching line, or others may read the file.
pub(super) fn lookup(path: &Path, target: PasswordTarget<'_>) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() {
        crate::warn!("password file '{}' is not a plain file", path.display());
        return None;
    }
    if metadata.mode() & 0o077 != 0 {
        crate::warn!(
            "password file '{}' has group or world access; permissions should be u=rw (0600) or less",
            path.display()
        );
        return None;
    }
    if metadata.len() > SIZE_MAX {
        crate::warn!("password file '{}' is larger than {SIZE_MAX} bytes", path.display());
        return None;
    }
    let text = fs::read(path).ok()?;
    find(&String::from_utf8_lossy(&text), target)
}

/// Returns the password of the first matching line (`host:port:database:user:password`, `*` for any, `\` before `:` and
/// `\`).
pub(crate) fn find(text: &str, target: PasswordTarget<'_>) -> Option<String> {
    let port = target.port.to_string();
    let wanted = [target.host, &port, target.database, target.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for want in wanted {
            let (raw, after) = split_field(rest)?;
            if raw != "*" && unescape(raw) != want {
                return None;
            }
            rest = after;
        }
        Some(unescape(split_field(rest).map_or(rest, |(password, _)| password)))
    })
}

/// Splits at the first colon that no backslash precedes.
fn split_field(text: &str) -> Option<(&str, &str)> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const TARGET: PasswordTarget<'_> =
        PasswordTarget { host: "localhost", port: 5432, database: "postgres", user: "backup" };

    #[test]
    fn find_takes_first_match_with_wildcards_and_escapes() {
        let text = "# localhost:5432:postgres:backup:comment\nbroken\nlocalhost:5433:*:*:other\n*:*:postgres:backup:p\\:w\\\\d:x\n*:*:*:*:late";
        assert_eq!(find(text, TARGET).as_deref(), Some("p:w\\d"));
        assert_eq!(find("localhost:5432:postgres:backup:p w ", TARGET).as_deref(), Some("p w "));
        assert_eq!(find("a\\:b:*:*:*:x", PasswordTarget { host: "a:b", ..TARGET }).as_deref(), Some("x"));
        assert_eq!(find("otherhost:*:*:*:x", TARGET), None);
    }

    #[test]
    fn lookup_refuses_file_that_others_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".pgpass");
        fs::write(&path, "*:*:*:*:secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(lookup(&path, TARGET), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(lookup(&path, TARGET).as_deref(), Some("secret"));
        assert_eq!(lookup(&dir.path().join("none"), TARGET), None);
    }

    fn escape(text: &str) -> String {
        text.replace('\\', "\\\\").replace(':', "\\:")
    }

    proptest! {
        #[test]
        fn escaped_line_is_found_again(host in "[^\n\r#*]{1,9}", user in "[^\n\r*]{1,9}", password in "[^\n\r]{0,20}") {
            let line = format!("{}:5432:*:{}:{}", escape(&host), escape(&user), escape(&password));
            let target = PasswordTarget { host: &host, user: &user, ..TARGET };
            prop_assert_eq!(find(&line, target), Some(password));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[ -~\n\\\\:é]{0,80}") {
            let _ = find(&text, TARGET);
        }
    }
}
