//! What a program can do beyond the protocol of pgBackRest.
//!
//! A client names its capabilities in the parameters of its first request, `noop`. A server that knows any of them answers
//! with those that both have; only then may the client use them. pgBackRest passes over parameters of this request, and
//! its own requests have none, so neither side of it notices anything: its greeting and answers have the same bytes as ever
//! (seen with pgBackRest 2.60.0 on either side).
//!
//! A capability has a name and a number. The number grows when its messages change, and the lower one of both sides
//! counts, so that versions of rbr that differ work together. Names that are not known are passed over. All numbers are 1 so
//! far, so nothing asks for them: who changes a message lets its encoder and decoder know the number.
//!
//! | parameters and data | fields |
//! | --- | --- |
//! | parameters | 1 array of capabilities, 2 number of requests that follow at once (u32, [`Offer::following`]) |
//! | data | 1 array of capabilities |
//! | capability | 1 name, 2 number (u32) |

use std::collections::BTreeMap;

use crate::format_error;
use crate::pack::{PackReader, PackWriter};
use repo_format::Result;

/// The most capabilities that a peer may name.
const CAPABILITIES_MAX: usize = 1000;

/// Something that a program can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Capability {
    /// Copies whole jobs beside the data directory ([`crate::copy`]).
    CopyJobs,
    /// Never completes a file of which a block failed, so that the request to complete it may be sent before the answers to
    /// the blocks have come. pgBackRest would complete it without that block.
    WholeWrites,
    /// Answers contain the warnings that the server has logged since the one before
    /// ([`AnswerMessage::warnings`](crate::AnswerMessage::warnings)).
    Warnings,
    /// Carries further connections beside the one that has agreed on it ([`crate::channel`]).
    Channels,
    /// Copies whole jobs with keys that another digest than SHA-1 derives, as backups of repository format 6 have them
    /// ([`WorkerRequest::digest`](crate::copy::WorkerRequest::digest)).
    CopyDigest,
    /// Errors tell whether the storage has no space left ([`ErrorAnswer::no_space`](crate::ErrorAnswer::no_space)).
    NoSpace,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Capability; 6] = [
        Capability::CopyJobs,
        Capability::WholeWrites,
        Capability::Warnings,
        Capability::Channels,
        Capability::CopyDigest,
        Capability::NoSpace,
    ];

    fn name(self) -> &'static str {
        match self {
            Capability::CopyJobs => "copy-jobs",
            Capability::WholeWrites => "whole-writes",
            Capability::Warnings => "warnings",
            Capability::Channels => "channels",
            Capability::CopyDigest => "copy-digest",
            Capability::NoSpace => "no-space",
        }
    }

    /// The highest number that this version knows.
    fn newest(self) -> u32 {
        match self {
            Capability::CopyJobs
            | Capability::WholeWrites
            | Capability::Warnings
            | Capability::Channels
            | Capability::CopyDigest
            | Capability::NoSpace => 1,
        }
    }
}

/// A set of capabilities with their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(BTreeMap<Capability, u32>);

impl Capabilities {
    /// Those of this version.
    pub fn own() -> Self {
        Capabilities(Capability::ALL.map(|known| (known, known.newest())).into())
    }

    /// These without one of them.
    #[must_use]
    pub fn without(mut self, capability: Capability) -> Self {
        self.0.remove(&capability);
        self
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether this one is in the set.
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains_key(&capability)
    }

    /// Returns what both sides can do, with the lower number of each.
    pub fn common(&self, other: &Capabilities) -> Self {
        let both = |(known, number): (&Capability, &u32)| Some((*known, *other.0.get(known)?.min(number)));
        Capabilities(self.0.iter().filter_map(both).collect())
    }

