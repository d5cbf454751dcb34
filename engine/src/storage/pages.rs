//! Listings in pages, from servers that might never end them.
//!
//! A listing may be of any length: there are directories of millions of files. But no correct server sends a client
//! back to a page that it has seen, or through many empty pages. Both are refused, as is a listing that is kept in
//! memory and grows beyond any possible directory.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use ::http::{Method, StatusCode};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::{DELIMITER, Path};
use object_store::{
    CopyOptions, Extensions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use percent_encoding::{AsciiSet, utf8_percent_encode};
use tokio::sync::Mutex;

use super::http::URL_ENCODED;
use super::http::foreign::{foreign, shown};
use super::http::request::{Failure, Requests, store_error};
use super::object::key;
use crate::{Error, ErrorCode, Result};

/// The maximum number of entries of a listing in memory, which use up to some GiB. PostgreSQL has a directory per
/// database, with a few files for each of its tables.
pub(crate) const ENTRIES_MAX: usize = 20_000_000;
/// The maximum number of consecutive empty pages. A store may skip that many entries at a time, such as deleted ones.
pub(crate) const EMPTY_PAGES_MAX: usize = 1000;

/// In an address, slashes are part of an object's name.
const PATH_ENCODED: &AsciiSet = &URL_ENCODED.remove(b'/');

/// What has been seen of a listing.
#[derive(Debug)]
pub(crate) struct Pages {
    tokens: HashSet<String>,
    empty: usize,
    entries_left: usize,
}

impl Pages {
    /// A listing that is kept in memory.
    pub(crate) fn kept() -> Self {
        Pages { tokens: HashSet::new(), empty: 0, entries_left: ENTRIES_MAX }
    }

    /// A listing of which one page is in memory at a time.
    fn passing() -> Self {
        Pages { entries_left: usize::MAX, ..Pages::kept() }
    }

    /// Records a page with this number of entries, and returns the token of the next page.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if the listing would not end.
    pub(crate) fn next(&mut self, entries: usize, token: Option<String>) -> Result<Option<String>> {
        let endless = |what: &str| Err(Error::new(ErrorCode::Protocol, format!("the server's listing {what}")));
        let Some(left) = self.entries_left.checked_sub(entries) else {
            return endless(&format!("has more than {ENTRIES_MAX} entries"));
        };
        self.entries_left = left;
        let Some(token) = token.filter(|token| !token.is_empty()) else { return Ok(None) };
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        if self.empty > EMPTY_PAGES_MAX {
            return endless(&format!("has more than {EMPTY_PAGES_MAX} empty pages in a row"));
        }
        if !self.tokens.insert(token.clone()) {
            return endless("leads back to a page that it had already");
        }
        Ok(Some(token))
    }
}

/// The objects of a page, each with its description, and common prefixes.
pub(crate) type Located<'a, E> = (Vec<(Path, &'a E)>, Vec<Path>);

/// The objects of a page that have valid paths, and the names of those that don't.
#[derive(Debug)]
pub(crate) struct Reached<'a> {
    prefix: &'a str,
    passed_over: Vec<String>,
}

impl<'a> Reached<'a> {
    /// Creates the state for a listing below this prefix, which is empty for the whole store.
    pub(crate) fn below(prefix: &'a str) -> Self {
        Reached { prefix, passed_over: Vec::new() }
    }

    /// Returns the path of an object; `None` for names that are not paths (`a//b`), which come from other programs, and
    /// for the empty objects with which consoles mark directories.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for a name that is not below the prefix, because the listing is not the requested one.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Path>> {
        let name = self.within(name)?;
        if name.ends_with(DELIMITER) || name.is_empty() { Ok(None) } else { Ok(self.location(name)) }
    }

    /// Returns the path of a common prefix.
    ///
    /// # Errors
    /// The same as for an object.
    pub(crate) fn common_prefix(&mut self, name: &str) -> Result<Option<Path>> {
        let name = self.within(name)?;
        Ok(self.location(name.strip_suffix(DELIMITER).unwrap_or(name)))
    }

    fn within<'n>(&self, name: &'n str) -> Result<&'n str> {
        if name.starts_with(self.prefix) {
            return Ok(name);
        }
        Err(foreign(&format!("a listing of '{}' holds '{}'", self.prefix, shown(name))))
    }

    fn location(&mut self, name: &str) -> Option<Path> {
        // The crate takes a slash at either end for none
        let path = key::path(name).ok().filter(|path| key::name(path) == name);
        if path.is_none() {
            self.passed_over.push(name.to_owned());
        }
        path
    }

    /// Warns about skipped names.
    pub(crate) fn warn(self) {
        if let Some(first) = self.passed_over.first() {
            let (count, prefix) = (self.passed_over.len(), self.prefix);
            crate::warn!(
                "{count} object(s) or path(s) below '/{prefix}' can't be reached and are ignored, first {first:?}"
            );
        }
    }
}

