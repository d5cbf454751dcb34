//! What every storage driver must do.

use engine::storage::{EntryKind, ReadRange, RepoPath, RepoStorage, WriteOptions, exists, get, put};

fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

fn names(storage: &dyn RepoStorage, at: &str) -> Option<Vec<String>> {
    let entries = storage.list(&path(at)).unwrap()?;
    Some(entries.into_iter().map(|entry| entry.name).collect())
}

/// Larger than several parts of an upload, and many SFTP requests.
const LARGE_SIZE_BYTES: u32 = 23_000_001;
/// More than one SFTP answer with names.
const MANY_FILES: usize = 250;

/// Runs the complete suite on an empty repository, and leaves some content.
pub fn run(storage: &dyn RepoStorage) {
    missing_things(storage);
    write_and_read(storage);
    ranges(storage);
    listings(storage);
    abandoned_writes(storage);
    removals(storage);
    paths_and_links(storage);
}

fn missing_things(storage: &dyn RepoStorage) {
    assert_eq!(storage.info(&path("none")).unwrap(), None);
    assert_eq!(storage.info(&path("none/deeper")).unwrap(), None);
    assert_eq!(storage.list(&path("none")).unwrap(), None);
    assert!(storage.read(&path("none"), ReadRange::default()).unwrap().is_none());
    assert!(!exists(storage, &path("none")).unwrap());
    storage.remove(&path("none")).unwrap();
    storage.remove_all(&path("none")).unwrap();
}

fn write_and_read(storage: &dyn RepoStorage) {
    for options in [WriteOptions::ATOMIC, WriteOptions::IN_PLACE] {
        let at = path("a/b/file");
        put(storage, &at, b"a longer first text", options).unwrap();
        put(storage, &at, b"second", options).unwrap();
        assert_eq!(get(storage, &at, 100).unwrap().unwrap(), b"second");
        assert!(get(storage, &at, 5).is_err(), "a file above the limit must be refused");
        let info = storage.info(&at).unwrap().unwrap();
        assert_eq!((info.name.as_str(), info.kind, info.size), ("file", EntryKind::File, 6));
        assert!(info.modified > 1_600_000_000);
        assert!(exists(storage, &at).unwrap());
        assert!(!exists(storage, &path("a/b")).unwrap());
        put(storage, &path("empty"), b"", options).unwrap();
        assert_eq!(get(storage, &path("empty"), 0).unwrap().unwrap(), b"");
    }
}

