use std::fs;
use std::path::Path;

use protocol::copy::{CopiedFile, JobEnd, JobFileResult};
use repo_format::block_map::BlockMap;
use repo_format::cipher::Cipher;
use repo_format::compress::Compression;
use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;

use super::*;
use crate::pg::RemotePgSettings;
use crate::pg::data_dir::DataDir;
use crate::pg::host::PgHost;
use crate::pg::host::remote::RemoteHost;
use crate::pipeline::backup::{BlockJob, CodecPool, CopyFrom, CopyMethod, CopyOutcome, FileEncoder, LocalWorker};
use crate::progress::BytesUnderWay;
use crate::remote::testing::{Script, connect, serve_data};
use crate::storage::WriteOptions;
use crate::work::retry::is_of_peer;

/// A repository in memory.
#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    /// The map that every file continues.
    map: Option<(BlockMap, u32)>,
    /// How many maps were read.
    maps_read: usize,
    /// Bytes of jobs in progress, and those at the first write.
    under_way: BytesUnderWay,
    first_seen: u64,
    progress: JobProgress,
}

impl JobStore for Memory {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        if self.first_seen == 0 {
            self.first_seen = self.under_way.bytes();
        }
        Ok(())
    }

    fn progress(&self) -> JobProgress {
        self.progress.clone()
    }

    fn stored_checksum(&mut self) -> Result<Option<(u64, Sha1)>> {
        Ok(Some((self.bytes.len() as u64, Sha1::of(&self.bytes))))
    }

    fn prior_map(&mut self, _: &CopyFile) -> Result<Option<BlockMap>> {
        self.maps_read += 1;
        Ok(self.map.as_ref().map(|(map, _)| map.clone()))
    }
}

fn rules(kind: CompressType, level: i32) -> CopyRules {
    CopyRules {
        compression: if kind == CompressType::None {
            Compression::NONE
        } else {
            Compression::new(kind, Some(level)).unwrap()
        },
        cipher: Cipher::None,
        bundle_raw: true,
        reference: 0,
        page_size: 8192,
        page_header_check: true,
        compare_buffer_bytes: 1 << 20,
        write_options: WriteOptions::IN_PLACE,
        codecs: Arc::new(CodecPool::new(2)),
    }
}

fn settings(network_level: Option<i32>) -> Arc<RemotePgSettings> {
    let (path, command) = ("/far".into(), "backup".to_owned());
    Arc::new(RemotePgSettings { key: 1, path, version_force: None, command, network_level, processes: Vec::new() })
}

fn file(name: &str, size: u64) -> CopyFile {
    CopyFile {
        name: name.into(),
        method: CopyMethod::Copy,
        size,
        size_original: size,
        exact_size: true,
        has_reference: false,
        checksum: None,
        checksum_repo: None,
        size_repo: 0,
        page_check: true,
        block: None,
    }
}

fn job(bundle_id: Option<u64>, files: Vec<CopyFile>) -> CopyJob {
    CopyJob { from: CopyFrom::Primary, path: RepoPath::new("backup/x").unwrap(), bundle_id, files, threads: 1 }
}

/// A worker of a process that has no other ones.
fn worker(connection: Arc<Connection>, settings: Arc<RemotePgSettings>, rules: &CopyRules) -> JobWorker<'_> {
    let encoder = FileEncoder::new(rules, &Turn::FREE);
    JobWorker::new(RemoteWorker::new(connection, Arc::default(), settings, encoder), &Turn::FREE)
}

/// Settings of a data directory of this host.
fn settings_of(path: &Path) -> Arc<RemotePgSettings> {
    Arc::new(RemotePgSettings { path: path.to_owned(), ..Arc::unwrap_or_clone(settings(None)) })
}

/// Connects to a process that serves a data directory.
fn connect_to(path: &Path) -> Arc<Connection> {
    let served = path.to_owned();
    connect(move |stream| serve_data(stream, &served).unwrap()).unwrap()
}

