//! Listings: current objects, and all their versions.
//!
//! No request that pgBackRest sends returns when an object was deleted. A deleted object is visible at all times after
//! it was written.

use std::sync::atomic::Ordering;

use ::http::Method;
use async_trait::async_trait;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::{DELIMITER, Path};
use object_store::{Extensions, ListResult, ObjectMeta, Result};
use serde_json::Value;

use super::api::{Api, ApiCall};
use super::failed;
use crate::storage::as_of::{ListVersions, Order, Version, Versions};
use crate::storage::http::foreign::{foreign, shown};
use crate::storage::http::request::{Failure, json};
use crate::storage::object::key;
use crate::storage::pages::{Located, Reached};
use crate::{Error, ErrorCode};

/// The kind of a listing's page.
const LISTING: &str = "storage#objects";

#[async_trait]
impl PaginatedListStore for Api {
    async fn list_paginated(&self, prefix: Option<&str>, options: PaginatedListOptions) -> Result<PaginatedListResult> {
        let mut query = vec![("fields", "kind,nextPageToken,prefixes,items(name,size,updated)")];
        query.extend(options.delimiter.as_deref().map(|delimiter| ("delimiter", delimiter)));
        let token = options.page_token.as_deref();
        let prefix = prefix.unwrap_or_default();
        let page = Page::ask(self, query, prefix, token).await.map_err(failed)?;
        let (items, common_prefixes) = page.entries(prefix).map_err(failed)?;
        let objects = items.into_iter().map(|(location, item)| object(location, item));
        let objects = objects.collect::<crate::Result<_>>().map_err(failed)?;
        let result = ListResult { objects, common_prefixes, extensions: Extensions::new() };
        Ok(PaginatedListResult { result, page_token: page.next() })
    }
}

#[async_trait]
impl ListVersions for Api {
    fn order(&self) -> Order {
        Order::OldestFirst
    }

    async fn page(&self, prefix: &str, token: Option<&str>) -> Result<(Versions, Option<String>)> {
        let fields = "kind,nextPageToken,prefixes,items(name,size,updated,generation)";
        let query = vec![("fields", fields), ("delimiter", DELIMITER), ("versions", "true")];
        let page = Page::ask(self, query, prefix, token).await.map_err(failed)?;
        let (items, prefixes) = page.entries(prefix).map_err(failed)?;
        let versions = items.into_iter().map(|(location, item)| version(location, item));
        let versions = versions.collect::<crate::Result<_>>().map_err(failed)?;
        Ok((Versions { versions, prefixes: prefixes.into_iter().collect() }, page.next()))
    }
}

type IsKind = fn(&Value) -> bool;

/// The optional fields of a page, and the type that each must have.
const FIELDS: [(&str, IsKind); 3] =
    [("items", Value::is_array), ("prefixes", Value::is_array), ("nextPageToken", Value::is_string)];

/// A page as the server sent it.
pub(crate) struct Page(Value);

impl Page {
    async fn ask<'a>(
        api: &Api,
        mut query: Vec<(&'a str, &'a str)>,
        prefix: &'a str,
        token: Option<&'a str>,
    ) -> std::result::Result<Self, Failure> {
        if !prefix.is_empty() {
            query.push(("prefix", prefix));
        }
        query.extend(token.map(|token| ("pageToken", token)));
        let page = json(&api.send(ApiCall::new(Method::GET, api.object_path(None), &query)).await?)?;
        let page = Page::of(page)?;
        api.has_bucket.store(true, Ordering::Relaxed);
        Ok(page)
    }

    /// Accepts an answer that is a page.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if it is not a page, or if a field has the wrong type and would be read as missing.
    pub(crate) fn of(page: Value) -> crate::Result<Self> {
        if page.get("kind").and_then(Value::as_str) != Some(LISTING) {
            return Err(foreign(&format!("it is not of the kind '{LISTING}'")));
        }
        for (key, is_sound) in FIELDS {
            if page.get(key).is_some_and(|value| !is_sound(value)) {
                return Err(foreign(&format!("its '{key}' is of another kind")));
            }
        }
        Ok(Page(page))
    }

    /// Returns the objects of the page with their descriptions, and common prefixes.
    pub(crate) fn entries(&self, prefix: &str) -> crate::Result<Located<'_, Value>> {
        let of = |key: &str| self.0.get(key).and_then(Value::as_array).into_iter().flatten();
        let (mut reached, mut objects, mut prefixes) = (Reached::below(prefix), Vec::new(), Vec::new());
        for item in of("items") {
            objects.extend(reached.object(text(item, "name")?)?.map(|location| (location, item)));
        }
        for found in of("prefixes") {
            let found = found.as_str().ok_or_else(|| foreign("a prefix in it is not a string"))?;
            prefixes.extend(reached.common_prefix(found)?);
        }
        reached.warn();
        Ok((objects, prefixes))
    }

    fn next(&self) -> Option<String> {
        self.0.get("nextPageToken").and_then(Value::as_str).map(str::to_owned)
    }
}

/// A text in the description of an object.
pub(super) fn text<'a>(item: &'a Value, key: &str) -> crate::Result<&'a str> {
    let found = item.get(key).and_then(Value::as_str);
    found.ok_or_else(|| Error::new(ErrorCode::Format, format!("object's {key} missing")))
}

/// Refuses the description of another object.
///
/// # Errors
/// [`ErrorCode::Format`]
pub(super) fn is_of(location: &Path, item: &Value) -> crate::Result<()> {
    let name = text(item, "name")?;
    if name == key::name(location) {
        return Ok(());
    }
    Err(foreign(&format!("it describes '{}' instead of '{location}'", shown(name))))
}

/// Reads the description of an object.
pub(crate) fn object(location: Path, item: &Value) -> crate::Result<ObjectMeta> {
    let bad = |key: &str| Error::new(ErrorCode::Format, format!("object's {key} is not valid"));
    Ok(ObjectMeta {
        location,
        last_modified: text(item, "updated")?.parse().map_err(|_| bad("updated"))?,
        size: text(item, "size")?.parse().map_err(|_| bad("size"))?,
        e_tag: None,
        version: None,
    })
}

/// Reads the description of a version of an object.
pub(crate) fn version(location: Path, item: &Value) -> crate::Result<Version> {
    let generation = text(item, "generation")?.to_owned();
    let meta = ObjectMeta { version: Some(generation), ..object(location, item)? };
    Ok(Version { meta, is_deletion: false, is_latest: false })
}
