//! XML from clients and from backends: read within bounds, and what we write reads as it was.

use s3wire::xml::{
    self, CompleteResult, CopyResult, CopyRoot, Delete, DeleteResult, ErrorDocument, ObjectsPageV2,
    PartsPage, UploadStarted, UploadsPage, VersionsPage,
};

/// Checks one document against every reader.
pub fn check(data: &[u8]) {
    from_clients(data);
    from_backends(data);
}

fn from_clients(data: &[u8]) {
    if let Ok(delete) = Delete::from_xml(data) {
        assert!((1..=xml::DELETE_KEYS_MAX).contains(&delete.items.len()));
        let names = delete
            .items
            .iter()
            .map(|item| (item.key.as_str(), item.version_id.as_deref()));
        let again = Delete::from_xml(Delete::print(names).as_bytes()).expect("our own document");
        let keys = |delete: &Delete| -> Vec<_> {
            let items = delete.items.iter();
            items
                .map(|item| (item.key.clone(), item.version_id.clone()))
                .collect()
        };
        assert_eq!(keys(&again), keys(&delete));
    }
    if let Ok(parts) = xml::parse_complete(data) {
        assert!(!parts.is_empty(), "a list without parts");
        let again = xml::parse_complete(xml::print_complete(&parts).as_bytes());
        assert_eq!(again.expect("our own document"), parts);
    }
    let _either_way = xml::parse_create_bucket(data);
    let _either_way = xml::check_private_acl(data);
    if let Ok(tags) = xml::parse_tagging(data) {
        let again = xml::parse_tagging(xml::print_tagging(&tags).as_bytes());
        assert_eq!(again.expect("our own document"), tags);
    }
}

fn from_backends(data: &[u8]) {
    if let Ok(page) = ObjectsPageV2::from_xml(data)
        && (!page.is_truncated || page.next_continuation_token.is_some())
    {
        let again = ObjectsPageV2::from_xml(page.to_xml().as_bytes()).expect("our own document");
        assert_eq!(again.entries.len(), page.entries.len());
        assert_eq!(again.common_prefixes, page.common_prefixes);
    }
    if let Ok(document) = ErrorDocument::from_xml(data) {
        let again =
            ErrorDocument::from_xml(document.to_xml().as_bytes()).expect("our own document");
        assert_eq!(again, document);
    }
    let _either_way = xml::parse_versioning(data);
    let _either_way = CompleteResult::from_xml(data);
    let _either_way = CopyResult::from_xml(data, CopyRoot::Object);
    let _either_way = CopyResult::from_xml(data, CopyRoot::Part);
    let _either_way = DeleteResult::from_xml(data);
    let _either_way = PartsPage::from_xml(data);
    let _either_way = UploadStarted::from_xml(data);
    let _either_way = UploadsPage::from_xml(data);
    let _either_way = VersionsPage::from_xml(data);
}
