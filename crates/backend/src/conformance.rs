//! The promises of [`ObjectBackend`](crate::ObjectBackend), each as a function that panics where a backend breaks it.
//!
//! Every implementation passes the same list, which [`conformance_cases!`](crate::conformance_cases)
//! names once. A case gets a backend that was probed, and a prefix that no other case uses. What a
//! provider does not offer by its probed capabilities is not asked of it; the exception is
//! [`the_probe_tells_the_truth`], which acts on every capability that is claimed. Parts are 5 MiB, as
//! real providers want them.

mod listing;
mod multipart;
mod objects;
mod support;

pub use listing::{
    keys_come_in_byte_order_page_by_page, the_marker_is_read_as_it_was_written,
    the_probe_tells_the_truth, versions_are_those_of_exactly_one_key,
};
pub use multipart::{
    a_completed_upload_is_one_object, a_part_can_be_copied_from_a_range, an_aborted_upload_is_gone,
    an_upload_that_is_unknown_is_named_so, complete_refuses_other_parts, open_uploads_are_listed,
    parts_come_in_any_order_and_can_be_replaced,
};
pub use objects::{
    a_checksum_that_differs_is_corrupt, a_copy_takes_new_metadata, a_cut_payload_leaves_nothing,
    a_dropped_put_leaves_nothing, a_key_may_be_the_beginning_of_another,
    a_stored_object_says_what_the_capabilities_promise, an_absent_object_is_not_found,
    bytes_come_back_as_they_went, deletes_answer_for_each_target, headers_and_metadata_come_back,
    odd_keys_are_kept_apart, ranges_yield_exactly_their_bytes, unusual_keys_are_kept_apart,
};

/// Hands the names of all cases to a macro, for example one that makes a test of each.
#[macro_export]
macro_rules! conformance_cases {
    ($callback:ident) => {
        $callback! {
            bytes_come_back_as_they_went,
            a_stored_object_says_what_the_capabilities_promise,
            ranges_yield_exactly_their_bytes,
            headers_and_metadata_come_back,
            unusual_keys_are_kept_apart,
            odd_keys_are_kept_apart,
            a_key_may_be_the_beginning_of_another,
            a_cut_payload_leaves_nothing,
            a_dropped_put_leaves_nothing,
            a_checksum_that_differs_is_corrupt,
            an_absent_object_is_not_found,
            deletes_answer_for_each_target,
            a_copy_takes_new_metadata,
            keys_come_in_byte_order_page_by_page,
            versions_are_those_of_exactly_one_key,
            a_completed_upload_is_one_object,
            parts_come_in_any_order_and_can_be_replaced,
            complete_refuses_other_parts,
            an_aborted_upload_is_gone,
            an_upload_that_is_unknown_is_named_so,
            a_part_can_be_copied_from_a_range,
            open_uploads_are_listed,
            the_marker_is_read_as_it_was_written,
            the_probe_tells_the_truth,
        }
    };
}