    /// Returns the parameters of the client's request, or the data of the server's answer.
    pub fn encode(&self) -> PackWriter<'static> {
        let mut writer = PackWriter::new();
        self.write(&mut writer);
        writer
    }

    pub(crate) fn write(&self, writer: &mut PackWriter<'_>) {
        writer.array(|list| {
            for (known, number) in &self.0 {
                list.object(|entry| {
                    entry.text(known.name()).u32(*number);
                });
            }
        });
    }

    /// Reads the data of the server's answer. A server that knows nothing of capabilities sends none.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] for data that is damaged.
    pub fn decode(data: Option<&[u8]>) -> Result<Self> {
        let Some(data) = data else { return Ok(Capabilities::default()) };
        let mut reader = PackReader::new(data);
        let capabilities = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(capabilities)
    }

    pub(crate) fn read(reader: &mut PackReader<'_>) -> Result<Self> {
        let mut found = BTreeMap::new();
        let Some(mut list) = reader.array()? else { return Ok(Capabilities(found)) };
        let mut count = 0;
        while !list.at_end()? {
            let mut entry = list.object()?.ok_or_else(|| format_error("capability is missing"))?;
            count += 1;
            if count > CAPABILITIES_MAX {
                return Err(format_error(format!("more than {CAPABILITIES_MAX} capabilities")));
            }
            let (name, number) = (entry.text_bytes()?, entry.u32()?);
            entry.finish()?;
            let known = Capability::ALL.into_iter().find(|known| Some(known.name().as_bytes()) == name);
            if let Some(known) = known.filter(|_| number > 0) {
                found.insert(known, number);
            }
        }
        list.finish()?;
        Ok(Capabilities(found))
    }
}

/// What a client says in its first request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What it can do.
    pub capabilities: Capabilities,
    /// The number of requests that it sends after this one before it reads an answer. If both sides agree on
    /// [`Capability::Channels`], these are the last messages that are no frames.
    pub following: u32,
}

impl Offer {
    pub(crate) fn write(&self, writer: &mut PackWriter<'_>) {
        self.capabilities.write(writer);
        writer.u32(self.following);
    }

    pub(crate) fn read(reader: &mut PackReader<'_>) -> Result<Self> {
        Ok(Offer { capabilities: Capabilities::read(reader)?, following: reader.u32()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list as a peer of any version sends it.
    fn list(entries: &[(&str, u32)]) -> Vec<u8> {
        let mut writer = PackWriter::new();
        writer.array(|list| {
            for (name, number) in entries {
                list.object(|entry| {
                    // Later versions may add fields
                    entry.text(*name).u32(*number).text("more").bool(true);
                });
            }
        });
        writer.text("more");
        writer.finish().to_vec()
    }

    #[test]
    fn capabilities_round_trip() {
        let own = Capabilities::own();
        assert_eq!(Capabilities::decode(Some(&own.encode().finish().to_vec())).unwrap(), own);
        assert!(Capability::ALL.into_iter().all(|known| own.has(known)));
        let names: std::collections::BTreeSet<_> = Capability::ALL.map(Capability::name).into();
        assert_eq!(names.len(), Capability::ALL.len());
    }

    #[test]
    fn peer_of_another_version_has_the_lower_number_and_unknown_names_count_for_nothing() {
        let own = Capabilities::own();
        let known = Capability::ALL.map(|known| (known.name(), known.newest() + 1));
        let newer = [&[("time-travel", 1), ("", 3)][..], &known].concat();
        let newer = Capabilities::decode(Some(&list(&newer))).unwrap();
        assert_eq!(own.common(&newer), own);
        assert_eq!(newer.common(&own), own);
        let older = Capabilities::decode(Some(&list(&[]))).unwrap();
        assert!(older.is_empty() && own.common(&older).is_empty() && older.common(&own).is_empty());
        // A number that no version has
        assert!(Capabilities::decode(Some(&list(&[("copy-jobs", 0)]))).unwrap().is_empty());
        assert_eq!(Capabilities::decode(None).unwrap(), Capabilities::default());
    }

    #[test]
    fn list_without_end_is_refused() {
        let entries = vec![("x", 1); CAPABILITIES_MAX + 1];
        assert!(Capabilities::decode(Some(&list(&entries))).is_err());
        assert!(Capabilities::decode(Some(&list(&entries[1..]))).is_ok());
    }
}
