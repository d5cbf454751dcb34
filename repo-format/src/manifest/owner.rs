//! Owners. Each name is stored once.

use std::collections::HashMap;

use crate::{Error, ErrorCode, Result};

/// The index of a user's or group's name in an [`OwnerTable`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OwnerId(pub(super) u16);

impl OwnerId {
    /// An owner whose id had no name on the host of the backup.
    pub const UNKNOWN: OwnerId = OwnerId(0);

    /// A placeholder for the section's default, which comes later in the file.
    pub(super) const DEFAULT: OwnerId = OwnerId(u16::MAX);
}

/// The names of users and groups in one manifest.
#[derive(Clone, Debug, Default)]
pub struct OwnerTable {
    /// `names[n]` is the name of `OwnerId(n + 1)`.
    names: Vec<Box<str>>,
    ids: HashMap<Box<str>, OwnerId>,
}

impl OwnerTable {
    /// Returns the owner with this name and adds it if it is new. `None` is the owner without a name.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for an empty name, and if there are more than 65,534 names.
    pub fn intern(&mut self, name: Option<&str>) -> Result<OwnerId> {
        let Some(name) = name else { return Ok(OwnerId::UNKNOWN) };
        if let Some(id) = self.ids.get(name) {
            return Ok(*id);
        }
        if name.is_empty() {
            return Err(Error::new(ErrorCode::Format, "owner name is empty"));
        }
        let id = u16::try_from(self.names.len() + 1)
            .map(OwnerId)
            .ok()
            .filter(|id| *id != OwnerId::DEFAULT)
            .ok_or_else(|| Error::new(ErrorCode::Format, "too many different owners"))?;
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        Ok(id)
    }

    /// Returns the owner's name; `None` for the owner without a name.
    pub fn name(&self, id: OwnerId) -> Option<&str> {
        let index = usize::from(id.0).checked_sub(1)?;
        self.names.get(index).map(AsRef::as_ref)
    }
}

impl PartialEq for OwnerTable {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intern_same_name_gives_same_id() -> Result<()> {
        let mut owners = OwnerTable::default();
        let postgres = owners.intern(Some("postgres"))?;
        assert_eq!(owners.intern(Some("postgres"))?, postgres);
        assert_ne!(owners.intern(Some("other"))?, postgres);
        assert_eq!(owners.name(postgres), Some("postgres"));
        assert_eq!(owners.intern(None)?, OwnerId::UNKNOWN);
        assert_eq!(owners.name(OwnerId::UNKNOWN), None);
        assert_eq!(owners.name(OwnerId::DEFAULT), None);
        Ok(())
    }

    #[test]
    fn intern_too_many_names_is_format_error() {
        let mut owners = OwnerTable::default();
        let error = (0..70_000).find_map(|number| owners.intern(Some(&format!("u{number}"))).err());
        assert_eq!(error.map(|error| error.code), Some(ErrorCode::Format));
        assert_eq!(owners.names.len(), 65_534);
    }
}