/// Makes files with pages, some of them damaged. Returns the names with their sizes.
fn make(path: &Path) -> Vec<(String, u64)> {
    fs::create_dir_all(path.join("base/1")).unwrap();
    let make = |number: u32| {
        let size = [0, 8192, 20_000, 3 << 20][number as usize % 4];
        let content: Vec<u8> =
            (0..size).map(|index| if number.is_multiple_of(3) { 0 } else { (index / 7 * number) as u8 }).collect();
        fs::write(path.join(format!("base/1/{number}")), &content).unwrap();
        (format!("pg_data/base/1/{number}"), content.len() as u64)
    };
    (1..12).map(make).collect()
}

/// Does a job on this host, and beside the files through a connection.
fn both(
    path: &Path,
    job: &CopyJob,
    rules: &CopyRules,
    map: Option<&BlockMap>,
    network: Option<i32>,
) -> [(Vec<u8>, Vec<CopyResult>); 2] {
    let memory = || Memory { map: map.map(|map| (map.clone(), 0)), ..Memory::default() };
    let mut local = memory();
    let mut local_worker = LocalWorker::new(DataDir::new(path), None, rules, &Turn::FREE);
    // A worker does one job after the other, and what it had before decides what some codecs make
    local_worker.run(job, &mut memory(), &CancelToken::new()).unwrap();
    let results = local_worker.run(job, &mut local, &CancelToken::new()).unwrap();
    let served = path.to_owned();
    let connection = connect(move |stream| serve_data(stream, &served).unwrap()).unwrap();
    let mut worker = worker(connection, settings(network), rules);
    let mut far = memory();
    worker.run(job, &mut memory(), &CancelToken::new()).unwrap();
    let far_results = worker.run(job, &mut far, &CancelToken::new()).unwrap();
    [(local.bytes, results), (far.bytes, far_results)]
}

#[test]
fn job_beside_the_files_stores_the_bytes_of_a_job_here() {
    let dir = tempfile::tempdir().unwrap();
    let names = make(dir.path());
    let mut files: Vec<_> = names.iter().map(|(name, size)| file(name, *size)).collect();
    files.push(file("pg_data/base/1/gone", 5));
    let sum = Sha1::of(&fs::read(dir.path().join("base/1/1")).unwrap());
    for method in [CopyMethod::Compare, CopyMethod::Copy] {
        files.push(CopyFile { method, has_reference: true, checksum: Some(sum), ..file("pg_data/base/1/1", 8192) });
    }
    let kinds = [(CompressType::None, 0), (CompressType::Zst, 3), (CompressType::Gz, 6), (CompressType::Lz4, 1)];
    for (kind, level) in kinds {
        for network in [None, Some(1)] {
            let [here, far] = both(dir.path(), &job(Some(1), files.clone()), &rules(kind, level), None, network);
            assert!(here == far, "{kind} {network:?}: {:?}\n{:?}", here.1, far.1);
            assert!(here.1.iter().any(|result| matches!(result.outcome, CopyOutcome::Unchanged { .. })));
            let alone = vec![file(&names[10].0, names[10].1)];
            let [here, far] = both(dir.path(), &job(None, alone), &rules(kind, level), None, network);
            assert!(here == far && here.0.len() > 100, "{kind} {network:?}");
        }
    }
}

#[test]
fn job_in_blocks_beside_the_files_continues_the_prior_map() {
    let dir = tempfile::tempdir().unwrap();
    let mut content: Vec<u8> = (0..1_000_000u32).map(|number| (number / 999) as u8).collect();
    fs::create_dir_all(dir.path().join("base/1")).unwrap();
    let path = dir.path().join("base/1/1");
    fs::write(&path, &content).unwrap();
    let block = BlockJob { block_size: 8192, checksum_size: 8, super_block_size: 1 << 18, prior: None };
    let files =
        || vec![CopyFile { block: Some(block.clone()), page_check: false, ..file("pg_data/base/1/1", 1_000_000) }];
    let rules = |reference| CopyRules { reference, ..rules(CompressType::Zst, 3) };
    let [here, far] = both(dir.path(), &job(Some(1), files()), &rules(0), None, None);
    assert!(here == far);
    let CopyOutcome::Copied(copied) = &here.1[0].outcome else { panic!("{:?}", here.1) };
    let map = &here.0[here.0.len() - usize::try_from(copied.map_size.unwrap()).unwrap()..];
    let map = BlockMap::read(map, 8192, 8).unwrap();
    content[500_000] ^= 1;
    fs::write(&path, &content).unwrap();
    let [here, far] = both(dir.path(), &job(Some(1), files()), &rules(1), Some(&map), None);
    assert!(here == far && here.0.len() < 100_000, "{}", here.0.len());
}

