//! Tests of requests and their parameters.

use proptest::prelude::*;

use super::*;
use crate::copy::{RequestedBlocks, RequestedFile};
use crate::database::Expected;
use crate::filter::{
    BlockFilter, CipherFilter, CipherHeader, CipherKey, Codec, CompressFilter, Digest, Direction, Filter,
    PageCheckFilter, PassphraseBytes,
};
use crate::storage::{FileRange, InfoLevel, LinkType};
use crate::{Capabilities, StringId};

/// Values that requests refer to.
#[derive(Clone, Debug)]
struct Values {
    texts: [String; 3],
    bytes: Vec<u8>,
    numbers: [u64; 4],
    small: [u32; 3],
    flags: [bool; 4],
}

prop_compose! {
    fn values()(
        texts in prop::array::uniform3("[ -~é]{0,30}"),
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..50), Just(vec![5; 10_000])],
        numbers in prop::array::uniform4(prop_oneof![0u64..3, any::<u64>()]),
        small in prop::array::uniform3(prop_oneof![0u32..3, any::<u32>()]),
        flags: [bool; 4],
    ) -> Values {
        Values { texts, bytes, numbers, small, flags }
    }
}

impl Values {
    fn digest(&self) -> Digest {
        [Digest::Sha1, Digest::Sha256, Digest::Md5][self.small[0] as usize % 3]
    }

    fn codec(&self) -> Codec {
        [Codec::Gz, Codec::Bz2, Codec::Lz4, Codec::Zst][self.small[1] as usize % 4]
    }

    fn compression(&self) -> CompressFilter {
        CompressFilter { codec: self.codec(), level: self.small[2] as i32, is_raw: self.flags[0] }
    }