fn ranges(storage: &dyn RepoStorage) {
    let at = path("range");
    put(storage, &at, b"0123456789", WriteOptions::ATOMIC).unwrap();
    let read = |offset, limit| {
        let mut bytes = Vec::new();
        let mut reader = storage.read(&at, ReadRange { offset, limit }).unwrap().unwrap();
        std::io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(read(0, None), "0123456789");
    assert_eq!(read(3, Some(4)), "3456");
    assert_eq!(read(8, Some(100)), "89");
    assert_eq!(read(0, Some(0)), "");
    assert_eq!(read(50, None), "");
    let begun = [(0, 2), (9, 5), (4, 1)]
        .map(|(offset, limit)| storage.begin_read(&at, ReadRange { offset, limit: Some(limit) }));
    let found = begun.map(|pending| std::io::read_to_string(pending.wait().unwrap().unwrap()).unwrap());
    assert_eq!(found, ["01", "9", "4"]);
    assert!(storage.begin_read(&path("none"), ReadRange::default()).wait().unwrap().is_none());
    storage.remove(&at).unwrap();
}

fn listings(storage: &dyn RepoStorage) {
    for name in ["list/b", "list/a/1", "list/a/2", "list/a.x", "list/é", "list/B", "lister"] {
        put(storage, &path(name), b"x", WriteOptions::ATOMIC).unwrap();
    }
    assert_eq!(names(storage, "list").unwrap(), ["B", "a", "a.x", "b", "é"]);
    assert_eq!(names(storage, "list/a").unwrap(), ["1", "2"]);
    let entries = storage.list(&path("list")).unwrap().unwrap();
    assert_eq!(entries[1].kind, EntryKind::Path);
    assert_eq!((entries[0].kind, entries[0].size), (EntryKind::File, 1));
    assert!(names(storage, "").unwrap().contains(&"lister".to_owned()));
    assert_eq!(storage.names(&path("list")).unwrap().unwrap(), ["B", "a", "a.x", "b", "é"]);
    assert_eq!(storage.names(&path("none")).unwrap(), None);
    assert_eq!(storage.names_after(&path("list"), "a").unwrap(), ["a.x", "b", "é"]);
    assert_eq!(storage.names_after(&path("list"), "aa").unwrap(), ["b", "é"]);
    assert!(storage.names_after(&path("none"), "a").unwrap().is_empty());
}

fn abandoned_writes(storage: &dyn RepoStorage) {
    let mut writer = storage.write(&path("gone/file"), WriteOptions::ATOMIC).unwrap();
    std::io::Write::write_all(&mut writer, b"half").unwrap();
    drop(writer);
    assert_eq!(get(storage, &path("gone/file"), 10).unwrap(), None);
    assert_eq!(names(storage, "gone").unwrap_or_default(), Vec::<String>::new());
}

fn removals(storage: &dyn RepoStorage) {
    for name in ["rm/x", "rm/d/y", "rm/d/e/z", "rmx"] {
        put(storage, &path(name), b"x", WriteOptions::ATOMIC).unwrap();
    }
    storage.remove(&path("rm/x")).unwrap();
    assert_eq!(names(storage, "rm").unwrap(), ["d"]);
    storage.remove_all(&path("rm")).unwrap();
    assert!(!exists(storage, &path("rm/d/y")).unwrap() && !exists(storage, &path("rm/d/e/z")).unwrap());
    // Some object stores list an emptied prefix for a while; a file must be gone everywhere
    let left = storage.list(&path("rm")).unwrap();
    assert!(left.is_none() || !storage.features().paths && left.unwrap().iter().all(|e| e.kind == EntryKind::Path));
    assert!(exists(storage, &path("rmx")).unwrap());
    for name in ["many/1", "many/2", "many/3"] {
        put(storage, &path(name), b"x", WriteOptions::ATOMIC).unwrap();
    }
    storage.remove_many(&["many/1", "many/none", "many/3"].map(path)).unwrap();
    assert_eq!(names(storage, "many").unwrap(), ["2"]);
    storage.remove_empty(&path("none")).unwrap();
    storage.create_path(&path("many/hollow")).unwrap();
    storage.remove_empty(&path("many/hollow")).unwrap();
    assert_eq!(names(storage, "many/hollow"), None);
    assert_eq!(storage.remove_empty(&path("many")).is_err(), storage.features().paths);
    assert_eq!(names(storage, "many").unwrap(), ["2"]);
}

fn paths_and_links(storage: &dyn RepoStorage) {
    let features = storage.features();
    storage.create_path(&path("p/q")).unwrap();
    storage.create_path(&path("p/q")).unwrap();
    assert_eq!(storage.info(&path("p/q")).unwrap().is_some(), features.paths);
    put(storage, &path("p/q/file"), b"text", WriteOptions::ATOMIC).unwrap();
    storage.sync_path(&path("p/q")).unwrap();
    if features.symlinks {
        storage.symlink("q", &path("p/new/link")).unwrap();
        storage.symlink("other", &path("p/link")).unwrap();
        storage.symlink("q", &path("p/link")).unwrap();
        let info = storage.info(&path("p/link")).unwrap().unwrap();
        assert_eq!((info.kind, info.size), (EntryKind::Link, 0));
        assert_eq!(storage.link_destination(&path("p/link")).unwrap().unwrap(), "q");
        assert_eq!(get(storage, &path("p/link/file"), 10).unwrap().unwrap(), b"text");
        storage.remove(&path("p/link")).unwrap();
        assert!(exists(storage, &path("p/q/file")).unwrap());
    } else {
        assert!(storage.symlink("q", &path("p/link")).is_err());
    }
    assert_eq!(storage.link_destination(&path("p/none")).unwrap(), None);
    if features.hard_links {
        storage.hard_link(&path("p/q/file"), &path("p/new2/hard")).unwrap();
        assert_eq!(get(storage, &path("p/new2/hard"), 10).unwrap().unwrap(), b"text");
        assert!(storage.hard_link(&path("p/no"), &path("p/hard3")).is_err());
    } else {
        assert!(storage.hard_link(&path("p/q/file"), &path("p/hard")).is_err());
    }
}

/// Two writers of one file, each with its own storage like two processes, in every order of their calls. After the
/// first success the file always exists and is always the complete file of one of them. A writer that abandons its file
/// removes nothing of the other's.
pub fn two_writers(first: &dyn RepoStorage, second: &dyn RepoStorage) {
    const CALLS: usize = 4;
    let storages = [first, second];
    for ends in [[true, true], [true, false]] {
        // Who is next, as bits of which half are set
        for order in (0u32..1 << (2 * CALLS)).filter(|order| order.count_ones() as usize == CALLS) {
            let at = path(&format!("two/{}/{order}", ends[1]));
            let contents = [b"first writer's content".as_slice(), b"second".as_slice()];
            let mut writers = [None, None];
            let mut done = [0, 0];
            let mut acknowledged = false;
            for step in 0..2 * CALLS {
                let who = (order >> step & 1) as usize;
                let (content, half) = (contents[who], contents[who].len() / 2);
                match done[who] {
                    0 => writers[who] = Some(storages[who].write(&at, WriteOptions::ATOMIC).unwrap()),
                    1 => std::io::Write::write_all(writers[who].as_mut().unwrap(), &content[..half]).unwrap(),
                    2 => std::io::Write::write_all(writers[who].as_mut().unwrap(), &content[half..]).unwrap(),
                    _ if ends[who] => {
                        writers[who].take().unwrap().finish().unwrap();
                        acknowledged = true;
                        assert_eq!(get(storages[1 - who], &at, 100).unwrap().unwrap(), content, "{order:b} {step}");
                    }
                    _ => drop(writers[who].take()),
                }
                done[who] += 1;
                let found = get(storages[who], &at, 100).unwrap();
                let is_whole = found.as_deref().is_some_and(|found| contents.contains(&found));
                assert!(is_whole || !acknowledged && found.is_none(), "{order:b} {step}: {found:?}");
            }
        }
        // Neither leaves anything
        let left = names(first, &format!("two/{}", ends[1])).unwrap();
        assert!(left.iter().all(|name| name.parse::<u32>().is_ok()), "{left:?}");
    }
    first.remove_all(&path("two")).unwrap();
}

/// Things that need several requests: a file of many parts, read as a whole and from its middle, and a directory of
/// many files. All of it is removed again.
pub fn large_things(storage: &dyn RepoStorage) {
    let (at, content) = (path("large/file"), large_content());
    put(storage, &at, &content, WriteOptions::ATOMIC).unwrap();
    assert!(get(storage, &at, 1 << 30).unwrap().unwrap() == content);
    let mut middle = Vec::new();
    let range = ReadRange { offset: 7_000_003, limit: Some(9_000_000) };
    std::io::Read::read_to_end(&mut storage.read(&at, range).unwrap().unwrap(), &mut middle).unwrap();
    assert!(middle == content[7_000_003..16_000_003]);
    for number in 0..MANY_FILES {
        put(storage, &path(&format!("large/many/{number:03}")), b"x", WriteOptions::IN_PLACE).unwrap();
    }
    assert_eq!(storage.names(&path("large/many")).unwrap().unwrap().len(), MANY_FILES);
    storage.remove_all(&path("large")).unwrap();
    assert!(storage.info(&at).unwrap().is_none());
}

/// Bytes that differ from place to place.
pub fn large_content() -> Vec<u8> {
    (0..LARGE_SIZE_BYTES).map(|at| (at >> 7) as u8).collect()
}