#[test]
fn job_of_an_interrupted_backup_is_asked_for_file_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let names = make(dir.path());
    let method = CopyMethod::Resume { compare: true };
    let sum = Some(Sha1::of(&fs::read(dir.path().join("base/1/1")).unwrap()));
    let file = CopyFile { method, checksum: sum, size_repo: 8192, ..file(&names[0].0, names[0].1) };
    let served = dir.path().to_owned();
    let connection = connect(move |stream| serve_data(stream, &served).unwrap()).unwrap();
    let rules = rules(CompressType::None, 0);
    let mut settings = Arc::unwrap_or_clone(settings(None));
    settings.path = dir.path().to_owned();
    let mut store = Memory { bytes: fs::read(dir.path().join("base/1/1")).unwrap(), ..Memory::default() };
    let results =
        worker(connection, Arc::new(settings), &rules).run(&job(None, vec![file]), &mut store, &CancelToken::new());
    assert!(matches!(results.unwrap()[0].outcome, CopyOutcome::Resumed { .. }));
}

/// Size, checksum and results at the end of a job.
type SentEnd = (u64, Sha1, Vec<JobFileResult<'static>>);

/// Does a job at a server that answers with these chunks.
fn answered(job: &CopyJob, chunks: Vec<(Vec<u8>, Option<SentEnd>)>) -> Result<Vec<CopyResult>> {
    let connection = connect(move |stream| {
        let mut script = Script::new(stream);
        script.begin(Some(protocol::Capabilities::own().encode()));
        assert!(matches!(script.read(), Some(Call::WorkerOpen(_))));
        script.answer(None);
        for (data, end) in &chunks {
            script.read();
            let end = end.as_ref().map(|(size, checksum, results)| JobEnd {
                size: *size,
                checksum: &checksum.0,
                results: results.clone(),
            });
            script.answer(Some(JobChunk { data, end, bytes_done: 0 }.encode()));
        }
        while script.read().is_some_and(|call| call != Call::Exit) {
            script.answer(Some(JobChunk { data: &[], end: None, bytes_done: 0 }.encode()));
        }
    });
    let rules = rules(CompressType::None, 0);
    worker(connection.unwrap(), settings(None), &rules).run(job, &mut Memory::default(), &CancelToken::new())
}

#[test]
fn results_that_do_not_fit_the_job_or_the_bytes_are_refused() {
    const SUM: Sha1 = Sha1([7; 20]);
    let plain = CopiedFile {
        size: 3,
        checksum: &SUM.0,
        size_repo: 3,
        checksum_repo: None,
        offset: 0,
        map_size: None,
        pages: None,
    };
    let whole = Sha1::of(b"abcabc");
    let wanted = |name: &str| CopyFile { page_check: false, ..file(name, 3) };
    let two = job(Some(1), vec![wanted("pg_data/a"), wanted("pg_data/b")]);
    let copied = |change: &dyn Fn(&mut CopiedFile<'static>)| {
        let mut copied = plain.clone();
        change(&mut copied);
        JobFileResult::Copied(copied)
    };
    let run = |results: Vec<JobFileResult<'static>>| {
        answered(&two, vec![(b"abc".to_vec(), None), (b"abc".to_vec(), Some((6, whole, results)))])
    };
    let second = || copied(&|copied| copied.offset = 3);
    assert_eq!(run(vec![copied(&|_| ()), second()]).unwrap().len(), 2);
    let bad: Vec<Vec<JobFileResult<'static>>> = vec![
        vec![copied(&|_| ())],
        vec![copied(&|_| ()), second(), second()],
        vec![copied(&|_| ()), copied(&|_| ())],
        vec![copied(&|copied| copied.size = 4), second()],
        vec![copied(&|copied| copied.size_repo = 2), second()],
        vec![copied(&|copied| copied.map_size = Some(1)), second()],
        vec![copied(&|copied| copied.pages = Some(protocol::copy::CheckedPages::Valid)), second()],
        vec![copied(&|copied| copied.checksum_repo = Some(&SUM.0)), second()],
        vec![copied(&|copied| copied.checksum = &[1, 2]), second()],
        vec![copied(&|_| ()), JobFileResult::Unchanged { size: 3, checksum: &SUM.0 }],
        vec![copied(&|_| ()), JobFileResult::Removed],
    ];
    for (number, results) in bad.into_iter().enumerate() {
        assert!(run(results).is_err(), "{number}");
    }
    // Other bytes than the other side says, no end, and an end that never comes
    let good = || vec![copied(&|_| ()), second()];
    assert!(answered(&two, vec![(b"abcabd".to_vec(), Some((6, whole, good())))]).is_err());
    assert!(answered(&two, vec![(b"abcabc".to_vec(), None)]).is_err());
    let control = job(None, vec![wanted("pg_data/global/pg_control")]);
    let none = || (0, Sha1::of(b""), vec![JobFileResult::Removed]);
    assert!(answered(&control, vec![(Vec::new(), Some(none()))]).is_err());
    assert!(answered(&job(None, vec![wanted("pg_data/a")]), vec![(Vec::new(), Some(none()))]).is_ok());
}

