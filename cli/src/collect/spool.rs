//! Looks at the queues of asynchronous archiving on this host.

use std::fs;
use std::time::SystemTime;

use engine::{ErrorCode, Result};
use monitor::snapshot::SpoolView;
use repo_format::spool::{ERROR_EXTENSION, SpoolQueue};
use wal::spool::Spool;

use super::CollectRequest;
use crate::config::{Command, opt};

/// Returns the queues of a stanza that exist.
///
/// # Errors
/// A queue can't be listed.
pub(super) fn collect(request: &CollectRequest, stanza: &str) -> Result<Vec<SpoolView>> {
    // A host that only has repositories archives nothing
    let Ok(config) = request.daemon.for_stanza(Command::ArchivePush, stanza) else { return Ok(Vec::new()) };
    let Some(path) = config.find(opt::SPOOL_PATH) else { return Ok(Vec::new()) };
    let name = stanza.parse()?;
    let mut queues = Vec::new();
    for (word, queue) in [("push", SpoolQueue::Out), ("get", SpoolQueue::In)] {
        let spool = Spool::new(path.as_ref(), &name, queue);
        match spool.list() {
            Ok(names) => queues.push(queue_view(word, &spool, &names)),
            Err(error) if error.code == ErrorCode::PathMissing => (),
            Err(error) => return Err(error),
        }
    }
    Ok(queues)
}

fn queue_view(queue: &str, spool: &Spool, names: &[String]) -> SpoolView {
    let mut view = SpoolView { queue: queue.to_owned(), ..SpoolView::default() };
    for name in names {
        // The worker may just be removing it
        let Ok(found) = fs::metadata(spool.file(name)) else { continue };
        view.files += 1;
        view.bytes = view.bytes.saturating_add(found.len());
        view.errors += u64::from(name.ends_with(ERROR_EXTENSION));
        let age = found.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        view.oldest_seconds = view.oldest_seconds.max(age.map(|age| age.as_secs()));
    }
    view
}
