use std::fs;
use std::path::Path;

use protocol::call::CallKind;
use protocol::copy::{CopiedFile, JobFileResult, RequestedBlocks, RequestedFile};
use protocol::filter::{Codec, Digest};
use protocol::options::OptionValue;
use protocol::{AnswerMessage, Call, Capabilities};
use repo_format::compress::Decompressor;

use super::*;
use crate::serve::handlers::Handlers;
use crate::serve::{Served, ServedOptions, ServedStorage};

/// Bytes of a chunk.
const BLOCK_BYTES: usize = 1000;

struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, _: &str) -> Result<OptionValue> {
        Ok(OptionValue::Null)
    }
}

/// Serves a data directory in small blocks.
fn handlers(path: &Path) -> Handlers {
    let storage = ServedStorage::DataDirectory(path.to_owned());
    let mut served = Served::new(storage, Box::new(NoOptions), CancelToken::new());
    served.block_bytes = BLOCK_BYTES;
    let mut handlers = Handlers::new(served, Capabilities::own());
    handlers.handle(&Call::Features, 0).unwrap();
    handlers
}

fn worker() -> WorkerRequest<'static> {
    WorkerRequest {
        compression: None,
        passphrase: None,
        digest: Digest::Sha1,
        bundle_raw: true,
        reference: 0,
        page_size: 8192,
        page_header_check: true,
        compare_buffer_bytes: 1 << 20,
        version_force: None,
        network_level: None,
    }
}

fn file(name: &str) -> RequestedFile<'_> {
    RequestedFile {
        name,
        compares: false,
        size: 0,
        size_original: 1 << 30,
        exact_size: false,
        has_reference: false,
        checksum: None,
        page_check: false,
        blocks: None,
    }
}

fn bundle<'a>(files: &[RequestedFile<'a>]) -> JobRequest<'a> {
    JobRequest { bundle_id: Some(3), files: files.to_vec() }
}

fn usage() -> Usage {
    Usage::of_bytes(1 << 30)
}

/// The end of a job as a client reads it: size, checksum, and a text for each result.
type ReadEnd = (u64, Sha1, Vec<String>);

/// The answer to a request: its data, and the end.
fn ask(handlers: &mut Handlers, call: &Call<'_>) -> Result<(Vec<u8>, Option<ReadEnd>)> {
    let reply = handlers.handle(call, 7)?;
    let message = handlers.message(7, &reply, &[]).to_vec();
    let answer = AnswerMessage::decode(&message).unwrap();
    let chunk = JobChunk::decode(answer.outcome.unwrap()).unwrap();
    let end = chunk.end.map(|end| {
        let results = end.results.iter().map(|result| match result {
            JobFileResult::Copied(CopiedFile { size, size_repo, offset, map_size, .. }) => {
                format!("copied {size} {size_repo} {offset} {map_size:?}")
            }
            JobFileResult::Unchanged { size, .. } => format!("unchanged {size}"),
            other => format!("{other:?}"),
        });
        (end.size, Sha1(end.checksum.try_into().unwrap()), results.collect())
    });
    Ok((chunk.data.to_vec(), end))
}

/// Does a job. Returns all bytes, and the end.
fn run(handlers: &mut Handlers, job: JobRequest<'_>) -> Result<(Vec<u8>, ReadEnd)> {
    let (mut all, mut end) = ask(handlers, &Call::JobBegin(job))?;
    loop {
        if let Some(end) = end {
            return Ok((all, end));
        }
        let (data, next) = ask(handlers, &Call::JobNext)?;
        all.extend(data);
        end = next;
    }
}

fn open(handlers: &mut Handlers, request: WorkerRequest<'_>) {
    handlers.handle(&Call::WorkerOpen(request), 7).unwrap();
}