/// Returns the prefix in the form of an object store's methods: with a trailing delimiter, and empty for the whole
/// store.
pub(crate) fn below(prefix: Option<&Path>) -> String {
    let prefix = prefix.filter(|prefix| !prefix.as_ref().is_empty());
    prefix.map_or_else(String::new, |prefix| format!("{}{DELIMITER}", key::name(prefix)))
}

/// The pages of a listing.
fn pages<S: PaginatedListStore>(
    store: Arc<S>,
    prefix: Option<&Path>,
    options: PaginatedListOptions,
    seen: Pages,
) -> BoxStream<'static, object_store::Result<ListResult>> {
    let prefix = below(prefix);
    stream::try_unfold(Some((None, seen)), move |state| {
        let (store, prefix, options) = (Arc::clone(&store), prefix.clone(), options.clone());
        async move {
            let Some((page_token, mut seen)) = state else { return Ok(None) };
            let prefix = Some(prefix.as_str()).filter(|prefix| !prefix.is_empty());
            let page = store.list_paginated(prefix, PaginatedListOptions { page_token, ..options }).await?;
            let entries = page.result.objects.len() + page.result.common_prefixes.len();
            let next = seen.next(entries, page.page_token).map_err(|error| store_error("remote", error))?;
            Ok(Some((page.result, next.map(|token| (Some(token), seen)))))
        }
    })
    .boxed()
}

/// All objects below a prefix, at any depth, as they come.
pub(crate) fn list<S: PaginatedListStore>(
    store: Arc<S>,
    prefix: Option<&Path>,
) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
    let pages = pages(store, prefix, PaginatedListOptions::default(), Pages::passing());
    pages.map_ok(|page| stream::iter(page.objects.into_iter().map(Ok))).try_flatten().boxed()
}

/// Lists the entries directly below a prefix.
pub(crate) async fn list_with_delimiter<S: PaginatedListStore>(
    store: Arc<S>,
    prefix: Option<&Path>,
) -> object_store::Result<ListResult> {
    let options = PaginatedListOptions { delimiter: Some(DELIMITER.into()), ..PaginatedListOptions::default() };
    let mut pages = pages(store, prefix, options, Pages::kept());
    let (mut objects, mut prefixes) = (Vec::new(), BTreeSet::new());
    while let Some(page) = pages.try_next().await? {
        objects.extend(page.objects);
        prefixes.extend(page.common_prefixes);
    }
    Ok(ListResult { objects, common_prefixes: prefixes.into_iter().collect(), extensions: Extensions::new() })
}

/// Requests for single objects that the crate `object_store` lacks.
#[derive(Debug)]
pub(crate) struct Objects {
    /// The address that an object's name follows.
    pub(crate) url: String,
    /// Sends requests whose answers are checked.
    pub(crate) requests: Requests,
}

impl Objects {
    /// Removes one object. A missing object is a success.
    async fn delete(&self, location: &Path) -> object_store::Result<()> {
        let failed = |failure: Failure| store_error("remote", failure);
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        let invalid = |_| failed(Error::new(ErrorCode::Format, format!("'{}' is not a valid URL", self.url)).into());
        let address = format!("{}{}", self.url, utf8_percent_encode(&key::name(location), PATH_ENCODED));
        (*request.method_mut(), *request.uri_mut()) = (Method::DELETE, address.parse().map_err(invalid)?);
        let answer = self.requests.send(&request).await.map_err(failed)?;
        let is_done = answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND;
        if is_done { Ok(()) } else { Err(failed(Failure::of(&answer))) }
    }
}

/// A store of the crate `object_store` with our own listings, which always end.
#[derive(Debug)]
pub(crate) struct ListingStore<L> {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) list: Arc<L>,
    pub(crate) objects: Arc<Objects>,
}

impl<L> fmt::Display for ListingStore<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
    }
}

