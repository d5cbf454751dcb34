//! Listings: what is there, and all versions of it.
//!
//! Nothing that pgBackRest asks for says when an object was deleted: one that is gone now is seen at all times after it was
//! written.

use ::http::Method;
use async_trait::async_trait;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::DELIMITER;
use object_store::{Extensions, ListResult, ObjectMeta, Result};
use serde_json::Value;

use super::api::{Api, Call};
use super::failed;
use crate::storage::as_of::{ListVersions, Order, Version, Versions};
use crate::storage::http::request::{Failure, json};
use crate::storage::object::location;
use crate::{Error, ErrorCode};

#[async_trait]
impl PaginatedListStore for Api {
    async fn list_paginated(&self, prefix: Option<&str>, options: PaginatedListOptions) -> Result<PaginatedListResult> {
        let mut query = vec![("fields", "nextPageToken,prefixes,items(name,size,updated)")];
        query.extend(options.delimiter.as_deref().map(|delimiter| ("delimiter", delimiter)));
        let token = options.page_token.as_deref();
        let page = Page::ask(self, query, prefix.unwrap_or_default(), token).await.map_err(failed)?;
        let objects = page.objects().map(object).collect::<crate::Result<_>>().map_err(failed)?;
        let common_prefixes = page.prefixes().collect::<crate::Result<_>>().map_err(failed)?;
        let result = ListResult { objects, common_prefixes, extensions: Extensions::new() };
        Ok(PaginatedListResult { result, page_token: page.next() })
    }
}

#[async_trait]
impl ListVersions for Api {
    fn order(&self) -> Order {
        Order::OldestFirst
    }

    async fn page(&self, prefix: &str, token: Option<&str>, found: &mut Versions) -> Result<Option<String>> {
        let fields = "nextPageToken,prefixes,items(name,size,updated,generation)";
        let query = vec![("fields", fields), ("delimiter", DELIMITER), ("versions", "true")];
        let page = Page::ask(self, query, prefix, token).await.map_err(failed)?;
        for item in page.objects() {
            found.versions.push(version(item).map_err(failed)?);
        }
        for prefix in page.prefixes() {
            found.prefixes.insert(prefix.map_err(failed)?);
        }
        Ok(page.next())
    }
}

/// A page as the server sent it.
struct Page(Value);

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
        Ok(Page(json(&api.send(Call::new(Method::GET, api.object_path(None), &query)).await?)?))
    }

    fn entries(&self, key: &str) -> impl Iterator<Item = &Value> {
        self.0.get(key).and_then(Value::as_array).into_iter().flatten()
    }

    /// The objects, without what other programs show as a folder: one whose name ends with a slash.
    fn objects(&self) -> impl Iterator<Item = &Value> {
        let is_folder = |item: &Value| item.get("name").and_then(Value::as_str).is_some_and(|name| name.ends_with('/'));
        self.entries("items").filter(move |item| !is_folder(item))
    }

    fn prefixes(&self) -> impl Iterator<Item = crate::Result<object_store::path::Path>> {
        self.entries("prefixes").filter_map(Value::as_str).map(location)
    }

    fn next(&self) -> Option<String> {
        self.0.get("nextPageToken").and_then(Value::as_str).map(str::to_owned)
    }
}

/// A text in the description of an object.
fn text<'a>(item: &'a Value, key: &str) -> crate::Result<&'a str> {
    let found = item.get(key).and_then(Value::as_str);
    found.ok_or_else(|| Error::new(ErrorCode::Format, format!("object's {key} missing")))
}

/// Reads the description of an object.
pub(crate) fn object(item: &Value) -> crate::Result<ObjectMeta> {
    let bad = |key: &str| Error::new(ErrorCode::Format, format!("object's {key} is not valid"));
    Ok(ObjectMeta {
        location: location(text(item, "name")?)?,
        last_modified: text(item, "updated")?.parse().map_err(|_| bad("updated"))?,
        size: text(item, "size")?.parse().map_err(|_| bad("size"))?,
        e_tag: None,
        version: None,
    })
}

/// Reads the description of a version of an object.
pub(crate) fn version(item: &Value) -> crate::Result<Version> {
    let generation = text(item, "generation")?.to_owned();
    let meta = ObjectMeta { version: Some(generation), ..object(item)? };
    Ok(Version { meta, is_deletion: false, is_latest: false })
}