fn code<T>(result: Result<T>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

#[test]
fn jobs_of_a_worker_are_stored_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("base/1")).unwrap();
    for (name, size) in [("base/1/1", 5), ("base/1/2", 2500), ("base/1/3", 0)] {
        fs::write(dir.path().join(name), vec![size as u8; size]).unwrap();
    }
    let mut handlers = handlers(dir.path());
    open(&mut handlers, worker());
    assert_eq!(ask(&mut handlers, &Call::JobNext).unwrap(), (Vec::new(), None), "no job yet");
    for _ in 0..2 {
        let names = ["pg_data/base/1/1", "pg_data/base/1/2", "pg_data/base/1/3", "pg_data/base/1/4"];
        let (bytes, (size, checksum, results)) = run(&mut handlers, bundle(&names.map(file))).unwrap();
        assert_eq!(bytes, [vec![5; 5], vec![196; 2500]].concat());
        assert_eq!((size, checksum), (2505, Sha1::of(&bytes)));
        assert_eq!(results, ["copied 5 5 0 None", "copied 2500 2500 5 None", "Truncated", "Removed"]);
        // A client may have asked for more before it knew the end
        assert_eq!(ask(&mut handlers, &Call::JobNext).unwrap(), (Vec::new(), None));
    }
    // An unchanged file is not sent again
    let sum = Sha1::of(&[5; 5]);
    let known = RequestedFile {
        compares: true,
        size: 5,
        has_reference: true,
        checksum: Some(&sum.0),
        ..file("pg_data/base/1/1")
    };
    let (bytes, (_, _, results)) = run(&mut handlers, bundle(&[known])).unwrap();
    assert_eq!((bytes.len(), results), (0, vec!["unchanged 5".to_owned()]));
}

#[test]
fn stream_is_compressed_on_the_way_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..100_000u32).map(|number| (number / 9) as u8).collect();
    fs::write(dir.path().join("a"), &content).unwrap();
    let mut handlers = handlers(dir.path());
    open(&mut handlers, WorkerRequest { network_level: Some(1), ..worker() });
    let (bytes, (size, checksum, results)) =
        run(&mut handlers, bundle(&[file("pg_data/a"), file("pg_data/a")])).unwrap();
    let both = [&content[..], &content].concat();
    assert_eq!((size, checksum), (200_000, Sha1::of(&both)));
    assert!(bytes.len() < 100_000, "{}", bytes.len());
    let mut plain = Vec::new();
    let mut decompressor = Decompressor::new(CompressType::Lz4, Framing::Raw, &*bytes).unwrap();
    std::io::Read::read_to_end(&mut decompressor, &mut plain).unwrap();
    assert_eq!(plain, both);
    assert_eq!(results[1], "copied 100000 100000 100000 None");
}

#[test]
fn file_in_blocks_continues_the_map_of_the_request() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = vec![1; 100_000];
    fs::write(dir.path().join("a"), &content).unwrap();
    let mut handlers = handlers(dir.path());
    open(&mut handlers, worker());
    let blocks = |prior_map| RequestedBlocks { block_size: 8192, checksum_size: 8, super_block_size: 65536, prior_map };
    let (bytes, (_, _, results)) =
        run(&mut handlers, bundle(&[RequestedFile { blocks: Some(blocks(None)), ..file("pg_data/a") }])).unwrap();
    let map_size: usize = results[0].rsplit_once("Some(").unwrap().1.trim_end_matches(')').parse().unwrap();
    let map = bytes[bytes.len() - map_size..].to_vec();
    content[50_000] = 2;
    fs::write(dir.path().join("a"), &content).unwrap();
    handlers.handle(&Call::Cancel(CallKind::Copy), 7).unwrap();
    open(&mut handlers, WorkerRequest { reference: 1, ..worker() });
    let next = RequestedFile { blocks: Some(blocks(Some(&map))), has_reference: true, ..file("pg_data/a") };
    let (more, _) = run(&mut handlers, bundle(std::slice::from_ref(&next))).unwrap();
    assert!(more.len() < 2 * 8192, "{}", more.len());
    // A damaged map is an error, after which the worker has ended
    let damaged = RequestedFile { blocks: Some(blocks(Some(&map[..9]))), ..next };
    assert!(run(&mut handlers, bundle(&[damaged])).is_err());
    assert_eq!(code(ask(&mut handlers, &Call::JobNext)), Some(ErrorCode::Protocol));
}