    fn cipher(&self) -> CipherFilter<'_> {
        CipherFilter {
            direction: if self.flags[1] { Direction::Encrypt } else { Direction::Decrypt },
            digest: self.flags[2].then(|| self.digest()),
            passphrase: PassphraseBytes(&self.bytes),
            header: CipherHeader(self.small[2]),
        }
    }

    fn filters(&self) -> Vec<Filter<'_>> {
        let key = |name| CipherKey { name, digest: Some(self.digest()), passphrase: PassphraseBytes(&self.bytes) };
        vec![
            Filter::Hash(self.digest()),
            Filter::Size,
            Filter::Sink,
            Filter::Compress(self.compression()),
            Filter::Decompress { codec: self.codec(), is_raw: self.flags[3] },
            Filter::Cipher(self.cipher()),
            Filter::CipherPrefix(b"PGBR006_"),
            Filter::CipherFormat {
                keys: vec![key("0"), CipherKey { digest: None, ..key(&self.texts[0]) }],
                key: self.flags[0].then_some(&*self.texts[1]),
                format: self.small[0],
            },
            Filter::PageCheck(PageCheckFilter {
                segment: self.small[0],
                segment_pages: 131_072,
                page_size: self.small[1],
                header_check: self.flags[0],
                file: &self.texts[0],
            }),
            Filter::BlockIncremental(BlockFilter {
                super_block_size: self.numbers[0],
                block_size: self.numbers[1],
                checksum_size: self.numbers[2],
                reference: self.small[0],
                bundle_id: self.numbers[3],
                bundle_offset: self.numbers[1],
                prior_map: self.flags[1].then_some(&*self.bytes),
                compression: self.flags[2].then(|| self.compression()),
                cipher: self.flags[3].then(|| self.cipher()),
            }),
            Filter::BlockChecksum { block_size: self.numbers[0], checksum_size: self.numbers[1] },
        ]
    }

    fn storage_calls(&self) -> Vec<Call<'_>> {
        let [path, other, third] = [&*self.texts[0], &*self.texts[1], &*self.texts[2]];
        let [first, second, ..] = self.flags;
        let level =
            [InfoLevel::Exists, InfoLevel::Type, InfoLevel::Basic, InfoLevel::Detail][self.small[0] as usize % 4];
        let link_type = if first { LinkType::Hard } else { LinkType::Symbolic };
        vec![
            Call::Features,
            Call::Info(FileInfoRequest { path, level, follow_link: first }),
            Call::List(ListRequest { path, level, target_time: self.numbers[0] as i64 }),
            Call::Link(LinkRequest { target: other, path, link_type }),
            Call::PathCreate(PathCreateRequest {
                path,
                error_on_exists: first,
                no_parents: second,
                mode: self.small[1],
            }),
            Call::PathRemove(PathRemoveRequest { path, recurse: first }),
            Call::PathSync(path),
            Call::Remove(RemoveRequest { path, error_on_missing: first }),
            Call::ReadOpen(ReadRequest {
                path,
                offset: self.numbers[0],
                limit: first.then_some(self.numbers[1]),
                version: second.then_some(other),
                filters: self.filters(),
            }),
            Call::ReadNext,
            Call::ReadManyOpen(ReadManyRequest {
                filters: self.filters(),
                ranges: [path, other, third].map(|path| self.range(path)).into(),
            }),
            Call::ReadManyNext,
            Call::WriteOpen(WriteRequest {
                path,
                file_mode: self.small[0],
                path_mode: self.small[1],
                user: first.then_some(other),
                group: second.then_some(third),
                modified: self.numbers[0] as i64,
                create_path: self.flags[0],
                sync_file: self.flags[1],
                sync_path: self.flags[2],
                is_atomic: self.flags[3],
                filters: self.filters(),
            }),
            Call::WriteBlock(&self.bytes),
        ]
    }

    fn range<'a>(&'a self, path: &'a str) -> FileRange<'a> {
        FileRange {
            path,
            is_compressible: self.flags[2],
            offset: self.numbers[2],
            limit: self.flags[3].then_some(self.numbers[3]),
            version: self.flags[0].then_some(&*self.texts[2]),
        }
    }

    fn worker(&self) -> WorkerRequest<'_> {
        WorkerRequest {
            compression: self.flags[0].then(|| (self.codec(), self.small[0] as i32)),
            passphrase: self.flags[1].then_some(PassphraseBytes(&self.bytes)),
            digest: if self.flags[2] { Digest::Sha1 } else { Digest::Sha256 },
            bundle_raw: self.flags[2],
            reference: self.small[0],
            page_size: self.small[1],
            page_header_check: self.flags[3],
            compare_buffer_bytes: self.numbers[0],
            version_force: self.flags[0].then_some(&*self.texts[0]),
            network_level: self.flags[1].then_some(self.small[1] as i32),
        }
    }

    fn job(&self) -> JobRequest<'_> {
        let blocks = RequestedBlocks {
            block_size: self.small[0],
            checksum_size: self.small[1],
            super_block_size: self.numbers[0],
            prior_map: self.flags[2].then_some(&*self.bytes),
        };
        let file = |name, is_first: bool| RequestedFile {
            name,
            compares: self.flags[0] == is_first,
            size: self.numbers[0],
            size_original: self.numbers[1],
            exact_size: self.flags[1],
            has_reference: self.flags[2],
            checksum: is_first.then_some(&*self.bytes),
            page_check: self.flags[3],
            blocks: (self.flags[0] != is_first).then_some(blocks),
        };
        let files = vec![file(&*self.texts[0], true), file(&*self.texts[1], false)];
        JobRequest { bundle_id: self.flags[3].then_some(self.numbers[2]), files }
    }

    fn calls(&self) -> Vec<Call<'_>> {
        let texts: Vec<&str> = self.texts.iter().map(String::as_str).collect();
        let expected = Expected::ALL[self.small[0] as usize % 4];
        let mut calls = self.storage_calls();
        calls.extend([
            Call::Noop,
            Call::Offer(Offer { capabilities: Capabilities::own(), following: self.small[0] }),
            Call::Offer(Offer::default()),
            Call::Exit,
            Call::Config(ConfigRequest { arguments: texts.clone() }),
            Call::Options(OptionsRequest { names: texts }),
            Call::DatabaseOpen,
            Call::DatabaseQuery(QueryRequest { expected, sql: &self.texts[0] }),
            Call::WorkerOpen(self.worker()),
            Call::JobBegin(JobRequest { bundle_id: None, files: Vec::new() }),
            Call::JobBegin(self.job()),
            Call::JobNext,
        ]);
        let sessions = CallKind::ALL.into_iter().chain(CallKind::OWN).filter(|command| command.has_sessions());
        calls.extend(sessions.flat_map(|command| [Call::Close(command), Call::Cancel(command)]));
        calls
    }
}

proptest! {
    #[test]
    fn requests_round_trip(values in values(), session in 1u64..) {
        for call in values.calls() {
            let encoded = call.encode(session, Dialect::NEWEST).to_vec();
            let message = RequestMessage::decode(&encoded).unwrap();
            prop_assert_eq!((message.session, message.step), (session, call.step()));
            prop_assert_eq!(Call::decode(&message, Dialect::NEWEST).unwrap(), call);
        }
    }
}