#[test]
fn empty_control_file_and_ranges_of_pages_behind_the_end_were_accepted() {
    let control = job(Some(1), vec![CopyFile { page_check: false, ..file("pg_data/global/pg_control", 8192) }]);
    let empty = Sha1::of(b"");
    for result in [JobFileResult::Truncated, JobFileResult::Removed] {
        let refused = answered(&control, vec![(Vec::new(), Some((0, empty, vec![result])))]);
        assert_eq!(refused.unwrap_err().code, ErrorCode::FileRead);
    }
    let content = vec![1; 3 * 8192];
    let sum = Sha1::of(&content);
    let copied = |size: usize, pages| {
        let sum: &'static Sha1 = Box::leak(Box::new(Sha1::of(&content[..size])));
        let size = size as u64;
        let (checksum, size_repo, checksum_repo, offset, map_size) = (&sum.0[..], size, None, 0, None);
        JobFileResult::Copied(CopiedFile { size, checksum, size_repo, checksum_repo, offset, map_size, pages })
    };
    let short = vec![(content[..100].to_vec(), Some((100, Sha1::of(&content[..100]), vec![copied(100, None)])))];
    assert!(answered(&control, short).is_err());
    let whole = vec![(content[..8192].to_vec(), Some((8192, Sha1::of(&content[..8192]), vec![copied(8192, None)])))];
    assert!(answered(&control, whole).is_ok());
    let paged = job(Some(1), vec![file("pg_data/base/1/1.1", 3 * 8192)]);
    let damaged = |ranges: &[[u32; 2]]| {
        let pages = Some(protocol::copy::CheckedPages::Damaged(ranges.to_vec()));
        answered(&paged, vec![(content.clone(), Some((3 * 8192, sum, vec![copied(3 * 8192, pages)])))])
    };
    // Numbers continue those of the segment before
    assert!(damaged(&[[131_072, 131_072], [131_074, 131_074]]).is_ok());
    for ranges in [&[][..], &[[5, 4]], &[[0, 3]], &[[1, 1], [0, 0]], &[[0, 1], [1, 2]], &[[0, 0], [u32::MAX, u32::MAX]]]
    {
        assert!(damaged(ranges).is_err(), "{ranges:?}");
    }
}

#[test]
fn result_of_a_job_that_could_not_be_read_was_no_error_of_the_connection() {
    let (size, checksum, size_repo) = (1, &[1, 2, 3][..], 1);
    let copied = CopiedFile { size, checksum, size_repo, checksum_repo: None, offset: 0, map_size: None, pages: None };
    let end = (1, Sha1::of(&[1]), vec![JobFileResult::Copied(copied)]);
    let error = answered(&job(None, vec![file("pg_data/a", 1)]), vec![(vec![1], Some(end))]).unwrap_err();
    assert!(is_of_peer(&error) && error.message.contains("checksum has another size"), "{error}");
}

/// A file in blocks that was stored before with this content.
fn compared(name: &str, before: &[u8]) -> CopyFile {
    CopyFile {
        method: CopyMethod::Compare,
        has_reference: true,
        checksum: Some(Sha1::of(before)),
        page_check: false,
        block: Some(BlockJob { block_size: 8192, checksum_size: 8, super_block_size: 1 << 18, prior: None }),
        ..file(name, before.len() as u64)
    }
}

