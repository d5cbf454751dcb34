//! The settings of a bucket (GetBucketVersioning, GetBucketLifecycleConfiguration).

use async_trait::async_trait;

use super::list::S3List;
use crate::Result;
use crate::storage::Protection;
use crate::storage::http::foreign::foreign;
use crate::storage::http::xml::Element;
use crate::storage::object::DescribeBucket;

/// The error of a bucket without rules.
const NO_RULES: &str = "NoSuchLifecycleConfiguration";

#[async_trait]
impl DescribeBucket for S3List {
    async fn protection(&self) -> object_store::Result<Protection> {
        let versioning = self.ask("", vec![("versioning", "")]).await?;
        let versions = keeps_versions(&versioning).map_err(Self::failed)?;
        let lifecycle = match self.ask("", vec![("lifecycle", "")]).await {
            Ok(rules) => has_rules(&rules).map_err(Self::failed)?,
            Err(error) if format!("{error:?}").contains(NO_RULES) => false,
            Err(error) => return Err(error),
        };
        Ok(Protection { versions, lifecycle })
    }
}

fn keeps_versions(document: &Element) -> Result<bool> {
    match document.name.as_str() {
        // Without a status, versioning was never enabled
        "VersioningConfiguration" => Ok(document.child("Status").is_some_and(|status| status.text == "Enabled")),
        other => Err(foreign(&format!("the answer about versions is '{other}'"))),
    }
}

fn has_rules(document: &Element) -> Result<bool> {
    match document.name.as_str() {
        "LifecycleConfiguration" => Ok(document
            .children_named("Rule")
            .any(|rule| rule.child("Status").is_some_and(|status| status.text == "Enabled"))),
        other => Err(foreign(&format!("the answer about lifecycle rules is '{other}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Element {
        Element::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn bucket_keeps_versions_only_while_versioning_is_enabled() {
        let of = |content: &str| {
            keeps_versions(&parse(&format!("<VersioningConfiguration>{content}</VersioningConfiguration>"))).unwrap()
        };
        assert!(of("<Status>Enabled</Status>"));
        assert!(!of("<Status>Suspended</Status>"));
        assert!(!of(""));
        assert!(keeps_versions(&parse("<html/>")).is_err());
    }

    #[test]
    fn only_enabled_rules_count() {
        let of = |content: &str| {
            has_rules(&parse(&format!("<LifecycleConfiguration>{content}</LifecycleConfiguration>"))).unwrap()
        };
        assert!(of("<Rule><Status>Disabled</Status></Rule><Rule><Status>Enabled</Status></Rule>"));
        assert!(!of("<Rule><Status>Disabled</Status></Rule>"));
        assert!(!of(""));
        assert!(has_rules(&parse("<ListBucketResult/>")).is_err());
    }
}