fn refused(command: &str, step: Step, is_open: bool, parameters: Option<PackWriter<'_>>) -> (u8, String) {
    let command = StringId::encode(command).unwrap();
    let message = RequestMessage { command, step, session: 7, is_open, parameters: None };
    let encoded = message.encode_with(parameters).to_vec();
    let message = RequestMessage::decode(&encoded).unwrap();
    let error = Call::decode(&message, Dialect::NEWEST).unwrap_err();
    (error.code.number(), error.to_string())
}

#[test]
fn command_or_step_that_does_not_exist_is_refused() {
    let protocol = |text: &str| (39, text.to_owned());
    assert_eq!(refused("s-zz", Step::Process, false, None), protocol("invalid request 's-zz' (0xd6b730)"));
    assert_eq!(refused("noop", Step::Open, false, None), protocol("request noop has no step 'opn'"));
    assert_eq!(refused("s-i", Step::Cancel, true, None), protocol("request s-i has no step 'cnc'"));
    let without = "request s-rd:prc of session 7 is not in a session";
    assert_eq!(refused("s-rd", Step::Process, false, None), protocol(without));
}

#[test]
fn parameters_that_are_missing_or_too_many_are_refused() {
    let format = |text: &str| (29, text.to_owned());
    assert_eq!(refused("s-i", Step::Process, false, None), format("path is missing"));
    assert_eq!(refused("s-wr", Step::Process, true, None), format("block is missing"));
    let mut read = PackWriter::new();
    read.text("/file");
    assert_eq!(refused("s-rd", Step::Open, false, Some(read)), format("filters are missing"));
    let filters = |fill: fn(&mut PackWriter<'_>)| {
        let (mut read, mut list) = (PackWriter::new(), PackWriter::new());
        fill(&mut list);
        read.text("/file").null().null().null().pack(Some(list));
        refused("s-rd", Step::Open, false, Some(read))
    };
    let many = filters(|list| {
        for _ in 0..33 {
            list.string_id(crate::filter::name::SIZE).null();
        }
    });
    assert_eq!(many, format("more than 32 filters"));
    let unknown = filters(|list| {
        list.string_id(StringId::known("nope"));
    });
    assert_eq!(unknown, (25, "unable to add filter 'nope'".to_owned()));
    // What follows a gap must not be lost
    let gap = filters(|list| {
        list.null().null().string_id(crate::filter::name::SIZE);
    });
    assert_eq!(gap, format("name of a filter is missing"));
    let mut options = PackWriter::new();
    for _ in 0..=crate::options::OPTIONS_MAX {
        options.text("o");
    }
    assert_eq!(refused("opt-g", Step::Process, false, Some(options)), format("more than 10000 options"));
}

#[test]
fn parameters_that_are_not_known_are_passed_over() {
    let mut parameters = PackWriter::new();
    parameters.text("/path").u32(3).bool(true).u64(77).object(|object| {
        object.text("more");
    });
    let call = Call::Info(FileInfoRequest { path: "/path", level: InfoLevel::Basic, follow_link: true });
    let message = RequestMessage {
        command: CallKind::StorageInfo.id(),
        step: Step::Process,
        session: 1,
        is_open: false,
        parameters: None,
    };
    let encoded = message.encode_with(Some(parameters)).to_vec();
    let message = RequestMessage::decode(&encoded).unwrap();
    assert_eq!(Call::decode(&message, Dialect::NEWEST).unwrap(), call);
}

#[test]
fn passphrases_are_not_printed() {
    let cipher = CipherFilter {
        direction: Direction::Encrypt,
        digest: Some(Digest::Sha1),
        passphrase: PassphraseBytes(b"secret"),
        header: CipherHeader(0),
    };
    let filters = vec![Filter::Cipher(cipher)];
    let call = Call::ReadOpen(ReadRequest { path: "/f", offset: 0, limit: None, version: None, filters });
    let encoded = call.encode(1, Dialect::NEWEST);
    let message = encoded.to_vec();
    let message = RequestMessage::decode(&message).unwrap();
    let printed = format!("{call:?} {encoded:?} {message:?}");
    assert!(!printed.contains("secret") && !printed.contains("115, 101"), "{printed}");
}
