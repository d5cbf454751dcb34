//! A store as of a time (`repo-target-time`): for each object the version that was current at that time.
//!
//! It is read-only. The past does not change, so every listing is requested once.

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Mutex;

use super::http::request::store_error;
use super::pages::{self, Pages};

/// One version of an object.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    /// The object. Its `version` is the version's name, its `last_modified` the time when it became current.
    pub meta: ObjectMeta,
    /// Whether the object was deleted at this time.
    pub is_deletion: bool,
    /// Whether it is the current version now.
    pub is_latest: bool,
}

/// The entries directly below a prefix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Versions {
    /// All versions of all objects, in the order of the server.
    pub versions: Vec<Version>,
    /// Prefixes of objects further below.
    pub prefixes: BTreeSet<Path>,
}

/// The order in which a server lists the versions of an object. It matters if two have the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    NewestFirst,
    OldestFirst,
}

/// A store that keeps old versions and can list them.
#[async_trait]
pub(crate) trait ListVersions: fmt::Debug + Send + Sync + 'static {
    /// The order of one object's versions.
    fn order(&self) -> Order;

    /// Returns a page of the entries directly below `prefix`, which is empty for the whole store and otherwise ends with
    /// a slash, and the token of the next page, if there is one.
    async fn page(&self, prefix: &str, token: Option<&str>) -> Result<(Versions, Option<String>)>;
}

/// Returns the versions of everything directly below a prefix (`None`: the whole store). Of versions with the same time
/// the newest comes first.
async fn list_versions(store: &dyn ListVersions, prefix: Option<&Path>) -> Result<Versions> {
    let prefix = pages::below(prefix);
    let (mut found, mut seen, mut token) = (Versions::default(), Pages::kept(), None);
    loop {
        let before = found.versions.len() + found.prefixes.len();
        let (page, next) = store.page(&prefix, token.as_deref()).await?;
        found.versions.extend(page.versions);
        found.prefixes.extend(page.prefixes);
        let entries = found.versions.len() + found.prefixes.len() - before;
        token = seen.next(entries, next).map_err(|error| store_error("remote", error))?;
        if token.is_none() {
            break;
        }
    }
    if store.order() == Order::OldestFirst {
        found.versions.reverse();
    }
    Ok(found)
}

/// The objects directly below a prefix at the time, by name.
#[derive(Debug)]
struct Listing {
    objects: BTreeMap<Path, ObjectMeta>,
    prefixes: BTreeSet<Path>,
}

impl Listing {
    /// Returns what was current at a time in seconds since the epoch. Fractions of a second do not count.
    fn at(time: i64, found: Versions) -> Self {
        let mut current: BTreeMap<Path, Version> = BTreeMap::new();
        for version in found.versions {
            if version.meta.last_modified.timestamp() > time {
                continue;
            }
            match current.entry(version.meta.location.clone()) {
                Entry::Vacant(place) => {
                    place.insert(version);
                }
                Entry::Occupied(mut place) => {
                    // Of two with the same time, the newer one comes first
                    let older = (place.get().meta.last_modified, place.get().is_latest);
                    if (version.meta.last_modified, version.is_latest) > older {
                        place.insert(version);
                    }
                }
            }
        }
        let objects = current.into_iter().filter(|(_, version)| !version.is_deletion);
        Listing { objects: objects.map(|(path, version)| (path, version.meta)).collect(), prefixes: found.prefixes }
    }
}

/// See the module documentation.
pub(crate) struct AsOf {
    store: Arc<dyn ObjectStore>,
    past: Arc<Past>,
}

/// The past content of the store.
struct Past {
    versions: Arc<dyn ListVersions>,
    time: i64,
    listings: Mutex<HashMap<Option<Path>, Arc<Listing>>>,
}