#[test]
fn reason_of_a_refused_worker_was_lost() {
    let connection = connect(move |stream| {
        let mut script = Script::new(stream);
        script.begin(Some(protocol::Capabilities::own().encode()));
        assert!(matches!(script.read(), Some(Call::WorkerOpen(_))));
        script.refuse(&Error::new(ErrorCode::Memory, "too much memory"));
        while script.read().is_some_and(|call| call != Call::Exit) {
            script.refuse(&Error::new(ErrorCode::Protocol, "unable to find session id 2 for request copy:prc"));
        }
    });
    let rules = rules(CompressType::None, 0);
    let mut worker = worker(connection.unwrap(), settings(None), &rules);
    let job = job(Some(1), vec![file("pg_data/a", 3)]);
    let error = worker.run(&job, &mut Memory::default(), &CancelToken::new()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Memory, "{error}");
    assert!(error.to_string().contains("too much memory"), "{error}");
}

#[test]
fn maps_of_unchanged_files_were_read_before_the_files_were_compared() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..200_000u32).map(|number| (number / 999) as u8).collect();
    for name in ["same", "differs", "shorter"] {
        fs::write(dir.path().join(name), &content).unwrap();
    }
    let rules = CopyRules { reference: 1, ..rules(CompressType::Zst, 3) };
    let map = {
        let mut store = Memory::default();
        let first = CopyFile { method: CopyMethod::Copy, has_reference: false, ..compared("pg_data/same", &content) };
        let rules = CopyRules { reference: 0, ..rules.clone() };
        let mut worker = LocalWorker::new(DataDir::new(dir.path()), None, &rules, &Turn::FREE);
        let results = worker.run(&job(Some(1), vec![first]), &mut store, &CancelToken::new()).unwrap();
        let CopyOutcome::Copied(copied) = &results[0].outcome else { panic!("{results:?}") };
        let begin = store.bytes.len() - usize::try_from(copied.map_size.unwrap()).unwrap();
        BlockMap::read(&store.bytes[begin..], 8192, 8).unwrap()
    };
    let mut changed = content.clone();
    changed[100_000] ^= 1;
    fs::write(dir.path().join("differs"), &changed).unwrap();
    fs::write(dir.path().join("shorter"), &content[..8192]).unwrap();
    let names = ["same", "differs", "same", "gone", "shorter"].map(|name| format!("pg_data/{name}"));
    let mut files: Vec<_> = names.iter().map(|name| compared(name, &content)).collect();
    // Without blocks no map is read, so the other host compares it with the job
    files.push(CopyFile { block: None, ..files[0].clone() });
    let memory = || Memory { map: Some((map.clone(), 0)), ..Memory::default() };
    let [mut here, mut far] = [memory(), memory()];
    let whole = job(Some(1), files);
    let cancel = CancelToken::new();
    let local = LocalWorker::new(DataDir::new(dir.path()), None, &rules, &Turn::FREE).run(&whole, &mut here, &cancel);
    let results = worker(connect_to(dir.path()), settings_of(dir.path()), &rules).run(&whole, &mut far, &cancel);
    let results = results.unwrap();
    assert_eq!(results, local.unwrap());
    assert!(here.bytes == far.bytes && !far.bytes.is_empty());
    assert!(matches!(results[5].outcome, CopyOutcome::Unchanged { .. }));
    assert_eq!(far.maps_read, 2, "those of the two files that differ");
    // Nothing of a job without changes is asked for
    let mut far = memory();
    let same = job(Some(1), vec![compared(&names[0], &content)]);
    let mut worker = worker(connect_to(dir.path()), settings_of(dir.path()), &rules);
    worker.run(&same, &mut far, &cancel).unwrap();
    assert!(worker.session.is_none() && far.maps_read == 0);
}