#[test]
fn file_out_of_reach_and_parameters_out_of_range_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), b"a").unwrap();
    let mut handlers = handlers(dir.path());
    for name in ["/etc/hostname", "pg_data/../x", "pg_data/a/../../x", "../x", "pg_data//a"] {
        open(&mut handlers, worker());
        let refused = run(&mut handlers, bundle(&[file("pg_data/a"), file(name)]));
        assert_eq!(code(refused), Some(ErrorCode::Access), "{name}");
    }
    let mut refuses = |request: WorkerRequest<'_>, job: Option<JobRequest<'_>>, expected: ErrorCode| {
        let opened = handlers.handle(&Call::WorkerOpen(request), 7).map(drop);
        let result = match (opened, job) {
            (Ok(()), Some(job)) => run(&mut handlers, job).map(drop),
            (opened, _) => opened,
        };
        assert_eq!(code(result), Some(expected));
    };
    refuses(WorkerRequest { compare_buffer_bytes: 1 << 40, ..worker() }, None, ErrorCode::Format);
    refuses(WorkerRequest { version_force: Some("x"), ..worker() }, None, ErrorCode::Assert);
    let large = WorkerRequest { compression: Some((Codec::Zst, 99)), ..worker() };
    assert!(Workers::default().begin(&large, DataDir::new("/"), &usage(), &CancelToken::new()).is_err());
    let paged = RequestedFile { page_check: true, ..file("pg_data/a") };
    refuses(WorkerRequest { page_size: 7, ..worker() }, Some(bundle(&[paged])), ErrorCode::Format);
    let two = JobRequest { bundle_id: None, files: vec![file("pg_data/a"), file("pg_data/a")] };
    refuses(worker(), Some(two), ErrorCode::Format);
    let blocks = RequestedBlocks { block_size: 1, checksum_size: 8, super_block_size: 1, prior_map: None };
    let small = RequestedFile { blocks: Some(blocks), ..file("pg_data/a") };
    refuses(worker(), Some(bundle(&[small])), ErrorCode::Format);
    let sum = RequestedFile { checksum: Some(&[1, 2]), ..file("pg_data/a") };
    refuses(worker(), Some(bundle(&[sum])), ErrorCode::Format);
}

#[test]
fn memory_and_number_of_workers_have_limits() {
    let dir = tempfile::tempdir().unwrap();
    let mut handlers = handlers(dir.path());
    let costly = || WorkerRequest { compression: Some((Codec::Zst, 22)), ..worker() };
    let mut begin = |session, request| handlers.handle(&Call::WorkerOpen(request), session).map(drop);
    assert_eq!(code(begin(1, costly())), None);
    assert_eq!(code(begin(2, costly())), None);
    assert_eq!(code(begin(3, costly())), Some(ErrorCode::Memory));
    let (workers, usage) = (Workers::default(), Usage::of_connection().with_channels());
    let begin = || workers.begin(&worker(), DataDir::new(dir.path()), &usage, &CancelToken::new());
    let all: Vec<_> = (0..WORKERS_MAX).map(|_| begin().unwrap()).collect();
    assert_eq!(code(begin()), Some(ErrorCode::Access));
    drop(all);
}