impl AsOf {
    /// The store as it was at a time in seconds since the epoch.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, versions: Arc<dyn ListVersions>, time: i64) -> Self {
        AsOf { store, past: Arc::new(Past { versions, time, listings: Mutex::new(HashMap::new()) }) }
    }
}

impl Past {
    async fn listing(&self, prefix: Option<&Path>) -> Result<Arc<Listing>> {
        // The root of a bucket comes as an empty path too
        let prefix = prefix.filter(|prefix| !prefix.as_ref().is_empty());
        let mut listings = self.listings.lock().await;
        let key = prefix.cloned();
        if let Some(known) = listings.get(&key) {
            return Ok(Arc::clone(known));
        }
        let listing = Arc::new(Listing::at(self.time, list_versions(&*self.versions, prefix).await?));
        listings.insert(key, Arc::clone(&listing));
        Ok(listing)
    }

    /// All objects below a prefix, at any depth.
    async fn below(&self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        let (mut objects, mut prefixes) = (Vec::new(), vec![prefix]);
        while let Some(prefix) = prefixes.pop() {
            let listing = self.listing(prefix.as_ref()).await?;
            objects.extend(listing.objects.values().cloned());
            prefixes.extend(listing.prefixes.iter().cloned().map(Some));
        }
        Ok(objects)
    }
}

impl fmt::Debug for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsOf").field("store", &self.store).field("time", &self.past.time).finish_non_exhaustive()
    }
}

impl fmt::Display for AsOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as of {}", self.store, self.past.time)
    }
}

fn read_only(operation: &str) -> Error {
    Error::NotSupported { source: format!("unable to {operation}: the past can only be read").into() }
}

fn parent(location: &Path) -> Option<Path> {
    let (parent, _) = location.as_ref().rsplit_once('/')?;
    Path::parse(parent).ok()
}

