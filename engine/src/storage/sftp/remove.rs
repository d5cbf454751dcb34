//! Removes directories with their content.

use futures_util::future::join;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::client::{Client, SftpFailure};
use super::list;
use crate::storage::PATH_SIZE_MAX_BYTES;
use crate::warn;

/// The maximum number of files that are removed at the same time.
const REMOVES_IN_FLIGHT_MAX: usize = 32;

/// A directory to be removed.
struct Doomed {
    path: String,
    /// Whether its content is already removed.
    is_empty: bool,
    /// Why it could not be removed as a file.
    failure: Option<SftpFailure>,
}

/// Removes the content of a directory, and the directory. A link in its place is removed itself, unless it is the
/// `root` of the repository, because any other link may lead to something else.
pub(super) async fn remove_tree(client: &Client, path: &str, root: bool) -> std::result::Result<(), SftpFailure> {
    // Not recursive: a server could invent directories without end
    let mut left = vec![Doomed { path: path.to_owned(), is_empty: false, failure: None }];
    while let Some(Doomed { path, is_empty, failure }) = left.pop() {
        if is_empty {
            present(client.remove_directory(&path).await)?;
            continue;
        }
        // Also below a directory, because the server decides whether a listing follows links
        let (found, own) = join(list(client, &path), client.attributes(&path, false)).await;
        let is_root = root && left.is_empty();
        if !is_root && own.is_ok_and(|own| own.is_link()) {
            warn!("path '{path}' is a link: what it leads to is not removed");
            present(client.remove(&path).await)?;
            continue;
        }
        let found = match found {
            Err(missing) if missing.is_missing() => continue,
            Err(other) => return Err(failure.unwrap_or(other)),
            Ok(found) => found,
        };
        left.push(Doomed { path: path.clone(), is_empty: true, failure: None });
        let mut files = Vec::new();
        for (name, attributes) in found {
            let name = std::str::from_utf8(&name).map_err(|_| SftpFailure::Protocol)?;
            let child = format!("{path}/{name}");
            if name.is_empty() || name.contains('/') || child.len() > PATH_SIZE_MAX_BYTES {
                return Err(SftpFailure::Protocol);
            }
            if attributes.is_directory() {
                left.push(Doomed { path: child, is_empty: false, failure: None });
            } else {
                files.push(child);
            }
        }
        let remove = |path: String| async move {
            match client.remove(&path).await {
                // The server does not report types. A file that can't be removed may be a directory
                Err(failure) if failure.may_exist() => {
                    Ok(Some(Doomed { path, is_empty: false, failure: Some(failure) }))
                }
                done => present(done).map(|()| None),
            }
        };
        let unknown = stream::iter(files).map(remove).buffer_unordered(REMOVES_IN_FLIGHT_MAX);
        left.extend(unknown.try_filter_map(|unknown| async move { Ok(unknown) }).try_collect::<Vec<_>>().await?);
    }
    Ok(())
}

/// Treats a missing file as removed.
fn present(removed: std::result::Result<(), SftpFailure>) -> std::result::Result<(), SftpFailure> {
    match removed {
        Err(failure) if failure.is_missing() => Ok(()),
        done => done,
    }
}