#[test]
fn worker_of_which_nothing_is_taken_waits_and_ends_with_its_session() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), vec![1; 64 << 20]).unwrap();
    let (workers, usage) = (Workers::default(), usage());
    let mut worker = workers.begin(&worker(), DataDir::new(dir.path()), &usage, &CancelToken::new()).unwrap();
    let files = Files::open(&ServedStorage::DataDirectory(dir.path().to_owned())).unwrap();
    let job = JobRequest { bundle_id: None, files: vec![file("pg_data/a")] };
    worker.begin(&job, &files, &usage).unwrap();
    assert_eq!(code(worker.begin(&job, &files, &usage)), Some(ErrorCode::Protocol), "it has a job");
    let mut block = vec![0; BLOCK_BYTES];
    assert_eq!(worker.next(&mut block, &CancelToken::new()).unwrap().size, BLOCK_BYTES);
    // While it waits, another may compute
    usage.slots.turn().run(|| ());
    drop(worker);
    while usage.workers.taken() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn long_jobs_of_one_channel_computed_one_after_the_other_while_another_channel_had_nothing_to_do() {
    let usage = usage();
    let channels = [Workers::default(), Workers::default()];
    let begun = channels.each_ref().map(|workers| {
        let dir = DataDir::new("/");
        [0; 2].map(|_| workers.begin(&worker(), dir.clone(), &usage, &CancelToken::new()).unwrap())
    });
    assert_eq!(usage.slots.free(), 2);
    let [first, second] = begun;
    drop(first);
    assert_eq!(usage.slots.free(), 1);
    drop(second);
    assert_eq!(usage.slots.free(), 0);
}

#[test]
fn worker_that_waited_for_a_slot_when_the_last_channel_ended_waited_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), vec![1; 64 << 20]).unwrap();
    let (workers, usage) = (Workers::default(), usage());
    let files = Files::open(&ServedStorage::DataDirectory(dir.path().to_owned())).unwrap();
    let begin = || workers.begin(&worker(), DataDir::new(dir.path()), &usage, &CancelToken::new()).unwrap();
    let mut waits = begin();
    usage.slots.turn().run(|| {
        waits.begin(&bundle(&[file("pg_data/a")]), &files, &usage).unwrap();
        while usage.slots.waiting() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(waits);
        drop(workers);
    });
    let begun = std::time::Instant::now();
    while usage.workers.taken() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!((usage.memory.bytes(), usage.slots.free()), (0, 0));
}

#[test]
fn jobs_of_a_channel_waited_for_the_codecs_of_others() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), vec![1; 64 << 20]).unwrap();
    let (workers, usage) = (Workers::default(), usage());
    let files = Files::open(&ServedStorage::DataDirectory(dir.path().to_owned())).unwrap();
    let job = JobRequest { bundle_id: None, files: vec![file("pg_data/a")] };
    let begin = || workers.begin(&worker(), DataDir::new(dir.path()), &usage, &CancelToken::new()).unwrap();
    let mut all: Vec<_> = (0..8).map(|_| begin()).collect();
    all.iter_mut().for_each(|one| one.begin(&job, &files, &usage).unwrap());
    let mut block = vec![0; BLOCK_BYTES];
    // Nothing is taken of those before, so they have not come to their end
    for one in &mut all {
        assert_eq!(one.next(&mut block, &CancelToken::new()).unwrap().size, BLOCK_BYTES);
    }
    drop(all);
    assert_eq!(workers.codecs().kept(), 0, "codecs end with the workers");
}

#[test]
fn client_that_has_not_agreed_and_one_of_a_repository_get_no_worker() {
    let dir = tempfile::tempdir().unwrap();
    let handlers = handlers(dir.path());
    let dialect = protocol::Dialect::NEWEST;
    assert!(handlers.knows(CallKind::Copy.id(), dialect));
    let storage = ServedStorage::DataDirectory(dir.path().to_owned());
    let served = Served::new(storage, Box::new(NoOptions), CancelToken::new());
    let plain = Handlers::new(served, Capabilities::default());
    assert!(!plain.knows(CallKind::Copy.id(), dialect) && plain.knows(CallKind::StorageRead.id(), dialect));
}