#[async_trait]
impl<L: PaginatedListStore + fmt::Debug> ObjectStore for ListingStore<L> {
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        list(Arc::clone(&self.list), prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let options =
            PaginatedListOptions { offset: Some(key::name(offset).into_owned()), ..PaginatedListOptions::default() };
        let pages = pages(Arc::clone(&self.list), prefix, options, Pages::kept());
        let objects = pages.map_ok(|page| stream::iter(page.objects.into_iter().map(Ok))).try_flatten();
        // Not every server supports a start offset
        let offset = offset.clone();
        objects.try_filter(move |object| std::future::ready(object.location > offset)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        list_with_delimiter(Arc::clone(&self.list), prefix).await
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        // A removal of many objects names them in XML, which has no control characters
        let (objects, removed) = (Arc::clone(&self.objects), Arc::new(Mutex::new(Vec::new())));
        let alone = Arc::clone(&removed);
        let others = locations.try_filter_map(move |location| {
            let (objects, alone) = (Arc::clone(&objects), Arc::clone(&alone));
            async move {
                if key::is_plain(&location) {
                    return Ok(Some(location));
                }
                objects.delete(&location).await?;
                alone.lock().await.push(Ok(location));
                Ok(None)
            }
        });
        let removed = async move { stream::iter(std::mem::take(&mut *removed.lock().await)) };
        self.store.delete_stream(others.boxed()).chain(stream::once(removed).flatten()).boxed()
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::list::PaginatedListResult;

    use super::*;
    use crate::storage::network;

    #[test]
    fn page_that_was_seen_is_not_asked_for_again() {
        let mut pages = Pages::kept();
        for token in ["b", "c", "a"] {
            assert_eq!(pages.next(1, Some(token.into())).unwrap().as_deref(), Some(token));
        }
        assert_eq!(pages.next(1, Some("c".into())).unwrap_err().code, ErrorCode::Protocol);
        for end in [None, Some(String::new())] {
            assert_eq!(pages.next(1, end).unwrap(), None);
        }
    }

    #[test]
    fn empty_pages_may_be_many_but_not_for_ever() {
        let mut pages = Pages::kept();
        let mut tokens = (0..).map(|number: u32| Some(number.to_string()));
        let mut ask = |entries| pages.next(entries, tokens.next().unwrap());
        for entries in [0, 1, 0] {
            for _ in 1..EMPTY_PAGES_MAX {
                ask(entries).unwrap();
            }
        }
        ask(0).unwrap();
        assert!(ask(0).unwrap_err().message.contains("empty pages"));
    }

    #[test]
    fn listing_in_memory_has_an_end() {
        let mut pages = Pages::kept();
        assert_eq!(pages.next(ENTRIES_MAX, Some("a".into())).unwrap().as_deref(), Some("a"));
        assert!(pages.next(1, None).unwrap_err().message.contains("entries"));
        assert!(Pages::passing().next(ENTRIES_MAX + 1, None).is_ok());
    }

    #[test]
    fn names_that_no_path_leads_to_are_passed_over() {
        let mut reached = Reached::below("p/");
        let mut object = |name: &str| reached.object(name).unwrap().map(String::from);
        assert_eq!(object("p/a/b"), Some("p/a/b".into()));
        assert_eq!(object("p/a\u{1}b"), Some("p/a\u{fdd1}b".into()));
        for name in ["p//b", "p/./x", "p/../x", "p/a\u{fdd1}b", "p/a//"] {
            assert_eq!(object(name), None, "{name:?}");
        }
        for name in ["p/", "p/a/"] {
            assert_eq!(object(name), None, "{name}");
        }
        assert_eq!(reached.common_prefix("p/a/").unwrap(), Some(Path::from("p/a")));
        assert_eq!(reached.common_prefix("p//").unwrap(), None);
        assert_eq!(reached.passed_over.len(), 5);
    }

    #[test]
    fn listing_of_something_else_is_refused() {
        let mut reached = Reached::below("p/");
        for name in ["q/a", "p", "pp/a", ""] {
            assert_eq!(reached.object(name).unwrap_err().code, ErrorCode::Format, "{name}");
            assert!(reached.common_prefix(name).is_err(), "{name}");
        }
    }

    /// Pages of one object each, whose names and tokens are numbers up to this one and then start again at 2.
    #[derive(Debug)]
    struct Circle(u32);

    #[async_trait]
    impl PaginatedListStore for Circle {
        async fn list_paginated(
            &self,
            prefix: Option<&str>,
            options: PaginatedListOptions,
        ) -> object_store::Result<PaginatedListResult> {
            let number: u32 = options.page_token.map_or(0, |token| token.parse().unwrap());
            let location = Path::from(format!("{}{number}", prefix.unwrap_or_default()));
            let last_modified = std::time::SystemTime::UNIX_EPOCH.into();
            let object = ObjectMeta { location, last_modified, size: 0, e_tag: None, version: None };
            let next = if number == self.0 { 2 } else { number + 1 };
            let result =
                ListResult { objects: vec![object], common_prefixes: Vec::new(), extensions: Extensions::new() };
            Ok(PaginatedListResult { result, page_token: Some(next.to_string()) })
        }
    }

    #[test]
    fn listings_in_circles_end_with_an_error() {
        let runtime = network::handle().unwrap();
        let error = runtime.block_on(list_with_delimiter(Arc::new(Circle(7)), None)).unwrap_err();
        assert!(error.to_string().contains("leads back"), "{error}");
        let found = list(Arc::new(Circle(7)), Some(&Path::from("p")));
        let found: Vec<_> = runtime.block_on(found.collect());
        let names: Vec<_> = found[..7].iter().map(|found| found.as_ref().unwrap().location.to_string()).collect();
        assert_eq!(names, ["p/0", "p/1", "p/2", "p/3", "p/4", "p/5", "p/6"]);
        assert!(found[7].is_err() && found.len() == 8);
    }
}
