//! Typed handles: an option's value has the type of its handle wherever it is read.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

use super::decl::{OptionDecl, ValueKind};

/// A Rust type that an option's value has for the program.
pub trait OptionType {
    /// The kinds of options that have it, as a set of bits.
    const KINDS: u16;
}

macro_rules! option_types {
    ($($type:ty: $($kind:ident)|+;)*) => {
        $(impl OptionType for $type { const KINDS: u16 = 0 $(| 1 << ValueKind::$kind as u8)+; })*
    };
}

option_types! {
    bool: Boolean;
    i64: Integer;
    u64: Size;
    Duration: Time;
    String: Path | String | StringId;
    Vec<String>: List;
    BTreeMap<String, String>: Hash;
}

/// The handle of an option that exists once.
pub struct Opt<T> {
    decl: &'static OptionDecl,
    value: PhantomData<fn() -> T>,
}

/// The handle of an option that exists once per index of its group.
pub struct OptIndexed<T> {
    decl: &'static OptionDecl,
    value: PhantomData<fn() -> T>,
}

// Derived implementations would require the same of T
impl<T> Clone for Opt<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Opt<T> {}
impl<T> Clone for OptIndexed<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for OptIndexed<T> {}

impl<T: OptionType> Opt<T> {
    /// Creates a handle. The program does not compile if type or grouping contradicts the declaration.
    pub const fn new(decl: &'static OptionDecl) -> Self {
        assert!(T::KINDS & (1 << decl.kind as u8) != 0, "the type does not fit the kind");
        assert!(decl.group.is_none(), "grouped options need OptIndexed");
        Opt { decl, value: PhantomData }
    }

    /// The declaration.
    pub const fn decl(self) -> &'static OptionDecl {
        self.decl
    }
}

impl<T: OptionType> OptIndexed<T> {
    /// Creates a handle. The program does not compile if type or grouping contradicts the declaration.
    pub const fn new(decl: &'static OptionDecl) -> Self {
        assert!(T::KINDS & (1 << decl.kind as u8) != 0, "the type does not fit the kind");
        assert!(decl.group.is_some(), "options without a group need Opt");
        OptIndexed { decl, value: PhantomData }
    }

    /// The declaration.
    pub const fn decl(self) -> &'static OptionDecl {
        self.decl
    }
}

/// Declares the options of one file: a public handle for each, and the slice `TABLE` of all.
macro_rules! options {
    ($($name:ident: $handle:ident<$type:ty> = $decl:expr;)*) => {
        $(
            #[doc = concat!("The option of this name, a `", stringify!($type), "`.")]
            pub const $name: $handle<$type> = {
                // The program would have a copy of a constant's value for each part of it that uses the constant
                static DECL: crate::config::decl::OptionDecl = $decl;
                $handle::new(&DECL)
            };
        )*
        /// Every option declared here.
        pub(in crate::config) const TABLE: &[&crate::config::decl::OptionDecl] = &[$($name.decl(),)*];
    };
}
pub(in crate::config) use options;