/// Requests of sessions with a data directory that has a file of this size.
fn with_file(size: usize) -> (tempfile::TempDir, Handlers) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), vec![1; size]).unwrap();
    let handlers = handlers(dir.path());
    (dir, handlers)
}

#[test]
fn memory_of_a_cancelled_worker_counted_as_free_while_its_thread_had_it() {
    let (_dir, mut handlers) = with_file(64 << 20);
    let costly = || WorkerRequest { compression: Some((Codec::Zst, 21)), ..worker() };
    // Its thread waits for the only slot with what it has
    let slots = Arc::clone(&handlers.usage().slots);
    let turn = slots.turn();
    open(&mut handlers, costly());
    turn.run(|| {
        let job = JobRequest { bundle_id: None, files: vec![file("pg_data/a")] };
        assert_eq!(ask(&mut handlers, &Call::JobBegin(job)).unwrap(), (Vec::new(), None), "it says that it is at work");
        handlers.handle(&Call::Cancel(CallKind::Copy), 7).unwrap();
        assert!(handlers.usage().memory.bytes() > 400 << 20);
    });
    while handlers.usage().memory.bytes() > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // One without a job has ended with its session
    open(&mut handlers, costly());
    handlers.handle(&Call::Cancel(CallKind::Copy), 7).unwrap();
    assert_eq!(handlers.usage().memory.bytes(), 0);
}

#[test]
fn worker_was_counted_with_one_codec_although_it_had_three() {
    let count = |level| {
        let request = WorkerRequest { compression: Some((Codec::Zst, level)), ..worker() };
        convert::worker_memory_bytes(&request).unwrap() >> 20
    };
    assert!((3 * 6..3 * 6 + 9).contains(&count(3)), "{}", count(3));
    // It keeps no second codec of this size
    assert!((864..864 + 9).contains(&count(22)), "{}", count(22));
}

#[test]
fn silent_worker_did_not_let_others_answer() {
    let (_dir, mut handlers) = with_file(10);
    let slots = Arc::clone(&handlers.usage().slots);
    let turn = slots.turn();
    open(&mut handlers, worker());
    turn.run(|| {
        let begun = std::time::Instant::now();
        assert_eq!(ask(&mut handlers, &Call::JobBegin(bundle(&[file("pg_data/a")]))).unwrap(), (Vec::new(), None));
        assert_eq!(ask(&mut handlers, &Call::JobNext).unwrap(), (Vec::new(), None));
        assert!(begun.elapsed() >= LOOK * 2);
    });
    loop {
        if let (data, Some(end)) = ask(&mut handlers, &Call::JobNext).unwrap() {
            assert_eq!((data.len(), end.2), (10, vec!["copied 10 10 0 None".to_owned()]));
            break;
        }
    }
}

#[test]
fn block_maps_of_workers_grow_together_within_the_memory_of_a_connection() {
    let usage = usage();
    let job = OwnedJob {
        job: convert::job(&bundle(&[]), 8192).unwrap(),
        maps: BTreeMap::new(),
        _memory: usage.memory.count(0).unwrap(),
    };
    let (sender, _pieces) = sync_channel(PIECES_WAITING_MAX);
    let store = || {
        let mut store = Store::new(&job, &sender, &Turn::FREE, None);
        store.map_growth = Some(Growth::new(&usage.grown));
        store
    };
    let (mut first, mut second) = (store(), store());
    // 300 MB each
    let blocks = 300_000_000 / block::MAP_ENTRY_BYTES;
    first.map_grows(blocks).unwrap();
    assert_eq!(second.map_grows(blocks).unwrap_err().code, ErrorCode::Memory);
    // A smaller file of the same job needs nothing more
    first.map_grows(1).unwrap();
    assert_eq!(usage.grown.bytes(), blocks * block::MAP_ENTRY_BYTES);
    drop(first);
    second.map_grows(blocks).unwrap();
}