#[async_trait]
impl ObjectStore for AsOf {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let listing = self.past.listing(parent(location).as_ref()).await?;
        let Some(meta) = listing.objects.get(location).cloned() else {
            return Err(Error::NotFound { path: location.to_string(), source: "no such object at that time".into() });
        };
        if options.head {
            return Ok(GetResult {
                payload: GetResultPayload::Stream(stream::empty().boxed()),
                range: 0..meta.size,
                meta,
                attributes: Default::default(),
                extensions: Default::default(),
            });
        }
        self.store.get_opts(location, GetOptions { version: meta.version, ..options }).await
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listing = self.past.listing(prefix).await?;
        Ok(ListResult {
            common_prefixes: listing.prefixes.iter().cloned().collect(),
            objects: listing.objects.values().cloned().collect(),
            extensions: Default::default(),
        })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (past, prefix) = (Arc::clone(&self.past), prefix.cloned());
        let objects = stream::once(async move { past.below(prefix).await });
        objects.map_ok(|objects| stream::iter(objects.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only("write"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only("write"))
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([Err(read_only("remove"))]).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only("copy"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str, time: &str, kind: &str) -> Version {
        Version {
            meta: ObjectMeta {
                location: Path::from(name),
                last_modified: time.parse().unwrap(),
                size: 1,
                e_tag: None,
                version: Some(format!("{name}@{time}")),
            },
            is_deletion: kind.contains("deleted"),
            is_latest: kind.contains("latest"),
        }
    }

    /// The names of the versions that were current.
    fn at(time: i64, versions: &[Version]) -> Vec<String> {
        let listing = Listing::at(time, Versions { versions: versions.to_vec(), prefixes: BTreeSet::new() });
        listing.objects.into_values().map(|meta| meta.version.unwrap()).collect()
    }

    #[test]
    fn newest_version_up_to_the_time_counts_in_any_order() {
        let mut versions = vec![
            version("a", "1970-01-01T00:00:30Z", "latest deleted"),
            version("a", "1970-01-01T00:00:20.9Z", ""),
            version("a", "1970-01-01T00:00:10Z", ""),
            version("b", "1970-01-01T00:00:25Z", "latest"),
        ];
        for _ in 0..2 {
            assert_eq!(at(9, &versions), Vec::<String>::new());
            assert_eq!(at(19, &versions), ["a@1970-01-01T00:00:10Z"]);
            assert_eq!(at(20, &versions), ["a@1970-01-01T00:00:20.9Z"]);
            assert_eq!(at(29, &versions), ["a@1970-01-01T00:00:20.9Z", "b@1970-01-01T00:00:25Z"]);
            assert_eq!(at(30, &versions), ["b@1970-01-01T00:00:25Z"]);
            versions.reverse();
        }
    }

    #[test]
    fn of_two_versions_of_one_second_the_latest_or_first_counts() {
        let time = "1970-01-01T00:00:10Z";
        let written = version("a", time, "");
        assert!(at(10, &[written.clone(), version("a", time, "latest deleted")]).is_empty());
        assert!(at(10, &[version("a", time, "deleted"), written.clone()]).is_empty());
        assert_eq!(at(10, &[written, version("a", time, "deleted")]).len(), 1);
    }

    #[derive(Debug)]
    struct Fixed(Vec<Version>, Order);

    #[async_trait]
    impl ListVersions for Fixed {
        fn order(&self) -> Order {
            self.1
        }

        async fn page(&self, prefix: &str, token: Option<&str>) -> Result<(Versions, Option<String>)> {
            assert!(["", "p/"].contains(&prefix), "{prefix}");
            // One version per page
            let number = token.map_or(0, |token| token.parse().unwrap());
            let found = Versions { versions: vec![self.0[number].clone()], ..Versions::default() };
            Ok((found, (number + 1 < self.0.len()).then(|| (number + 1).to_string())))
        }
    }

    #[test]
    fn of_two_versions_of_one_second_the_server_says_which_is_newer() {
        let versions = ["20.1Z", "20.1Z", "10Z"].map(|time| version("p/a", &format!("1970-01-01T00:00:{time}"), ""));
        let mut versions = versions.to_vec();
        for (number, version) in versions.iter_mut().enumerate() {
            version.meta.version = Some(number.to_string());
        }
        for (order, expected) in [(Order::NewestFirst, "0"), (Order::OldestFirst, "1")] {
            let store = Fixed(versions.clone(), order);
            let found = crate::storage::network::handle().unwrap().block_on(list_versions(&store, None)).unwrap();
            assert_eq!(found.versions.len(), 3);
            let listing = Listing::at(25, found);
            assert_eq!(listing.objects[&Path::from("p/a")].version.as_deref(), Some(expected), "{order:?}");
        }
    }

    #[test]
    fn store_of_the_past_is_read_only() {
        use object_store::ObjectStoreExt as _;
        let versions = vec![version("p/a", "1970-01-01T00:00:10Z", "")];
        let store = AsOf::new(
            Arc::new(object_store::memory::InMemory::new()),
            Arc::new(Fixed(versions, Order::NewestFirst)),
            10,
        );
        let runtime = crate::storage::network::handle().unwrap();
        runtime.block_on(async {
            let (a, b) = (Path::from("p/a"), Path::from("p/b"));
            assert_eq!(store.head(&a).await.unwrap().size, 1);
            assert!(matches!(store.head(&b).await, Err(Error::NotFound { .. })));
            assert!(store.put(&b, PutPayload::new()).await.is_err());
            assert!(store.put_multipart(&b).await.is_err());
            assert!(store.delete(&a).await.is_err());
            assert!(store.copy(&a, &b).await.is_err());
            let all: Vec<_> = store.list(Some(&Path::from("p"))).try_collect().await.unwrap();
            assert_eq!(all.iter().map(|meta| &meta.location).collect::<Vec<_>>(), [&a]);
            // The root of a bucket
            assert!(store.list_with_delimiter(Some(&Path::default())).await.is_ok());
        });
    }
}