#[test]
fn signal_was_not_noticed_while_the_other_host_was_silent() {
    let connection = connect(move |stream| {
        let mut script = Script::new(stream);
        script.begin(Some(protocol::Capabilities::own().encode()));
        // No job is ever answered
        while script.read().is_some() {}
    });
    let rules = rules(CompressType::None, 0);
    let mut worker = worker(connection.unwrap(), settings(None), &rules);
    let cancel = CancelToken::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            cancel.cancel_by_signal(15);
        });
        let begun = std::time::Instant::now();
        let job = job(Some(1), vec![file("pg_data/a", 3)]);
        let error = worker.run(&job, &mut Memory::default(), &cancel).unwrap_err();
        assert_eq!(error.code, ErrorCode::Term, "{error}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    });
}

#[test]
fn host_that_is_at_work_says_so_and_is_asked_again() {
    const SUM: Sha1 = Sha1([7; 20]);
    let copied = CopiedFile {
        size: 3,
        checksum: &SUM.0,
        size_repo: 3,
        checksum_repo: None,
        offset: 0,
        map_size: None,
        pages: None,
    };
    let one = job(Some(1), vec![CopyFile { page_check: false, checksum: Some(SUM), ..file("pg_data/a", 3) }]);
    let sum = Sha1::of(b"abc");
    let copied = JobFileResult::Copied(CopiedFile { checksum: Box::leak(Box::new(sum.0)), ..copied });
    let chunks = vec![
        (Vec::new(), None),
        (Vec::new(), None),
        (b"ab".to_vec(), None),
        (Vec::new(), None),
        (b"c".to_vec(), Some((3, sum, vec![copied]))),
    ];
    assert_eq!(answered(&one, chunks).unwrap().len(), 1);
}

#[test]
fn third_worker_at_a_level_that_needs_much_memory_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty"), b"").unwrap();
    let host = RemoteHost::over(connect_to(dir.path()), Arc::unwrap_or_clone(settings_of(dir.path())));
    let job = job(Some(1), vec![CopyFile { page_check: false, ..file("pg_data/empty", 100) }]);
    for level in [19, 20, 21, 22] {
        let rules = rules(CompressType::Zst, level);
        // All are there at a time, as those of the threads of a backup
        let mut workers: Vec<_> = (0..4).map(|_| host.copy_worker(1, &rules, &Turn::FREE).unwrap()).collect();
        for worker in &mut workers {
            let results = worker.run(&job, &mut Memory::default(), &CancelToken::new()).unwrap();
            assert_eq!(results[0].outcome, CopyOutcome::Truncated, "level {level}");
        }
    }
}

#[test]
fn progress_of_a_large_file_is_told_before_its_end() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("base/1")).unwrap();
    let size = 12 << 20;
    fs::write(dir.path().join("base/1/1"), vec![7; size]).unwrap();
    let rules = rules(CompressType::None, 0);
    let mut worker = worker(connect_to(dir.path()), settings_of(dir.path()), &rules);
    let job = job(None, vec![CopyFile { page_check: false, ..file("pg_data/base/1/1", size as u64) }]);
    let mut store = Memory::default();
    store.progress = store.under_way.begin(size as u64);
    let results = worker.run(&job, &mut store, &CancelToken::new()).unwrap();
    assert!(matches!(results[0].outcome, CopyOutcome::Copied(_)));
    // With the first chunk, of twelve
    assert!(store.first_seen > 0 && store.first_seen < size as u64, "{}", store.first_seen);
    drop(std::mem::take(&mut store.progress));
    assert_eq!(store.under_way.bytes(), 0);
}

#[test]
fn comparison_that_a_server_never_answers_ends_with_the_token() {
    let connection = connect(|stream| {
        let mut script = Script::new(stream);
        script.begin(None);
        while script.read().is_some() {}
    })
    .unwrap();
    let rules = rules(CompressType::None, 0);
    let mut worker = worker(connection, settings(None), &rules);
    let compared = CopyFile { method: CopyMethod::Compare, ..file("pg_data/base/1/1", 100) };
    let cancel = CancelToken::new();
    let blocks = BlockJob { block_size: 8192, checksum_size: 6, super_block_size: 8192, prior: None };
    let job = job(Some(1), vec![CopyFile { block: Some(blocks), ..compared }]);
    std::thread::scope(|scope| {
        let stop = cancel.clone();
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            stop.cancel();
        });
        let error = worker.run(&job, &mut Memory::default(), &cancel).unwrap_err();
        assert_eq!(error.code, ErrorCode::Term);
    });
}
